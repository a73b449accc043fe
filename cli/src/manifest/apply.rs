//! Creates or deletes the resources of manifests, one after the other. Each result is reported; the first failure
//! determines the exit code. Kinds are created in the order of their table, and deleted in reverse.
//!
//! Cancel-safety: requests that were sent stay in effect; each is complete in itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use otherix_schemas::error::{ErrorBody, ErrorInfo};
use serde::Serialize;
use serde_json::{Value, json};

use super::document::Manifest;
use super::kind::DryRunResources;
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;
use crate::resource::delete::blocked;

/// Whether the resources are created or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManifestAction {
    Create,
    Delete,
}

impl ManifestAction {
    fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }
}

/// The result of one manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ManifestOutcome {
    Created,
    WouldBeCreated,
    Deleted,
    WouldBeDeleted,
    Failed,
    /// The control plane was unreachable for an earlier one.
    NotTried,
}

impl ManifestOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::WouldBeCreated => "would be created",
            Self::Deleted => "deleted",
            Self::WouldBeDeleted => "would be deleted",
            Self::Failed => "failed",
            Self::NotTried => "was not tried",
        }
    }
}

/// The result of one manifest in JSON.
#[derive(Debug, Serialize)]
struct ManifestReport {
    file: String,
    document: usize,
    line: usize,
    kind: &'static str,
    name: String,
    result: ManifestOutcome,
    /// The resource's view, if it exists, under the key of its kind.
    #[serde(flatten)]
    view: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// Carries out the action on the resources that the manifests define.
pub(super) async fn run(
    client: ControlPlaneClient,
    action: ManifestAction,
    dry_run: bool,
    mut manifests: Vec<Manifest>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    match action {
        ManifestAction::Create => manifests.sort_by_key(|manifest| manifest.order),
        ManifestAction::Delete => manifests.sort_by_key(|manifest| Reverse(manifest.order)),
    }
    let planned = DryRunResources::default();
    let mut run = ManifestRun { client, action, dry_run, planned, failures: Vec::new(), unreachable: false };
    let mut reports = Vec::new();
    let mut notes = Vec::new();
    for manifest in &manifests {
        let report = run.process(manifest, printer).await?;
        let note = manifest.kind.note.filter(|_| report.result == ManifestOutcome::Created);
        notes.extend(note.filter(|note| !notes.contains(note)));
        reports.push(report);
    }
    if printer.is_json() {
        printer.data(&json!({ "data": reports }))?;
    } else {
        notes.into_iter().for_each(|note| printer.note(note));
    }
    run.into_result(manifests.len())
}

/// The state of `create -f` or `delete -f`.
struct ManifestRun {
    client: ControlPlaneClient,
    action: ManifestAction,
    dry_run: bool,
    planned: DryRunResources,
    failures: Vec<Failure>,
    unreachable: bool,
}

impl ManifestRun {
    /// Carries out the action on one manifest and reports the result.
    async fn process(&mut self, manifest: &Manifest, printer: &mut Printer) -> Result<ManifestReport, Failure> {
        let Manifest { file, document, line, kind, name, .. } = manifest;
        let mut report = ManifestReport {
            file: file.clone(),
            document: *document,
            line: *line,
            kind: kind.name,
            name: name.clone(),
            result: ManifestOutcome::NotTried,
            view: BTreeMap::new(),
            error: None,
        };
        let mut error = None;
        if self.unreachable {
            error = Some(format!("{} `{name}` was not tried", kind.noun));
        } else {
            match self.attempt(manifest).await {
                Ok((outcome, view)) => {
                    report.result = outcome;
                    report.view = view.map(|view| (kind.view_key, view)).into_iter().collect();
                }
                Err(failure) => {
                    let failure = blocked(failure, kind.noun, name);
                    error = Some(self.describe(&failure, manifest));
                    report.result = ManifestOutcome::Failed;
                    report.error = Some(failure.body.error.clone());
                    self.unreachable = failure.exit == Exit::Unreachable;
                    self.failures.push(failure);
                }
            }
        }
        if !printer.is_json() {
            match error {
                None => printer.text(&format!("{} {} {}\n", kind.noun, clean(name), report.result.as_str()))?,
                Some(error) => printer.note(&format!("error: {file}:{line}: {error}")),
            }
        }
        Ok(report)
    }

    async fn attempt(&mut self, manifest: &Manifest) -> Result<(ManifestOutcome, Option<Value>), Failure> {
        let Self { client, planned, .. } = self;
        let target = &manifest.target;
        client.renew();
        match (self.action, self.dry_run) {
            (ManifestAction::Create, false) => Ok((ManifestOutcome::Created, Some(target.create(client).await?))),
            (ManifestAction::Create, true) => {
                target.try_creation(planned, client).await?;
                Ok((ManifestOutcome::WouldBeCreated, None))
            }
            (ManifestAction::Delete, false) => Ok((ManifestOutcome::Deleted, Some(target.delete(client).await?))),
            (ManifestAction::Delete, true) => {
                Ok((ManifestOutcome::WouldBeDeleted, Some(target.try_deletion(planned, client).await?)))
            }
        }
    }

    /// The failure of one manifest, for people.
    fn describe(&self, failure: &Failure, manifest: &Manifest) -> String {
        let Manifest { kind, name, .. } = manifest;
        let cause = &failure.body.error.message;
        match &failure.message {
            Some(message) if failure.exit == Exit::Blocked => message.clone(),
            Some(_) | None => format!("cannot {} {} `{name}`: {cause}", self.action.verb(), kind.noun),
        }
    }

    /// Success, or the exit code of the first failure with the hints of all.
    fn into_result(self, all: usize) -> Result<(), Failure> {
        let Some(first) = self.failures.first() else { return Ok(()) };
        let failed = self.failures.len();
        let message = match (self.unreachable, all) {
            (true, _) => format!("{failed} of {all} documents failed, and the rest were not tried"),
            (false, 1) => "the only document failed".to_owned(),
            (false, _) => format!("{failed} of {all} documents failed"),
        };
        let body = ErrorBody::new(first.body.error.code, message)
            .with_detail("documents", json!(all))
            .with_detail("failed", json!(failed));
        let mut summary = Failure { exit: first.exit, ..Failure::refused(body) };
        for hint in self.failures.iter().flat_map(|failure| &failure.hints) {
            if !summary.hints.contains(hint) {
                summary.hints.push(hint.clone());
            }
        }
        Err(summary)
    }
}
