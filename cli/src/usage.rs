//! What to do when the command line is not understood, or only asks for help: clap's words in the form of every other
//! answer of ours.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use otherix_schemas::error::ErrorCode;

use crate::args::Cli;
use crate::exit::Exit;
use crate::failure::Failure;

/// What clap stopped for.
pub(crate) enum Stop {
    /// Help or the version was asked for: this text answers it.
    Answer(String),
    /// The command line is wrong.
    Wrong(Failure),
}

/// Sorts what clap stopped for.
pub(crate) fn sort(error: &clap::Error) -> Stop {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Stop::Answer(text);
    }
    // It is the latter when there are flags, or their variables in the environment.
    let help = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        Some(text.clone())
    } else if error.kind() == ErrorKind::MissingSubcommand {
        help(error)
    } else {
        None
    };
    if let Some(help) = help {
        let failure = Failure::new(Exit::Usage, ErrorCode::ValidationFailed, "a command is missing");
        return Stop::Wrong(failure.hint(format!("what there is:\n\n{}", help.trim_end())));
    }
    // Paragraphs: what is wrong, tips, `Usage: …`, and where to find help.
    let mut paragraphs = text.trim_end().split("\n\n").map(one_line);
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    let failure = Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message);
    Stop::Wrong(paragraphs.fold(failure, |failure, paragraph| {
        failure.hint(paragraph.strip_prefix("tip: ").unwrap_or(&paragraph).to_owned())
    }))
}

/// The help of the command that lacks a subcommand.
fn help(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(path)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let mut command = &mut Cli::command();
    command.build();
    for name in path.split_whitespace().skip(1) {
        command = command.find_subcommand_mut(name)?;
    }
    Some(command.render_help().to_string())
}

fn one_line(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a command line asks for JSON although it cannot be understood as a whole.
pub(crate) fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let mut value_follows = false;
    for argument in arguments {
        let argument = argument.to_string_lossy();
        match argument.as_ref() {
            "--" => return false,
            "json" if value_follows => return true,
            "-ojson" | "-o=json" | "--output=json" => return true,
            other => value_follows = matches!(other, "-o" | "--output"),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_seen_in_every_spelling() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        for line in ["x -o json", "x -ojson", "x -o=json -x", "--output json", "--output=json x"] {
            assert!(asks(line), "{line}");
        }
        for line in ["x", "json", "x -o text json", "x -- -o json", "--output -o"] {
            assert!(!asks(line), "{line}");
        }
    }
}
