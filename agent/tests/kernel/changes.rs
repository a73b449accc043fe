//! Networks that are changed: devices and connections stay, and nothing is left of what was before.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use otherix_agent::model::cluster_view::ClusterView;
use otherix_agent::model::desired::desired;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::network::{BridgeSpec, Dhcp, Egress, NetworkChanged, NetworkCreated, NetworkSpec, Ownership};
use otherix_schemas::nic::{NicAttached, NicBound};
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::value::{GatewaySubnet, Metadata, Mtu};
use otherix_testkit::netns::{ip_json, link, sh};
use serde_json::Value;
use uuid::Uuid;

use crate::host::Host;
use crate::nat::{OUTSIDE_HOST, guest, node_with_uplink};
use crate::node::{Node, cluster, network, snapshot};
use crate::taps::{mac, nic};

fn node_id() -> NodeId {
    NodeId::new(Uuid::from_u128(5))
}

/// A node that follows decisions.
pub(crate) struct Follower {
    node: Node,
    view: ClusterView,
}

impl Follower {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, view: ClusterView::default() }
    }

    /// Decides, and carries it out. Returns the outcome of network `number`, which is that of the last generation.
    async fn decide(&mut self, number: u16, event: impl Into<Event>) -> Outcome {
        self.view.apply(self.view.position().next(), event.into());
        self.carry_out(number).await
    }

    async fn carry_out(&mut self, number: u16) -> Outcome {
        self.node.desired = desired(&self.view, cluster(), node_id());
        let pass = self.node.settle().await;
        let of_network = |outcome: &&_| -> bool {
            let outcome: &otherix_schemas::outcome::ResourceOutcome = outcome;
            outcome.resource == ResourceRef::Network(network(number))
        };
        let outcome = pass.outcomes.iter().find(of_network).unwrap();
        assert_eq!(Some(outcome.generation), self.view.network(network(number)).map(|network| network.generation));
        outcome.outcome.clone()
    }

    pub(crate) async fn create(&mut self, number: u16, spec: NetworkSpec) {
        let name = format!("net-{number}").parse().unwrap();
        let created = NetworkCreated { network_id: network(number), name, spec };
        assert_eq!(self.decide(number, created).await, Outcome::Ready);
    }

    pub(crate) async fn change(&mut self, number: u16, spec: NetworkSpec) {
        let (name, metadata) = (format!("net-{number}").parse().unwrap(), Metadata::default());
        let changed = NetworkChanged { network_id: network(number), name, spec, metadata };
        assert_eq!(self.decide(number, changed).await, Outcome::Ready);
    }

    /// Settles, and returns the outcome of a NIC.
    pub(crate) async fn nic_outcome(&mut self, number: u16) -> Outcome {
        self.node.nic_outcome(nic(number)).await
    }

    /// Attaches a NIC, and returns the name of its tap.
    pub(crate) async fn attach(&mut self, number: u16, on: u16) -> String {
        let (nic_id, network_id, vm_id) = (nic(number), network(on), VmId::new(Uuid::from_u128(number.into())));
        let attached = NicAttached { nic_id, vm_id, network_id, mac: mac(number), ip: None };
        self.decide(on, attached).await;
        assert_eq!(self.decide(on, NicBound { nic_id, node_id: node_id() }).await, Outcome::Ready);
        otherix_schemas::nic::tap_name(nic_id)
    }
}

fn subnet(text: &str, gateway: Option<&str>) -> GatewaySubnet {
    GatewaySubnet::new(text.parse().unwrap(), gateway.map(|gateway| gateway.parse().unwrap())).unwrap()
}

pub(crate) fn bridge(number: u16) -> BridgeSpec {
    BridgeSpec {
        bridge_name: format!("br-{number}").parse().unwrap(),
        ownership: Ownership::Managed(Egress::None),
        mtu: Mtu::DEFAULT,
        vlan: None,
        dhcp: None,
        allow_spoofing: false,
    }
}

