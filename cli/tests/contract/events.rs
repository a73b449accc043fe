//! Events as the program prints them, compared with the rows of the journal.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use otherix_schemas::outcome::Outcome;
use otherix_testkit::wait::wait_for;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::node::{DEADLINE, SimulatedNode, run};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The events with their bodies as text: `LIKE` finds nothing in the bytes.
const EVENTS: &str = "(SELECT position, type, stream_id, CAST(body AS TEXT) AS body FROM events)";

/// Runs a command that must succeed; returns stdout.
pub(crate) async fn done(control_plane: &ControlPlane, line: &str) -> String {
    let run = run(control_plane, line).await;
    assert_eq!(run.code, Some(0), "{line}: {run:?}");
    run.stdout
}

async fn view(control_plane: &ControlPlane, line: &str) -> Value {
    serde_json::from_str(&done(control_plane, &format!("{line} -o json")).await).expect("JSON")
}

/// The bodies of the events in the journal that satisfy a condition, one per line.
fn stored(control_plane: &ControlPlane, condition: &str) -> String {
    control_plane.query(&format!("SELECT body FROM {EVENTS} WHERE {condition} ORDER BY position"))
}

/// Two networks and a VM on a node that has reported on one of the networks and on the VM's NIC.
pub(crate) async fn world(control_plane: &ControlPlane) -> [Value; 3] {
    let mut node = SimulatedNode::join(control_plane, 1).await;
    let mut networks = Vec::new();
    for name in ["net-a", "net-b"] {
        networks.push(view(control_plane, &format!("network create {name} --bridge-name br-{name} --managed")).await);
    }
    let flags = "--image-url https://example.org/a.qcow2 --arch amd64 --network net-a --tap-only";
    let vm = view(control_plane, &format!("vm create web {flags}")).await;
    let [a, b] = networks.try_into().expect("two networks");
    node.report(&a, Outcome::Ready).await;
    node.report_nic(&vm, Outcome::Ready).await;
    [a, b, vm]
}

