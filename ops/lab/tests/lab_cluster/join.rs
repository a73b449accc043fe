//! Machines join with tokens, and nodes have keys of their own: every refusal says what to do; a node whose state
//! folder is lost becomes the same node again, and its earlier key is revoked; a running node's key is rotated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use otherix_testkit::wait::wait_for_blocking;

use crate::lab::{DEADLINE, Lab};

/// Where nodes reach NATS.
const SERVER: &str = "nats://10.99.0.1:4222";

impl Lab {
    /// Runs the agent's program on node-1.
    fn agent(&self, state: &Path, args: &[&str]) -> Output {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix-agent");
        let (program, state) = (program.display().to_string(), state.display().to_string());
        let command = Command::new(env!("CARGO_BIN_EXE_otherix-lab"))
            .args(["--lab", &self.name, "exec", "node-1", "--", &program])
            .args(args)
            .args(["--state", &state])
            .output();
        command.unwrap()
    }

    /// Makes a token; returns its id and text.
    fn token(&self, args: &[&str]) -> (String, String) {
        let token = self.ok(&[&["node", "join-token", "create", "--node-server", SERVER], args].concat());
        (token["id"].as_str().unwrap().to_owned(), token["token"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn join(&self, state: &str, token: &str, name: &str) -> String {
        let output = self.agent(&self.folder().join(state), &["join", token, "--name", name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn join_refused(&self, token: &str, name: &str, expected: &str) {
        let state = self.folder().join("refused");
        let output = self.agent(&state, &["join", token, "--name", name]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected), "{expected}: {error}");
        assert!(!state.join("connection.json").exists() && !state.join("node.creds").exists());
    }

    fn status_of_token(&self, id: &str) -> String {
        let tokens = self.ok(&["node", "join-token", "list"]);
        let token = tokens["data"].as_array().unwrap().iter().find(|token| token["id"] == id).unwrap();
        token["status"].as_str().unwrap().to_owned()
    }
}

#[test]
fn lab_cluster_machines_join_with_tokens() {
    let lab = Lab::up("join", 1);
    let (id, once) = lab.token(&[]);
    assert!(lab.join("spare", &once, "spare").contains("nothing was started"));
    assert_eq!(lab.status_of_token(&id), "used-up");
    lab.join("spare", &once, "spare");
    lab.join_refused(&once, "other", "is used up");

    let (id, revoked) = lab.token(&[]);
    lab.ok(&["node", "join-token", "revoke", &id]);
    lab.join_refused(&revoked, "other", "revoked");
    let (id, expired) = lab.token(&["--ttl", "1s"]);
    wait_for_blocking(DEADLINE, "the token to expire", || lab.status_of_token(&id) == "expired");
    lab.join_refused(&expired, "other", "the join token expired at");
    let (_, named) = lab.token(&["--name", "other"]);
    lab.join_refused(&named, "another", "is for node `other`, not for `another`: join as `other`");
    let (_, free) = lab.token(&[]);
    lab.join_refused(&free, "NODE-1", "otherix node join-token create --name NODE-1");
    assert!(lab.join("spare-2", &free, "spare-2").contains("as node spare-2"), "a refusal is no use of the token");
    // Until its agent runs, a machine is no node.
    assert_eq!(lab.ok(&["node", "list"])["data"].as_array().unwrap().len(), 1);

    let journal: String = lab.journal("SELECT body FROM events").concat();
    for token in [once, revoked, expired, named, free] {
        assert!(!journal.contains(token.split_once('.').unwrap().1), "a token is in the journal");
    }
}

#[test]
fn lab_cluster_a_node_with_a_lost_state_folder_is_the_same_node_again() {
    let lab = Lab::up("lost", 1);
    lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--wait"]);
    let before = lab.ok(&["node", "get", "node-1"])["id"].clone();
    lab.lab(&["stop", "node-1"]);
    let (state, stolen) = (lab.folder().join("node-1"), lab.folder().join("stolen"));
    fs::rename(&state, &stolen).unwrap();
    let (_, token) = lab.token(&["--name", "node-1"]);
    lab.join("node-1", &token, "node-1");
    lab.lab(&["start", "node-1"]);
    assert_eq!(lab.ok(&["node", "get", "node-1"])["id"], before);
    wait_for_blocking(DEADLINE, "the network to be ready", || {
        lab.ok(&["network", "get", "net"])["status"]["ready"].as_u64() == Some(1)
    });
    let refused = lab.agent(&stolen, &["rotate-key", "--key", "nats"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("the credentials are revoked"), "{error}");
}

#[test]
fn lab_cluster_a_nodes_key_is_rotated_while_its_agent_runs() {
    let lab = Lab::up("rotate", 1);
    let (state, earlier) = (lab.folder().join("node-1"), lab.folder().join("earlier"));
    fs::create_dir(&earlier).unwrap();
    for name in ["connection.json", "ca.pem", "node.creds"] {
        fs::copy(state.join(name), earlier.join(name)).unwrap();
    }
    let events = lab.events(1).len();
    let rotated = lab.agent(&state, &["rotate-key", "--key", "nats"]);
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    assert_ne!(fs::read(state.join("node.creds")).unwrap(), fs::read(earlier.join("node.creds")).unwrap());
    let type_of = "SELECT json_extract(body, '$.type') FROM events WHERE position > ";
    wait_for_blocking(DEADLINE, "the earlier key to end", || {
        let types = lab.journal(&format!("{type_of}{events} ORDER BY position"));
        let is_ended = types == ["dev.otherix.node-key.offered.v1", "dev.otherix.node-key.changed.v1"];
        if is_ended { Ok(()) } else { Err(types) }
    });
    wait_for_blocking(DEADLINE, "the earlier key to be refused", || {
        let refused = lab.agent(&earlier, &["rotate-key", "--key", "nats", "--wait-timeout", "0"]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        if error.contains("the credentials are revoked") { Ok(()) } else { Err(error) }
    });
    lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--wait"]);
}