fn nat(number: u16, gateway: GatewaySubnet) -> NetworkSpec {
    NetworkSpec::Bridge(BridgeSpec { ownership: Ownership::Managed(Egress::Nat(gateway)), ..bridge(number) })
}

/// The IPv4 addresses of a device.
fn addresses(device: &str) -> Vec<String> {
    let shown = ip_json(&["-4", "address", "show", "dev", device]);
    let addresses = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
    addresses.iter().map(|entry| format!("{}/{}", entry["local"].as_str().unwrap(), entry["prefixlen"])).collect()
}

pub(crate) fn index(device: &str) -> Value {
    link(device).unwrap()["ifindex"].clone()
}

fn forwards(device: &str) -> bool {
    sh(&format!("cat /proc/sys/net/ipv4/conf/{device}/forwarding")).trim() == "1"
}

/// Whether our table names the bridge.
fn has_rules(bridge: &str) -> bool {
    let tables = sh("nft list tables");
    tables.lines().any(|line| line == "table ip otherix")
        && sh("nft -j list table ip otherix").contains(&format!("\"{bridge}\""))
}

#[tokio::test]
async fn another_gateway_replaces_the_former_one() {
    let (node, _outside) = node_with_uplink();
    let mut follower = Follower::new(node);
    follower.create(1, nat(1, subnet("10.20.1.0/24", None))).await;
    let before = index("br-1");
    let guest = guest(1, 5);
    assert!(guest.reaches(OUTSIDE_HOST));
    // In the subnet of the former one, of which it would be a secondary address; in a larger one; in another.
    for (text, gateway, expected) in [
        ("10.20.1.0/24", Some("10.20.1.9"), "10.20.1.9/24"),
        ("10.20.0.0/23", Some("10.20.1.9"), "10.20.1.9/23"),
        ("10.20.1.0/24", Some("10.20.1.254"), "10.20.1.254/24"),
        ("10.20.7.0/24", None, "10.20.7.1/24"),
        ("10.20.1.0/24", None, "10.20.1.1/24"),
    ] {
        follower.change(1, nat(1, subnet(text, gateway))).await;
        assert_eq!(addresses("br-1"), [expected]);
        assert_eq!(index("br-1"), before);
    }
    assert!(guest.reaches(OUTSIDE_HOST));
    let address = "10.99.1.77/24";
    sh(&format!("ip address add {address} dev br-1"));
    follower.change(1, nat(1, subnet("10.20.7.0/24", None))).await;
    let mut shown = addresses("br-1");
    shown.sort();
    assert_eq!(shown, ["10.20.7.1/24", address], "an address that never was a gateway is not ours");
}

#[tokio::test]
async fn egress_is_turned_off_and_on_also_by_an_agent_that_restarts() {
    let (node, _outside) = node_with_uplink();
    let mut follower = Follower::new(node);
    let with_nat = |number: u16| nat(number, subnet(&format!("10.20.{number}.0/24"), None));
    follower.create(1, with_nat(1)).await;
    follower.create(2, with_nat(2)).await;
    let (one, two) = (guest(1, 5), guest(2, 5));
    let before = index("br-1");
    for restarts in [false, true] {
        assert!(one.reaches(OUTSIDE_HOST) && forwards("br-1") && has_rules("br-1"));
        if restarts {
            // The agent is away while it is decided, and knows only its ledger then.
            let without = NetworkSpec::Bridge(bridge(1));
            let (name, metadata) = ("net-1".parse().unwrap(), Metadata::default());
            let changed = NetworkChanged { network_id: network(1), name, spec: without, metadata };
            follower.view.apply(follower.view.position().next(), changed.into());
            follower.view = ClusterView::restored(follower.view.position(), follower.view.decisions());
            follower.node.restart();
            assert_eq!(follower.carry_out(1).await, Outcome::Ready);
        } else {
            follower.change(1, NetworkSpec::Bridge(bridge(1))).await;
        }
        assert_eq!(addresses("br-1"), [""; 0]);
        assert!(!forwards("br-1") && !has_rules("br-1"));
        assert!(one.cannot_reach(OUTSIDE_HOST) && two.reaches(OUTSIDE_HOST), "the other network goes on");
        follower.change(1, with_nat(1)).await;
        assert_eq!((addresses("br-1"), index("br-1")), (vec!["10.20.1.1/24".to_owned()], before.clone()));
    }
    // The last network with egress.
    follower.change(1, NetworkSpec::Bridge(bridge(1))).await;
    follower.change(2, NetworkSpec::Bridge(bridge(2))).await;
    assert!(!has_rules("br-1") && !has_rules("br-2") && !forwards("uplink") && !forwards("br-2"));
    assert_eq!(addresses("br-2"), [""; 0]);
}

