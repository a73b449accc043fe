//! Reads files and standard input whole. Blocking.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use otherix_runtime::files;

use super::problem::{ProblemScope, Problems};

/// Longest file, in bytes: enough for thousands of networks.
const LENGTH_MAX: u64 = 4 << 20;

/// The name of standard input in messages.
const STDIN: &str = "stdin";

/// The content of a file.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user named it.
    pub(super) name: String,
    pub(super) text: String,
}

/// Reads all files; `-` is standard input.
pub(super) fn read(files: &[PathBuf], problems: &mut Problems) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut stdin_read = false;
    for path in files {
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

/// What to do if the path is that of a FIFO, such as the shell's `<(…)`: opening one could wait for ever.
fn advice(path: &Path) -> &'static str {
    let is_fifo = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    if is_fifo { "; pipe its content to `-f -`" } else { "" }
}
