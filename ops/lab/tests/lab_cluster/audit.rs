//! The nodes as witnesses of the transparency log: a control plane whose journal was rewritten, and whose chain and
//! tree were made again with the real key, is found by every node that had a later checkpoint. What was exported
//! before is verified by the program without a control plane, and an export that is killed is whole or none.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use otherix_testkit::python::interpreter;
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

/// Within what time every node shows it.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// Rewrites one outcome in a journal, so that no decision differs, and makes the chain of digests again.
const REWRITE: &str = r#"
import hashlib, sqlite3, sys

db = sqlite3.connect(sys.argv[1])
trigger, = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'events_are_never_changed'").fetchone()
db.execute("DROP TRIGGER events_are_never_changed")
outcomes = "SELECT position, body FROM events WHERE type LIKE 'dev.otherix.node.reconciled.%' ORDER BY position"
position, body = db.execute(outcomes).fetchone()
digit = body.index(b'"correlationid":"') + len(b'"correlationid":"') + 35
changed = body[:digit] + (b"0" if body[digit:digit + 1] != b"0" else b"1") + body[digit + 1:]
db.execute("UPDATE events SET body = ? WHERE position = ?", (changed, position))
digest = bytes(32)
for number, body in db.execute("SELECT position, body FROM events ORDER BY position").fetchall():
    digest = hashlib.sha256(digest + body).digest()
    db.execute("UPDATE events SET digest = ? WHERE position = ?", (digest, number))
for table in ["snapshot_chunks", "snapshots"]:
    db.execute(f"DELETE FROM {table}")
db.execute(trigger)
db.commit()
print(position)
"#;

impl Lab {
    fn witness(&self, node: &str) -> Value {
        let text = fs::read(self.folder().join(node).join("witness.json")).unwrap_or_else(|_| b"null".to_vec());
        serde_json::from_slice(&text).unwrap()
    }

    /// Waits until the log covers all events, and every node keeps a checkpoint of at least so many.
    fn wait_for_witnesses(&self, nodes: &[&str], events: u64) {
        wait_for_blocking(DEADLINE, "the nodes' checkpoints", || {
            // There is none in the first seconds.
            let output = self.otherix(&["audit", "status", "-o", "json"]);
            let Ok(status) = serde_json::from_slice::<Value>(&output.stdout) else {
                return Err(Value::String(String::from_utf8_lossy(&output.stderr).into_owned()));
            };
            let kept = |node: &&str| {
                let of_node = |witness: &&Value| witness["node"] == **node;
                let witness = status["witnesses"].as_array().unwrap().iter().find(of_node).unwrap();
                witness["status"] == "consistent" && witness["events"].as_u64() >= Some(events)
            };
            if nodes.iter().all(kept) { Ok(()) } else { Err(status) }
        });
    }

    fn has_contradiction(&self, node: &str) -> bool {
        let view = self.ok(&["node", "get", node]);
        let conditions = view["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["kind"] == "log_contradiction")
    }
}

/// The program.
fn otherix() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix")
}

#[test]
fn lab_cluster_a_rewritten_journal_is_found_by_every_node() {
    let (lab, folder) = (Lab::up("rewritten", 2), tempdir().unwrap());
    let nodes = ["node-1", "node-2"];
    lab.ok(&["network", "create", "one", "--bridge-name", "br-one", "--managed", "--wait"]);
    let events = lab.journal("SELECT count(*) FROM events")[0].parse().unwrap();
    lab.wait_for_witnesses(&nodes, events);
    let key = lab.ok(&["audit", "key"])["key"].as_str().unwrap().to_owned();
    let before = folder.path().join("before");
    lab.ok(&["audit", "export", before.to_str().unwrap()]);
    let offline = |args: &[&str]| Command::new(otherix()).args(args).env_clear().output().unwrap();
    let verified = offline(&["audit", "verify", before.to_str().unwrap(), "--key", &key, "-o", "json"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));

    // Killed at any moment, an export is whole, or is none and can be made again.
    for pause in 0..12 {
        let to = folder.path().join(format!("killed-{pause}"));
        let arguments = ["audit", "export", to.to_str().unwrap()];
        let mut export = Command::new(otherix()).args(arguments).envs(lab.exports()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 * pause));
        export.kill().unwrap();
        export.wait().unwrap();
        if !to.exists() {
            lab.ok(&arguments);
        }
        assert!(offline(&["audit", "verify", to.to_str().unwrap(), "--key", &key]).status.success());
    }
    let live = ["audit", "verify", "--live", "--key", &key];
    let all = lab.ok(&[&live[..], &["--witnesses"]].concat());
    assert_eq!(all["continues"].as_array().map(Vec::len), Some(2), "{all}");

    for program in ["otherixd", "node-1", "node-2"] {
        lab.lab(&["kill", program]);
    }
    let state = lab.folder().join("otherixd");
    let rewritten = Command::new(interpreter()).arg("-c").arg(REWRITE).arg(state.join("journal.db")).output().unwrap();
    assert!(rewritten.status.success(), "{}", String::from_utf8_lossy(&rewritten.stderr));
    for file in ["log.db", "log.db-wal", "log.db-shm", "read-models.db"] {
        let _may_be_missing = fs::remove_file(state.join(file));
    }
    for entry in fs::read_dir(state.join("nats")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name == "jetstream") {
            fs::remove_dir_all(path).unwrap();
        }
    }
    lab.lab(&["start", "otherixd"]);
    // Without nodes, nobody knows better: it signs the other history with the real key.
    wait_for_blocking(Duration::from_secs(40), "a checkpoint of the other history", || {
        let output = lab.otherix(&["audit", "status", "-o", "json"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    for node in nodes {
        lab.lab(&["start", node]);
    }
    wait_for_blocking(FOUND_WITHIN, "the contradiction on every node", || {
        let found: Vec<&str> = nodes.into_iter().filter(|node| lab.has_contradiction(node)).collect();
        if found == nodes { Ok(()) } else { Err(found) }
    });
    for node in nodes {
        let witness = lab.witness(node);
        assert!(witness["contradiction"]["text"].is_string(), "{witness}");
    }
    let kinds = "SELECT json_extract(body, '$.data.conditions[0].kind') FROM events
        WHERE type = 'dev.otherix.node.conditions-changed.v1'";
    assert_eq!(lab.journal(kinds), ["log_contradiction", "log_contradiction"]);
    let status = lab.otherix(&["audit", "status"]);
    assert_eq!(status.status.code(), Some(1), "{}", String::from_utf8_lossy(&status.stdout));
    let old = before.join("checkpoint");
    let compared = lab.otherix(&[&live[..], &["--checkpoint", old.to_str().unwrap()]].concat());
    assert_eq!(compared.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&compared.stderr).contains("was written anew"), "{compared:?}");
    // The other history itself is whole: only what was kept before tells.
    let alone = folder.path().join("after");
    lab.ok(&["audit", "export", alone.to_str().unwrap()]);
    assert!(offline(&["audit", "verify", alone.to_str().unwrap(), "--key", &key]).status.success());
}
