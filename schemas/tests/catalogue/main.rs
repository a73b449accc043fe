//! The catalogue of events, `docs/events.md`, and what it relies on: each event that is recorded says why, and each
//! superseded version has a newer one that it is read as.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::event::{Event, EventDeclaration, EventProvenance, Family};
use otherix_schemas::request::Request;
use otherix_testkit::generated::assert_up_to_date;
use serde_json::{Value, json};

use text::{fields, json_block, listed, wrapped};

/// The declaration that events of this name are recorded as now.
fn current(name: &str) -> &'static EventDeclaration {
    let of_name = Event::declarations().filter(|declaration| declaration.name() == name);
    of_name.max_by_key(|declaration| declaration.version()).unwrap()
}

fn is_current(declaration: &EventDeclaration) -> bool {
    current(declaration.name()).type_name == declaration.type_name
}

/// The golden samples of a version, by file name.
fn samples(declaration: &EventDeclaration) -> Vec<String> {
    let name = declaration.schema_name();
    let is_sample = |path: &PathBuf| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        stem == name || stem.starts_with(&format!("{name}."))
    };
    let mut paths: Vec<_> = fs::read_dir("golden").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(is_sample);
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The data of an event of any version.
fn data(sample: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Sample {
        data: Box<serde_json::value::RawValue>,
    }
    serde_json::from_str::<Sample>(sample).unwrap().data.get().to_owned()
}

/// The data of an event of any version, as it would be recorded now.
fn upcast(sample: &str) -> String {
    let envelope = EventEnvelope::decode(sample.as_bytes()).unwrap();
    serde_json::to_string(&envelope.event.stored_data()).unwrap()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Decision => "decision",
        Family::Outcome => "outcome",
        Family::Administration => "administration",
    }
}

fn overview() -> String {
    let mut text = "## Overview\n\n| event | version | family | what happened |\n|---|---|---|---|\n".to_owned();
    for declaration in Event::declarations().filter(|declaration| is_current(declaration)) {
        let (name, version) = (declaration.name(), declaration.version());
        let (family, summary) = (family(declaration.family), declaration.summary);
        text.push_str(&format!("| [`{name}`](#{}) | {version} | {family} | {summary} |\n", name.replace('.', "")));
    }
    text
}

fn entry(declaration: &EventDeclaration) -> String {
    let schema = json!(declaration.schema());
    let name = declaration.name();
    let EventProvenance { when, requests, causes } = declaration.provenance;
    let mut text = format!("## {name}\n\n{}\n", wrapped(schema["description"].as_str().unwrap()));
    let subject = format!("otherix.{}.v1.{name}.<{} id>", declaration.family.token(), declaration.aggregate());
    text.push_str(&format!("- **subject**: `{subject}`\n"));
    text.push_str(&wrapped(&format!("- **when**: {when}")));
    let by = if requests.is_empty() { "the control plane itself".to_owned() } else { listed(requests) };
    text.push_str(&wrapped(&format!("- **recorded on**: {by}")));
    let by = if causes.is_empty() { "no other event".to_owned() } else { listed(causes) };
    text.push_str(&wrapped(&format!("- **caused by** (`causationid`): {by}")));
    text.push_str(&format!("- **schema**: `{}`\n\n", declaration.schema_name()));
    text.push_str(&fields(&schema));
    text.push_str(&json_block(&samples(declaration)[0]));
    let mut earlier: Vec<_> =
        Event::declarations().filter(|other| other.name() == name && !is_current(other)).collect();
    earlier.sort_by_key(|other| std::cmp::Reverse(other.version()));
    for other in earlier {
        let (old, sample) = (other.schema_name(), &samples(other)[0]);
        text.push_str(&format!("\nEarlier version `{old}`, not recorded any more; its `data`:\n\n"));
        text.push_str(&json_block(&data(sample)));
        if parsed(&data(sample)) == parsed(&upcast(sample)) {
            text.push_str(&format!("\nRead as `{}` with the same `data`.\n", declaration.schema_name()));
        } else {
            text.push_str(&format!("\nRead as `{}`:\n\n", declaration.schema_name()));
            text.push_str(&json_block(&upcast(sample)));
        }
    }
    text
}

#[test]
fn generated_catalogue_is_up_to_date() {
    let mut text = include_str!("intro.md").to_owned() + "\n" + &overview();
    for declaration in Event::declarations().filter(|declaration| is_current(declaration)) {
        text.push('\n');
        text.push_str(&entry(declaration));
    }
    assert_up_to_date("../docs/events.md", &text);
}

#[test]
fn every_event_that_is_recorded_says_why() {
    let names: BTreeSet<_> = Event::declarations().map(EventDeclaration::name).collect();
    for declaration in Event::declarations() {
        let EventProvenance { when, requests, causes } = declaration.provenance;
        let what = declaration.schema_name();
        assert_eq!(is_current(declaration), declaration.provenance != EventProvenance::SUPERSEDED, "{what}");
        assert!(when.is_empty() || when.ends_with('.'), "{what}: `{when}`");
        for request in requests {
            assert!(Request::named(request).is_some(), "{what}: no request `{request}`");
        }
        for cause in causes {
            assert!(names.contains(cause), "{what}: no event `{cause}`");
        }
    }
}

#[test]
fn every_earlier_version_is_read_as_the_newest() {
    let mut count = 0;
    for declaration in Event::declarations().filter(|declaration| !is_current(declaration)) {
        let newest = current(declaration.name());
        assert_eq!(newest.family, declaration.family);
        for sample in samples(declaration) {
            let data = parsed(&upcast(&sample));
            let known = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            let schema = json!(newest.schema());
            assert!(known(&data).is_subset(&known(&schema["properties"])), "{data}");
            let again = Event::from_stored(newest.type_name, data.clone()).unwrap();
            assert_eq!(json!(again.stored_data()), data);
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}
