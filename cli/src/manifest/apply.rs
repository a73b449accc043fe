//! Creates, applies or deletes the resources of manifests, one after the other. Each result is reported; the first
//! failure determines the exit code. Kinds are created in the order of their table, and deleted in reverse.
//!
//! Cancel-safety: requests that were sent stay in effect; each is complete in itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use otherix_schemas::change::{ChangeResult, FieldChange};
use otherix_schemas::error::{ErrorBody, ErrorInfo};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::document::Manifest;
use super::kind::{AppliedManifest, DryRunResources, KindEntry};
use super::prune::{self, PruneOptions, PruneReport};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;
use crate::resource::delete::blocked;

/// Whether the resources are created, applied or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManifestAction {
    Create,
    Apply,
    Delete,
}

impl ManifestAction {
    fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Apply => "apply",
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
    Changed,
    WouldBeChanged,
    Unchanged,
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
            Self::Changed => "changed",
            Self::WouldBeChanged => "would be changed",
            Self::Unchanged => "unchanged",
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
    /// The fields that were changed, or would be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<FieldChange>,
    /// The resource's view, if it exists, under the key of its kind.
    #[serde(flatten)]
    view: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// Carries out the action on the resources that the manifests define.
pub(super) async fn run(
    global: &GlobalArgs,
    RunOptions { action, dry_run, wait, prune }: RunOptions,
    kinds: &'static [KindEntry],
    mut manifests: Vec<Manifest>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let client = ControlPlaneClient::connect(global).await?;
    match action {
        ManifestAction::Create | ManifestAction::Apply => manifests.sort_by_key(|manifest| manifest.order),
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
    let pruned = match &prune {
        Some(options) if !run.unreachable => run.prune(options, kinds, &manifests, printer).await?,
        Some(_) | None => Vec::new(),
    };
    if let Some(timeout) = wait {
        run.wait(global, timeout, manifests.iter().zip(&mut reports), printer).await?;
    }
    if printer.is_json() {
        let mut report = json!({ "data": reports });
        if let (Some(fields), true) = (report.as_object_mut(), prune.is_some()) {
            fields.insert("pruned".to_owned(), json!(pruned));
        }
        printer.data(&report)?;
    } else {
        notes.into_iter().for_each(|note| printer.note(note));
        if action == ManifestAction::Apply {
            let deleted = if pruned.is_empty() { String::new() } else { format!(", {} pruned", pruned.len()) };
            printer.text(&format!("{}{deleted}\n", summary(&reports)))?;
        }
    }
    run.into_result(manifests.len())
}

/// What to do with the manifests.
pub(super) struct RunOptions {
    pub(super) action: ManifestAction,
    pub(super) dry_run: bool,
    /// How long to wait for the nodes.
    pub(super) wait: Option<Duration>,
    pub(super) prune: Option<PruneOptions>,
}

/// `1 created, 2 changed, 3 unchanged`
fn summary(reports: &[ManifestReport]) -> String {
    let outcomes = [
        (ManifestOutcome::Created, true),
        (ManifestOutcome::WouldBeCreated, false),
        (ManifestOutcome::Changed, true),
        (ManifestOutcome::WouldBeChanged, false),
        (ManifestOutcome::Unchanged, true),
        (ManifestOutcome::Failed, false),
        (ManifestOutcome::NotTried, false),
    ];
    let is_dry_run = reports
        .iter()
        .any(|report| matches!(report.result, ManifestOutcome::WouldBeCreated | ManifestOutcome::WouldBeChanged));
    let counts = outcomes.into_iter().filter_map(|(outcome, is_always_shown)| {
        let count = reports.iter().filter(|report| report.result == outcome).count();
        let is_shown = is_always_shown && (!is_dry_run || outcome == ManifestOutcome::Unchanged);
        (count > 0 || is_shown).then(|| format!("{count} {}", outcome.as_str()))
    });
    counts.collect::<Vec<_>>().join(", ")
}

/// The state of `create -f`, `apply -f` or `delete -f`.
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
            changes: Vec::new(),
            view: BTreeMap::new(),
            error: None,
        };
        let mut error = None;
        if self.unreachable {
            error = Some(format!("{} `{name}` was not tried", kind.noun));
        } else {
            match self.attempt(manifest).await {
                Ok(Attempt { outcome, changes, view }) => {
                    (report.result, report.changes) = (outcome, changes);
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
                None => {
                    let changes = changes_text(&report.changes);
                    let result = report.result.as_str();
                    printer.text(&format!("{} {} {result}{changes}\n", kind.noun, clean(name)))?;
                }
                Some(error) => printer.note(&format!("error: {file}:{line}: {error}")),
            }
        }
        Ok(report)
    }

