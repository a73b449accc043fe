//! Pins that decisions, evolution, views, desired states and plans cannot do I/O, read a clock or draw random numbers:
//! their modules name no crate or item that could, and only other pure modules of the project.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// The pure modules of a crate: files or folders below its source folder.
struct PureModules {
    source: &'static str,
    modules: &'static [&'static str],
    /// Other modules of the crate that they may name.
    also: &'static [&'static str],
}

const PURE: [PureModules; 9] = [
    PureModules { source: "schemas/src", modules: &[""], also: &[] },
    PureModules { source: "schemas/tlog/src", modules: &[""], also: &[] },
    PureModules { source: "commands/src", modules: &["config", "domain"], also: &[] },
    PureModules { source: "agent/src", modules: &["model"], also: &[] },
    PureModules {
        source: "agent/src/engine",
        modules: &["context", "memo", "plan", "subject", "survey", "text"],
        also: &["model", "engine"],
    },
    PureModules {
        source: "agent/src/device",
        modules: &[
            "bridge/action",
            "bridge/plan",
            "bridge/text",
            "foreign_filter/observe",
            "foreign_filter/path",
            "foreign_filter/text",
            "guests/action",
            "guests/observe",
            "guests/plan",
            "guests/text",
            "nat/action",
            "nat/observe",
            "nat/plan",
            "nat/ruleset",
            "nat/text",
            "port/action",
            "tap/action",
            "tap/plan",
            "tap/text",
            "vtep/action",
            "vtep/observe",
            "vtep/plan",
            "vtep/text",
        ],
        also: &["model", "engine", "device"],
    },
    PureModules { source: "agent/mesh/src", modules: &["allowed", "packet", "prefix"], also: &[] },
    PureModules { source: "agent/vm/src", modules: &["command_line", "supervisor"], also: &["qmp", "spec"] },
    PureModules { source: "agent/src/wireguard/kernel", modules: &["encode", "plan", "wire"], also: &["mesh"] },
];

/// Files of these names must be in a pure module.
const PURE_NAMES: [&str; 6] = ["decide.rs", "evolve.rs", "state.rs", "view.rs", "desired.rs", "plan.rs"];

/// The crates that a pure module may name.
const CRATES: [&str; 17] = [
    "base64",
    "ed25519_dalek",
    "sha2",
    "std",
    "core",
    "serde",
    "serde_json",
    "schemars",
    "thiserror",
    "time",
    "unicode_normalization",
    "uuid",
    "zeroize",
    "otherix_schemas",
    // For messages and attributes; sockets are forbidden below.
    "otherix_mesh",
    "otherix_netlink",
    "crate",
];

/// The modules of the standard library that a pure module may name.
const STD: [&str; 20] = [
    "any",
    "borrow",
    "cell",
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
    "rc",
    "str",
    "string",
    "vec",
    "sync",
    // For durations; clocks are forbidden below.
    "time",
];

/// Names that no pure module may have: crates, and items that do I/O or depend on the environment.
const FORBIDDEN: [&str; 36] = [
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
    "Socket",
    "Subscription",
    "ToSocketAddrs",
    "rand",
    "println",
    "eprintln",
    "print",
    "eprint",
    "unsafe",
];

/// The names in a source text that a pure module must not use.
fn impurities(source: &str, modules: &[&str]) -> Vec<String> {
    let tokens: TokenStream = source.parse().expect("Rust");
    let mut words = Vec::new();
    flatten(tokens, &mut words);
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before =
            |offset: usize| index.checked_sub(offset).and_then(|index| words.get(index)).map_or("", String::as_str);
        let after = |offset: usize| words.get(index + offset).map_or("", String::as_str);
        // An argument may be called `now`; only `Type::now` reads a clock.
        let is_argument = word == "now" && before(1) != ":";
        if FORBIDDEN.contains(&word.as_str()) && !is_argument {
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

/// The identifiers and punctuation of a source, without comments, literals and test modules.
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

/// Whether a file is a test module.
fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"))
}

#[test]
fn pure_modules_are_pure() {
    let mut checked = 0;
    for PureModules { source, modules, also } in PURE {
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
fn files_with_pure_names_are_in_pure_modules() {
    let mut files = Vec::new();
    for folder in ["commands/src", "projections/src", "agent/src", "schemas/src"] {
        sources(&root().join(folder), &mut files);
    }
    let pure = |file: &Path| {
        PURE.iter().any(|PureModules { source, modules, also: _ }| {
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
fn check_detects_impurities() {
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
