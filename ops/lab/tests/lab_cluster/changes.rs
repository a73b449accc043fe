//! Networks that are changed and applied: the nodes' kernels have what was said last, and connections go on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

/// Sends and receives numbered blocks until its standard input is closed, and prints how many came back intact.
const STREAM: &str = "
import select, socket, sys
s = socket.create_connection((sys.argv[1], 7000), timeout=30)
count = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    block = count.to_bytes(8, 'big') * 128
    s.sendall(block)
    got = b''
    while len(got) < len(block):
        part = s.recv(len(block) - len(got))
        assert part, 'the connection ended'
        got += part
    assert got == block, 'altered'
    count += 1
    if count == 1:
        print('running', flush=True)
print(count, flush=True)
";

const ECHO: &str = "
import socket
server = socket.create_server(('', 7000))
print('listening', flush=True)
connection = server.accept()[0]
while data := connection.recv(65536):
    connection.sendall(data)
";

struct Program(Child, BufReader<ChildStdout>);

impl Program {
    fn start(lab: &Lab, guest: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otherix-lab"));
        command.args(["--lab", &lab.name, "exec", guest, "--", "python3", "-c"]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Lab {
    /// Runs the client with a manifest as standard input.
    #[track_caller]
    fn apply(&self, manifest: &str, options: &[&str]) -> Value {
        let file = otherix_testkit::tempdir().unwrap();
        let path = file.path().join("networks.yaml");
        std::fs::write(&path, manifest).unwrap();
        self.ok(&[&["apply", "-f", path.to_str().unwrap()], options].concat())
    }

    fn addresses(&self, node: u32, device: &str) -> Vec<String> {
        let shown =
            self.lab(&["exec", &format!("node-{node}"), "--", "ip", "-j", "-4", "address", "show", "dev", device]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let entries = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{}/{}", entry["local"].as_str().unwrap(), entry["prefixlen"])).collect()
    }
}

#[test]
fn lab_cluster_streams_go_on_through_a_hundred_changes() {
    let lab = Lab::up("change", 2);
    let overlay = ["network", "create", "span", "--type", "overlay", "--subnet", "10.50.0.0/24", "--egress", "nat"];
    let bridge = lab.ok(&[&overlay[..], &["--wait"]].concat())["bridge_name"].as_str().unwrap().to_owned();
    lab.nat_network("other", "10.60.0.0/24");
    let (left, right) = (["--network", "span", "--node", "node-1"], ["--network", "span", "--node", "node-2"]);
    let tap = lab.guest_of("left", &left, "10.50.0.11/24")["tap"].as_str().unwrap().to_owned();
    lab.guest_of("right", &right, "10.50.0.12/24");
    let mut server = Program::start(&lab, "vm:right", &[ECHO]);
    assert_eq!(server.line(), "listening");
    let mut stream = Program::start(&lab, "vm:left", &[STREAM, "10.50.0.12"]);
    assert_eq!(stream.line(), "running");
    let index = |device: &str| lab.link(1, device).unwrap()["ifindex"].clone();
    let before = (index(&bridge), index(&tap), index("br-other"));
    for round in 0..50 {
        let label = format!("round={round}");
        let gateway = format!("10.50.0.{}", 200 + round % 5);
        let spoofing = format!("--allow-spoofing={}", round % 2 == 0);
        lab.ok(&["network", "set", "span", "--label", &label, "--gateway", &gateway, &spoofing]);
        let subnet = format!("10.60.{round}.0/24");
        let mtu = (1400 + round).to_string();
        lab.ok(&["network", "set", "other", "--subnet", &subnet, "--mtu", &mtu, "--description", &label]);
    }
    let last = lab.ok(&["network", "set", "span", "--egress", "none", "--wait"]);
    assert_eq!(last["resource"]["status"]["ready"], 2);
    lab.ok(&["network", "set", "other", "--label", "done=yes", "--wait"]);
    drop(stream.0.stdin.take());
    let count: u64 = stream.line().parse().expect("the stream did not end early");
    assert!(count > 100, "{count}");
    assert_eq!((index(&bridge), index(&tap), index("br-other")), before);
    for node in [1, 2] {
        assert_eq!(lab.addresses(node, "br-other"), ["10.60.49.1/24"]);
        assert_eq!(lab.link(node, "br-other").unwrap()["mtu"], 1449);
        assert_eq!(lab.addresses(node, &bridge), [""; 0], "without egress the bridge is no gateway");
    }
    // Its generations are reported by each node, as the view shows.
    let view = lab.ok(&["network", "get", "span"]);
    for node in view["status"]["nodes"].as_array().unwrap() {
        assert_eq!(node["observed_generation"], view["generation"]);
    }
}

#[test]
fn lab_cluster_applies_what_a_file_says_and_nothing_twice() {
    let lab = Lab::up("apply", 2);
    let manifest = |mtu: u32, subnet: &str, spoofing: &str| {
        format!(
            "apiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: app\n  labels: {{env: prod}}\nspec:\n  \
             bridgeName: br-app\n  managed: true\n  egress: nat\n  subnet: {subnet}\n  mtu: {mtu}\n{spoofing}---\n\
             apiVersion: otherix/v1\nkind: VM\nmetadata: {{name: web, labels: {{env: prod}}}}\nspec:\n  \
             imageURL: https://images.example/a.qcow2\n  arch: amd64\n  network: app\n  tapOnly: true\n"
        )
    };
    let results = |report: &Value| -> Vec<String> {
        let reports = report["data"].as_array().unwrap();
        reports.iter().map(|report| report["result"].as_str().unwrap().to_owned()).collect()
    };
    let first = manifest(1500, "10.20.0.0/24", "");
    assert_eq!(results(&lab.apply(&first, &["--wait"])), ["created", "created"]);
    let tap = lab.ok(&["vm", "get", "web"])["nic"]["tap"].as_str().unwrap().to_owned();
    let node = if lab.link(1, &tap).is_some() { 1 } else { 2 };
    let before = lab.link(node, &tap).unwrap()["ifindex"].clone();
    for (mtu, subnet, spoofing) in
        [(1400, "10.21.0.0/24", "  allowSpoofing: true\n"), (1450, "10.20.0.0/16", ""), (1500, "10.20.0.0/24", "")]
    {
        let text = manifest(mtu, subnet, spoofing);
        assert_eq!(results(&lab.apply(&text, &["--wait"])), ["changed", "unchanged"]);
        let events = lab.journal("SELECT count(*) FROM events WHERE type NOT LIKE '%reconciled%'");
        assert_eq!(results(&lab.apply(&text, &[])), ["unchanged", "unchanged"]);
        assert_eq!(lab.journal("SELECT count(*) FROM events WHERE type NOT LIKE '%reconciled%'"), events);
        let gateway = format!("{}1/{}", subnet.split_once("0/").unwrap().0, subnet.split_once('/').unwrap().1);
        for node in [1, 2] {
            let link = lab.link(node, "br-app").unwrap();
            assert_eq!(link["mtu"].as_u64(), Some(mtu.into()));
            assert_eq!(lab.addresses(node, "br-app"), std::slice::from_ref(&gateway));
        }
        let link = lab.link(node, &tap).unwrap();
        assert_eq!((&link["ifindex"], link["mtu"].as_u64()), (&before, Some(mtu.into())));
        assert_eq!(link["linkinfo"]["info_slave_data"]["locked"], spoofing.is_empty());
    }
    // An agent that is away meanwhile carries out all of it when it comes back.
    lab.lab(&["kill", "node-2"]);
    for subnet in ["10.22.0.0/24", "10.23.0.0/24"] {
        lab.apply(&manifest(1500, subnet, ""), &[]);
    }
    lab.lab(&["start", "node-2"]);
    wait_for_blocking(DEADLINE, "the agent", || lab.addresses(2, "br-app") == ["10.23.0.1/24"]);
}
