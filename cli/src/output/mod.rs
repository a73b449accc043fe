//! All printing: data to stdout, everything else to stderr. Text from other sources is escaped by [`text`]. Nothing
//! here depends on a resource.

pub(crate) mod diff;
pub(crate) mod format;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod yaml;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;

use otherix_schemas::error::ErrorCode;
use serde::Serialize;
use terminal_size::terminal_size_of;

use crate::exit::Exit;
use crate::failure::Failure;
use text::clean;

/// Prints as text, or as JSON.
pub(crate) struct Printer {
    json: bool,
    /// The width of the progress line that is on the terminal, in columns; 0 if there is none.
    progress_width: usize,
}

impl Printer {
    /// A printer; `json` selects the format of errors.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, progress_width: 0 }
    }

    /// Whether the output is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints data as text to stdout.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.wipe();
        stdout_result(write(io::stdout().lock(), text))
    }

    /// Prints lines as part of an output without an end: breaks once nobody reads it. What a terminal would interpret
    /// is escaped there only, so that other readers have every byte.
    pub(crate) fn stream(&mut self, lines: &str) -> Result<ControlFlow<()>, Failure> {
        self.wipe();
        let stdout = io::stdout();
        let written = if stdout.is_terminal() {
            write(stdout.lock(), &text::clean_json(lines))
        } else {
            write(stdout.lock(), lines)
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            other => stdout_result(other).map(ControlFlow::Continue),
        }
    }

    /// Writes bytes to stdout as they are: breaks once nobody reads it.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        self.wipe();
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            other => stdout_result(other).map(ControlFlow::Continue),
        }
    }

    /// Prints data as JSON to stdout.
    pub(crate) fn data(&mut self, data: &impl Serialize) -> Result<(), Failure> {
        self.wipe();
        stdout_result(write(io::stdout().lock(), &pretty(data)))
    }

    /// Prints a line to stderr.
    pub(crate) fn note(&mut self, note: &str) {
        self.wipe();
        write_stderr(&format!("{}\n", clean(note)));
    }

    /// Prints a line to stderr while the terminal is raw: there, a line feed does not return the cursor.
    pub(crate) fn raw_note(&mut self, note: &str) {
        write_stderr(&format!("\r\n{}\r\n", clean(note)));
    }

    /// Prints a question; the answer is typed on the same line.
    pub(crate) fn ask(&mut self, question: &str) {
        write_stderr(&format!("{} ", clean(question)));
    }

    /// Ends the line of a question if the answer did not.
    pub(crate) fn end_line(&mut self) {
        write_stderr("\n");
    }

    /// Prints progress: a bar that is redrawn on a terminal, else a line. With JSON, only
    /// one error object may be on stderr, so progress is not shown.
    pub(crate) fn progress(&mut self, done: u64, of: u64, message: &str) {
        if self.json {
            return;
        }
        if !io::stderr().is_terminal() {
            write_stderr(&format!("{}\n", clean(message)));
            return;
        }
        // A line that wraps could not be wiped.
        let columns =
            terminal_size_of(io::stderr()).map_or(usize::MAX, |(width, _)| usize::from(width.0).saturating_sub(1));
        let line = text::truncate(&format!("{} {}", bar(done, of), clean(message)), columns);
        self.wipe();
        self.progress_width = text::width(&line);
        write_stderr(&line);
    }

    /// Removes the progress line from the terminal.
    pub(crate) fn end_progress(&mut self) {
        self.wipe();
    }

    /// Prints a failure. Returns its exit code.
    pub(crate) fn failure(&mut self, failure: &Failure) -> Exit {
        self.wipe();
        let Failure { exit, body, message, details, hints } = failure;
        if *exit == Exit::Differs {
            return *exit;
        }
        if self.json {
            write_stderr(&pretty(body));
            return *exit;
        }
        let message = message.as_ref().unwrap_or(&body.error.message);
        let mut lines = format!("error: {}\n", clean(message));
        for detail in details {
            lines.push_str(&format!("  {}\n", clean(detail)));
        }
        for hint in hints {
            lines.push_str(&format!("hint: {hint}\n"));
        }
        write_stderr(&lines);
        *exit
    }

    fn wipe(&mut self) {
        let width = std::mem::take(&mut self.progress_width);
        if width > 0 {
            write_stderr(&format!("\r{:width$}\r", ""));
        }
    }
}

fn bar(done: u64, of: u64) -> String {
    const WIDTH: u64 = 20;
    let filled = done.min(of) * WIDTH / of.max(1);
    (0..WIDTH).fold(String::from("["), |bar, at| bar + if at < filled { "#" } else { "-" }) + "]"
}

fn pretty(data: &impl Serialize) -> String {
    // Serialisation fails only for maps with keys that are not strings, of which there are none.
    let text = serde_json::to_string_pretty(data).unwrap_or_else(|error| format!("\"{error}\""));
    text::clean_json(&text) + "\n"
}

fn write(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// A closed pipe is not a failure: the reader needs no more data.
fn stdout_result(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes to stderr. A failure cannot be reported anywhere.
fn write_stderr(text: &str) {
    let _unreportable = write(io::stderr().lock(), text);
}
