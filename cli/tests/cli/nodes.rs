//! `otherix node delete`: the exact question, request and output.

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, ID};

fn removed() -> Value {
    json!({"id": ID, "name": "node-1", "deleted_at": "2026-01-02T03:04:05.000006Z"})
}

/// A control plane with node-1.
fn fake() -> FakeControlPlane {
    FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "node.delete" => FakeReply::Data(removed()),
        _ => FakeReply::Data(json!({
            "id": ID, "name": "node-1", "reachable": false, "reachable_since": "2026-01-02T03:04:05.000006Z",
            "joined_at": "2026-01-01T00:00:00.000000Z", "vms": 0, "nics": 0,
            "network_counts": {"ready": 0, "pending": 0, "failed": 0}, "mesh": null,
        })),
    })
}

#[test]
fn delete_without_a_terminal_does_not_ask() {
    let fake = fake();
    fake.run("node delete NODE-1").assert_output(0, "node node-1 deleted\n", "");
    let run = fake.run(&format!("node delete {ID} -o json"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), removed());
    let received = fake.received();
    let verbs: Vec<_> = received.iter().map(|received| received.verb.as_str()).collect();
    assert_eq!(verbs, ["node.find", "node.delete", "node.delete"], "an id needs no look-up");
    assert_eq!((&received[2].body, received[2].key.is_some()), (&json!({"id": ID}), true));
}

#[test]
fn delete_on_a_terminal_asks_for_confirmation() {
    let fake = fake();
    let question = "delete node node-1? [y/N] ";
    let no = "error: node `node-1` was not deleted\nhint: answer `y` or pass `--force`\n";
    for reference in ["NODE-1", ID] {
        fake.on_terminal(&format!("node delete {reference}"), "n\n").assert_output(1, "", &format!("{question}{no}"));
    }
    assert!(fake.received().iter().all(|received| received.verb != "node.delete"));
    fake.on_terminal("node delete node-1", "y\n").assert_output(0, "node node-1 deleted\n", question);
    fake.on_terminal("node delete node-1 --force", "").assert_output(0, "node node-1 deleted\n", "");
}

#[test]
fn vms_block_the_removal_of_a_node() {
    let body = ErrorBody::new(ErrorCode::Conflict, "in use").with_detail("vms", 3);
    let fake = FakeControlPlane::start(move |_, _| FakeReply::Error(body.clone()));
    fake.run(&format!("node delete {ID}")).assert_output(
        5,
        "",
        &format!(
            "error: cannot delete node `{ID}`: in use by 3 VMs\n\
             hint: run `otherix vm list` to see the VMs on the node, and delete them first\n"
        ),
    );
    let run = fake.run(&format!("node delete {ID} --force -o json"));
    assert_eq!(run.code, 5);
    assert_eq!(run.error(), json!({"code": "conflict", "message": "in use", "details": {"vms": 3}}));
}

#[test]
fn reports_a_missing_node() {
    let fake =
        FakeControlPlane::start(|_, _| FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "there is no node `x`")));
    let expected = "error: there is no node `x`\nhint: run `otherix node list` to see what exists\n";
    fake.run("node delete x").assert_output(3, "", expected);
    fake.run(&format!("node delete {ID}")).assert_output(3, "", expected);
    fake.on_terminal(&format!("node delete {ID}"), "").assert_output(3, "", expected);
}
