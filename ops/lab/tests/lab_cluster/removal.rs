//! Removed nodes: their keys are revoked, and their devices removed, unless the machine does not learn of its removal;
//! the agent logs both once; and the machine can join as another node, which removes what was left.

use std::fs;

use otherix_testkit::wait::wait_for_blocking;

use crate::lab::{DEADLINE, Lab};

impl Lab {
    /// Devices and packet-filter tables of otherix on a node.
    fn devices(&self, node: u32) -> (usize, bool) {
        let alias = |link: &serde_json::Value| link["ifalias"].as_str().unwrap_or_default().starts_with("otherix:");
        let tables = self.lab(&["exec", &format!("node-{node}"), "--", "nft", "list", "tables"]);
        (self.links(node).iter().filter(|link| alias(link)).count(), tables.contains("ip otherix"))
    }

    /// Number of occurrences of a text in an agent's log.
    fn log_count(&self, node: u32, text: &str) -> usize {
        let log = format!("/var/lib/otherix-lab/{}/logs/node-{node}.log", self.name);
        fs::read_to_string(log).unwrap().matches(text).count()
    }

    fn assert_cleaned_up(&self, node: u32) {
        wait_for_blocking(DEADLINE, "all devices to be removed", || self.devices(node) == (0, false));
        assert_eq!(self.log_count(node, "this node was removed from the cluster"), 1);
        self.assert_refused(node, "the cluster refuses this node permanently");
        assert_eq!(self.log_count(node, "otherix-agent leave"), 0, "it knows that it was removed");
    }

    /// The agent is not let in any more, and says so once.
    fn assert_refused(&self, node: u32, text: &str) {
        let refusals = || self.log_count(node, text);
        wait_for_blocking(DEADLINE, "the refusal in the log", || refusals() > 0);
        assert_eq!(refusals(), 1);
    }

    /// The machine joins again as another node with the same name. Returns the id.
    fn join_again(&self, node: u32) -> serde_json::Value {
        let name = format!("node-{node}");
        self.lab(&["stop", &name]);
        fs::remove_dir_all(format!("/var/lib/otherix-lab/{}/{name}", self.name)).unwrap();
        fs::remove_file(format!("/var/lib/otherix-lab/{}/logs/{name}.log", self.name)).unwrap();
        self.lab(&["start", &name]);
        self.ok(&["node", "get", &name])["id"].clone()
    }

    fn ready_and_expected(&self, network: &str) -> (u64, u64) {
        let status = self.ok(&["network", "get", network])["status"].clone();
        (status["ready"].as_u64().unwrap(), status["expected"].as_u64().unwrap())
    }
}

#[test]
fn lab_cluster_removed_nodes_keep_no_devices() {
    let lab = Lab::up("removal", 2);
    lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--wait"]);
    let app = ["network", "create", "app", "--bridge-name", "br-app", "--managed", "--egress", "nat"];
    lab.ok(&[&app[..], &["--subnet", "10.20.0.0/24", "--wait"]].concat());
    let image = "https://images.example/debian-12.qcow2";
    let vm = [
        "vm",
        "create",
        "web",
        "--network",
        "app",
        "--node",
        "node-2",
        "--image-url",
        image,
        "--arch",
        "amd64",
        "--tap-only",
    ];
    lab.ok(&[&vm[..], &["--wait"]].concat());
    assert_eq!((lab.devices(1), lab.devices(2)), ((3, true), (4, true)));
    let blocked = lab.otherix(&["node", "delete", "node-2"]);
    assert_eq!(blocked.status.code(), Some(5), "{}", String::from_utf8_lossy(&blocked.stderr));

    lab.ok(&["vm", "delete", "web"]);
    let first = lab.ok(&["node", "delete", "node-2"])["id"].clone();
    lab.assert_cleaned_up(2);
    assert_eq!(
        (lab.devices(1), lab.ready_and_expected("net"), lab.ready_and_expected("app")),
        ((3, true), (1, 1), (1, 1))
    );
    assert_eq!(lab.otherix(&["node", "get", "node-2"]).status.code(), Some(3));

    assert_ne!(lab.join_again(2), first);
    wait_for_blocking(DEADLINE, "the new node to be ready", || {
        lab.ready_and_expected("net") == (2, 2) && lab.ready_and_expected("app") == (2, 2)
    });
    assert_eq!(lab.devices(2), (3, true));

    // Removed while partitioned, followed by a network: neither command waits for it. The node cannot verify why its
    // key is not accepted, and keeps what it has; the next node that this machine becomes removes it.
    lab.lab(&["partition", "node-2"]);
    wait_for_blocking(DEADLINE, "the end of its connection", || lab.log_count(2, "there is no connection to NATS") > 0);
    lab.ok(&["node", "delete", "node-2"]);
    lab.ok(&["network", "delete", "app", "--wait"]);
    assert_eq!((lab.devices(1).0, lab.devices(2)), (2, (3, true)));
    lab.lab(&["heal", "node-2"]);
    lab.assert_refused(2, "the cluster does not accept this node's credentials");
    assert_eq!((lab.devices(2), lab.ready_and_expected("net")), ((3, true), (1, 1)));
    lab.join_again(2);
    wait_for_blocking(DEADLINE, "the new node to be ready", || lab.ready_and_expected("net") == (2, 2));
    wait_for_blocking(DEADLINE, "the left-over devices to be removed", || {
        // The bridge of `net`, and the mesh device.
        let devices = lab.devices(2);
        if devices.0 == 2 { Ok(()) } else { Err(devices) }
    });
    lab.assert_stream_is_journal();
}
