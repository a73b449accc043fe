//! Short names for the things that decisions are about.
#![expect(clippy::unwrap_used, reason = "test support")]
#![allow(dead_code, reason = "each test uses what it needs")]

use otherix_schemas::command::{Command, Silence};
use otherix_schemas::event::{
    Event, NetworkCreated, NetworkDeleted, NodeJoined, NodeReachable, NodeReconciled, NodeUnreachable,
};
use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::{BridgeSpec, Egress, NetworkSpec, NewNetwork, NewSpec, OverlaySpec, Ownership};
use otherix_schemas::outcome::{NetworkOutcome, NodeReport, Outcome};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{BridgeName, Ipv4Subnet, Mtu, Nat, NetworkName, NodeName};
use uuid::Uuid;

pub(crate) fn network_id(number: u128) -> NetworkId {
    NetworkId::new(Uuid::from_u128(0x1000 + number))
}

pub(crate) fn node_id(number: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(0x2000 + number))
}

pub(crate) fn name(text: &str) -> NetworkName {
    text.parse().unwrap()
}

pub(crate) fn node_name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(crate) fn bridge_name(text: &str) -> BridgeName {
    text.parse().unwrap()
}

pub(crate) fn subnet(text: &str) -> Ipv4Subnet {
    text.parse().unwrap()
}

fn bridge(name: &str, ownership: Ownership) -> BridgeSpec {
    BridgeSpec { bridge_name: bridge_name(name), ownership, mtu: Mtu::DEFAULT, vlan: None }
}

pub(crate) fn managed(name: &str) -> BridgeSpec {
    bridge(name, Ownership::Managed(Egress::None))
}

pub(crate) fn unmanaged(name: &str) -> BridgeSpec {
    bridge(name, Ownership::Unmanaged)
}

pub(crate) fn nat(name: &str, text: &str) -> BridgeSpec {
    bridge(name, Ownership::Managed(Egress::Nat(Nat::new(subnet(text), None).unwrap())))
}

pub(crate) fn spec(bridge: BridgeSpec) -> NetworkSpec {
    NetworkSpec::Bridge(bridge)
}

pub(crate) fn create(id: u128, text: &str, bridge: BridgeSpec) -> Command {
    let network = NewNetwork { name: name(text), spec: NewSpec::Bridge(bridge) };
    Command::CreateNetwork { network_id: network_id(id), network }
}

pub(crate) fn create_overlay(id: u128, text: &str, net: &str) -> Command {
    let network = NewNetwork { name: name(text), spec: NewSpec::Overlay { subnet: subnet(net) } };
    Command::CreateNetwork { network_id: network_id(id), network }
}

pub(crate) fn network_created(id: u128, text: &str, spec: NetworkSpec) -> Event {
    Event::NetworkCreated(NetworkCreated { network_id: network_id(id), name: name(text), spec })
}

pub(crate) fn created(id: u128, text: &str, bridge: BridgeSpec) -> Event {
    network_created(id, text, spec(bridge))
}

pub(crate) fn overlay_created(id: u128, text: &str, vni: u32, net: &str) -> Event {
    let mtu = Mtu::try_from(1390).unwrap();
    let overlay = OverlaySpec { vni: vni.try_into().unwrap(), subnet: subnet(net), mtu };
    network_created(id, text, NetworkSpec::Overlay(overlay))
}

pub(crate) fn delete(id: u128) -> Command {
    Command::DeleteNetwork { network_id: network_id(id) }
}

pub(crate) fn deleted(id: u128, text: &str) -> Event {
    Event::NetworkDeleted(NetworkDeleted { network_id: network_id(id), name: name(text) })
}

pub(crate) fn join(id: u128, text: &str) -> Command {
    Command::JoinNode { node_id: node_id(id), name: node_name(text) }
}

/// Node `id` joined as `node-<id>`.
pub(crate) fn node_joined(id: u128) -> Event {
    Event::NodeJoined(NodeJoined { node_id: node_id(id), name: node_name(&format!("node-{id}")) })
}

/// When nodes were last heard in these tests.
fn last_heard() -> Option<Timestamp> {
    Timestamp::from_unix_micros(1_700_000_000_000_000).ok()
}

pub(crate) fn unreachable(id: u128) -> Event {
    Event::NodeUnreachable(NodeUnreachable { node_id: node_id(id), last_heard_at: last_heard() })
}

pub(crate) fn reachable(id: u128) -> Event {
    Event::NodeReachable(NodeReachable { node_id: node_id(id) })
}

/// These nodes fell silent, and those are heard again.
pub(crate) fn presence(silent: &[u128], heard: &[u128]) -> Command {
    let silence = |id: &u128| Silence { node_id: node_id(*id), last_heard_at: last_heard() };
    Command::RecordPresence {
        silent: silent.iter().map(silence).collect(),
        heard: heard.iter().map(|id| node_id(*id)).collect(),
    }
}

pub(crate) fn outcome(network: u128, generation: u64, outcome: Outcome) -> NetworkOutcome {
    NetworkOutcome { network_id: network_id(network), generation: Position::new(generation), outcome }
}

pub(crate) fn report(
    node: u128,
    incarnation: u64,
    sequence: u64,
    results: impl IntoIterator<Item = NetworkOutcome>,
) -> Command {
    let results = results.into_iter().collect();
    Command::RecordReport(NodeReport { node_id: node_id(node), incarnation, sequence, results })
}

pub(crate) fn reconciled(
    node: u128,
    incarnation: u64,
    sequence: u64,
    results: impl IntoIterator<Item = NetworkOutcome>,
) -> Event {
    let results = results.into_iter().collect();
    Event::NodeReconciled(NodeReconciled { node_id: node_id(node), incarnation, sequence, results })
}
