//! `apply --prune`: deletes what a selector selects and no manifest defines.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use otherix_schemas::error::{ErrorCode, ErrorInfo};
use otherix_schemas::value::Labels;
use serde::Serialize;
use uuid::Uuid;

use super::document::Manifest;
use super::kind::{KindEntry, ManifestKind, key};
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;
use crate::resource::delete::{self, blocked};
use crate::resource::list::all_pages;

/// Which resources a selector selects: those that have all of these labels, and where a value is given, this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector(Vec<(String, Option<String>)>);

impl Selector {
    /// Parses `key=value,key`.
    ///
    /// # Errors
    /// The rule that the text violates.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(|part| match part.split_once('=') {
            Some((key, value)) => (key.trim().to_owned(), Some(value.trim().to_owned())),
            None => (part.trim().to_owned(), None),
        });
        let parts: Vec<_> = parts.collect();
        if parts.iter().any(|(key, _)| key.is_empty()) {
            return Err(format!("must be KEY=VALUE or KEY, several separated by commas, not `{text}`"));
        }
        Ok(Self(parts))
    }

    fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| match (labels.get(key), value) {
            (Some(own), Some(value)) => own == value,
            (Some(_), None) => true,
            (None, _) => false,
        })
    }
}

/// The answer to one of its requests.
pub(super) type PruneAnswer<'a, T> = LocalBoxFuture<'a, Result<T, Failure>>;

/// A resource that exists.
pub(super) struct Existing {
    id: Uuid,
    name: String,
    labels: Labels,
}

/// Lists the resources of a kind that are not deleted.
pub(super) fn list<K: ManifestKind>(client: &mut ControlPlaneClient) -> PruneAnswer<'_, Vec<Existing>> {
    async move {
        let views = all_pages::<K>(client, K::page).await?;
        let live = views.into_iter().filter(|view| !view.is_deleted());
        let existing =
            live.map(|view| Existing { id: view.id(), name: view.name().to_owned(), labels: view.metadata().labels });
        Ok(existing.collect())
    }
    .boxed_local()
}

/// Deletes a resource of a kind.
pub(super) fn delete<K: ManifestKind>(id: Uuid, client: &mut ControlPlaneClient) -> PruneAnswer<'_, ()> {
    async move { client.call::<K::Delete>(&K::by_id(id)).await.map(drop) }.boxed_local()
}

/// The result for one resource in JSON.
#[derive(Debug, Serialize)]
pub(super) struct PruneReport {
    kind: &'static str,
    name: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// How resources are pruned.
pub(super) struct PruneOptions {
    pub(super) selector: Selector,
    /// Do not ask.
    pub(super) yes: bool,
    pub(super) dry_run: bool,
}

/// Deletes what is selected and not defined, in the reverse order of the kinds. Asks first, with a list of all.
pub(super) async fn run(
    options: &PruneOptions,
    kinds: &'static [KindEntry],
    manifests: &[Manifest],
    client: &mut ControlPlaneClient,
    printer: &mut Printer,
) -> Result<(Vec<PruneReport>, Vec<Failure>), Failure> {
    let defined: BTreeSet<_> = manifests.iter().map(|manifest| (manifest.kind.name, key(&manifest.name))).collect();
    let mut candidates = Vec::new();
    for kind in kinds.iter().rev() {
        client.renew();
        let existing = (kind.list)(client).await?;
        let is_pruned = |existing: &Existing| {
            options.selector.selects(&existing.labels) && !defined.contains(&(kind.name, key(&existing.name)))
        };
        candidates.extend(existing.into_iter().filter(is_pruned).map(|existing| (kind, existing)));
    }
    if !candidates.is_empty() && !options.yes && !options.dry_run {
        confirm(&candidates, printer).await?;
    }
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for (kind, Existing { id, name, .. }) in candidates {
        client.renew();
        let mut report = PruneReport { kind: kind.name, name: name.clone(), result: "would_be_deleted", error: None };
        let result = if options.dry_run { Ok(()) } else { (kind.delete)(id, client).await };
        match result {
            Ok(()) if options.dry_run => print(printer, &format!("{} {} would be deleted\n", kind.noun, clean(&name)))?,
            Ok(()) => {
                report.result = "deleted";
                print(printer, &format!("{} {} deleted\n", kind.noun, clean(&name)))?;
            }
            Err(failure) => {
                let failure = blocked(failure, kind.noun, &name);
                report.result = "failed";
                report.error = Some(failure.body.error.clone());
                if !printer.is_json() {
                    let cause = failure.message.clone().unwrap_or_else(|| failure.body.error.message.clone());
                    printer.note(&format!("error: cannot delete {} `{name}`: {cause}", kind.noun));
                }
                failures.push(failure);
            }
        }
        reports.push(report);
    }
    Ok((reports, failures))
}

fn print(printer: &mut Printer, text: &str) -> Result<(), Failure> {
    if printer.is_json() { Ok(()) } else { printer.text(text) }
}

async fn confirm(candidates: &[(&'static KindEntry, Existing)], printer: &mut Printer) -> Result<(), Failure> {
    let names = candidates.iter().map(|(kind, existing)| format!("{} `{}`", kind.noun, existing.name));
    let names = names.collect::<Vec<_>>().join(", ");
    if !io::stdin().is_terminal() || printer.is_json() {
        let message = format!("not deleted: {names}");
        let failure = Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message);
        return Err(failure.hint("pass `--yes` to delete them, or `--dry-run` to see them only"));
    }
    if delete::is_confirmed(&format!("delete {names}? [y/N]"), printer).await {
        return Ok(());
    }
    let failure = Failure::new(Exit::Unexpected, ErrorCode::ValidationFailed, format!("not deleted: {names}"));
    Err(failure.hint("answer `y` or pass `--yes`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_needs_all_of_its_labels() {
        let labels = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Labels::parse(pairs.collect()).unwrap()
        };
        let own = labels(&[("env", "prod"), ("team", "")]);
        for (selector, selected) in
            [("env", true), ("env=prod", true), ("env=dev", false), ("env=prod, team", true), ("env,x", false)]
        {
            assert_eq!(Selector::parse(selector).unwrap().selects(&own), selected, "{selector}");
        }
        assert!(!Selector::parse("env").unwrap().selects(&labels(&[])));
        for wrong in ["", ",", "=x", "a,,b"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
    }
}
