//! Schemas as the program prints them, compared with the checked-in files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::node::run;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json")
}

#[tokio::test]
async fn schemas_are_served_as_they_are_checked_in() {
    let control_plane = ControlPlane::start();
    let listed = run(&control_plane, "schema -o json").await;
    let listed: Vec<Value> = serde_json::from_str(&listed.stdout).expect("JSON");
    let names: Vec<_> = listed.iter().map(|schema| schema["name"].as_str().expect("a name")).collect();
    let files = fs::read_dir(folder()).expect("a folder");
    let mut expected: Vec<_> = files
        .map(|file| file.expect("a file").file_name().into_string().expect("a name"))
        .filter_map(|file| file.strip_suffix(".json").map(str::to_owned))
        .collect();
    expected.sort();
    assert_eq!(names, expected);
    let text = run(&control_plane, "schema").await.stdout;
    assert!(
        text.lines().any(
            |line| line.starts_with("vm.created.v2 ") && line.ends_with("  A VM was created, and placed on a node")
        ),
        "{text}"
    );

    // By the name, and by what an event says.
    let created = run(&control_plane, "network create net-a --bridge-name br-a --managed").await;
    assert_eq!(created.code, Some(0), "{created:?}");
    let events = run(&control_plane, "events list --since all --type network -o json").await.stdout;
    let event: Value = serde_json::from_str(events.lines().next().expect("an event")).expect("JSON");
    let of_event = event["dataschema"].as_str().expect("an id");
    for name in
        [of_event, "event", "network.created.v1", "node.reconciled.v1", "event.list.answer", "vm.create.request"]
    {
        let printed = run(&control_plane, &format!("schema {name}")).await;
        let file = folder().join(format!("{}.json", name.trim_start_matches("urn:otherix:schema:")));
        assert_eq!(printed.stdout, fs::read_to_string(file).expect("a file"), "{name}");
    }

    let missing = run(&control_plane, "schema network.painted.v1").await;
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(3), ""));
    assert!(missing.stderr.starts_with("error: there is no schema `network.painted.v1`"), "{}", missing.stderr);
}
