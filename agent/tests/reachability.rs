//! Tests of the program on a node that reaches the control plane through a router: no decision cuts it off from the
//! control plane, neither at once nor after a restart or the loss of a bridge.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::time::Duration;

use otherix_schemas::event::Event;
use otherix_schemas::network::{BridgeSpec, Egress, NetworkCreated, NetworkEvent, NetworkSpec, Ownership};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::Nat;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::program::Program;
use support::{Control, created, network};

const DEADLINE: Duration = Duration::from_secs(20);

/// The address of NATS, which the node reaches by its default route.
const NATS: &str = "198.51.100.10";

/// Moves NATS to the other side of a router, and the calling thread to the node. Returns the URL for the node.
fn route_to(server: &NatsServer) -> String {
    enter_new();
    let (pid, port) = (server.pid(), server.port());
    sh(&format!(
        "ip link add uplink type veth peer name eth0 netns {pid}
         ip address add 192.0.2.7/24 dev uplink; ip link set uplink up
         nsenter --net --target {pid} sh -ec '
            ip address add {NATS}/32 dev lo; ip address add 192.0.2.9/24 dev eth0; ip link set eth0 up
            echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet
            nft \"table ip nat {{ chain in {{ type nat hook prerouting priority -100;
                ip daddr {NATS} tcp dport {port} dnat to 127.0.0.1; }}; }}\"'
         ip route add default via 192.0.2.9"
    ));
    format!("nats://{NATS}:{port}")
}

/// Returns the creation of a network with NAT egress.
fn created_with_nat(number: u16, bridge: &str, subnet: &str) -> Event {
    let nat = Nat::new(subnet.parse().unwrap(), None).unwrap();
    let spec = NetworkSpec::Bridge(BridgeSpec {
        bridge_name: bridge.parse().unwrap(),
        ownership: Ownership::Managed(Egress::Nat(nat)),
        mtu: 1500.try_into().unwrap(),
        vlan: None,
    });
    let (network_id, name) = (network(number), bridge.parse().unwrap());
    Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name, spec }))
}

async fn expect_failure(control: &Control, number: u16, text: &str) {
    wait_for(DEADLINE, "the failure", async || match control.outcome(network(number)) {
        Some((_, Outcome::Failed(error))) if error.contains(text) => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn expect_ready(control: &Control, number: u16) {
    wait_for(DEADLINE, "the network to be ready", async || match control.outcome(network(number)) {
        Some((_, Outcome::Ready)) => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test]
async fn a_network_with_the_control_planes_address_is_not_made() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::new(route_to(&server));
    program.spawn();
    control.decide(created_with_nat(1, "br-x", "198.51.100.0/24")).await;
    let text = "subnet 198.51.100.0/24 contains 198.51.100.10, which this node needs to reach the control plane";
    expect_failure(&control, 1, text).await;
    assert!(link("br-x").is_none());
    control.decide(created(network(2), "br-plain", None)).await;
    expect_ready(&control, 2).await;

    // A bridge that an earlier version made.
    let alias = format!("otherix:{}:{}", control.cluster(), network(1));
    let make = format!(
        "ip link add br-x type bridge; ip link set br-x alias {alias}; ip link set br-x up
         ip address add 198.51.100.1/24 dev br-x"
    );
    // The first signal lets it save the ledger.
    for signal in [Signal::TERM, Signal::KILL] {
        program.stop(signal);
        sh(&make);
        control.state().reports.clear();
        program.spawn();
        expect_failure(&control, 1, text).await;
        assert!(!sh("ip -4 address show dev br-x").contains("198.51.100.1"));
        sh("ip link del br-x");
        expect_ready(&control, 2).await;
    }
    control.decide(created(network(3), "br-more", None)).await;
    expect_ready(&control, 3).await;
    assert!(link("br-x").is_none());
}
