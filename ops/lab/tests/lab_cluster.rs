//! The product as a whole, in a lab of real programs, seen through independent tools. Promises pinned:
//!
//! - a managed bridge is on every node as asked for, its outcomes are in `network get`, and it is gone after delete;
//! - what a node cannot realise it reports `failed`, and makes nothing;
//! - a plain JetStream consumer and a plain subscriber read every decision and outcome, byte for byte the journal's;
//! - `otherixd` and `nats` killed with -9 under writers: nothing that was acknowledged is missing or doubled, and stream
//!   sequences are journal positions.
//!
//! The programs are those beside `otherix-lab` in the target folder: build the workspace first (`make test` does).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);

/// Prints sequence, content type and body (in hex) of every event, up to the one at `last`: as a plain ordered consumer of
/// the stream (`stream`), or as a plain subscriber of what is live from now on (`live`), leaving word in `mark` when it listens.
const READER: &str = r#"
import asyncio, json, pathlib, sys
import nats

async def main(url, credentials, kind, last, mark=None):
    user = json.load(open(credentials))
    client = await nats.connect(url, user=user["user"], password=user["password"])
    if kind == "live":
        events = await client.subscribe("live.otherix.>")
        await client.flush()
        pathlib.Path(mark).touch()
    else:
        events = await client.jetstream().subscribe("otherix.>", stream="OTHERIX_EVENTS", ordered_consumer=True)
    sequence = 0
    while sequence < int(last):
        message = await events.next_msg(timeout=20)
        sequence = int(message.headers["Nats-Sequence"]) if kind == "live" else message.metadata.sequence.stream
        print(sequence, message.headers["Content-Type"], message.data.hex())
    await client.close()

asyncio.run(main(*sys.argv[1:]))
"#;

struct Lab {
    name: String,
}

impl Lab {
    fn up(test: &str, nodes: u32) -> Self {
        let lab = Self { name: format!("{test}-{}", std::process::id()) };
        lab.lab(&["up", "--nodes", &nodes.to_string()]);
        lab
    }

