//! Reads files and standard input whole. Blocking.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use otherix_runtime::files;

use super::problem::{ProblemScope, Problems};

/// Longest file, in bytes: enough for thousands of networks.
const LENGTH_MAX: u64 = 4 << 20;

/// What the names of manifests in a folder end with.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The name of standard input in messages.
const STDIN: &str = "stdin";

/// The content of a file.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user named it.
    pub(super) name: String,
    pub(super) text: String,
}

/// Whether a path may be that of a folder, whose manifests are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folders {
    Read,
    Refused,
}

/// Reads all files; `-` is standard input.
pub(super) fn read(files: &[PathBuf], folders: Folders, problems: &mut Problems) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut stdin_read = false;
    let files: Vec<PathBuf> = match folders {
        Folders::Read => files.iter().flat_map(|path| expanded(path, problems)).collect(),
        Folders::Refused => files.to_vec(),
    };
    for path in &files {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { STDIN.to_owned() } else { path.display().to_string() };
        let mut scope = ProblemScope::of(&name, problems);
        if is_stdin && std::mem::replace(&mut stdin_read, true) {
            scope.file("can be read only once: pass `-` once");
            continue;
        }
        let bytes = if is_stdin {
            files::read_at_most(io::stdin().lock(), LENGTH_MAX)
        } else {
            files::open_regular(path).and_then(|file| files::read_at_most(file, LENGTH_MAX))
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                scope.file(format!("cannot be read: {error}{}", advice(path)));
                continue;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => sources.push(Source { name, text }),
            Err(error) => {
                let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
                scope.line(line, "invalid UTF-8");
            }
        }
    }
    sources
}

/// The manifests in a folder, in the order of their names; a file itself.
fn expanded(path: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    if path == Path::new("-") || !path.is_dir() {
        return vec![path.to_owned()];
    }
    let name = path.display().to_string();
    let mut scope = ProblemScope::of(&name, problems);
    let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            scope.file(format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let is_manifest = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && !path.is_dir()
    };
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(is_manifest).collect();
    paths.sort();
    if paths.is_empty() {
        scope.file(format!("has no manifest: no file that ends with .{}", EXTENSIONS.join(" or .")));
    }
    paths
}

/// What to do if the path is that of a FIFO, such as the shell's `<(…)`: opening one could wait for ever.
fn advice(path: &Path) -> &'static str {
    let is_fifo = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    if is_fifo { "; pipe its content to `-f -`" } else { "" }
}
