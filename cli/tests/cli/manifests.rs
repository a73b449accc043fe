//! Manifests that the control plane rejects, and manifests without a control plane.

use std::io::Write;
use std::process::Stdio;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, ProgramOutput, ReceivedRequest, no_status, program, view};

fn manifest(names: &[&str]) -> String {
    let one = |name: &&str| {
        format!("apiVersion: otherix/v1\nkind: Network\nmetadata: {{name: {name}}}\nspec: {{bridgeName: br-{name}}}\n")
    };
    names.iter().map(one).collect::<Vec<_>>().join("---\n")
}

#[track_caller]
fn run(fake: &FakeControlPlane, arguments: &str, input: &str) -> ProgramOutput {
    let mut command = fake.command(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the program reads stdin");
    child.wait_with_output().expect("the program exits").into()
}

#[test]
fn keeps_a_network_in_use() {
    let fake = FakeControlPlane::start(|received, before| match (received.verb.as_str(), before) {
        ("network.delete", 1) => {
            FakeReply::Error(ErrorBody::new(ErrorCode::Conflict, "in use").with_detail("vm_nics", 2))
        }
        ("network.find", 2) => FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "there is no network `c`")),
        _ => FakeReply::Data(view(no_status())),
    });
    run(&fake, "delete -f -", &manifest(&["a", "b", "c", "d"])).assert_output(
        5,
        "network a deleted\nnetwork d deleted\n",
        "error: stdin:6: cannot delete network `b`: in use by 2 VM NICs\n\
         error: stdin:11: cannot delete network `c`: there is no network `c`\n\
         error: 2 of 4 documents failed\n\
         hint: run `otherix vm list` to see the VMs on the network, and delete them first\n\
         hint: run `otherix network list` to see what exists\n",
    );
    let verbs: Vec<String> = fake.received().into_iter().map(|received| received.verb).collect();
    assert_eq!(verbs.iter().filter(|verb| *verb == "network.delete").count(), 3);
}

#[test]
fn dry_run_asks_and_changes_nothing() {
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "network.create" => FakeReply::Error(ErrorBody::new(ErrorCode::Conflict, "taken")),
        _ => FakeReply::Data(view(no_status())),
    });
    run(&fake, "delete -f - --dry-run", &manifest(&["a"])).assert_output(0, "network a would be deleted\n", "");
    let taken = run(&fake, "create -f - --dry-run -o json", &manifest(&["a", "b"]));
    assert_eq!((taken.code, taken.error()["code"].as_str()), (4, Some("conflict")));
    let is_harmless = |received: &ReceivedRequest| received.verb == "network.find" || received.dry_run;
    assert!(fake.received().iter().all(is_harmless), "{:?}", fake.received());
    assert!(fake.received().iter().all(|received| received.key.is_none()), "{:?}", fake.received());
}

#[test]
fn stops_when_the_control_plane_is_unreachable() {
    let fake = FakeControlPlane::start(|received, _| match received.body["name"].as_str() {
        Some("a") => FakeReply::Data(view(no_status())),
        _ => FakeReply::Error(ErrorBody::new(ErrorCode::Unavailable, "busy")),
    });
    let manifests = manifest(&["a", "b", "c"]);
    // Concurrently, since each takes the whole time limit.
    let (text, json) = std::thread::scope(|scope| {
        let text = scope.spawn(|| run(&fake, "create -f -", &manifests));
        let json = run(&fake, "create -f - -o json", &manifests);
        (text.join().expect("the program starts"), json)
    });
    assert_eq!((text.code, text.stdout.as_str()), (7, "network a created\n"));
    // The last attempt may be in flight when the time is up.
    let (first, others) = text.stderr.split_once('\n').expect("lines");
    let of_b = first.strip_prefix("error: stdin:6: cannot create network `b`: ");
    assert!(of_b.is_some_and(|cause| cause == "busy" || cause.ends_with("timed out")), "{}", text.stderr);
    let expected = "error: stdin:11: network `c` was not tried\n\
                    error: 1 of 3 documents failed, and the rest were not tried\n";
    assert!(others.starts_with(expected), "{}", text.stderr);
    assert_eq!((json.code, json.error()["code"].as_str()), (7, Some("unavailable")));
    let data: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let results: Vec<&Value> = (0..3).map(|at| &data["data"][at]["result"]).collect();
    assert_eq!(results, [&json!("created"), &json!("failed"), &json!("not_tried")]);
    assert!(fake.received().iter().all(|received| received.body["name"] != "c"));
}

#[test]
fn exits_with_the_first_failure_and_uses_a_key_per_creation() {
    let fake = FakeControlPlane::start(|_, before| match before {
        0 => FakeReply::Error(ErrorBody::new(ErrorCode::PermissionDenied, "needs network:manage")),
        1 => FakeReply::Error(ErrorBody::new(ErrorCode::Conflict, "taken")),
        _ => FakeReply::Data(view(no_status())),
    });
    let all = run(&fake, "create -f -", &manifest(&["a", "b", "c"]));
    assert_eq!((all.code, all.stdout.as_str()), (6, "network c created\n"), "{}", all.stderr);
    let keys: std::collections::HashSet<_> =
        fake.received().into_iter().map(|received| received.key.expect("a key")).collect();
    assert_eq!(keys.len(), 3);
}

#[test]
fn reports_problems_even_without_a_control_plane() {
    let fake = FakeControlPlane::without_service();
    for command in ["create -f -", "delete -f -", "create -f - --dry-run"] {
        let found = run(&fake, command, &manifest(&["a", "b"]));
        assert_eq!((found.code, found.stdout.as_str()), (7, ""), "{}", found.stderr);
        // Problems of the manifests are reported first.
        let wrong = run(&fake, command, &manifest(&["a", "a"]));
        assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""), "{}", wrong.stderr);
    }
}

#[test]
fn help_has_an_example_manifest() {
    for command in ["create", "delete"] {
        let run: ProgramOutput = program(&format!("{command} --help")).output().expect("the program starts").into();
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        assert!(run.stdout.contains("Examples:\n  otherix") && run.stdout.contains("kind: Network"), "{}", run.stdout);
        let run: ProgramOutput = program(command).output().expect("the program starts").into();
        assert_eq!((run.code, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.contains("--file <FILE>"), "{}", run.stderr);
    }
}
