//! The state at an earlier position or time, as the program prints it.

use otherix_schemas::outcome::Outcome;
use otherix_testkit::tempdir;
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::events::{done, world};
use crate::node::{SimulatedNode, run};

#[tokio::test]
async fn the_past_is_printed_as_it_was_then() {
    let control_plane = ControlPlane::start();
    world(&control_plane).await;
    let head = control_plane.query("SELECT MAX(position) FROM events").trim().to_owned();
    let time = format!("SELECT json_extract(CAST(body AS TEXT), '$.time') FROM events WHERE position = {head}");
    let time = control_plane.query(&time).trim().to_owned();
    let commands = [
        "network list",
        "network list -o json",
        "network list --limit 1",
        "network list --type overlay",
        "network get net-a",
        "network get net-b -o json",
        "network get net-a -o yaml",
        "vm list --show-ids",
        "vm get web -o json",
        "node list",
        "node get node-1",
    ];
    let mut then = Vec::new();
    for command in commands {
        then.push(run(&control_plane, command).await);
    }
    for change in ["vm delete web --force", "network delete net-a --force", "network create net-c --bridge-name br-c"] {
        done(&control_plane, change).await;
    }
    for (command, then) in commands.iter().zip(then) {
        for at in [&head, &time] {
            let now = run(&control_plane, &format!("{command} --at {at}")).await;
            assert_eq!((now.code, &now.stdout, &now.stderr), (Some(0), &then.stdout, &then.stderr), "{command} {at}");
        }
        let now = done(&control_plane, command).await;
        assert!(
            now != then.stdout || ["overlay", "net-b", "yaml"].iter().any(|same| command.contains(same)),
            "{command}"
        );
    }
    for (command, code, message) in [
        (format!("network get net-c --at {head}"), 3, "there is no network `net-c`"),
        ("network list --at 0".to_owned(), 2, "before the first event"),
        ("network list --at 100000".to_owned(), 2, "in the future"),
        ("node get node-1 --at 2999-01-01T00:00:00Z".to_owned(), 2, "in the future"),
        ("vm list --at 3650d".to_owned(), 2, "before the first event: it was recorded at 2"),
        ("vm list --at yesterday".to_owned(), 2, "must be a position, an RFC 3339 time or a time ago"),
        ("vm list --at 1 --stale".to_owned(), 2, "cannot be used with"),
        ("user list --at 1".to_owned(), 2, "unexpected argument"),
    ] {
        let refused = run(&control_plane, &command).await;
        assert_eq!(refused.code, Some(code), "{command}: {refused:?}");
        assert!(refused.stderr.contains(message), "{command}: {}", refused.stderr);
    }
}

/// A report of a network that has failed, then changes by people, each with the position after it.
#[tokio::test]
async fn changes_are_found_and_dated() {
    let control_plane = ControlPlane::start();
    let mut node = SimulatedNode::join(&control_plane, 1).await;
    let create = "network create net-a --bridge-name br-a --managed -o json";
    let network: Value = serde_json::from_str(&done(&control_plane, create).await).expect("JSON");
    let vm = "vm create web --image-url https://example.org/a.qcow2 --arch amd64 --network net-a --tap-only -o json";
    let vm: Value = serde_json::from_str(&done(&control_plane, vm).await).expect("JSON");
    let head = || control_plane.query("SELECT MAX(position) FROM events").trim().to_owned();
    let mut positions = Vec::new();
    for (outcome, nic) in [
        (Outcome::Ready, Outcome::Ready),
        (Outcome::Failed("no bridge".to_owned()), Outcome::Ready),
        (Outcome::Ready, Outcome::Failed("no tap".to_owned())),
        (Outcome::Failed("no bridge".to_owned()), Outcome::Failed("no tap again".to_owned())),
    ] {
        node.report(&network, outcome).await;
        positions.push(head());
        node.report_nic(&vm, nic).await;
        positions.push(head());
    }
    let [ready, vm_ready, _, _, repaired, vm_failed, failed, last] = positions.try_into().expect("eight reports");
    // It failed before, and was ready in between.
    for (question, since) in [
        ("network net-a --node node-1 --status failed", &failed),
        (&format!("network net-a --node node-1 --status ready --at {vm_failed}"), &repaired),
        (&format!("network NET-A --node Node-1 --status ready --at {vm_ready}"), &ready),
        ("vm web --status failed", &vm_failed),
        (&format!("vm web --status ready --at {repaired}"), &vm_ready),
    ] {
        let text = done(&control_plane, &format!("bisect {question}")).await;
        assert!(text.contains(&format!(" since position {since}, 2")), "{question}: {text}");
        assert!(text.contains("by node-1"), "{question}: {text}");
        let found = done(&control_plane, &format!("bisect {question} -o json")).await;
        let found: Value = serde_json::from_str(&found).expect("JSON");
        assert_eq!(found["position"].to_string(), *since, "{question}");
        assert!(found["cause"]["type"].as_str().expect("a type").contains("created") || question.contains("vm"));
    }
    let unreported = format!("bisect network net-a --node node-1 --status unreported --at {}", before(&ready));
    assert!(done(&control_plane, &unreported).await.contains("network.created"));
    let joined = done(&control_plane, "bisect node node-1 --status reachable").await;
    assert!(joined.contains("node.joined"), "{joined}");
    for (question, message) in [
        ("network net-a --node node-1 --status ready", "network `net-a` is not ready on node-1 now"),
        ("node node-1 --status unreachable --at 5", "node `node-1` is not unreachable then"),
        ("vm nothing --status ready", "there is no VM `nothing`, and there was none"),
    ] {
        let refused = run(&control_plane, &format!("bisect {question}")).await;
        assert_eq!(refused.code, Some(3), "{question}: {refused:?}");
        assert!(refused.stderr.contains(message), "{question}: {}", refused.stderr);
    }
    differences(&control_plane, [&ready, &vm_ready, &last]).await;
    // The VM was deleted there, and its name is another one's now.
    let again = "vm create web --image-url https://example.org/b.qcow2 --arch amd64 --network net-b --tap-only";
    done(&control_plane, again).await;
    let found = done(&control_plane, &format!("bisect vm web --status failed --at {last}")).await;
    assert!(found.contains(&format!(" since position {vm_failed}, 2")), "{found}");
}

