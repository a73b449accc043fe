//! Pins the seams: the product's logic takes the wall clock, random numbers and tasks from `otherix_runtime::Runtime`,
//! and measures time with tokio's clock, which a simulation can replace.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders with logic that a simulation must be able to run.
const LOGIC: [&str; 10] = [
    "schemas/src",
    "schemas/identity/src",
    "schemas/transport/src",
    "schemas/runtime/src",
    "schemas/tlog/src",
    "commands/src",
    "projections/src",
    "agent/src",
    "agent/responder/src",
    "agent/vm/src",
];

/// What bypasses the runtime.
const BYPASSES: [&str; 12] = [
    "SystemTime::now",
    "Uuid::now_v7",
    "Uuid::new_v4",
    "getrandom",
    "thread_rng",
    "tokio::spawn",
    "tokio::task::spawn",
    "spawn_blocking(",
    "spawn_local",
    "JoinSet",
    "thread::spawn",
    "thread::sleep",
];

/// Files that may: the runtimes themselves, keys, which need the kernel's random numbers, and the blocking work on the
/// mesh device, whose process, like the kernel, is outside of a simulation.
const EDGES: [&str; 7] = [
    "schemas/identity/src/key.rs",
    "schemas/runtime/src/system.rs",
    "schemas/runtime/src/seeded.rs",
    "agent/src/wireguard/keys.rs",
    "agent/src/wireguard/process.rs",
    "agent/src/wireguard/rotation.rs",
    "agent/src/kernel",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path) {
            into.push(path);
        }
    }
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// The lines of the product's code, without comments and unit tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}

fn bypasses(text: &str) -> Vec<(usize, &'static str)> {
    let found = |(number, line): (usize, &str)| {
        let clock = (line.contains("std::time") && line.contains("Instant")).then_some("std::time::Instant");
        let named = BYPASSES.into_iter().filter(|bypass| line.contains(bypass));
        named.chain(clock).map(|bypass| (number, bypass)).collect::<Vec<_>>()
    };
    code(text).flat_map(found).collect()
}

#[test]
fn the_logic_uses_the_runtime() {
    let mut faults = Vec::new();
    for folder in LOGIC {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files.iter().filter(|file| !EDGES.iter().any(|edge| file.starts_with(root().join(edge)))) {
            let shown = file.strip_prefix(root()).unwrap().display().to_string();
            let text = fs::read_to_string(file).unwrap();
            faults.extend(bypasses(&text).into_iter().map(|(line, bypass)| format!("{shown}:{line}: `{bypass}`")));
        }
    }
    assert!(faults.is_empty(), "{} bypasses of the runtime:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn edges_exist() {
    for edge in EDGES {
        assert!(root().join(edge).exists(), "{edge} does not exist: remove it from the list");
    }
}

#[test]
fn bypasses_are_found() {
    assert_eq!(bypasses("use std::time::{Duration, Instant};"), [(1, "std::time::Instant")]);
    assert_eq!(bypasses("fn f() {\n    tokio::spawn(g()); // JoinSet\n}\n"), [(2, "tokio::spawn")]);
    assert_eq!(
        bypasses("use tokio::task::JoinSet;\n#[cfg(test)]\nmod tests {\n    SystemTime::now();\n}"),
        [(1, "JoinSet")]
    );
}
