//! Manifests when the control plane refuses, or is not there.

use std::io::Write;
use std::process::Stdio;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, Run, no_status, program, view};

fn manifest(names: &[&str]) -> String {
    let one = |name: &&str| {
        format!("apiVersion: otherix/v1\nkind: Network\nmetadata: {{name: {name}}}\nspec: {{bridgeName: br-{name}}}\n")
    };
    names.iter().map(one).collect::<Vec<_>>().join("---\n")
}

#[track_caller]
fn run(fake: &Fake, arguments: &str, input: &str) -> Run {
    let mut command = fake.command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends").into()
}

#[test]
fn a_network_in_use_is_reported_and_left() {
    let fake = Fake::start(|seen, before| match (seen.verb.as_str(), before) {
        ("network.delete", 1) => Reply::Error(ErrorBody::new(ErrorCode::Conflict, "in use").with_detail("vm_nics", 2)),
        ("network.find", 2) => Reply::Error(ErrorBody::new(ErrorCode::NotFound, "there is no network `c`")),
        _ => Reply::Data(view(no_status())),
    });
    run(&fake, "delete -f -", &manifest(&["a", "b", "c", "d"])).is(
        5,
        "network a deleted\nnetwork d deleted\n",
        "error: stdin:6: cannot delete network `b`: in use by 2 VM NICs\n\
         error: stdin:11: cannot delete network `c`: there is no network `c`\n\
         error: 2 of 4 documents failed\n\
         hint: run `otherix vm list` to see the VMs on the network, and delete them first\n\
         hint: run `otherix network list` to see what exists\n",
    );
    let verbs: Vec<String> = fake.seen().into_iter().map(|seen| seen.verb).collect();
    assert_eq!(verbs.iter().filter(|verb| *verb == "network.delete").count(), 3);
}

#[test]
fn a_dry_run_only_looks() {
    let fake = Fake::start(|_, _| Reply::Data(view(no_status())));
    run(&fake, "delete -f - --dry-run", &manifest(&["a"])).is(0, "network a would be deleted\n", "");
    let taken = run(&fake, "create -f - --dry-run -o json", &manifest(&["a", "b"]));
    assert_eq!((taken.code, taken.error()["code"].as_str()), (4, Some("conflict")));
    assert!(fake.seen().iter().all(|seen| seen.verb == "network.find"), "{:?}", fake.seen());
}

#[test]
fn after_a_control_plane_that_is_gone_nothing_more_is_tried() {
    let fake = Fake::start(|seen, _| match seen.body["name"].as_str() {
        Some("a") => Reply::Data(view(no_status())),
        _ => Reply::Error(ErrorBody::new(ErrorCode::Unavailable, "busy")),
    });
    let manifests = manifest(&["a", "b", "c"]);
    // Both at once, since each uses the whole bound.
    let (text, json) = std::thread::scope(|scope| {
        let text = scope.spawn(|| run(&fake, "create -f -", &manifests));
        let json = run(&fake, "create -f - -o json", &manifests);
        (text.join().expect("it runs"), json)
    });
    assert_eq!((text.code, text.stdout.as_str()), (7, "network a created\n"));
    let wanted = "error: stdin:6: cannot create network `b`: busy\nerror: stdin:11: network `c` was not tried\n\
                  error: 1 of 3 documents failed, and the rest were not tried\n";
    assert!(text.stderr.starts_with(wanted), "{}", text.stderr);
    assert_eq!((json.code, json.error()["code"].as_str()), (7, Some("unavailable")));
    let data: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let results: Vec<&Value> = (0..3).map(|at| &data["data"][at]["result"]).collect();
    assert_eq!(results, [&json!("created"), &json!("failed"), &json!("not_tried")]);
    assert!(fake.seen().iter().all(|seen| seen.body["name"] != "c"));
}

#[test]
fn the_first_failure_is_the_exit_code_and_each_creation_has_its_key() {
    let fake = Fake::start(|_, before| match before {
        0 => Reply::Error(ErrorBody::new(ErrorCode::PermissionDenied, "needs network:manage")),
        1 => Reply::Error(ErrorBody::new(ErrorCode::Conflict, "taken")),
        _ => Reply::Data(view(no_status())),
    });
    let all = run(&fake, "create -f -", &manifest(&["a", "b", "c"]));
    assert_eq!((all.code, all.stdout.as_str()), (6, "network c created\n"), "{}", all.stderr);
    let keys: std::collections::HashSet<_> = fake.seen().into_iter().map(|seen| seen.key.expect("a key")).collect();
    assert_eq!(keys.len(), 3);
}

#[test]
fn without_a_control_plane() {
    let fake = Fake::without_service();
    for command in ["create -f -", "delete -f -", "create -f - --dry-run"] {
        let found = run(&fake, command, &manifest(&["a", "b"]));
        assert_eq!((found.code, found.stdout.as_str()), (7, ""), "{}", found.stderr);
        // What is wrong with the manifests is told nevertheless.
        let wrong = run(&fake, command, &manifest(&["a", "a"]));
        assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""), "{}", wrong.stderr);
    }
}

#[test]
fn help_shows_a_manifest() {
    for command in ["create", "delete"] {
        let run: Run = program(&format!("{command} --help")).output().expect("it runs").into();
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        assert!(run.stdout.contains("Examples:\n  otherix") && run.stdout.contains("kind: Network"), "{}", run.stdout);
        let run: Run = program(command).output().expect("it runs").into();
        assert_eq!((run.code, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.contains("--file <FILE>"), "{}", run.stderr);
    }
}
