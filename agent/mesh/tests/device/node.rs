//! Nodes for the tests: a network and a mount namespace for each, joined by a bridge in the test's own network namespace. They
//! go with the test, however it ends. `wg` finds a node's own sockets, for its `/run` is the node's alone.

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

pub(crate) struct Node {
    pub(crate) number: u8,
    pub(crate) key: WgPrivateKey,
    folder: TempDir,
    holder: Child,
    /// Closed, it ends the holder, and with it the namespaces.
    _open: ChildStdin,
    engine: Option<Child>,
}

/// Makes so many nodes, numbered from 1; the calling thread is in a network namespace of its own afterwards.
pub(crate) fn nodes<const COUNT: usize>() -> [Node; COUNT] {
    enter_new();
    sh("ip link add br0 type bridge; ip link set br0 up");
    std::array::from_fn(|at| Node::new(u8::try_from(at + 1).unwrap()))
}

/// Nodes with a mesh device each, every one a peer of every other.
pub(crate) fn mesh<const COUNT: usize>(options: &[&str]) -> [Node; COUNT] {
    let mut nodes = nodes::<COUNT>();
    for node in &mut nodes {
        node.start(options);
    }
    for node in &nodes {
        node.join(&nodes);
    }
    nodes
}

impl Node {
    fn new(number: u8) -> Self {
        let folder = tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs none /run && mkdir /run/wireguard && mount --bind {} /run/wireguard && echo made && exec cat",
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
        assert_eq!(line, "made\n", "the kernel tests need root");
        let open = holder.stdin.take().unwrap();
        let node = Self { number, key: WgPrivateKey::generate().unwrap(), folder, holder, _open: open, engine: None };
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

    /// Runs a script on the node and gives what it prints.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let Output { status, stdout, stderr } = self.command(&["sh", "-ec", script]).output().unwrap();
        let text = String::from_utf8(stdout).unwrap();
        assert!(status.success(), "`{script}`: {status}\n{text}{}", String::from_utf8_lossy(&stderr));
        text
    }

    /// Starts the mesh device and waits for its socket.
    pub(crate) fn start(&mut self, options: &[&str]) {
        self.engine = Some(self.spawn(&["--socket-dir", "/run/wireguard"], options));
        self.wait_for_socket();
    }

    fn spawn(&self, first: &[&str], options: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command(&[&[BINARY], first, options].concat());
        command.env("OTHERIX_LOG", "debug,boringtun=off").stderr(log).spawn().unwrap()
    }

    /// Starts a second device beside the first, and gives how it ended.
    pub(crate) fn second(&self, options: &[&str]) -> Output {
        self.command(&[&[BINARY], options].concat()).output().unwrap()
    }

    pub(crate) fn start_wireguard_go(&mut self) {
        let mut command = self.command(&["wireguard-go", "--foreground", "otwg0"]);
        let command = command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        let engine = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.engine = Some(engine.expect("wireguard-go; `make setup` installs it"));
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

    /// This node as others' peer.
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

    /// Gives the device its key and its peers, and the TUN device its addresses.
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

    /// Has the device change one peer.
    pub(crate) fn change(&self, peer: WgPeerUpdate) {
        self.client().set(&WgDeviceUpdate { peers: vec![peer], ..WgDeviceUpdate::default() }).unwrap();
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut engine = self.engine.take().unwrap();
        kill_process(Pid::from_child(&engine), signal).unwrap();
        engine.wait().unwrap()
    }

    pub(crate) fn engine_id(&self) -> u32 {
        self.engine.as_ref().unwrap().id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Starts `count` pings, one every 5 ms.
    pub(crate) fn ping(&self, to: &str, count: u32) -> Ping {
        let count = count.to_string();
        let mut command = self.command(&["ping", "-n", "-q", "-i", "0.005", "-W", "3", "-c", &count, to]);
        Ping(command.stdout(Stdio::piped()).spawn().expect("ping; `make setup` installs it"))
    }

    /// True once the node reaches an address.
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

    /// Packets that the device has received from its peers, as the kernel counts them.
    pub(crate) fn received(&self) -> u64 {
        let said: Value = serde_json::from_str(&self.sh("ip -s -j link show otwg0")).unwrap();
        said[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }

    /// The columns of `wg show otwg0 dump` for a peer: key, psk, endpoint, allowed IPs, handshake, received, sent, keepalive.
    #[track_caller]
    pub(crate) fn dump(&self, peer: &Self) -> Vec<String> {
        let (all, key) = (self.sh("wg show otwg0 dump"), peer.key.public().to_base64());
        let line = all.lines().find(|line| line.starts_with(&key)).unwrap_or_else(|| panic!("no peer {key}:\n{all}"));
        line.split('\t').map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.engine.iter_mut().chain([&mut self.holder]) {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

pub(crate) struct Ping(Child);

impl Ping {
    /// Waits for its end; how many went and how many were lost.
    pub(crate) fn lost(self) -> (u32, u32) {
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

/// Sends so many bytes over TCP, and compares their SHA-256 at both ends.
#[track_caller]
pub(crate) fn transfer(from: &Node, to: &Node, address: &str, bytes: u32) {
    let mut command = to.command(&["/usr/bin/python3", "-c", RECEIVER, address]);
    let mut receiver = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(receiver.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    let sent = from
        .command(&["timeout", "60", "/usr/bin/python3", "-c", SENDER, address, &bytes.to_string()])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    line.clear();
    said.read_line(&mut line).unwrap();
    receiver.wait().unwrap();
    assert_eq!(line, String::from_utf8(sent.stdout).unwrap());
    assert!(line.starts_with(&format!("{bytes} ")));
}

/// A VXLAN between two nodes, as overlays have it.
pub(crate) fn vxlan(one: &Node, other: &Node) {
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
