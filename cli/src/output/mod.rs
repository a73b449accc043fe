//! Everything that is printed, and nothing else prints: data on stdout, all the rest on stderr. Texts that came from
//! elsewhere are made harmless in [`text`].

pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod vm;
pub(crate) mod yaml;

use std::io::{self, ErrorKind, IsTerminal, Write};

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde::Serialize;
use terminal_size::terminal_size_of;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest;
use text::clean;

/// Writes in one format.
pub(crate) struct Printer {
    json: bool,
    /// The width of a progress line that stands on the terminal and must be wiped.
    progress_width: usize,
}

impl Printer {
    /// A printer whose errors are JSON, or text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, progress_width: 0 }
    }

    /// Whether errors are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Data as text.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.wipe();
        written(write(io::stdout().lock(), text))
    }

    /// Data as JSON.
    pub(crate) fn data(&mut self, data: &impl Serialize) -> Result<(), Failure> {
        self.wipe();
        written(write(io::stdout().lock(), &pretty(data)))
    }

    /// A line beside the data.
    pub(crate) fn note(&mut self, note: &str) {
        self.wipe();
        complain(&format!("{}\n", clean(note)));
    }

    /// A question; the answer is typed behind it.
    pub(crate) fn ask(&mut self, question: &str) {
        complain(&format!("{} ", clean(question)));
    }

    /// Ends the line of a question whose answer did not.
    pub(crate) fn end_line(&mut self) {
        complain("\n");
    }

    /// How far something is: a bar that is drawn again and again on a terminal, else a line. JSON errors stand alone on
    /// stderr, so that nothing else may.
    pub(crate) fn progress(&mut self, done: u64, of: u64, words: &str) {
        if self.json {
            return;
        }
        if !io::stderr().is_terminal() {
            complain(&format!("{}\n", clean(words)));
            return;
        }
        // A line that is broken in two could not be wiped.
        let room =
            terminal_size_of(io::stderr()).map_or(usize::MAX, |(width, _)| usize::from(width.0).saturating_sub(1));
        let line = text::cut(&format!("{} {}", bar(done, of), clean(words)), room);
        self.wipe();
        self.progress_width = text::width(&line);
        complain(&line);
    }

    /// Nothing of the progress stays on a terminal.
    pub(crate) fn end_progress(&mut self) {
        self.wipe();
    }

    /// Why it did not work out; what the process ends with.
    pub(crate) fn failure(&mut self, failure: &Failure) -> Exit {
        self.wipe();
        let Failure { exit, body, message, hints } = failure;
        if self.json {
            complain(&pretty(body));
            return *exit;
        }
        let mut lines = match (message, violations(body)) {
            (Some(message), _) => format!("error: {}\n", clean(message)),
            (None, Some(violations)) => violations,
            (None, None) => format!("error: {}\n", clean(&body.error.message)),
        };
        for hint in hints {
            lines.push_str(&format!("hint: {hint}\n"));
        }
        complain(&lines);
        *exit
    }

    fn wipe(&mut self) {
        let width = std::mem::take(&mut self.progress_width);
        if width > 0 {
            complain(&format!("\r{:width$}\r", ""));
        }
    }
}

/// One line for each broken rule, with the flag that breaks it.
fn violations(body: &ErrorBody) -> Option<String> {
    if body.error.code != ErrorCode::ValidationFailed {
        return None;
    }
    if let Some(problems) = manifest::told(body) {
        let problems: String = problems.iter().map(|problem| format!("  {}\n", clean(problem))).collect();
        return Some(format!("error: {}\n{problems}", clean(&body.error.message)));
    }
    let fields = body.error.details.get("fields")?.as_object()?;
    let mut lines = "error: the request breaks rules\n".to_owned();
    for (field, rules) in fields {
        for rule in rules.as_array()?.iter() {
            lines.push_str(&format!("  {}: {}\n", clean(&flag(field)), clean(rule.as_str()?)));
        }
    }
    (!fields.is_empty()).then_some(lines)
}

/// How a field is given on the command line.
fn flag(field: &str) -> String {
    match field {
        "name" => "NAME".to_owned(),
        "network_id" => "--network".to_owned(),
        "node_id" => "--node".to_owned(),
        other => format!("--{}", other.replace('_', "-")),
    }
}

fn bar(done: u64, of: u64) -> String {
    const WIDTH: u64 = 20;
    let filled = done.min(of) * WIDTH / of.max(1);
    (0..WIDTH).fold(String::from("["), |bar, at| bar + if at < filled { "#" } else { "-" }) + "]"
}

fn pretty(data: &impl Serialize) -> String {
    // No map of ours has keys that are not strings, the only thing that cannot be written.
    let text = serde_json::to_string_pretty(data).unwrap_or_else(|error| format!("\"{error}\""));
    text::clean_json(&text) + "\n"
}

fn write(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// A reader that has seen enough is no failure.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes to stderr. If that fails there is nowhere left to say so.
fn complain(text: &str) {
    let _nowhere_left = write(io::stderr().lock(), text);
}
