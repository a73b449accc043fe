//! Pins the form of sources and documents: public items have a doc comment, lines are at most 120 columns, and terms
//! that were replaced do not come back.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

const COLUMNS: usize = 120;

/// Files whose lines are checked; generated JSON and lock files have lines of any length.
const TEXTS: [&str; 6] = ["rs", "md", "toml", "sh", "py", "sql"];

/// Folders without hand-written sources.
const SKIPPED: [&str; 6] = ["target", "corpus", "artifacts", "golden", "json", "node_modules"];

/// Crates that make up the product. Those of `ops/` have no public items, except support of tests.
const PRODUCT: [&str; 5] = ["schemas", "commands", "projections", "agent", "cli"];

/// Identifiers that were replaced; the glossary has the terms.
const REPLACED: [&str; 35] = [
    "Said",
    "Thing",
    "Made",
    "Ask",
    "Told",
    "Draw",
    "Handled",
    "Recorded",
    "awaits_word_of",
    "Hearing",
    "Patience",
    "Pace",
    "News",
    "Station",
    "ways_out",
    "christen",
    "Doubt",
    "take_in",
    "tell_anew",
    "hearing",
    "Planned",
    "Faring",
    "Squatter",
    "Stranger",
    "Reading",
    "Keeper",
    "Neighbour",
    "Trouble",
    "Culprit",
    "Deed",
    "Fate",
    "Judgement",
    "Trial",
    "Way",
    "Ways",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The files below `folder`, except hidden ones and those of skipped folders.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || path.is_symlink() {
            continue;
        }
        if path.is_file() {
            into.push(path);
        } else if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
            files(&path, into);
        }
    }
}

fn with_extension(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(folder, &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)));
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Asserts that there are no faults, listing all.
#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A row of a table, a link or a URL in a document cannot be wrapped.
fn is_unbreakable(path: &Path, line: &str) -> bool {
    let is_document = path.extension().is_some_and(|extension| extension == "md");
    is_document && (line.starts_with('|') || !line.trim().contains(' '))
}

#[test]
fn lines_are_at_most_120_columns() {
    let mut faults = Vec::new();
    for path in with_extension(&root(), &TEXTS) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS && !is_unbreakable(&path, line) {
                faults.push(format!("{}:{}: {columns} columns", shown(&path), number + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn replaced_terms_do_not_occur() {
    let mut faults = Vec::new();
    for path in with_extension(&root(), &["rs"]).iter().filter(|path| !path.ends_with("testkit/tests/style.rs")) {
        let tokens: TokenStream = fs::read_to_string(path).unwrap().parse().unwrap();
        for name in identifiers(tokens) {
            if REPLACED.contains(&name.as_str()) {
                faults.push(format!("{}: `{name}`", shown(path)));
            }
        }
    }
    faults.dedup();
    none(&faults);
}

fn identifiers(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => found.push(ident.to_string()),
            TokenTree::Group(group) => found.extend(identifiers(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

#[test]
fn public_items_have_doc_comments() {
    let mut faults = Vec::new();
    for folder in PRODUCT {
        for path in with_extension(&root().join(folder), &["rs"]) {
            if path.components().any(|part| part.as_os_str() == "tests") || is_test(&path) {
                continue;
            }
            let tokens: TokenStream = fs::read_to_string(&path).unwrap().parse().unwrap();
            for item in undocumented(tokens) {
                let module = item.strip_prefix("mod ");
                if module.is_none_or(|module| !has_module_doc(&path, module)) {
                    faults.push(format!("{}: `{item}`", shown(&path)));
                }
            }
        }
    }
    none(&faults);
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"))
}

/// Whether the file of a module that `parent` declares opens with a doc comment.
fn has_module_doc(parent: &Path, module: &str) -> bool {
    let stem = parent.file_stem().unwrap().to_string_lossy().into_owned();
    let beside = parent.parent().unwrap();
    let folder = if ["lib", "main", "mod"].contains(&stem.as_str()) { beside.into() } else { beside.join(stem) };
    [folder.join(format!("{module}.rs")), folder.join(module).join("mod.rs")]
        .iter()
        .any(|file| fs::read_to_string(file).is_ok_and(|text| text.starts_with("//!")))
}

/// The public functions, types, traits and modules without a doc comment, except those that only tests have.
fn undocumented(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let (mut found, mut documented, mut only_for_tests) = (Vec::new(), false, false);
    let mut index = 0;
    while index < tokens.len() {
        match &tokens[index] {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                if let Some(TokenTree::Group(attribute)) = tokens.get(index + 1) {
                    let text = attribute.stream().to_string().replace(' ', "");
                    documented |= text.starts_with("doc=");
                    only_for_tests |= text == "cfg(test)";
                    index += 1;
                }
            }
            TokenTree::Ident(ident) if ident == "pub" => {
                if !documented && !only_for_tests {
                    found.extend(item(&tokens[index + 1..]));
                }
            }
            // The end of an item, or its body.
            TokenTree::Punct(mark) if mark.as_char() == ';' => (documented, only_for_tests) = (false, false),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                if !only_for_tests {
                    found.extend(undocumented(group.stream()));
                }
                (documented, only_for_tests) = (false, false);
            }
            TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Group(_) | TokenTree::Literal(_) => {}
        }
        index += 1;
    }
    found
}

/// The item declared after `pub`, if it needs a doc comment.
fn item(tokens: &[TokenTree]) -> Option<String> {
    // `pub(crate)` and the like are not public.
    if matches!(tokens.first(), Some(TokenTree::Group(_))) {
        return None;
    }
    let mut words = tokens.iter().filter_map(|token| match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
    });
    let mut word = words.next()?;
    while matches!(word.as_str(), "async" | "const" | "unsafe" | "extern") {
        word = words.next()?;
    }
    let name = words.next()?;
    let needs_doc = match word.as_str() {
        "fn" => name != "new" && !is_accessor(tokens),
        // The message of an error is its documentation.
        "struct" | "enum" => !name.ends_with("Error"),
        "trait" | "mod" => true,
        _ => false,
    };
    // In a macro the name is a parameter, and the caller writes the doc comment.
    let is_parameter = tokens.iter().any(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == '$'));
    (needs_doc && !is_parameter).then(|| format!("{word} {name}"))
}

/// Whether a function takes nothing but `self`: its name says what it returns.
fn is_accessor(tokens: &[TokenTree]) -> bool {
    let arguments = tokens.iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => Some(group.stream()),
        TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
    });
    let names = arguments.map(identifiers).unwrap_or_default();
    names.last().is_some_and(|last| last == "self")
}

#[test]
fn undocumented_items_are_found() {
    let of = |source: &str| undocumented(source.parse().unwrap());
    assert_eq!(of("pub fn f() {} /// x\npub fn g() {}"), ["fn f"]);
    assert_eq!(of("pub(crate) fn f() {} pub const fn g() {} pub const N: u8 = 1;"), ["fn g"]);
    assert_eq!(of("/// x\npub struct S { pub field: u8 } pub enum E { A }"), ["enum E"]);
    assert_eq!(of("impl S { pub async fn f() {} }"), ["fn f"]);
    assert_eq!(of("pub mod a; pub trait T {}"), ["mod a", "trait T"]);
    assert!(of("impl S { pub fn new(a: u8) {} pub fn get(&self) -> u8 {} } pub enum SError {}").is_empty());
    assert!(of("#[cfg(test)] mod tests { pub fn f() {} }").is_empty());
}
