//! `otherix create -f`, `apply -f`, `diff -f` and `delete -f`. All files are read ([`source`]), parsed ([`yaml`]) and
//! validated ([`document`]); only if there is no problem in any of them, requests are sent ([`apply`]). The kinds of
//! manifests are given as a table, with an entry for each resource that implements [`ManifestKind`].

mod apply;
pub(crate) mod diff;
mod document;
pub(crate) mod edit;
mod fields;
mod kind;
mod problem;
mod prune;
mod source;
mod suggest;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(crate) use apply::{ManifestAction, change_text};
pub(crate) use document::ManifestMetadata;
pub(crate) use fields::MappingFields;
pub(crate) use kind::{DryRunResources, KindEntry, ManifestKind, write};
pub(crate) use problem::ProblemScope;

use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::resource::args::WaitArgs;
use apply::RunOptions;
use document::Manifest;
use problem::Problems;
use prune::{PruneOptions, Selector};
use source::Folders;

/// The arguments of `create -f` and `delete -f`.
#[derive(Debug, Args)]
pub(crate) struct ManifestArgs {
    /// A manifest file, or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,

    /// Check the manifests and report what would be done, without changing anything
    #[arg(long)]
    dry_run: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// The arguments of `apply -f`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A manifest file, a folder with manifests (*.yaml, *.yml, *.json), or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true, value_hint = ValueHint::AnyPath)]
    files: Vec<PathBuf>,

    /// Let the control plane decide, and report what would be done, without changing anything
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    /// Delete what --selector selects and the manifests do not define; asks first, with a list
    #[arg(long, requires = "selector")]
    prune: bool,

    /// The labels of what --prune may delete: KEY=VALUE or KEY, several separated by commas
    #[arg(long, value_name = "SELECTOR", requires = "prune", value_parser = Selector::parse)]
    selector: Option<Selector>,

    /// Delete without asking
    #[arg(long, requires = "prune")]
    yes: bool,

    #[command(flatten)]
    wait: WaitArgs,
}

/// The help on manifests, with an example of each kind.
pub(crate) fn help(kinds: &[KindEntry]) -> String {
    let document = |kind: &KindEntry| {
        let text = format!("apiVersion: {}\nkind: {}\n{}", kind::API_VERSION, kind.name, kind.example);
        text.lines().map(|line| format!("  {line}\n")).collect::<String>()
    };
    let documents: Vec<String> = kinds.iter().map(document).collect();
    let order = kinds.iter().map(|kind| format!("{}s", kind.noun)).collect::<Vec<_>>().join(", ");
    format!(
        "A manifest is a YAML (or JSON) document. A file can have several, separated by `---`:\n\n{}\n\
         All files are checked before anything is sent: every problem is reported with its file, line and field, and \
         nothing is done (exit code 2). Then each document is processed, even if others fail; the exit code is that \
         of the first failure. Whatever the order of the documents, resources are created in the order {order}, and \
         deleted in reverse. With --dry-run, the same checks are made and the control plane decides what it would \
         answer, but nothing is changed.",
        documents.join("  ---\n")
    )
}

/// The examples of `create -f`.
pub(crate) const CREATE_EXAMPLES: &str = "\
Examples:
  otherix create -f networks.yaml
  otherix create -f networks.yaml -f vms.yaml --dry-run
  otherix network get net-app -o yaml | otherix create -f -";

/// The examples of `apply -f`.
pub(crate) const APPLY_EXAMPLES: &str = "\
What the file says is all: a field that is left out gets its default, as in `create`, and labels that are left out \
are removed. A resource that is so already is `unchanged`, and nothing is recorded. What cannot be changed is refused, \
with all fields that differ; the other documents are applied nevertheless. With --dry-run, the control plane decides \
what it would do.

Examples:
  otherix apply -f networks.yaml
  otherix apply -f networks.yaml -f vms.yaml --dry-run
  otherix apply -f cluster/ --wait --wait-timeout 5m
  otherix apply -f cluster/ --prune --selector app=shop
  otherix network get net-app -o yaml | sed 's/mtu: 1500/mtu: 1400/' | otherix apply -f -";

/// The examples of `delete -f`.
pub(crate) const DELETE_EXAMPLES: &str = "\
Resources are found by kind and name; their spec is not compared. There is no confirmation prompt. A network with VM \
NICs is not deleted (exit code 5).

Examples:
  otherix delete -f networks.yaml
  otherix delete -f networks.yaml -f more.yaml --dry-run
  otherix network list -o yaml | otherix delete -f -";

/// Carries out `create -f` or `delete -f`.
pub(crate) async fn run(
    global: &GlobalArgs,
    action: ManifestAction,
    kinds: &'static [KindEntry],
    args: ManifestArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let ManifestArgs { files, dry_run, output: _ } = args;
    let manifests = load(&files, Folders::Refused, kinds)?;
    let options = RunOptions { action, dry_run, wait: None, prune: None };
    apply::run(global, options, kinds, manifests, printer).await
}

/// Carries out `apply -f`.
pub(crate) async fn apply(
    global: &GlobalArgs,
    kinds: &'static [KindEntry],
    args: ApplyArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let ApplyArgs { files, dry_run, output: _, prune, selector, yes, wait } = args;
    let manifests = load(&files, Folders::Read, kinds)?;
    let wait = wait.wait.then_some(wait.wait_timeout);
    let prune = selector.filter(|_| prune).map(|selector| PruneOptions { selector, yes, dry_run });
    let options = RunOptions { action: ManifestAction::Apply, dry_run, wait, prune };
    apply::run(global, options, kinds, manifests, printer).await
}

/// The manifests of all files, in their order; or all problems.
fn load(files: &[PathBuf], folders: Folders, kinds: &'static [KindEntry]) -> Result<Vec<Manifest>, Failure> {
    let mut problems = Problems::default();
    let sources = source::read(files, folders, &mut problems);
    let manifests = document::read_all(&sources, kinds, &mut problems);
    problems.into_result().map(|()| manifests)
}
