//! Problems of manifests: collected from all files and reported together, each with its location.

use std::collections::BTreeMap;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde::Serialize;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::Failure;

/// Most problems that are reported: a file that is not a manifest could have millions.
const PROBLEMS_MAX: usize = 200;

/// A problem and its location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Problem {
    /// The file as the user named it, or `stdin`.
    file: String,
    /// From 1.
    line: Option<usize>,
    /// The document in the file, from 1.
    document: Option<usize>,
    /// Such as `spec.bridgeName`.
    field: Option<String>,
    message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, document: _, field, message } = self;
        write!(f, "{file}:")?;
        if let Some(line) = line {
            write!(f, "{line}:")?;
        }
        if let Some(field) = field {
            write!(f, " {field}:")?;
        }
        write!(f, " {message}")
    }
}

/// The problems of all files.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    /// Number of problems beyond [`PROBLEMS_MAX`].
    omitted: usize,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        // The same problem may be found several times on one line.
        if self.list.last() == Some(&problem) {
            return;
        }
        if self.list.len() < PROBLEMS_MAX { self.list.push(problem) } else { self.omitted += 1 }
    }

    /// Sorts the problems from the `from`th on by line.
    pub(super) fn sort(&mut self, from: usize) {
        if let Some(tail) = self.list.get_mut(from..) {
            tail.sort_by_key(|problem| problem.line);
        }
    }

    /// The number of problems to report.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Success, or the failure that reports the problems.
    pub(super) fn into_result(self) -> Result<(), Failure> {
        let Self { list, omitted } = self;
        if list.is_empty() {
            return Ok(());
        }
        let message = match list.len() + omitted {
            1 => "the manifest has a problem; nothing was sent".to_owned(),
            all => format!("the manifests have {all} problems; nothing was sent"),
        };
        let mut fields: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for problem in &list {
            let located_message = Problem { field: None, ..problem.clone() }.to_string();
            fields.entry(problem.field.as_deref().unwrap_or("file")).or_default().push(located_message);
        }
        let body = ErrorBody::new(ErrorCode::ValidationFailed, &message)
            .with_detail("fields", json!(fields))
            .with_detail("problems", json!(list));
        let details = list.iter().map(ToString::to_string).collect();
        let mut hints = Vec::new();
        if omitted > 0 {
            hints.push(format!("{omitted} more problems are not shown"));
        }
        hints.push("see `otherix create --help` for an example of each kind of manifest".to_owned());
        Err(Failure { exit: Exit::Usage, body: Box::new(body), message: None, details, hints })
    }

    #[cfg(test)]
    pub(super) fn lines(&self) -> Vec<String> {
        self.list.iter().map(ToString::to_string).collect()
    }
}

/// The file and document to which problems are attributed.
#[derive(Debug)]
pub(crate) struct ProblemScope<'a> {
    /// The file as the user named it.
    pub(super) file: &'a str,
    /// The number of the document in the file, from 1.
    pub(super) document: Option<usize>,
    pub(super) problems: &'a mut Problems,
}

impl<'a> ProblemScope<'a> {
    /// A file.
    pub(super) fn of(file: &'a str, problems: &'a mut Problems) -> Self {
        Self { file, document: None, problems }
    }

    /// Adds a problem of a field.
    pub(super) fn field(&mut self, line: usize, field: &str, message: impl Into<String>) {
        self.add(Some(line), Some(field.to_owned()), message.into());
    }

    /// Adds a problem of a line.
    pub(super) fn line(&mut self, line: usize, message: impl Into<String>) {
        self.add(Some(line), None, message.into());
    }

    /// Adds a problem of the file.
    pub(super) fn file(&mut self, message: impl Into<String>) {
        self.add(None, None, message.into());
    }

    fn add(&mut self, line: Option<usize>, field: Option<String>, message: String) {
        let Self { file, document, problems } = self;
        problems.add(Problem { file: (*file).to_owned(), line, document: *document, field, message });
    }
}
