//! What is wrong with manifests: gathered from all of them, and told at once, each with its place.

use std::collections::BTreeMap;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde::Serialize;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::Failure;

/// Most problems that are told; a file that is no manifest at all could have millions.
const MOST: usize = 200;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// The file as it was named, or `stdin`.
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

/// All that is wrong.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    /// How many more there are than are told.
    untold: usize,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        // The same again in the same line is no news.
        if self.list.last() == Some(&problem) {
            return;
        }
        if self.list.len() < MOST { self.list.push(problem) } else { self.untold += 1 }
    }

    /// Puts what was found from the `from`th problem on into the order of the lines.
    pub(super) fn sort(&mut self, from: usize) {
        if let Some(tail) = self.list.get_mut(from..) {
            tail.sort_by_key(|problem| problem.line);
        }
    }

    /// How many are told.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Nothing, or why nothing is done.
    pub(super) fn into_result(self) -> Result<(), Failure> {
        let Self { list, untold } = self;
        if list.is_empty() {
            return Ok(());
        }
        let message = match list.len() + untold {
            1 => "the manifest has a problem, and nothing was sent".to_owned(),
            all => format!("the manifests have {all} problems, and nothing was sent"),
        };
        let mut fields: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for problem in &list {
            let told = Problem { field: None, ..problem.clone() };
            fields.entry(problem.field.as_deref().unwrap_or("file")).or_default().push(told.to_string());
        }
        let body = ErrorBody::new(ErrorCode::ValidationFailed, message)
            .with_detail("fields", json!(fields))
            .with_detail("problems", json!(list));
        let failure = Failure { exit: Exit::Usage, ..Failure::refused(body) };
        let hint = "`otherix create --help` shows a manifest and its fields";
        Err(if untold == 0 { failure } else { failure.hint(format!("{untold} more problems are not shown")) }
            .hint(hint))
    }

    #[cfg(test)]
    pub(super) fn lines(&self) -> Vec<String> {
        self.list.iter().map(ToString::to_string).collect()
    }
}

/// Where problems are being looked for.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    /// The file as it was named.
    pub(super) file: &'a str,
    /// The document in the file, once there is one.
    pub(super) document: Option<usize>,
    /// Where problems go.
    pub(super) problems: &'a mut Problems,
}

impl Scope<'_> {
    /// Notes a problem of a field.
    pub(super) fn field(&mut self, line: usize, field: &str, message: impl Into<String>) {
        self.add(Some(line), Some(field.to_owned()), message.into());
    }

    /// Notes a problem of a place.
    pub(super) fn place(&mut self, line: usize, message: impl Into<String>) {
        self.add(Some(line), None, message.into());
    }

    /// Notes a problem of the file as a whole.
    pub(super) fn whole(&mut self, message: impl Into<String>) {
        self.add(None, None, message.into());
    }

    fn add(&mut self, line: Option<usize>, field: Option<String>, message: String) {
        let Self { file, document, problems } = self;
        problems.add(Problem { file: (*file).to_owned(), line, document: *document, field, message });
    }
}

/// The problems of a failure that [`Problems::into_result`] made, as lines.
pub(crate) fn told(body: &ErrorBody) -> Option<Vec<String>> {
    let problems = body.error.details.get("problems")?.as_array()?;
    let text =
        |problem: &serde_json::Value, key: &str| problem.get(key).and_then(|value| value.as_str().map(str::to_owned));
    let line = |problem| {
        Some(Problem {
            file: text(problem, "file")?,
            line: problem.get("line").and_then(serde_json::Value::as_u64).and_then(|line| usize::try_from(line).ok()),
            document: None,
            field: text(problem, "field"),
            message: text(problem, "message")?,
        })
    };
    problems.iter().map(|problem| line(problem).map(|problem| problem.to_string())).collect()
}
