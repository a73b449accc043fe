//! Copies of a node's state folder: a second machine that runs with one, and an agent that is started with an older
//! one, are found within 10 s, and over when they are.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for_blocking;

use crate::lab::{DEADLINE, Lab};

/// Within what time a condition is shown.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// Time-out for the end of a condition: it must not have been seen for 15 s.
const OVER_WITHIN: Duration = Duration::from_secs(40);

impl Lab {
    fn conditions(&self, node: &str) -> Vec<String> {
        let view = self.ok(&["node", "get", node]);
        let conditions = view["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().map(|condition| condition["kind"].as_str().unwrap().to_owned()).collect()
    }

    fn expect_conditions(&self, node: &str, within: Duration, expected: &[&str]) {
        wait_for_blocking(within, "the conditions", || match self.conditions(node) {
            shown if shown == expected => Ok(()),
            shown => Err(shown),
        });
    }

    /// Creates a network, waits until the ledger of node-1 has it, and restarts the agent with that.
    fn create_and_restart(&self, name: &str) {
        let bridge = format!("br-{name}");
        self.ok(&["network", "create", name, "--bridge-name", &bridge, "--managed", "--wait"]);
        let ledger = self.folder().join("node-1/ledger.json");
        wait_for_blocking(DEADLINE, "the network in the ledger", || {
            std::fs::read_to_string(&ledger).is_ok_and(|text| text.contains(&bridge))
        });
        self.lab(&["kill", "node-1"]);
        self.lab(&["start", "node-1"]);
        wait_for_blocking(DEADLINE, "the agent to join", || self.folder().join("node-1/joined").exists());
    }

    /// Copies a node's state folder.
    fn copy_state(&self, node: &str, to: &Path) {
        copy(&self.folder().join(node), to);
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "-T"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// A process that ends with the test.
struct Agent(Child);

impl Agent {
    /// Starts an agent with this state folder on another machine of the lab.
    fn start(lab: &Lab, machine: &str, state: &Path) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix-agent");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("otx-{}-{machine}", lab.name)]).arg(program);
        command.args(["run", "--mesh", "none", "--state"]).arg(state);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn lab_cluster_a_second_agent_with_a_copied_state_folder_is_found() {
    let (lab, folder) = (Lab::up("copied", 2), tempdir().unwrap());
    lab.create_and_restart("one");
    lab.expect_conditions("node-1", DEADLINE, &[]);
    let clone = folder.path().join("clone");
    lab.copy_state("node-1", &clone);
    lab.lab(&["kill", "node-2"]);
    let agent = Agent::start(&lab, "node-2", &clone);
    // It may also look like one agent that was set back, again and again.
    let has_two = |within, expected| {
        wait_for_blocking(within, "the condition", || match lab.conditions("node-1") {
            shown if shown.iter().any(|kind| kind == "duplicate_agent") == expected => Ok(()),
            shown => Err(shown),
        });
    };
    has_two(FOUND_WITHIN, true);
    drop(agent);
    has_two(OVER_WITHIN, false);
}

#[test]
fn lab_cluster_an_agent_with_an_older_state_folder_is_found() {
    let (lab, folder) = (Lab::up("set-back", 1), tempdir().unwrap());
    lab.create_and_restart("one");
    let older = folder.path().join("older");
    lab.copy_state("node-1", &older);
    lab.create_and_restart("two");
    lab.expect_conditions("node-1", DEADLINE, &[]);
    lab.lab(&["kill", "node-1"]);
    let state = lab.folder().join("node-1");
    std::fs::remove_dir_all(&state).unwrap();
    copy(&older, &state);
    lab.lab(&["start", "node-1"]);
    lab.expect_conditions("node-1", FOUND_WITHIN, &["set_back"]);
    let view = lab.ok(&["node", "get", "node-1"]);
    let warning = view["warnings"][0].as_str().unwrap();
    assert!(warning.contains("older copy of its state") && warning.contains("(since 20"), "{warning}");
    // It has the present state again.
    wait_for_blocking(DEADLINE, "the second bridge", || lab.link(1, "br-two").is_some());
    let kinds = "SELECT json_extract(body, '$.data.conditions[0].kind') FROM events
        WHERE type = 'dev.otherix.node.conditions-changed.v1' ORDER BY position";
    assert_eq!(lab.journal(kinds), ["set_back"]);
}
