//! Converts clap's errors into failures of the same form as all others, and determines whether JSON is requested.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};
use otherix_schemas::error::ErrorCode;

use crate::exit::Exit;
use crate::failure::Failure;

/// Why the program exits without running a command.
pub(crate) enum EarlyExit {
    /// Help or the version was requested: its text.
    Help(String),
    /// The command line is invalid.
    Error(Failure),
}

/// Classifies an error of clap; `command` is the definition of the command line.
pub(crate) fn classify(error: &clap::Error, command: Command) -> EarlyExit {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return EarlyExit::Help(text);
    }
    // Clap reports a missing subcommand in the second way if there are flags, or if the environment sets some.
    let help = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        Some(text.clone())
    } else if error.kind() == ErrorKind::MissingSubcommand {
        help(error, command)
    } else {
        None
    };
    if let Some(help) = help {
        let failure = Failure::new(Exit::Usage, ErrorCode::ValidationFailed, "the command is missing");
        return EarlyExit::Error(failure.hint(format!("the commands are:\n\n{}", help.trim_end())));
    }
    // The paragraphs are: the error, tips, `Usage: …`, and where to find help.
    let mut paragraphs = text.trim_end().split("\n\n").map(one_line);
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    let failure = Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message);
    EarlyExit::Error(paragraphs.fold(failure, |failure, paragraph| {
        failure.hint(paragraph.strip_prefix("tip: ").unwrap_or(&paragraph).to_owned())
    }))
}

/// The help of the command that lacks a subcommand.
fn help(error: &clap::Error, mut command: Command) -> Option<String> {
    let Some(ContextValue::String(path)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    command.build();
    let mut command = &mut command;
    for name in path.split_whitespace().skip(1) {
        command = command.find_subcommand_mut(name)?;
    }
    Some(command.render_help().to_string())
}

fn one_line(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the command's output is JSON.
pub(crate) fn is_json(matches: &ArgMatches) -> bool {
    let mut matches = matches;
    while let Some((_, subcommand)) = matches.subcommand() {
        matches = subcommand;
    }
    let output = matches.try_get_raw("output").ok().flatten();
    output.is_some_and(|mut values| values.any(|value| value == "json"))
}

/// Whether an invalid command line requests JSON.
pub(crate) fn requests_json(arguments: impl Iterator<Item = OsString>) -> bool {
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
    fn recognizes_every_spelling_of_json_output() {
        let requests = |line: &str| requests_json(line.split(' ').map(OsString::from));
        for line in ["x -o json", "x -ojson", "x -o=json -x", "--output json", "--output=json x"] {
            assert!(requests(line), "{line}");
        }
        for line in ["x", "json", "x -o text json", "x -- -o json", "--output -o"] {
            assert!(!requests(line), "{line}");
        }
    }
}
