//! `otherix diff -f`: how what manifests define differs from what is.

use std::path::PathBuf;

use otherix_schemas::change::{ChangeResult, FieldChange};
use otherix_schemas::error::{ErrorCode, ErrorInfo};
use serde::Serialize;
use serde_json::json;

use super::document::Manifest;
use super::kind::{AppliedManifest, DryRunResources};
use super::source::Folders;
use super::{KindEntry, load};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::diff::{coloured, unified};
use crate::output::text::clean;

/// The result of one manifest in JSON.
#[derive(Debug, Serialize)]
struct Difference {
    file: String,
    document: usize,
    line: usize,
    kind: &'static str,
    name: String,
    /// What applying it would do; null if it would be refused.
    result: Option<ChangeResult>,
    changes: Vec<FieldChange>,
    /// The unified diff of the manifests, line by line.
    diff: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// Carries out the command.
pub(crate) async fn run(
    global: &GlobalArgs,
    kinds: &'static [KindEntry],
    files: &[PathBuf],
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut manifests = load(files, Folders::Read, kinds).map_err(distinct)?;
    manifests.sort_by_key(|manifest| manifest.order);
    let mut client = ControlPlaneClient::connect(global).await.map_err(distinct)?;
    let mut planned = DryRunResources::default();
    let (mut differences, mut first_failure) = (Vec::new(), None);
    for manifest in &manifests {
        client.renew();
        let (difference, failure) = compare(manifest, &mut planned, &mut client).await;
        if !printer.is_json() {
            printer.text(&coloured(&difference.diff))?;
            if let Some(failure) = &failure {
                let Manifest { file, line, kind, name, .. } = manifest;
                let cause = &failure.body.error.message;
                printer.note(&format!("error: {file}:{line}: cannot apply {} `{}`: {cause}", kind.noun, clean(name)));
            }
        }
        let is_lost = failure.as_ref().is_some_and(|failure| failure.exit == Exit::Unreachable);
        first_failure = first_failure.or(failure);
        differences.push(difference);
        if is_lost {
            break;
        }
    }
    if printer.is_json() {
        printer.data(&json!({ "data": differences }))?;
    }
    let differing = differences.iter().filter(|difference| !difference.diff.is_empty()).count();
    match (first_failure, differing) {
        (Some(failure), _) => {
            let message = "not everything could be compared";
            Err(distinct(Failure { details: Vec::new(), ..failure.with_message(message) }))
        }
        (None, 0) => Ok(()),
        (None, _) => {
            let message = format!("{differing} of {} documents differ", manifests.len());
            Err(Failure::new(Exit::Differs, ErrorCode::Conflict, message))
        }
    }
}

/// The exit code of a difference is not that of a failure.
fn distinct(failure: Failure) -> Failure {
    if failure.exit == Exit::Unexpected { Failure { exit: Exit::NotCompared, ..failure } } else { failure }
}

async fn compare(
    manifest: &Manifest,
    planned: &mut DryRunResources,
    client: &mut ControlPlaneClient,
) -> (Difference, Option<Failure>) {
    let Manifest { file, document, line, kind, name, target, .. } = manifest;
    let mut difference = Difference {
        file: file.clone(),
        document: *document,
        line: *line,
        kind: kind.name,
        name: name.clone(),
        result: None,
        changes: Vec::new(),
        diff: Vec::new(),
        error: None,
    };
    let both = async {
        let current = target.current(client).await?;
        Ok::<_, Failure>((current, target.apply(Some(planned), client).await?))
    };
    match both.await {
        Ok((current, AppliedManifest { result, changes, view: _, text })) => {
            let now = if result == ChangeResult::Created { "/dev/null".to_owned() } else { format!("{name} (now)") };
            let wanted = format!("{name} ({file}:{line})");
            let old = current.filter(|_| result != ChangeResult::Created).unwrap_or_default();
            if result != ChangeResult::Unchanged {
                difference.diff = unified((&clean(&now), &clean(&wanted)), &old, &text);
            }
            (difference.result, difference.changes) = (Some(result), changes);
            (difference, None)
        }
        Err(failure) => {
            difference.error = Some(failure.body.error.clone());
            (difference, Some(failure))
        }
    }
}