    #[track_caller]
    fn lab(&self, args: &[&str]) -> String {
        let output =
            Command::new(env!("CARGO_BIN_EXE_otherix-lab")).args(["--lab", &self.name]).args(args).output().unwrap();
        assert!(output.status.success(), "otherix-lab {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn exports(&self) -> BTreeMap<String, String> {
        let value = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        self.lab(&["env"]).lines().filter_map(value).collect()
    }

    fn otherix(&self, args: &[&str]) -> Output {
        let exports = self.exports();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix");
        let mut command = Command::new(program);
        for name in ["OTHERIX_NATS_URL", "OTHERIX_CREDENTIALS"] {
            command.env(name, &exports[name]);
        }
        command.args(args).output().expect("`otherix` is built beside `otherix-lab`")
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Value {
        let output = self.otherix(&[args, &["-o", "json"]].concat());
        assert!(output.status.success(), "otherix {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What the node's kernel says of a link.
    fn link(&self, node: u32, name: &str) -> Option<Value> {
        let links: Vec<Value> =
            serde_json::from_str(&self.lab(&["exec", &format!("node-{node}"), "--", "ip", "-d", "-j", "link"]))
                .unwrap();
        links.into_iter().find(|link| link["ifname"] == name)
    }

    fn journal(&self, query: &str) -> Vec<String> {
        let path = format!("/var/lib/otherix-lab/{}/otherixd/journal.db", self.name);
        let output = Command::new("sqlite3").args(["-readonly", &path, query]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The journal's positions and events from `first` on.
    fn events(&self, first: usize) -> Vec<String> {
        self.journal(&format!(
            "SELECT position, lower(hex(body)) FROM events WHERE position >= {first} ORDER BY position"
        ))
    }

    /// The stream, read by an independent client, is the journal: sequence for position, byte for byte.
    fn assert_stream_is_journal(&self) {
        let journal = self.events(1);
        assert_eq!(self.read(&["stream", &journal.len().to_string()]), journal);
    }

    /// What the independent client reads.
    fn read(&self, args: &[&str]) -> Vec<String> {
        let exports = self.exports();
        let args = [&[exports["OTHERIX_NATS_URL"].as_str(), &exports["OTHERIX_CREDENTIALS"]], args].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let output = runtime.block_on(otherix_testkit::python::nats_py(READER, &args));
        let event = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            assert_eq!(fields[1], "application/cloudevents+json");
            format!("{}|{}", fields[0], fields[2])
        };
        output.lines().map(event).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = Command::new(env!("CARGO_BIN_EXE_otherix-lab")).args(["--lab", &self.name, "down"]).output();
        assert!(thread::panicking() || down.is_ok_and(|down| down.status.success()), "the lab does not go down");
    }
}

#[test]
fn lab_cluster_realises_a_managed_bridge_on_every_node_and_removes_it() {
    let lab = Lab::up("bridge", 3);
    let created =
        lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--mtu", "9000", "--wait"]);
    let id = created["id"].as_str().unwrap();
    for node in 1..=3 {
        let link = lab.link(node, "br-a").expect("the bridge is there");
        assert_eq!(link["linkinfo"]["info_kind"], "bridge");
        assert_eq!(link["mtu"], 9000);
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
        let alias = link["ifalias"].as_str().unwrap();
        assert!(alias.starts_with("otherix:") && alias.ends_with(id), "{alias}");
    }
    let status = &lab.ok(&["network", "get", "NET"])["status"];
    assert_eq!((&status["ready"], &status["expected"]), (&3.into(), &3.into()));
    for row in status["nodes"].as_array().unwrap() {
        assert_eq!((&row["status"], &row["observed_generation"]), (&"ready".into(), &created["generation"]));
    }
    lab.ok(&["network", "delete", "net", "--wait"]);
    for node in 1..=3 {
        assert_eq!(lab.link(node, "br-a"), None);
    }
    assert_eq!(lab.otherix(&["network", "get", id]).status.code(), Some(3), "all nodes have confirmed");
    lab.assert_stream_is_journal();
}

#[test]
fn lab_cluster_tells_a_plain_subscriber_of_every_decision_and_outcome() {
    let lab = Lab::up("live", 2);
    let joined = lab.events(1).len();
    // Two decisions, and an outcome of each node for each of them.
    let last = joined + 6;
    let folder = otherix_testkit::tempdir().unwrap();
    let mark = folder.path().join("listening");
    let live = thread::scope(|scope| {
        let reader = scope.spawn(|| lab.read(&["live", &last.to_string(), mark.to_str().unwrap()]));
        wait_for_blocking(DEADLINE, "the subscriber to listen", || mark.exists());
        lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--wait"]);
        lab.ok(&["network", "delete", "net", "--wait"]);
        reader.join().unwrap()
    });
    assert_eq!(live, lab.events(joined + 1));
    let types = lab.journal("SELECT type FROM events ORDER BY position");
    let reconciled = "dev.otherix.node.reconciled.v1";
    assert_eq!(
        types[joined..],
        [
            "dev.otherix.network.created.v1",
            reconciled,
            reconciled,
            "dev.otherix.network.deleted.v1",
            reconciled,
            reconciled
        ]
    );
}

#[test]
fn lab_cluster_says_what_it_does_not_realise() {
    let lab = Lab::up("failed", 1);
    for (number, flags) in [
        &["--bridge-name", "br-nat", "--managed", "--egress", "nat", "--subnet", "10.20.0.0/24"][..],
        &["--bridge-name", "br-vlan", "--managed", "--vlan", "7"],
        &["--bridge-name", "br-foreign"],
        &["--type", "overlay", "--subnet", "10.30.0.0/24"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("net-{number}");
        let output = lab.otherix(&[&["network", "create", &name, "--wait"], flags].concat());
        assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
        let view = lab.ok(&["network", "get", &name]);
        let node = &view["status"]["nodes"][0];
        assert_eq!(node["status"], "failed");
        assert!(!node["error"].as_str().unwrap().is_empty());
        assert_eq!(lab.link(1, view["bridge_name"].as_str().unwrap()), None, "nothing half made");
        lab.ok(&["network", "delete", &name, "--wait"]);
    }
}

/// Creates networks until told to stop; gives the names that were acknowledged.
fn write_networks(lab: &Lab, writer: u32, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("net-{writer}-{number}");
        let bridge = format!("b{writer}-{number}");
        let output = lab.otherix(&["network", "create", &name, "--bridge-name", &bridge, "--managed"]);
        if output.status.success() {
            acknowledged.push(name);
        }
        number += 1;
    }
    acknowledged
}

#[test]
fn lab_cluster_survives_kill_9_of_the_control_plane_and_of_nats() {
    let lab = Lab::up("kill", 2);
    let stop = AtomicBool::new(false);
    let mut acknowledged: Vec<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                scope.spawn({
                    let (lab, stop) = (&lab, &stop);
                    move || write_networks(lab, writer, stop)
                })
            })
            .collect();
        let positions = || lab.journal("SELECT COALESCE(MAX(position), 0) FROM events")[0].parse::<u64>().unwrap();
        for _ in 0..3 {
            // Each blow falls while there is something going on, and the next not before it goes on again.
            for victim in ["nats", "otherixd"] {
                let before = positions();
                wait_for_blocking(DEADLINE, "writes to go on", || positions() > before + 5);
                lab.lab(&["kill", victim]);
                lab.lab(&["start", victim]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let created =
        lab.journal("SELECT body ->> '$.data.name' FROM events WHERE type LIKE '%network.created%' ORDER BY 1");
    let mut once = created.clone();
    once.dedup();
    assert_eq!(created, once, "nothing is doubled");
    acknowledged.sort();
    assert!(acknowledged.len() > 30, "only {} networks were created", acknowledged.len());
    assert!(acknowledged.iter().all(|name| once.binary_search(name).is_ok()), "nothing acknowledged is missing");

    let everything_ready = || {
        let mut views = Vec::new();
        let mut cursor = None;
        loop {
            let mut args = vec!["network", "list", "--limit", "200"];
            let next: Option<String> = cursor.take();
            if let Some(next) = &next {
                args.extend(["--cursor", next]);
            }
            let page = lab.ok(&args);
            views.extend(page["data"].as_array().unwrap().clone());
            match page["meta"]["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        views.len() == once.len() && views.iter().all(|view| view["status"]["ready"] == 2)
    };
    wait_for_blocking(DEADLINE, "every network to be ready on both nodes", everything_ready);
    for node in 1..=2 {
        let links: Vec<Value> =
            serde_json::from_str(&lab.lab(&["exec", &format!("node-{node}"), "--", "ip", "-j", "link"])).unwrap();
        let bridges =
            links.iter().filter(|link| link["ifalias"].as_str().is_some_and(|alias| alias.starts_with("otherix:")));
        assert_eq!(bridges.count(), once.len(), "one bridge for each network");
    }
    lab.assert_stream_is_journal();
}
