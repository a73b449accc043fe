//! Every role and every kind of subject, against a table that is written by hand.
#![expect(clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;

use otherix_schemas::request::Request;
use serde_json::json;

use super::{ROLES, user};
use crate::daemon::OtherixdProcess;
use crate::raw_client::RawClient;

const MATRIX: &str = include_str!("matrix.txt");

/// A row of the table.
struct Row {
    operation: &'static str,
    subject: &'static str,
    permitted: Vec<bool>,
}

fn rows() -> Vec<Row> {
    let lines = MATRIX.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &'static str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (operation, subject, cells) = (words[0], words[1], &words[2..]);
        assert!(cells.len() == ROLES.len() && cells.iter().all(|cell| ["y", "-"].contains(cell)), "{line}");
        assert!(["pub", "sub"].contains(&operation), "{line}");
        Row { operation, subject, permitted: cells.iter().map(|cell| *cell == "y").collect() }
    };
    lines.map(row).collect()
}

#[test]
fn every_request_is_in_the_matrix() {
    let rows = rows();
    let listed: BTreeSet<_> = rows.iter().map(|row| (row.operation, row.subject)).collect();
    assert_eq!(listed.len(), rows.len(), "a row occurs twice");
    for request in Request::all() {
        let subject = format!("otherix.req.v1.{{me}}.{}", request.name);
        assert!(listed.contains(&("pub", subject.as_str())), "{subject}");
    }
}

/// The operations that the server does otherwise than the table says.
fn differences(url: &str, daemon: &OtherixdProcess) -> Vec<String> {
    let mut found = Vec::new();
    for (column, (role, _)) in ROLES.into_iter().enumerate() {
        let (creds, other) = (user(daemon, role), user(daemon, role));
        let mut client = RawClient::connect(url, &creds);
        for (number, Row { operation, subject, permitted }) in rows().into_iter().enumerate() {
            let subject = subject
                .replace("{me}", creds.user().as_str())
                .replace("{other}", other.user().as_str())
                .replace("{node}", "0190a1b2-0000-7000-8000-000000000001");
            match operation {
                "pub" => client.request(&subject, &client.inbox("answer"), "{}"),
                _ => client.subscribe(&subject, number + 10),
            }
            let errors = client.settle().errors;
            let refusal = if operation == "pub" { "Publish" } else { "Subscription" };
            let is_refused = match errors.as_slice() {
                [] => false,
                // The subject that a mapping makes of it is refused.
                [error]
                    if [&subject, &format!("forged.{subject}")].into_iter().any(|subject| {
                        error.contains(&format!("Permissions Violation for {refusal} to \"{subject}\""))
                    }) =>
                {
                    true
                }
                other => panic!("{role} {operation} {subject}: {other:?}"),
            };
            if is_refused == permitted[column] {
                found.push(format!("{role} {operation} {subject}: permitted is {}", !is_refused));
            }
        }
    }
    found
}

#[tokio::test]
async fn the_server_permits_exactly_what_the_matrix_says() {
    let daemon = OtherixdProcess::start().await;
    let url = daemon.url().await;
    let (daemon, found) = tokio::task::spawn_blocking(move || {
        let found = differences(&url, &daemon);
        (daemon, found)
    })
    .await
    .unwrap();
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
    // Nobody without credentials is connected at all.
    let url = daemon.url().await;
    for proof in [json!({}), json!({ "user": "admin", "pass": "" }), json!({ "user": "node", "pass": "x" })] {
        let refused = RawClient::authenticate(&url, |_| proof.clone()).err();
        assert!(refused.as_deref().is_some_and(|error| error.contains("Authorization Violation")), "{refused:?}");
    }
}