/// What has changed between these positions of [`changes_are_found_and_dated`], and since.
async fn differences(control_plane: &ControlPlane, [ready, vm_ready, last]: [&str; 3]) {
    let difference = done(control_plane, &format!("diff --from {ready} --to {last}")).await;
    let expected =
        ["~ network net-a", "status.nodes.node-1.error: no bridge", "status.nodes.node-1.status: ready -> failed"];
    assert!(expected.iter().all(|line| difference.contains(line)), "{difference}");
    assert!(difference.contains("~ vm web\n    error: ") && difference.contains("-> no tap again"), "{difference}");
    assert_eq!(difference.lines().filter(|line| line.contains("by node-1")).count(), 3 + 3, "{difference}");
    // Between two moments at which it was the same.
    let same = done(control_plane, &format!("diff --from {ready} --to {}", before(vm_ready))).await;
    assert_eq!(same, format!("nothing has changed between positions {ready} and {ready}\n"));
    done(control_plane, "vm delete web --force").await;
    done(control_plane, "network create net-b --bridge-name br-b").await;
    let difference = done(control_plane, &format!("diff --from {last} -o json")).await;
    let difference: Value = serde_json::from_str(&difference).expect("JSON");
    let changes: Vec<String> = difference["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| {
            let event = &change["events"][0];
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            [&change["change"], &change["resource"], &change["name"], &event["actorname"]].map(text).join(" ")
        })
        .collect();
    assert_eq!(changes, ["added network net-b admin", "changed vm web admin"]);
    let refused = run(control_plane, "diff --from 5 --to 4").await;
    assert!(refused.code == Some(2) && refused.stderr.contains("before --from"), "{refused:?}");
}

fn before(position: &str) -> u64 {
    position.parse::<u64>().expect("a number") - 1
}

#[tokio::test]
async fn read_models_are_shown_and_rebuilt() {
    let control_plane = ControlPlane::start();
    world(&control_plane).await;
    let folder = tempdir().expect("a folder");
    let creds = folder.path().join("vera.creds").display().to_string();
    done(&control_plane, &format!("user create vera --role viewer --out {creds}")).await;
    let head = control_plane.query("SELECT MAX(position) FROM events").trim().to_owned();
    let rebuilt = run(&control_plane, "admin projection rebuild").await;
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    assert!(rebuilt.stdout.starts_with(&format!("read models rebuilt, up to position {head}, in ")), "{rebuilt:?}");
    let status = done(&control_plane, "admin projection status").await;
    let first = status.lines().next().expect("a line");
    assert_eq!(first.split_whitespace().collect::<Vec<_>>(), ["NAME", "STATE", "POSITION", "LAG"]);
    for name in ["network", "node", "vm", "user"] {
        let line = status.lines().find(|line| line.starts_with(&format!("{name} "))).expect("a line");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), [name, "following", &head, "0"]);
    }
    assert!(status.contains("\nhistory ") && status.contains("\nlast rebuild: done in "), "{status}");
    let status: Value =
        serde_json::from_str(&done(&control_plane, "admin projection status -o json").await).expect("JSON");
    assert_eq!(
        (status["rebuild"]["state"].as_str(), status["projections"][0]["lag"].as_u64()),
        (Some("done"), Some(0))
    );
    let refused = run(&control_plane, &format!("admin projection rebuild --credentials {creds}")).await;
    assert!(refused.code == Some(6) && refused.stderr.contains("cluster:manage"), "{refused:?}");
    done(&control_plane, &format!("admin projection status --credentials {creds}")).await;
    done(&control_plane, &format!("network get net-a --at {head} --credentials {creds}")).await;
    // The same on one screen, for viewers, too.
    let screen = run(&control_plane, &format!("status --credentials {creds}")).await;
    let first = screen.stdout.lines().next().expect("a line");
    assert_eq!(
        first.split_whitespace().collect::<Vec<_>>().join(" "),
        format!("control plane: serving, position {head}")
    );
    let view: Value = serde_json::from_str(&run(&control_plane, "status -o json").await.stdout).expect("JSON");
    assert_eq!(view["head"].as_u64().map(|head| head.to_string()), Some(head));
    let problems = view["problem_count"].as_u64().expect("a number");
    assert_eq!(screen.code, Some(if problems == 0 { 0 } else { 8 }), "{screen:?}");
}
