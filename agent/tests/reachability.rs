//! Tests of the program on a node that reaches the control plane through a router: no decision cuts it off from the
//! control plane, neither at once nor after a restart or the loss of a bridge.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::path::Path;
use std::time::Duration;

use otherix_schemas::event::Event;
use otherix_schemas::network::{BridgeSpec, Egress, NetworkCreated, NetworkEvent, NetworkSpec, Ownership};
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::value::GatewaySubnet;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_another, enter_new, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, network};
use support::program::Program;

const DEADLINE: Duration = Duration::from_secs(20);

/// The address of NATS, which the node reaches by its default route.
const NATS: &str = "198.51.100.10";

/// Moves NATS to the other side of a router, and the calling thread to the node. Returns the URL for the node.
fn route_to(server: &NatsServer) -> String {
    enter_another();
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

/// Writes the hosts file of the program, whose name `nats.test` is the control plane.
fn resolve_to(hosts: &Path, address: &str) {
    std::fs::write(hosts, format!("127.0.0.1 localhost\n{address} nats.test\n")).unwrap();
}

/// Returns the creation of a network with NAT egress.
fn created_with_nat(number: u16, bridge: &str, subnet: &str) -> Event {
    let nat = GatewaySubnet::new(subnet.parse().unwrap(), None).unwrap();
    let spec = NetworkSpec::Bridge(BridgeSpec {
        bridge_name: bridge.parse().unwrap(),
        ownership: Ownership::Managed(Egress::Nat(nat)),
        mtu: 1500.try_into().unwrap(),
        vlan: None,
        dhcp: None,
        allow_spoofing: false,
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

/// Whether the node's bridge `br-x` is the gateway of the network around the second address of NATS.
fn has_gateway() -> bool {
    link("br-x").is_some() && sh("ip -4 address show dev br-x").contains("203.0.113.1/24")
}

async fn expect_warning(control: &Control, text: &str) {
    wait_for(DEADLINE, "the warning", async || {
        let state = control.state();
        let mut results = state.reports.iter().rev().flat_map(|report| &report.results);
        let last = results.find(|outcome| outcome.resource == ResourceRef::Network(network(1)));
        last.is_some_and(|outcome| outcome.warnings.iter().any(|warning| warning.contains(text)))
    })
    .await;
}

#[tokio::test]
async fn a_running_network_is_withdrawn_only_if_it_is_why_the_control_plane_cannot_be_reached() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let (pid, port) = (server.pid(), server.port());
    route_to(&server);
    let on_nats = |script: &str| sh(&format!("nsenter --net --target {pid} sh -ec '{script}'"));
    let second = "203.0.113.10";
    on_nats(&format!(
        "ip address add {second}/32 dev lo
         nft add rule ip nat in ip daddr {second} tcp dport {port} dnat to 127.0.0.1"
    ));
    let drop = format!("ip daddr {NATS} drop");
    let cut = format!("nft \"table ip cut {{ chain in {{ type filter hook prerouting priority -300; {drop}; }}; }}\"");
    let (cut, heal) = (|| on_nats(&cut), || on_nats("nft delete table ip cut"));
    let folder = otherix_testkit::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    resolve_to(&hosts, NATS);
    let mut program = Program::new(format!("nats://nats.test:{port}"));
    let mount = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    program.wrapper = ["unshare", "--mount", "sh", "-ec", &mount].map(str::to_owned).into();
    program.spawn();
    control.decide(created_with_nat(1, "br-x", "203.0.113.0/24")).await;
    expect_ready(&control, 1).await;

    // The connection is lost for another reason, for as long as it takes to be sure.
    cut();
    let lost = "there is no connection to the control plane: the networks stay";
    wait_for(DEADLINE, "the loss", async || program.log_count(lost) == 1).await;
    control.decide(created(network(2), "br-plain", None)).await;
    heal();
    expect_ready(&control, 2).await;
    assert!(has_gateway());

    // The name moves into the network's subnet. The connection remains, and so does the network.
    resolve_to(&hosts, second);
    expect_warning(&control, "contains 203.0.113.10, which this node needs to reach the control plane").await;
    assert!(has_gateway());
    // Now the network is why the node cannot connect again.
    cut();
    expect_failure(&control, 1, "withdrawn").await;
    assert!(!has_gateway() && sh(&format!("ip route get {second}")).contains("via 192.0.2.9"));
    let is_shown = |program: &Program| {
        let status = program.status();
        status.lines().any(|line| line.starts_with("withdrawn:    network br-x (") && line.contains(second))
    };
    assert!(is_shown(&program), "{}", program.status());

    // It is not tried again: not after a restart, and not when the reason is gone.
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
        program.stop(signal);
        control.state().reports.clear();
        program.spawn();
        expect_failure(&control, 1, "withdrawn").await;
        assert!(!has_gateway());
        if signal == Signal::KILL {
            heal();
            resolve_to(&hosts, NATS);
        }
    }
    let released = String::from_utf8(program.release().stdout).unwrap();
    assert!(released.contains("released network br-x"), "{released}");
    expect_ready(&control, 1).await;
    assert!(has_gateway() && !is_shown(&program));
}
