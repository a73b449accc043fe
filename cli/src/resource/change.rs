//! `set`: changes a resource, shows what was changed, and waits for the nodes if requested.

use std::collections::BTreeMap;

use clap::Args;
use otherix_schemas::change::{Applied, CURRENT, ChangeResult, GENERATION, REQUESTED};
use otherix_schemas::request::RequestType;
use otherix_schemas::violations::Violations;
use serde_json::{Map, Value};

use super::args::WaitArgs;
use super::wait;
use super::{Provisioned, Resource, not_found_hint};
use crate::client::ControlPlaneClient;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::manifest::change_text;
use crate::output::Printer;
use crate::output::diff::unified;
use crate::output::format::Format;
use crate::output::text::clean;

/// How a change is made.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Refuse the change if the resource is of another generation, as `get -o json` shows it
    #[arg(long, value_name = "NUMBER")]
    pub(crate) if_generation: Option<u64>,

    /// Let the control plane decide, and report what would be changed, without changing anything
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,

    /// Output format; with json and --wait, the resource is as it is after the wait
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// What people say about a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct MetadataArgs {
    /// What it is for, on one line; an empty text removes it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// A label to set, or, as KEY-, to remove; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
}

impl MetadataArgs {
    /// The fields of a change.
    pub(crate) fn into_changes(self, violations: &mut Violations) -> Map<String, Value> {
        let mut changes = Map::new();
        if let Some(text) = self.description {
            let text = if text.trim().is_empty() { Value::Null } else { text.into() };
            changes.insert("description".to_owned(), text);
        }
        if !self.labels.is_empty() {
            let labels: Map<String, Value> = self
                .labels
                .iter()
                .filter_map(|text| violations.check("label", label(text)))
                .map(|(key, value)| (key, value.map_or(Value::Null, Value::from)))
                .collect();
            changes.insert("labels".to_owned(), labels.into());
        }
        changes
    }

    /// The labels of a new resource, none of which is to be removed.
    pub(crate) fn labels(&self, violations: &mut Violations) -> Option<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        for text in &self.labels {
            match violations.check("label", label(text)) {
                Some((key, Some(value))) => drop(labels.insert(key, value)),
                Some((key, None)) => violations.add("label", format!("removes `{key}`, which is not there yet")),
                None => {}
            }
        }
        (!labels.is_empty()).then_some(labels)
    }
}

/// A key, and its value unless it is to be removed.
fn label(text: &str) -> Result<(String, Option<String>), String> {
    if let Some((key, value)) = text.split_once('=') {
        return Ok((key.to_owned(), Some(value.to_owned())));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() => Ok((key.to_owned(), None)),
        Some(_) | None => Err(format!("must be KEY=VALUE, or KEY- to remove the label, not `{text}`")),
    }
}

/// A change must change something.
pub(crate) fn require_some(changes: &Map<String, Value>, violations: &mut Violations) {
    if changes.is_empty() && violations.is_empty() {
        violations.add("change", "name at least one field to change");
    }
}

/// Sends the request, prints what was changed, and waits for the nodes if requested.
pub(crate) async fn run<R: Provisioned, C: RequestType<Answer = Applied<R>>>(
    mut client: ControlPlaneClient,
    request: &C::Body,
    ChangeArgs { if_generation: _, dry_run, output: _, wait }: ChangeArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let outcomes = if wait.wait { Some(LiveFeed::outcomes(&mut client).await?) } else { None };
    let answer = if dry_run { client.try_out::<C>(request).await } else { client.call::<C>(request).await };
    let applied = answer.map_err(|failure| explained::<R>(not_found_hint::<R>(failure)))?.data;
    if !printer.is_json() {
        printer.text(&changed_text(&applied, dry_run))?;
    }
    let Some(outcomes) = outcomes else {
        return if printer.is_json() { printer.data(&applied) } else { Ok(()) };
    };
    let Applied { result, changes, resource } = applied;
    let (resource, waited) = wait::until_ready(client, outcomes, resource, wait.wait_timeout, printer).await;
    if printer.is_json() {
        printer.data(&Applied { result, changes, resource })?;
    }
    waited
}

/// Which resource was changed, and how.
pub(crate) fn changed_text<R: Resource>(Applied { result, changes, resource }: &Applied<R>, dry_run: bool) -> String {
    let result = match (result, dry_run) {
        (ChangeResult::Created, _) => "created",
        (ChangeResult::Changed, false) => "changed",
        (ChangeResult::Changed, true) => "would be changed",
        (ChangeResult::Unchanged, _) => "unchanged",
    };
    let changes: String = changes.iter().map(|change| format!("  {}\n", change_text(change))).collect();
    format!("{} {} {result}\n{changes}", R::NOUN, clean(resource.name()))
}

/// Shows what somebody else has changed meanwhile beside what was to be.
pub(crate) fn explained<R: Resource>(mut failure: Failure) -> Failure {
    let details = &failure.body.error.details;
    let manifest = |key: &str| serde_json::from_value::<R>(details.get(key)?.clone()).ok()?.manifest();
    let Some(current) = manifest(CURRENT) else { return failure };
    let generation = details.get(GENERATION).and_then(Value::as_u64);
    if let Some(requested) = manifest(REQUESTED) {
        let names = (generation.map(|now| format!("now, generation {now}")), "as it would be with your change");
        failure.details = unified((names.0.as_deref().unwrap_or("now"), names.1), &current, &requested);
    }
    match generation {
        Some(now) => failure.hint(format!("look at it, and pass `--if-generation {now}`")),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        let metadata = |description: Option<&str>, labels: &[&str]| MetadataArgs {
            description: description.map(str::to_owned),
            labels: labels.iter().map(|text| (*text).to_owned()).collect(),
        };
        let mut violations = Violations::default();
        let changes = metadata(Some(" "), &["a=1", "b-", "c=x=y", "d="]).into_changes(&mut violations);
        let expected = json!({"description": null, "labels": {"a": "1", "b": null, "c": "x=y", "d": ""}});
        assert_eq!((json!(changes), violations.is_empty()), (expected, true));
        assert!(metadata(None, &[]).into_changes(&mut violations).is_empty());
        for wrong in ["", "a", "-"] {
            let mut violations = Violations::default();
            metadata(None, &[wrong]).into_changes(&mut violations);
            assert!(!violations.is_empty(), "{wrong}");
        }
        metadata(None, &["a-"]).labels(&mut violations);
        assert!(!violations.is_empty());
    }
}