#[tokio::test]
async fn lists_the_selected_events_as_they_are_stored() {
    let control_plane = ControlPlane::start();
    let [a, b, vm] = world(&control_plane).await;
    let text = |view: &Value| view.as_str().expect("text").to_owned();
    let (a, b) = (text(&a["id"]), text(&b["id"]));
    let nic = text(&vm["nic"]["id"]);
    let column = |column: &str, condition: &str| {
        control_plane.query(&format!("SELECT {column} FROM {EVENTS} WHERE {condition}")).trim().to_owned()
    };
    let at = |condition: &str| column("position", condition);
    let (first, last) = (at("type LIKE '%network.created%' LIMIT 1"), at("type LIKE '%nic.bound%'"));
    let time = |condition: &str| column("json_extract(body, '$.time')", condition);
    let (from, to) = (time(&format!("position = {first}")), time(&format!("position = {last}")));
    for (flags, condition) in [
        ("--since all".to_owned(), "1".to_owned()),
        (String::new(), "1".to_owned()),
        ("--network net-a".to_owned(), format!("body LIKE '%{a}%'")),
        (format!("--network {b}"), format!("body LIKE '%{b}%'")),
        (
            "--network NET-A --type network --type node".to_owned(),
            format!("body LIKE '%{a}%' AND (type LIKE 'dev.otherix.network.%' OR type LIKE 'dev.otherix.node.%')"),
        ),
        ("--vm web".to_owned(), format!("body LIKE '%{}%' OR body LIKE '%{nic}%'", text(&vm["id"]))),
        ("--vm web --type node.reconciled".to_owned(), format!("body LIKE '%{nic}%' AND type LIKE '%reconciled%'")),
        ("--node node-1 --network net-a".to_owned(), format!("body LIKE '%{a}%' AND body LIKE '%reconciled%'")),
        ("--actor admin --type network".to_owned(), "type LIKE '%network.%'".to_owned()),
        ("--actor Node-1 --type node.reconciled".to_owned(), "type LIKE '%reconciled%'".to_owned()),
        ("--actor nobody".to_owned(), "0".to_owned()),
        (format!("--since {first} --until {last}"), format!("position BETWEEN {first} AND {last}")),
        (format!("--since {from} --until {to}"), format!("time_of >= '{from}' AND time_of < '{to}'")),
        ("--since 1s --limit 2 --until 3653d".to_owned(), "0".to_owned()),
        ("--limit 2".to_owned(), "position > (SELECT MAX(position) - 2 FROM events)".to_owned()),
    ] {
        let listed = done(&control_plane, &format!("events list {flags} -o json").replace("  ", " ")).await;
        let condition = condition.replace("time_of", "json_extract(body, '$.time')");
        assert_eq!(listed, stored(&control_plane, &condition), "{flags}");
    }
    let lines = done(&control_plane, "events list --network net-a").await;
    let [created, attached, outcome] = lines.lines().collect::<Vec<_>>().try_into().expect("three lines");
    for (line, parts) in [
        (created, ["network.created", "network net-a", "by admin", "bridge_name=br-net-a"]),
        (attached, ["nic.attached", "nic ot", "vm=web", "network=net-a"]),
        (outcome, ["node.reconciled", "node node-1", "by node-1", "net-a ready"]),
    ] {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    explains_a_network(&control_plane).await;
    let explained = view(&control_plane, "explain vm web").await;
    let seconds = explained["waits"][0]["seconds"].as_f64().expect("a number");
    assert!(explained["events"].as_array().expect("events").len() == 4 && seconds > 0.0, "{explained}");
    for (flags, code, error) in [
        ("--type network.painted", 2, "--type: `network.painted` is not the type of an event"),
        ("--since yesterday", 2, "--since: must be a time ago"),
        ("--limit 0", 2, "--limit: must be at least 1"),
        ("--network net-z", 3, "there is no network `net-z`, and there was none"),
    ] {
        let refused = run(&control_plane, &format!("events list {flags}")).await;
        assert!(refused.code == Some(code) && refused.stderr.contains(error), "{flags}: {refused:?}");
    }
}

#[tokio::test]
async fn events_of_users_are_for_those_who_may_read_them() {
    let control_plane = ControlPlane::start();
    world(&control_plane).await;
    let folder = otherix_testkit::tempdir().expect("a folder");
    let creds = folder.path().join("eve.creds").display().to_string();
    done(&control_plane, &format!("user create eve --role viewer --out {creds}")).await;
    let listed = done(&control_plane, &format!("--credentials {creds} events list -o json")).await;
    let is_about_users = "type LIKE '%.user.%' OR type LIKE '%.join-token.%' OR type LIKE '%.node-key.%'";
    assert_eq!(listed, stored(&control_plane, &format!("NOT ({is_about_users})")));
    assert!(!stored(&control_plane, is_about_users).is_empty());
}

#[tokio::test]
async fn an_event_names_its_cause_and_the_trace_of_the_command() {
    let control_plane = ControlPlane::start();
    let [a, _, vm] = world(&control_plane).await;
    let attribute = |name: &str, condition: &str| {
        control_plane.query(&format!("SELECT json_extract(body, '$.{name}') FROM {EVENTS} WHERE {condition}"))
    };
    let of = |view: &Value| format!("stream_id LIKE '%{}'", view["id"].as_str().expect("an id"));
    let reported = |id: &Value| format!("type LIKE '%reconciled%' AND body LIKE '%{}%'", id.as_str().expect("an id"));
    // A decision on a command has no event as its cause; what follows from it names it.
    assert_eq!(attribute("causationid", &of(&a)).trim(), "");
    assert_eq!(attribute("causationid", "type LIKE '%nic.attached%'"), attribute("id", &of(&vm)));
    // An outcome names the decision that it is about.
    assert_eq!(attribute("causationid", &reported(&a["id"])), attribute("id", &of(&a)));
    assert_eq!(attribute("causationid", &reported(&vm["nic"]["id"])), attribute("id", "type LIKE '%nic.bound%'"));
    for outcome in [&a["id"], &vm["nic"]["id"]] {
        let trace = attribute("traceparent", &reported(outcome));
        assert!(trace.starts_with("00-") && trace.trim().len() == 55, "{trace}");
    }
    assert_eq!(attribute("traceparent", &reported(&a["id"])), attribute("traceparent", &of(&a)));
    assert_ne!(attribute("traceparent", &of(&a)), attribute("traceparent", &of(&vm)));

    let words = ["network", "delete", "net-b", "--force"].map(str::to_owned);
    let deleted = control_plane.command(&words).env("TRACEPARENT", TRACE).output().expect("the program starts");
    assert!(deleted.status.success(), "{deleted:?}");
    assert_eq!(attribute("traceparent", "type LIKE '%network.deleted%'").trim(), TRACE);
}

/// The program as it runs, and the lines of its stdout.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (to, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                // The test has ended if nobody receives it.
                let _unless_ended = to.send(line.expect("UTF-8"));
            }
        });
        Self { child, lines }
    }

    fn program(control_plane: &ControlPlane, line: &str) -> Self {
        Self::start(control_plane.command(&words(line)))
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have exited already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn follows_events_from_a_position_on_until_nobody_reads_them() {
    let control_plane = ControlPlane::start();
    let [a, ..] = world(&control_plane).await;
    let bounded = done(&control_plane, "events tail --since all --until-now -o json").await;
    assert_eq!(bounded, stored(&control_plane, "1"));

    let tail = Running::program(&control_plane, "events tail --since all --network net-a -o json");
    let id = a["id"].as_str().expect("an id");
    let mut expected: Vec<String> =
        stored(&control_plane, &format!("body LIKE '%{id}%'")).lines().map(str::to_owned).collect();
    assert_eq!(expected.len(), 3);
    for line in expected.drain(..) {
        assert_eq!(tail.line(), line);
    }
    // Others are left out.
    done(&control_plane, "network create net-c --bridge-name br-c").await;
    done(&control_plane, "vm delete web --force").await;
    assert_eq!(tail.line(), stored(&control_plane, "type LIKE '%nic.detached%'").trim_end());
    drop(tail);

    // By the name that one had that does not exist any more.
    let explained = done(&control_plane, "explain vm WEB").await;
    assert!(explained.lines().last().expect("a line").contains("vm.deleted"), "{explained}");

    // New ones only; and it ends with its reader.
    let program = control_plane.command(&words("events tail"));
    let mut pipe = Command::new("sh");
    pipe.arg("-c").arg("\"$0\" events tail | head -n 1").arg(program.get_program());
    pipe.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut pipe = Running::start(pipe);
    wait_for(DEADLINE, "the end", async || {
        done(&control_plane, "network create net-d --bridge-name br-d").await;
        done(&control_plane, "network delete net-d --force").await;
        pipe.child.try_wait().expect("a status")
    })
    .await;
    let line = pipe.line();
    assert!(line.contains("network net-d"), "{line}");
}

#[tokio::test]
async fn watches_a_list_and_a_resource() {
    let control_plane = ControlPlane::start();
    let mut node = SimulatedNode::join(&control_plane, 1).await;
    let created = view(&control_plane, "network create net-a --bridge-name br-a --managed").await;
    let list = Running::program(&control_plane, "network list --watch -o json");
    let get = Running::program(&control_plane, "network get net-a --watch -o json");
    let table = Running::program(&control_plane, "network list --watch");
    let added = list.json();
    assert_eq!((&added["change"], &added["resource"]["id"]), (&json!("added"), &created["id"]));
    assert_eq!(get.json()["status"]["reported"], 0);
    assert!(table.line().starts_with("NAME"));
    assert!(table.line().trim_end().ends_with("0/1"));
    node.report(&created, Outcome::Ready).await;
    assert_eq!(list.json()["resource"]["status"]["ready"], 1);
    assert_eq!(get.json()["status"]["nodes"][0]["status"], "ready");
    assert!(table.line().trim_end().ends_with("1/1"));
    done(&control_plane, "network delete net-a --force").await;
    assert_eq!(list.json()["change"], "changed");
    assert!(get.json()["deleted_at"].is_string());
    // Read before the next change: a state that lasts shorter than the pause between two queries is not shown.
    assert!(table.line().trim_end().ends_with("deleting"));
    let deleted = view(&control_plane, &format!("network get {}", created["id"].as_str().expect("an id"))).await;
    node.report(&deleted, Outcome::Removed).await;
    assert_eq!(list.json()["change"], "removed");
    assert!(table.line().trim_end().ends_with("removed"));
    let mut get = get;
    let status = wait_for(DEADLINE, "the end", async || get.child.try_wait().expect("a status")).await;
    assert_eq!(status.code(), Some(3));
}

/// Shows what was attempted on a network beside what happened to it.
async fn explains_a_network(control_plane: &ControlPlane) {
    // Refused: by its id, as the VM is on it, and by its name.
    for refused in ["network delete net-a", "network create net-a --bridge-name br-z"] {
        assert_ne!(run(control_plane, refused).await.code, Some(0), "{refused}");
    }
    // A network that never existed has only the attempts to create it.
    assert_eq!(run(control_plane, "network create net-never --bridge-name br-net-a").await.code, Some(4));
    let explained = done(control_plane, "explain network net-never").await;
    assert!(explained.contains("refused: network.create by admin  conflict: "), "{explained}");
    assert_eq!(explained.lines().count(), 1, "{explained}");
    assert_eq!(run(control_plane, "explain network net-nowhere").await.code, Some(3));
    let explained = done(control_plane, "explain network net-a").await;
    let (attempts, told): (Vec<&str>, Vec<&str>) =
        explained.lines().partition(|line| line.contains("  refused: network."));
    assert_eq!(attempts.len(), 2, "{explained}");
    for (line, request) in attempts.iter().zip(["delete", "create"]) {
        assert!(line.contains(&format!("refused: network.{request} by admin  conflict: ")), "{explained}");
        assert!(line.starts_with('+'), "{explained}");
    }
    let explained = told.join("\n");
    let last = explained.lines().last().expect("a line");
    assert!(explained.lines().count() == 3 && last.contains("net-a ready, cause: "), "{explained}");
    assert!(last.contains(" ms, the longest wait"), "{explained}");
}
