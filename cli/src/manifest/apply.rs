//! Does what manifests ask for, one network after the other, as far as it goes: each is reported, and the first failure says
//! what the process ends with.
//!
//! Cancel-safety: what was sent before stays done; each request is complete in itself.

use otherix_schemas::error::{ErrorBody, ErrorCode, ErrorInfo};
use otherix_schemas::network::NetworkDraft;
use otherix_schemas::request::NetworkById;
use otherix_schemas::subject::Request;
use otherix_schemas::view::NetworkView;
use serde::Serialize;
use serde_json::json;

use super::document::{Manifest, NETWORK};
use super::load;
use crate::args::{Global, ManifestArgs};
use crate::client::Client;
use crate::exit::{BLOCKERS, Exit};
use crate::failure::Failure;
use crate::network::Reference;
use crate::output::Printer;
use crate::output::text::clean;

/// What is to be done with what manifests describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make it.
    Create,
    /// Unmake it.
    Delete,
}

/// What came of one manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Created,
    WouldBeCreated,
    Deleted,
    WouldBeDeleted,
    Failed,
    /// The control plane was out of reach for one before.
    NotTried,
}

/// What came of one manifest, for programs.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    document: usize,
    line: usize,
    kind: &'static str,
    name: String,
    result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// Carries out `otherix create -f` or `otherix delete -f`.
pub(crate) async fn run(
    global: &Global,
    action: Action,
    args: ManifestArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let manifests = load(&args.files)?;
    let mut client = Client::connect(global).await?;
    let mut run = Run { action, dry: args.dry_run, failures: Vec::new(), unreachable: false };
    let mut reports = Vec::new();
    for manifest in &manifests {
        let report = run.one(&mut client, manifest, printer).await?;
        // A program is told of all at the end; a person has been told already.
        if printer.is_json() {
            reports.push(report);
        }
    }
    if printer.is_json() {
        printer.data(&json!({ "data": reports }))?;
    }
    run.result(manifests.len())
}

/// How far it has come.
struct Run {
    action: Action,
    dry: bool,
    failures: Vec<Failure>,
    unreachable: bool,
}

impl Run {
    async fn one(
        &mut self,
        client: &mut Client,
        manifest: &Manifest,
        printer: &mut Printer,
    ) -> Result<Report, Failure> {
        let Manifest { file, document, line, name_line: _, draft } = manifest;
        let name = draft.name.clone();
        let mut report = Report {
            file: file.clone(),
            document: *document,
            line: *line,
            kind: NETWORK,
            name,
            result: Outcome::NotTried,
            network: None,
            error: None,
        };
        let done = if self.unreachable { None } else { Some(self.attempt(client, draft).await) };
        let said = match done {
            None => Err(format!("network {} was not tried", draft.name)),
            Some(Ok((outcome, words, view))) => {
                report.result = outcome;
                report.network = view;
                Ok(words)
            }
            Some(Err(failure)) => {
                let words = self.reason(&failure, draft);
                report.result = Outcome::Failed;
                report.error = Some(failure.body.error.clone());
                self.unreachable = matches!(failure.exit, Exit::Unreachable);
                self.failures.push(failure);
                Err(words)
            }
        };
        if !printer.is_json() {
            match said {
                Ok(words) => printer.text(&format!("network {} {words}\n", clean(&draft.name)))?,
                Err(words) => printer.note(&format!("error: {file}:{line}: {words}")),
            }
        }
        Ok(report)
    }

    async fn attempt(
        &self,
        client: &mut Client,
        draft: &NetworkDraft,
    ) -> Result<(Outcome, &'static str, Option<NetworkView>), Failure> {
        client.renew();
        let existing = Reference::Name(draft.name.clone());
        match (self.action, self.dry) {
            (Action::Create, false) => {
                let created: NetworkView = client.call(Request::NetworkCreate, draft).await?.data;
                Ok((Outcome::Created, "created", Some(created)))
            }
            (Action::Create, true) => match existing.look_up(client).await {
                Ok(view) => Err(exists(&view)),
                Err(failure) if failure.exit == Exit::NotFound => {
                    Ok((Outcome::WouldBeCreated, "would be created", None))
                }
                Err(failure) => Err(failure),
            },
            (Action::Delete, false) => {
                let id = existing.look_up(client).await?.id;
                let deleted: NetworkView = client.call(Request::NetworkDelete, &NetworkById { id }).await?.data;
                Ok((Outcome::Deleted, "deleted", Some(deleted)))
            }
            (Action::Delete, true) => {
                let view = existing.look_up(client).await?;
                Ok((Outcome::WouldBeDeleted, "would be deleted", Some(view)))
            }
        }
    }

    /// Why it was not done, for people.
    fn reason(&self, failure: &Failure, draft: &NetworkDraft) -> String {
        let error = &failure.body.error;
        let verb = match self.action {
            Action::Create => "create",
            Action::Delete => "delete",
        };
        let why = match error.details.get(BLOCKERS) {
            Some(blockers) if failure.exit == Exit::Blocked => format!("blocked by {blockers} {BLOCKERS}"),
            Some(_) | None => error.message.clone(),
        };
        format!("cannot {verb} network {}: {why}", draft.name)
    }

    /// Success, or the first failure's exit code and the hints of all.
    fn result(self, all: usize) -> Result<(), Failure> {
        let Some(first) = self.failures.first() else { return Ok(()) };
        let failed = self.failures.len();
        let message = match (self.unreachable, all) {
            (true, _) => format!("{failed} of {all} documents failed, and what came after was not tried"),
            (false, 1) => "the only document failed".to_owned(),
            (false, _) => format!("{failed} of {all} documents failed"),
        };
        let body = ErrorBody::new(first.body.error.code, message)
            .with_detail("documents", json!(all))
            .with_detail("failed", json!(failed));
        let mut summary = Failure { exit: first.exit, ..Failure::refused(body) };
        for failure in &self.failures {
            let blocked = "delete the VMs that use the network first, then delete it again".to_owned();
            let own = (failure.exit == Exit::Blocked).then_some(&blocked);
            for hint in failure.hints.iter().chain(own) {
                if !summary.hints.contains(hint) {
                    summary.hints.push(hint.clone());
                }
            }
        }
        Err(summary)
    }
}

/// What a creation would be answered with.
fn exists(view: &NetworkView) -> Failure {
    let message = format!("network `{}` exists already, as `{}`", view.name, view.id);
    Failure::new(Exit::Conflict, ErrorCode::Conflict, message)
}
