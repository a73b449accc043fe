//! Output and exit codes when the control plane rejects a request.

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::violations::Violations;
use serde_json::json;

use crate::fake::{FakeControlPlane, FakeReply, ID};

/// A control plane that replies with this error to every request.
fn refusing(body: ErrorBody) -> FakeControlPlane {
    FakeControlPlane::start(move |_, _| FakeReply::Error(body.clone()))
}

const CREATE: &str = "network create net-dev --bridge-name br-dev";

#[test]
fn maps_error_codes_to_exit_codes() {
    let cases = [
        (ErrorCode::Internal, 1),
        (ErrorCode::ValidationFailed, 2),
        (ErrorCode::NotFound, 3),
        (ErrorCode::Conflict, 4),
        (ErrorCode::IdempotencyKeyMismatch, 4),
        (ErrorCode::Unauthenticated, 6),
        (ErrorCode::PermissionDenied, 6),
        (ErrorCode::Unavailable, 7),
    ];
    for (code, exit) in cases {
        let fake = refusing(ErrorBody::new(code, "because").with_detail("of", "that"));
        let run = fake.run(&format!("{CREATE} -o json"));
        assert_eq!((run.code, run.stdout.as_str()), (exit, ""), "{code:?}: {}", run.stderr);
        assert_eq!(run.error(), json!({"code": code, "message": "because", "details": {"of": "that"}}));
        let run = fake.run(CREATE);
        assert_eq!((run.code, run.stdout.as_str()), (exit, ""));
        assert_eq!(run.stderr.lines().next(), Some("error: because"));
    }
}

#[test]
fn reports_a_missing_network() {
    let fake = refusing(ErrorBody::new(ErrorCode::NotFound, "there is no network `x`"));
    let expected = "error: there is no network `x`\nhint: run `otherix network list` to see what exists\n";
    fake.run("network get x").assert_output(3, "", expected);
    fake.run("network delete x").assert_output(3, "", expected);
    fake.run(&format!("network delete {ID}")).assert_output(3, "", expected);
}

#[test]
fn nics_block_the_deletion_of_a_network() {
    let body = ErrorBody::new(ErrorCode::Conflict, "in use").with_detail("vm_nics", 2);
    let fake = FakeControlPlane::start(move |received, _| match received.verb.as_str() {
        "network.find" => FakeReply::Data(crate::fake::view(crate::fake::no_status())),
        _ => FakeReply::Error(body.clone()),
    });
    fake.run("network delete net-dev").assert_output(
        5,
        "",
        "error: cannot delete network `net-dev`: in use by 2 VM NICs\n\
         hint: run `otherix vm list` to see the VMs on the network, and delete them first\n",
    );
    let run = fake.run("network delete net-dev --force -o json");
    assert_eq!(run.code, 5);
    assert_eq!(run.error(), json!({"code": "conflict", "message": "in use", "details": {"vm_nics": 2}}));
}

#[test]
fn violations_found_by_the_control_plane_name_the_flag() {
    let fake = refusing(Violations::one("subnet", "must not lie in the mesh's supernet `10.50.0.0/16`").into());
    fake.run(CREATE).assert_output(
        2,
        "",
        "error: the request is invalid\n  --subnet: must not lie in the mesh's supernet `10.50.0.0/16`\n\
         hint: see `otherix network create --help` for the values that each flag accepts\n",
    );
}

#[test]
fn escapes_messages_of_the_control_plane() {
    let fake = refusing(ErrorBody::new(ErrorCode::Conflict, "a\u{1b}]0;x\u{7}\nhint: run rm"));
    fake.run("network list").assert_output(4, "", "error: a\\u{1b}]0;x\\u{7}\\u{a}hint: run rm\n");
}

#[test]
fn reports_a_malformed_reply() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(json!("?")));
    let run = fake.run("network get x -o json");
    assert_eq!((run.code, run.error()["code"].as_str()), (1, Some("internal")));
}
