//! Pins that decisions, evolution, views, desired states and plans cannot do I/O, read a clock or draw random numbers:
//! their modules name no crate and no item that could, and no module of ours that is not pure itself.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// The pure modules of a crate: files or folders below its `src`, and the crate's own modules that they may name.
struct Pure {
    source: &'static str,
    modules: &'static [&'static str],
    /// What they may name of the crate besides themselves.
    also: &'static [&'static str],
}

const PURE: [Pure; 5] = [
    Pure { source: "schemas/src", modules: &[""], also: &[] },
    Pure { source: "commands/src", modules: &["config", "domain"], also: &[] },
    Pure { source: "agent/src", modules: &["model"], also: &[] },
    Pure { source: "agent/src/mesh", modules: &["allowed", "packet", "prefix"], also: &["mesh"] },
    Pure { source: "agent/src/wireguard/kernel", modules: &["encode", "plan", "wire"], also: &["mesh"] },
];

/// Files of these names hold what must be pure, wherever they are.
const PURE_NAMES: [&str; 6] = ["decide.rs", "evolve.rs", "state.rs", "view.rs", "desired.rs", "plan.rs"];

/// The crates that a pure module may name.
const CRATES: [&str; 11] = [
    "std",
    "core",
    "serde",
    "serde_json",
    "schemars",
    "thiserror",
    "time",
    "uuid",
    "zeroize",
    "otherix_schemas",
    "crate",
];

/// The modules of the standard library that a pure module may name.
const STD: [&str; 16] = [
    "borrow",
    "cmp",
    "collections",
    "convert",
    "error",
    "fmt",
    "hash",
    "iter",
    "mem",
    "net",
    "num",
    "ops",
    "str",
    "string",
    "vec",
    "sync",
];

/// What no pure module may so much as mention: crates, and items that reach out of the program.
const FORBIDDEN: [&str; 34] = [
    "tokio",
    "sqlx",
    "rusqlite",
    "async_nats",
    "futures",
    "rtnetlink",
    "rustix",
    "tracing",
    "otherix_transport",
    "otherix_projections",
    "SystemTime",
    "Instant",
    "now",
    "now_utc",
    "now_local",
    "now_v7",
    "new_v4",
    "new_v7",
    "async",
    "await",
    "fs",
    "env",
    "process",
    "thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "rand",
    "println",
    "eprintln",
    "print",
    "eprint",
    "unsafe",
];

/// What a source text names that a pure module must not.
fn impurities(source: &str, modules: &[&str]) -> Vec<String> {
    let tokens: TokenStream = source.parse().expect("Rust");
    let mut words = Vec::new();
    flatten(tokens, &mut words);
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before =
            |back: usize| index.checked_sub(back).and_then(|index| words.get(index)).map_or("", String::as_str);
        let after = |forth: usize| words.get(index + forth).map_or("", String::as_str);
        if FORBIDDEN.contains(&word.as_str()) {
            found.push(word.clone());
        }
        if word == "super" && after(3) == "super" {
            found.push("super::super".to_owned());
        }
        if word == "crate" && after(1) == ":" && !modules.contains(&"") && !modules.contains(&after(3)) {
            found.push(format!("crate::{}", after(3)));
        }
        if word == "std" && after(1) == ":" && !STD.contains(&after(3)) {
            found.push(format!("std::{}", after(3)));
        }
        let imports = matches!(before(1), "use") || (before(1) == ":" && before(3) == "use");
        let local = |name: &str| matches!(name, "self" | "super") || name.starts_with(char::is_uppercase);
        if imports && word != ":" && !CRATES.contains(&word.as_str()) && !local(word) && !is_sibling(word, &words) {
            found.push(format!("use {word}"));
        }
    }
    found
}

/// Whether a module or a macro of this name is declared in the same file.
fn is_sibling(name: &str, words: &[String]) -> bool {
    let mut declared = words.windows(3).map(|trio| (trio[0].as_str(), trio[1].as_str(), trio[2].as_str()));
    declared.any(|(keyword, one, two)| {
        (keyword == "mod" && one == name) || (keyword == "macro_rules" && one == "!" && two == name)
    })
}

/// The words and marks of a source, without comments, texts and the modules that only tests have.
fn flatten(tokens: TokenStream, words: &mut Vec<String>) {
    let mut only_for_tests = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let text: String = group.stream().to_string().split_whitespace().collect();
                if text == "cfg(test)" {
                    only_for_tests = true;
                } else if only_for_tests && group.delimiter() == proc_macro2::Delimiter::Brace {
                    only_for_tests = false;
                } else {
                    flatten(group.stream(), words);
                }
            }
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Punct(mark) => {
                only_for_tests &= mark.as_char() != ';';
                words.push(mark.to_string());
            }
            TokenTree::Literal(_) => words.push("literal".to_owned()),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), into);
        }
    } else if path.exists() && path.extension().is_some_and(|extension| extension == "rs") {
        into.push(path.to_owned());
    }
}

/// Test modules that are files of their own may use what tests use.
fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"))
}

#[test]
fn the_pure_modules_name_nothing_impure() {
    let mut checked = 0;
    for Pure { source, modules, also } in PURE {
        let mut files = Vec::new();
        for module in modules {
            let path = root().join(source).join(module);
            sources(&path, &mut files);
            sources(&path.with_extension("rs"), &mut files);
        }
        for file in files.iter().filter(|file| !is_test(file)) {
            let found = impurities(&fs::read_to_string(file).unwrap(), &[modules, also].concat());
            assert_eq!(found, Vec::<String>::new(), "{}", file.display());
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} files were found to check");
}

#[test]
fn what_must_be_pure_stands_among_the_pure_modules() {
    let mut files = Vec::new();
    for folder in ["commands/src", "projections/src", "agent/src", "schemas/src"] {
        sources(&root().join(folder), &mut files);
    }
    let pure = |file: &Path| {
        PURE.iter().any(|Pure { source, modules, also: _ }| {
            modules
                .iter()
                .map(|module| root().join(source).join(module))
                .any(|module| file.starts_with(&module) || *file == module.with_extension("rs"))
        })
    };
    for file in files.iter().filter(|file| PURE_NAMES.iter().any(|name| file.ends_with(name))) {
        assert!(pure(file), "{} must be among the pure modules", file.display());
    }
}

#[test]
fn the_check_finds_what_it_is_for() {
    for bad in [
        "use tokio::sync::mpsc;",
        "fn f() { tokio::spawn(g()); }",
        "use std::time::SystemTime;",
        "use std::fs::File;",
        "use ::sqlx::Row;",
        "fn f() -> u64 { std::time::Instant::now() }",
        "use crate::journal::Entry;",
        "fn f() { crate::writer::run(); }",
        "use super::super::journal;",
        "async fn f() {}",
        "use rusqlite::Connection;",
        "fn f() -> Uuid { Uuid::now_v7() }",
    ] {
        assert_ne!(impurities(bad, &["domain"]), Vec::<String>::new(), "{bad}");
    }
    for good in [
        "use std::collections::BTreeMap; use super::State; use crate::domain::Node;",
        "// tokio\nfn f() -> &'static str { \"sqlx\" }",
        "fn f() {} #[cfg(test)] mod tests { use tokio::test; fn g() { std::fs::read(\"x\"); } }",
        "mod state; pub use state::State;",
    ] {
        assert_eq!(impurities(good, &["domain"]), Vec::<String>::new(), "{good}");
    }
}