#[tokio::test]
async fn a_change_does_not_take_from_the_node_what_it_has() {
    let (node, outside) = node_with_uplink();
    let mut follower = Follower::new(node);
    follower.create(1, nat(1, subnet("10.20.1.0/24", None))).await;
    let before = index("br-1");
    let (name, metadata) = ("net-1".parse().unwrap(), Metadata::default());
    let spec = nat(1, subnet("192.0.2.0/24", None));
    let outcome = follower.decide(1, NetworkChanged { network_id: network(1), name, spec, metadata }).await;
    assert!(matches!(&outcome, Outcome::Failed(error) if error.contains("192.0.2.0/24")), "{outcome:?}");
    assert_eq!((addresses("br-1"), forwards("br-1"), has_rules("br-1")), (vec![], false, false));
    assert!(outside.reaches("192.0.2.7"), "the node keeps its own network");
    follower.change(1, nat(1, subnet("10.20.1.0/24", None))).await;
    assert_eq!((addresses("br-1"), index("br-1")), (vec!["10.20.1.1/24".to_owned()], before));
    assert!(guest(1, 5).reaches(OUTSIDE_HOST));
}

/// Sends and receives numbered blocks for as long as its standard input is open, and prints how many came back intact.
const STREAM: &str = "
import select, socket, sys
s = socket.create_connection((sys.argv[1], 7000), timeout=30)
count = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    block = count.to_bytes(8, 'big') * 512
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

