//! Nodes for the tests: a network and a mount namespace each, connected by a bridge in the test's network namespace.
//! They end with the test process. Each node has its own `/run`, so that `wg` finds the sockets of its node.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use otherix_mesh::client::UapiClient;
use otherix_mesh::config::{WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::WgPrivateKey;
use otherix_mesh::prefix::Prefix;
use otherix_testkit::netns::{enter_new, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_otherix-mesh");
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const PORT: u16 = 51820;

pub(crate) struct TestNode {
    pub(crate) number: u8,
    pub(crate) key: WgPrivateKey,
    folder: TempDir,
    holder: Child,
    /// When it is closed, the holder exits and the namespaces end.
    _holder_stdin: ChildStdin,
    process: Option<Child>,
    /// The environment of the process.
    pub(crate) environment: Vec<(String, String)>,
}

/// Creates nodes, numbered from 1, and moves the calling thread to a new network namespace.
pub(crate) fn nodes<const COUNT: usize>() -> [TestNode; COUNT] {
    enter_new();
    sh("ip link add br0 type bridge; ip link set br0 up");
    std::array::from_fn(|at| TestNode::new(u8::try_from(at + 1).unwrap()))
}

/// Creates nodes with a mesh device each, which are peers of each other.
pub(crate) fn mesh<const COUNT: usize>(options: &[&str]) -> [TestNode; COUNT] {
    let mut nodes = nodes::<COUNT>();
    for node in &mut nodes {
        node.start(options);
    }
    for node in &nodes {
        node.join(&nodes);
    }
    nodes
}

impl TestNode {
    fn new(number: u8) -> Self {
        let folder = tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs none /run && mkdir /run/wireguard && mount --bind {} /run/wireguard && \
             echo ready && exec cat",
            folder.path().display()
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux; `make setup` installs it");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the kernel tests need root");
        let stdin = holder.stdin.take().unwrap();
        let node = Self {
            number,
            key: WgPrivateKey::generate().unwrap(),
            folder,
            holder,
            _holder_stdin: stdin,
            process: None,
            environment: Vec::new(),
        };
        let pid = node.holder.id();
        sh(&format!("ip link add u{number} type veth peer name u0 netns {pid}; ip link set u{number} master br0 up"));
        node.sh(&format!(
            "ip link set lo up; ip link set u0 up; ip addr add {}/24 dev u0; \
             ip -6 addr add 2001:db8::{number}/64 dev u0 nodad",
            node.underlay()
        ));
        node
    }

    pub(crate) fn underlay(&self) -> String {
        format!("192.0.2.{}", self.number)
    }

    pub(crate) fn address(&self) -> String {
        format!("10.42.0.{}", self.number)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).args(words);
        command
    }

    /// Runs a script on the node and returns its output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let Output { status, stdout, stderr } = self.command(&["sh", "-ec", script]).output().unwrap();
        let text = String::from_utf8(stdout).unwrap();
        assert!(status.success(), "`{script}`: {status}\n{text}{}", String::from_utf8_lossy(&stderr));
        text
    }

    /// Starts the mesh device and waits for its socket.
    pub(crate) fn start(&mut self, options: &[&str]) {
        self.process = Some(self.spawn(&["--socket-dir", "/run/wireguard"], options));
        self.wait_for_socket();
    }

    fn spawn(&self, first: &[&str], options: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command(&[&[BINARY], first, options].concat());
        command.envs(self.environment.iter().cloned());
        command.env("OTHERIX_LOG", "debug,boringtun=off").stderr(log).spawn().unwrap()
    }

    /// Runs another process until it exits, and returns its output.
    pub(crate) fn second(&self, options: &[&str]) -> Output {
        self.command(&[&[BINARY], options].concat()).output().unwrap()
    }

    pub(crate) fn start_wireguard_go(&mut self) {
        let mut command = self.command(&["wireguard-go", "--foreground", "otwg0"]);
        let command = command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(process.expect("wireguard-go; `make setup` installs it"));
        self.wait_for_socket();
    }

    pub(crate) fn wait_for_socket(&self) {
        wait_for_blocking(DEADLINE, "the local socket answers", || {
            self.client().get().map_err(|error| error.to_string())
        });
    }

    pub(crate) fn client(&self) -> UapiClient {
        UapiClient::new(self.folder.path(), "otwg0")
    }

    /// This node as a peer of another.
    pub(crate) fn as_peer(&self) -> WgPeerUpdate {
        let v6 = format!("fd42::{}", self.number);
        let prefix = |text: &str| text.parse::<Prefix>().unwrap().into();
        WgPeerUpdate {
            endpoint: Some(format!("{}:{PORT}", self.underlay()).parse().unwrap()),
            keepalive: Some(25),
            replace_allowed_ips: true,
            allowed_ips: vec![prefix(&self.address()), prefix(&v6)],
            ..WgPeerUpdate::new(self.key.public())
        }
    }

    /// Configures keys and peers, and the addresses of the TUN device.
    pub(crate) fn join(&self, nodes: &[Self]) {
        self.configure(nodes);
        self.sh(&format!(
            "ip addr add {}/16 dev otwg0; ip -6 addr add fd42::{}/64 dev otwg0 nodad; ip link set otwg0 up",
            self.address(),
            self.number
        ));
    }

    pub(crate) fn configure(&self, nodes: &[Self]) {
        let peers = nodes.iter().filter(|node| node.number != self.number).map(Self::as_peer).collect();
        let config = WgDeviceUpdate {
            private_key: Some(Some(self.key.clone())),
            listen_port: Some(PORT),
            peers,
            ..WgDeviceUpdate::default()
        };
        self.client().set(&config).unwrap();
    }

    /// Changes one peer of the device.
    pub(crate) fn change(&self, peer: WgPeerUpdate) {
        self.client().set(&WgDeviceUpdate { peers: vec![peer], ..WgDeviceUpdate::default() }).unwrap();
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut process = self.process.take().unwrap();
        kill_process(Pid::from_child(&process), signal).unwrap();
        process.wait().unwrap()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Starts sending `count` pings, one every 5 ms.
    pub(crate) fn ping(&self, to: &str, count: u32) -> RunningPing {
        let count = count.to_string();
        let mut command = self.command(&["ping", "-n", "-q", "-i", "0.005", "-W", "3", "-c", &count, to]);
        RunningPing(command.stdout(Stdio::piped()).spawn().expect("ping; `make setup` installs it"))
    }

    /// Waits until the node reaches an address.
    #[track_caller]
    pub(crate) fn reaches(&self, to: &str) {
        wait_for_blocking(DEADLINE, "an answer to a ping", || {
            self.command(&["ping", "-n", "-q", "-c", "1", "-W", "1", to])
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        });
    }

    /// Packets that the TUN device has received from the process, as the kernel counts them.
    pub(crate) fn received(&self) -> u64 {
        let links: Value = serde_json::from_str(&self.sh("ip -s -j link show otwg0")).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }

    /// The columns of `wg show otwg0 dump` for a peer: key, preshared key, endpoint, allowed IPs, last handshake, bytes
    /// received and sent, keepalive.
    #[track_caller]
    pub(crate) fn dump(&self, peer: &Self) -> Vec<String> {
        let (all, key) = (self.sh("wg show otwg0 dump"), peer.key.public().to_base64());
        let line = all.lines().find(|line| line.starts_with(&key)).unwrap_or_else(|| panic!("no peer {key}:\n{all}"));
        line.split('\t').map(str::to_owned).collect()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        for child in self.process.iter_mut().chain([&mut self.holder]) {
            let _killed_or_exited = child.kill();
            let _reaped = child.wait();
        }
    }
}