    async fn attempt(&mut self, manifest: &Manifest) -> Result<Attempt, Failure> {
        let Self { client, planned, dry_run, .. } = self;
        let target = &manifest.target;
        client.renew();
        let attempt = |outcome, view| Attempt { outcome, changes: Vec::new(), view };
        match (self.action, *dry_run) {
            (ManifestAction::Create, false) => {
                Ok(attempt(ManifestOutcome::Created, Some(target.create(client).await?)))
            }
            (ManifestAction::Create, true) => {
                target.try_creation(planned, client).await?;
                Ok(attempt(ManifestOutcome::WouldBeCreated, None))
            }
            (ManifestAction::Apply, dry_run) => {
                let applied = target.apply(dry_run.then_some(planned), client).await?;
                Ok(Attempt::of(applied, dry_run))
            }
            (ManifestAction::Delete, false) => {
                Ok(attempt(ManifestOutcome::Deleted, Some(target.delete(client).await?)))
            }
            (ManifestAction::Delete, true) => {
                Ok(attempt(ManifestOutcome::WouldBeDeleted, Some(target.try_deletion(planned, client).await?)))
            }
        }
    }

    /// Deletes what is selected and not defined. Nothing, if something that is defined could not be applied.
    async fn prune(
        &mut self,
        options: &PruneOptions,
        kinds: &'static [KindEntry],
        manifests: &[Manifest],
        printer: &mut Printer,
    ) -> Result<Vec<PruneReport>, Failure> {
        if !self.failures.is_empty() {
            if !printer.is_json() {
                printer.note("nothing is pruned: not everything could be applied");
            }
            return Ok(Vec::new());
        }
        let (reports, failures) = prune::run(options, kinds, manifests, &mut self.client, printer).await?;
        self.failures.extend(failures);
        Ok(reports)
    }

    /// Waits for the nodes to carry out what was created and changed, one resource after the other.
    async fn wait<'a>(
        &mut self,
        global: &GlobalArgs,
        timeout: Duration,
        reports: impl Iterator<Item = (&'a Manifest, &'a mut ManifestReport)>,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + timeout;
        for (manifest, report) in reports {
            if !matches!(report.result, ManifestOutcome::Created | ManifestOutcome::Changed) {
                continue;
            }
            let Some(view) = report.view.get(manifest.kind.view_key).cloned() else { continue };
            let client = ControlPlaneClient::connect(global).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            match manifest.target.wait(view, client, left, printer).await {
                Ok(view) => drop(report.view.insert(manifest.kind.view_key, view)),
                Err(failure) => {
                    if !printer.is_json() {
                        printer.note(&format!("error: {}", failure.body.error.message));
                    }
                    report.error = Some(failure.body.error.clone());
                    self.failures.push(failure);
                }
            }
        }
        Ok(())
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

/// What became of a manifest that did not fail.
struct Attempt {
    outcome: ManifestOutcome,
    changes: Vec<FieldChange>,
    view: Option<Value>,
}

impl Attempt {
    fn of(AppliedManifest { result, changes, view, text: _ }: AppliedManifest, dry_run: bool) -> Self {
        let outcome = match (result, dry_run) {
            (ChangeResult::Created, false) => ManifestOutcome::Created,
            (ChangeResult::Created, true) => ManifestOutcome::WouldBeCreated,
            (ChangeResult::Changed, false) => ManifestOutcome::Changed,
            (ChangeResult::Changed, true) => ManifestOutcome::WouldBeChanged,
            (ChangeResult::Unchanged, _) => ManifestOutcome::Unchanged,
        };
        // A resource that would be created has no id yet.
        let view = Some(view).filter(|_| outcome != ManifestOutcome::WouldBeCreated);
        Self { outcome, changes, view }
    }
}

/// `: mtu 1500 -> 1400, vlan none -> 12`; empty without changes.
fn changes_text(changes: &[FieldChange]) -> String {
    let texts: Vec<_> = changes.iter().map(change_text).collect();
    if texts.is_empty() { String::new() } else { format!(": {}", texts.join(", ")) }
}

/// `mtu 1500 -> 1400`
pub(crate) fn change_text(FieldChange { field, from, to }: &FieldChange) -> String {
    let text = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => clean(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    format!("{} {} -> {}", clean(field), text(from), text(to))
}