/// Returns what it receives, for each connection.
const ECHO: &str = "
import socket, threading
server = socket.create_server(('', 7000))
print('listening', flush=True)
def serve(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

struct Program(Child, BufReader<std::process::ChildStdout>);

impl Program {
    fn start(host: &Host, arguments: &[&str]) -> Self {
        let mut command = host.command("python3");
        command.arg("-c").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
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
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_stream_goes_on_through_a_hundred_changes() {
    let (node, outside) = node_with_uplink();
    let mut follower = Follower::new(node);
    let own = subnet("10.20.1.0/24", None);
    let spec = |round: u16| {
        let (spoofing, dns) = (round % 2 == 1, round % 3 == 1);
        let mtu = Mtu::try_from(1500 + i64::from(round % 7)).unwrap();
        let dhcp = Some(Dhcp { subnet: own, dns });
        let ownership = Ownership::Managed(Egress::Nat(own));
        NetworkSpec::Bridge(BridgeSpec { ownership, mtu, dhcp, allow_spoofing: spoofing, ..bridge(1) })
    };
    follower.create(1, spec(0)).await;
    follower.create(2, nat(2, subnet("10.20.2.0/24", None))).await;
    let (one, neighbour) = (guest(1, 5), guest(1, 6));
    let before = index("br-1");
    let mut servers = [Program::start(&outside, &[ECHO]), Program::start(&neighbour, &[ECHO])];
    servers.iter_mut().for_each(|server| assert_eq!(server.line(), "listening"));
    let mut streams = [OUTSIDE_HOST, "10.20.1.6"].map(|to| Program::start(&one, &[STREAM, to]));
    streams.iter_mut().for_each(|stream| assert_eq!(stream.line(), "running"));
    for round in 1..=50 {
        follower.change(1, spec(round)).await;
        let other = if round % 5 == 0 {
            NetworkSpec::Bridge(bridge(2))
        } else {
            nat(2, subnet(&format!("10.21.{round}.0/24"), None))
        };
        follower.change(2, other).await;
    }
    assert_eq!(index("br-1"), before);
    assert_eq!(link("br-1").unwrap()["mtu"], 1501);
    for stream in &mut streams {
        drop(stream.0.stdin.take());
        let count: u64 = stream.line().parse().expect("the stream did not end early");
        assert!(count > 50, "{count}");
    }
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u16) -> u16 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u16::try_from((self.0 >> 33) % u64::from(limit)).unwrap()
    }

    fn spec(&mut self, number: u16) -> BridgeSpec {
        let net = self.below(3);
        let gateway = match self.below(3) {
            0 => subnet(&format!("10.{}.{net}.0/24", 20 + number), None),
            1 => subnet(&format!("10.{}.{net}.0/24", 20 + number), Some(&format!("10.{}.{net}.77", 20 + number))),
            _ => subnet(&format!("10.{}.{net}.0/22", 20 + number), None),
        };
        let egress = if self.below(3) == 0 { Egress::None } else { Egress::Nat(gateway) };
        let dhcp = (self.below(2) == 0).then_some(Dhcp { subnet: gateway, dns: self.below(2) == 0 });
        BridgeSpec {
            ownership: Ownership::Managed(egress),
            mtu: i64::from(1280 + self.below(300)).try_into().unwrap(),
            dhcp,
            allow_spoofing: self.below(2) == 0,
            ..bridge(number)
        }
    }
}

/// What the kernel must have of a network.
#[track_caller]
fn assert_kernel(number: u16, spec: &BridgeSpec, what: &str) {
    let name = spec.bridge_name.to_string();
    let shown = link(&name).unwrap();
    let nat = NetworkSpec::Bridge(spec.clone()).nat();
    let expected: Vec<_> = nat.map(|nat| format!("{}/{}", nat.gateway(), nat.subnet().prefix())).into_iter().collect();
    assert_eq!(addresses(&name), expected, "network {number}, {what}");
    assert_eq!(shown["mtu"], spec.mtu.get(), "network {number}, {what}");
    assert_eq!((forwards(&name), has_rules(&name)), (nat.is_some(), nat.is_some()), "network {number}, {what}");
}

#[tokio::test]
async fn random_changes_end_in_what_the_last_ones_say() {
    let (node, _outside) = node_with_uplink();
    let mut follower = Follower::new(node);
    let mut random = Random(52);
    let mut last = [1, 2, 3].map(|number| (number, bridge(number)));
    for (number, spec) in &last {
        follower.create(*number, NetworkSpec::Bridge(spec.clone())).await;
    }
    let tap = follower.attach(1, 1).await;
    let before = [index("br-1"), index("br-2"), index("br-3"), index(&tap)];
    for round in 0..40 {
        // Several are decided before the node carries them out, as when it was away.
        for _ in 0..=random.below(4) {
            let number = 1 + random.below(3);
            let spec = random.spec(number);
            last[usize::from(number) - 1].1 = spec.clone();
            let (name, metadata) = (format!("net-{number}").parse().unwrap(), Metadata::default());
            let changed =
                NetworkChanged { network_id: network(number), name, spec: NetworkSpec::Bridge(spec), metadata };
            follower.view.apply(follower.view.position().next(), changed.into());
        }
        if round % 7 == 0 {
            follower.view = ClusterView::restored(follower.view.position(), follower.view.decisions());
            follower.node.restart();
        }
        assert_eq!(follower.carry_out(1).await, Outcome::Ready, "round {round}");
        last.iter().for_each(|(number, spec)| assert_kernel(*number, spec, &format!("round {round}")));
    }
    assert_eq!([index("br-1"), index("br-2"), index("br-3"), index(&tap)], before);
    // What people say is a new generation, and nothing in the kernel.
    let (kernel, (_, spec)) = (snapshot(), last[0].clone());
    follower.change(1, NetworkSpec::Bridge(spec)).await;
    assert_eq!(snapshot(), kernel);
}
