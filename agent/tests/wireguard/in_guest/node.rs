//! Nodes of the tests in the guest: network namespaces with a mesh device each, served by the kernel or by a process,
//! connected by a bridge in the guest's initial namespace. They are not cleaned up: the guest ends with the test.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use otherix_agent::wireguard::kernel::{self, KernelDevice, WireGuardError};
use otherix_mesh::client::UapiClient;
use otherix_mesh::config::{WgDeviceStatus, WgDeviceUpdate, WgPeerStatus, WgPeerUpdate};
use otherix_mesh::key::{WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;
use otherix_testkit::netns::sh;
use otherix_testkit::wait::wait_for_blocking;
use otherix_vmtest::TestGuest;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const NAME: &str = "otwg0";
pub(crate) const ALIAS: &str = "otherix:01890a5d-ac96-774b-bcce-b302099a8057:01890a5d-ac96-774b-bcce-b302099a8058";
pub(crate) const MTU: u32 = 1440;
const PORT: u16 = 51820;
const BINARY: &str = env!("CARGO_BIN_EXE_otherix-agent");
/// Emulated processors are slow.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `body` in a guest that has the agent's program.
pub(crate) fn in_guest(body: impl FnOnce()) {
    TestGuest::default().with_program(BINARY).with_deadline(Duration::from_secs(170)).run(body);
}

/// The implementation of WireGuard on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implementation {
    Kernel,
    Userspace,
}

pub(crate) struct Node {
    number: u8,
    pub(crate) key: WgPrivateKey,
    implementation: Implementation,
    /// The process of a userspace device.
    process: Option<Child>,
}

/// Creates nodes, numbered from 1, each with its key and its address, and without peers.
pub(crate) fn nodes<const COUNT: usize>(implementations: [Implementation; COUNT]) -> [Node; COUNT] {
    sh("ip link add br0 type bridge; ip link set br0 up");
    let mut number = 0;
    implementations.map(|implementation| {
        number += 1;
        Node::new(number, implementation)
    })
}

