//! Output: results on standard output, progress and errors on standard error.

use std::error::Error as _;
use std::io::{self, Write as _};

use crate::error::LabError;

/// Prints a result.
pub(crate) fn print(text: &str) -> Result<(), LabError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(LabError::Output)
}

/// Reports progress; write errors are ignored.
pub(crate) fn report_progress(text: &str) {
    let _stderr_may_be_closed = writeln!(io::stderr(), "{text}");
}

/// Prints an error with its causes and its hint.
pub(crate) fn error(error: &LabError) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    report_progress(&text);
    if let Some(hint) = error.hint() {
        report_progress(&format!("hint: {hint}"));
    }
}