pub(crate) struct RunningPing(Child);

impl RunningPing {
    /// Waits for the end. Returns how many pings were sent and how many of them were lost.
    pub(crate) fn sent_and_lost(self) -> (u32, u32) {
        let text = String::from_utf8(self.0.wait_with_output().unwrap().stdout).unwrap();
        let line = text.lines().find(|line| line.contains("packets transmitted")).expect(&text);
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[0] - numbers[1])
    }
}

const RECEIVER: &str = "
import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 7000), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print('listening', flush=True)
stream, _ = server.accept()
digest, length = hashlib.sha256(), 0
while data := stream.recv(1 << 20):
    digest.update(data)
    length += len(data)
print(length, digest.hexdigest())
";

const SENDER: &str = "
import hashlib, random, socket, sys
data = random.Random(sys.argv[1]).randbytes(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 7000)) as stream:
    stream.sendall(data)
print(len(data), hashlib.sha256(data).hexdigest())
";

/// Sends random bytes over TCP, and compares their SHA-256 at both ends.
#[track_caller]
pub(crate) fn transfer(from: &TestNode, to: &TestNode, address: &str, bytes: u32) {
    let mut command = to.command(&["/usr/bin/python3", "-c", RECEIVER, address]);
    let mut receiver = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(receiver.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    let sent = from
        .command(&["timeout", "60", "/usr/bin/python3", "-c", SENDER, address, &bytes.to_string()])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    line.clear();
    output.read_line(&mut line).unwrap();
    receiver.wait().unwrap();
    assert_eq!(line, String::from_utf8(sent.stdout).unwrap());
    assert!(line.starts_with(&format!("{bytes} ")));
}

/// Creates a VXLAN between two nodes, as for an overlay.
pub(crate) fn vxlan(one: &TestNode, other: &TestNode) {
    for (node, peer) in [(one, other), (other, one)] {
        node.sh(&format!(
            "ip link add vx0 type vxlan id 1000 local {} remote {} dstport 4789 nolearning noudpcsum; \
             ip link set vx0 mtu 1390 up; ip addr add 10.99.0.{}/24 dev vx0",
            node.address(),
            peer.address(),
            node.number
        ));
    }
}