impl Node {
    fn new(number: u8, implementation: Implementation) -> Self {
        sh(&format!(
            "ip netns add n{number}
             ip link add u{number} type veth peer name u0 netns n{number}
             ip link set u{number} master br0 up
             ip -n n{number} link set lo up
             ip -n n{number} link set u0 up
             ip -n n{number} addr add 192.0.2.{number}/24 dev u0"
        ));
        let mut node = Self { number, key: WgPrivateKey::generate().unwrap(), implementation, process: None };
        match implementation {
            Implementation::Kernel => node.run(|| kernel::create(NAME, ALIAS, MTU)).unwrap(),
            Implementation::Userspace => {
                fs::create_dir(node.folder()).unwrap();
                let namespace = format!("n{number}");
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace, BINARY, "mesh", "--socket-dir"]).arg(node.folder());
                node.process = Some(command.spawn().unwrap());
                wait_for_blocking(DEADLINE, "the local socket", || {
                    node.client().get().map_err(|error| error.to_string())
                });
            }
        }
        let private_key = Some(Some(node.key.clone()));
        node.set(&WgDeviceUpdate { private_key, listen_port: Some(PORT), ..WgDeviceUpdate::default() });
        node.sh(&format!("ip addr add {}/24 dev {NAME}; ip link set {NAME} up", node.address()));
        node
    }

    fn folder(&self) -> PathBuf {
        format!("/tmp/n{}", self.number).into()
    }

    fn client(&self) -> UapiClient {
        UapiClient::new(&self.folder(), NAME)
    }

    pub(crate) fn address(&self) -> String {
        format!("10.42.0.{}", self.number)
    }

    /// Runs `body` on a thread in the node's network namespace.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/n{}", self.number)).unwrap();
        let enter = || move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        thread::scope(|scope| scope.spawn(|| (enter(), body()).1).join().unwrap())
    }

    /// Runs a script on the node, and returns its output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        sh(&format!("exec ip netns exec n{} sh -ec '{script}'", self.number))
    }

    pub(crate) fn try_set(&self, config: &WgDeviceUpdate) -> Result<(), WireGuardError> {
        assert_eq!(self.implementation, Implementation::Kernel);
        self.run(|| KernelDevice::new(NAME).set(config))
    }

    #[track_caller]
    pub(crate) fn set(&self, config: &WgDeviceUpdate) {
        match self.implementation {
            Implementation::Kernel => self.try_set(config).unwrap(),
            Implementation::Userspace => self.client().set(config).unwrap(),
        }
    }

    /// Changes these peers of the device.
    #[track_caller]
    pub(crate) fn set_peers<const COUNT: usize>(&self, peers: [WgPeerUpdate; COUNT]) {
        self.set(&WgDeviceUpdate { peers: peers.into(), ..WgDeviceUpdate::default() });
    }

    /// Returns the status of the device.
    #[track_caller]
    pub(crate) fn status(&self) -> WgDeviceStatus {
        match self.implementation {
            Implementation::Kernel => self.run(|| KernelDevice::new(NAME).get()).unwrap(),
            Implementation::Userspace => self.client().get().unwrap(),
        }
    }

    /// Returns the status of another node as a peer of this one.
    #[track_caller]
    pub(crate) fn peer(&self, other: &Self) -> WgPeerStatus {
        let key = other.key.public();
        self.status().peers.into_iter().find(|peer| peer.public_key == key).unwrap()
    }

    pub(crate) fn last_handshake(&self, other: &Self) -> Option<SystemTime> {
        self.peer(other).last_handshake
    }

    /// Returns this node as a peer of others.
    pub(crate) fn as_peer(&self) -> WgPeerUpdate {
        WgPeerUpdate {
            endpoint: Some(([192, 0, 2, self.number], PORT).into()),
            replace_allowed_ips: true,
            allowed_ips: vec![self.address().parse::<Prefix>().unwrap().into()],
            ..WgPeerUpdate::new(self.key.public())
        }
    }

    /// Waits until the other node replies to a ping.
    #[track_caller]
    pub(crate) fn reaches(&self, other: &Self) {
        let namespace = format!("n{}", self.number);
        let address = other.address();
        wait_for_blocking(DEADLINE, "a reply to a ping", || {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &namespace, "ping", "-n", "-q", "-c", "1", "-W", "1", &address]);
            command.stdout(Stdio::null()).status().unwrap().success()
        });
    }

    /// Starts `count` pings, one every 20 ms.
    pub(crate) fn ping(&self, other: &Self, count: u32) -> Ping {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("n{}", self.number), "ping", "-n", "-q", "-i", "0.02", "-W", "3"]);
        Ping(command.args(["-c", &count.to_string(), &other.address()]).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Sends this number of bytes to another node over TCP, and asserts that they are received unchanged.
    #[track_caller]
    pub(crate) fn transfer(&self, other: &Self, bytes: u32) {
        let address: IpAddr = other.address().parse().unwrap();
        let data: Vec<u8> = (0..bytes / 4).flat_map(|word| word.wrapping_mul(2_654_435_761).to_ne_bytes()).collect();
        let listener = other.run(|| TcpListener::bind((address, 7000))).unwrap();
        let received = thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut received = Vec::new();
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.read_to_end(&mut received).unwrap();
                received
            });
            self.run(|| TcpStream::connect_timeout(&(address, 7000).into(), DEADLINE).unwrap().write_all(&data))
                .unwrap();
            receiver.join().unwrap()
        });
        assert!(received == data, "{} of {} bytes received", received.len(), data.len());
    }

    /// Returns the output of `wg show dump`.
    pub(crate) fn dump(&self) -> String {
        self.sh(&format!("wg show {NAME} dump"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ended = process.kill();
            let _ended = process.wait();
        }
    }
}

/// A running `ping`.
pub(crate) struct Ping(Child);

impl Ping {
    /// Waits for its end, and returns the numbers of packets sent and lost.
    pub(crate) fn sent_and_lost(self) -> (u32, u32) {
        let text = String::from_utf8(self.0.wait_with_output().unwrap().stdout).unwrap();
        let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap();
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[0] - numbers[1])
    }
}

/// Returns a peer with an endpoint at which there is no node.
pub(crate) fn absent_peer(number: u16) -> WgPeerUpdate {
    let mut bytes = [9; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    let [high, low] = number.to_be_bytes();
    WgPeerUpdate {
        endpoint: Some(([198, 51, high, low], 9).into()),
        keepalive: Some(number),
        replace_allowed_ips: true,
        allowed_ips: vec![
            Prefix::new([10, 99, high, low].into(), 32).unwrap().into(),
            Prefix::new([0xfd42, 0, 0, 0, number, 0, 0, 0].into(), 80).unwrap().into(),
        ],
        ..WgPeerUpdate::new(WgPublicKey::from_bytes(bytes))
    }
}
