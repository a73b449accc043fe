//! Does what manifests ask for, one thing after the other, as far as it goes: each is reported, and the first failure says
//! what the process ends with. Networks are made before the VMs that are on them, and unmade after them.
//!
//! Cancel-safety: what was sent before stays done; each request is complete in itself.

use std::collections::BTreeSet;

use otherix_schemas::error::{ErrorBody, ErrorCode, ErrorInfo};
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::vm::VmView;
use serde::Serialize;
use serde_json::json;

use super::document::{Kind, Manifest, Wanted};
use super::{key, load};
use crate::args::{Global, ManifestArgs};
use crate::client::Client;
use crate::exit::{Exit, blockers};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;
use crate::thing::{self, Made, Reference, Thing};
use crate::vm::WantedVm;

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

impl Outcome {
    fn words(self) -> &'static str {
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

/// What came of one manifest, for programs.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    document: usize,
    line: usize,
    kind: &'static str,
    name: String,
    result: Outcome,
    #[serde(flatten)]
    view: Option<View>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// What a manifest describes, as it is now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum View {
    Network(Box<NetworkView>),
    Vm(Box<VmView>),
}

impl From<NetworkView> for View {
    fn from(view: NetworkView) -> Self {
        Self::Network(Box::new(view))
    }
}

impl From<VmView> for View {
    fn from(view: VmView) -> Self {
        Self::Vm(Box::new(view))
    }
}

/// Carries out `otherix create -f` or `otherix delete -f`.
pub(crate) async fn run(
    global: &Global,
    action: Action,
    args: ManifestArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut manifests = load(&args.files)?;
    manifests.sort_by_key(|manifest| manifest.wanted.kind());
    if action == Action::Delete {
        // Those of one kind stay in their order.
        let vms = manifests.partition_point(|manifest| manifest.wanted.kind() == Kind::Network);
        manifests.rotate_left(vms);
    }
    let mut client = Client::connect(global).await?;
    let mut run = Run { action, dry: args.dry_run, planned: BTreeSet::new(), failures: Vec::new(), unreachable: false };
    let mut reports = Vec::new();
    for manifest in &manifests {
        reports.push(run.one(&mut client, manifest, printer).await?);
    }
    if printer.is_json() {
        printer.data(&json!({ "data": reports }))?;
    } else if let Some(note) = VmView::NOTE.filter(|_| reports.iter().any(Report::made_a_vm)) {
        printer.note(note);
    }
    run.result(manifests.len())
}

impl Report {
    fn made_a_vm(&self) -> bool {
        self.result == Outcome::Created && matches!(self.view, Some(View::Vm(_)))
    }
}

/// How far it has come.
struct Run {
    action: Action,
    dry: bool,
    /// The keys of the names of networks that would be there by now.
    planned: BTreeSet<String>,
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
        let Manifest { file, document, line, name_line: _, wanted } = manifest;
        let (kind, name) = (wanted.kind(), wanted.name());
        let mut report = Report {
            file: file.clone(),
            document: *document,
            line: *line,
            kind: kind.as_str(),
            name: name.to_owned(),
            result: Outcome::NotTried,
            view: None,
            error: None,
        };
        let done = if self.unreachable { None } else { Some(self.attempt(client, wanted).await) };
        let said = match done {
            None => Err(format!("{} {name} was not tried", kind.what())),
            Some(Ok((outcome, view))) => {
                report.result = outcome;
                report.view = view;
                Ok(outcome.words())
            }
            Some(Err(failure)) => {
                let words = self.reason(&failure, wanted);
                report.result = Outcome::Failed;
                report.error = Some(failure.body.error.clone());
                self.unreachable = matches!(failure.exit, Exit::Unreachable);
                self.failures.push(failure);
                Err(words)
            }
        };
        if !printer.is_json() {
            match said {
                Ok(words) => printer.text(&format!("{} {} {words}\n", kind.what(), clean(name)))?,
                Err(words) => printer.note(&format!("error: {file}:{line}: {words}")),
            }
        }
        Ok(report)
    }

    async fn attempt(&mut self, client: &mut Client, wanted: &Wanted) -> Result<(Outcome, Option<View>), Failure> {
        client.renew();
        match (self.action, wanted) {
            (Action::Create, Wanted::Network(draft)) if self.dry => {
                is_free::<NetworkView>(client, &draft.name).await?;
                self.planned.insert(key(&draft.name));
                Ok((Outcome::WouldBeCreated, None))
            }
            (Action::Create, Wanted::Vm(vm)) if self.dry => {
                is_free::<VmView>(client, &vm.name).await?;
                self.finds_what_it_names(client, vm).await?;
                Ok((Outcome::WouldBeCreated, None))
            }
            (Action::Create, Wanted::Network(draft)) => create::<NetworkView>(client, draft).await,
            (Action::Create, Wanted::Vm(vm)) => {
                let draft = vm.resolve(client).await?;
                create::<VmView>(client, &draft).await
            }
            (Action::Delete, Wanted::Network(draft)) => self.delete::<NetworkView>(client, &draft.name).await,
            (Action::Delete, Wanted::Vm(vm)) => self.delete::<VmView>(client, &vm.name).await,
        }
    }

    async fn delete<T: Made + Into<View>>(
        &self,
        client: &mut Client,
        name: &str,
    ) -> Result<(Outcome, Option<View>), Failure> {
        let view: T = Reference::Name(name.to_owned()).look_up(client).await?;
        if self.dry {
            return Ok((Outcome::WouldBeDeleted, Some(view.into())));
        }
        let deleted: T = client.call(T::DELETE, &T::by_id(view.id())).await?.data;
        Ok((Outcome::Deleted, Some(deleted.into())))
    }

    /// Whether the network and the node that a VM is to be on are there, or would be by now.
    async fn finds_what_it_names(&self, client: &mut Client, vm: &WantedVm) -> Result<(), Failure> {
        if let Some(network) = &vm.network
            && !self.planned.contains(&key(network))
        {
            Reference::new(network).look_up::<NetworkView>(client).await?;
        }
        if let Some(node) = &vm.node {
            Reference::new(node).look_up::<NodeView>(client).await?;
        }
        Ok(())
    }

    /// Why it was not done, for people.
    fn reason(&self, failure: &Failure, wanted: &Wanted) -> String {
        let error = &failure.body.error;
        let verb = match self.action {
            Action::Create => "create",
            Action::Delete => "delete",
        };
        let why = blockers(error).map_or_else(|| error.message.clone(), |blockers| format!("blocked by {blockers}"));
        format!("cannot {verb} {} {}: {why}", wanted.kind().what(), wanted.name())
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

async fn create<T: Made + Into<View>>(
    client: &mut Client,
    draft: &(impl Serialize + Sync),
) -> Result<(Outcome, Option<View>), Failure> {
    let created: T = thing::create::ask(client, draft).await?;
    Ok((Outcome::Created, Some(created.into())))
}

/// Whether a creation would find the name free; the failure is the one that it would be answered with.
async fn is_free<T: Thing>(client: &mut Client, name: &str) -> Result<(), Failure> {
    match Reference::Name(name.to_owned()).look_up::<T>(client).await {
        Ok(view) => {
            let message = format!("{} `{}` exists already, as `{}`", T::WHAT, view.name(), view.id());
            Err(Failure::new(Exit::Conflict, ErrorCode::Conflict, message))
        }
        Err(failure) if failure.exit == Exit::NotFound => Ok(()),
        Err(failure) => Err(failure),
    }
}
