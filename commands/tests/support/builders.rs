//! Ids, values, commands and events for tests, from short numbers and names.
#![expect(clippy::unwrap_used, reason = "test support")]
#![allow(dead_code, reason = "each test binary that includes this file uses a part of it")]

use std::net::Ipv4Addr;

use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NicId, NodeId, UserUuid, VmId};
use otherix_schemas::network::{
    BridgeSpec, Dhcp, Egress, NetworkCommand, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec, NewNetwork,
    NewNetworkSpec, OverlaySpec, Ownership,
};
use otherix_schemas::nic::{GeneratedNic, NicAttached, NicBound, NicDetached, NicEvent};
use otherix_schemas::node::{
    MeshOffer, MeshPeer, NodeAccelerator, NodeCapacity, NodeCapacityReported, NodeChanged, NodeCommand, NodeCordoned,
    NodeDescribed, NodeEvent, NodeJoined, NodeReachable, NodeReconciled, NodeRemoved, NodeReport, NodeUncordoned,
    NodeUnreachable, Resources, UnreachableNode,
};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::RowScope;
use otherix_schemas::value::{
    BridgeName, GatewaySubnet, ImageUrl, Ipv4Subnet, MacAddress, MeshPublicKey, Metadata, Mtu, NetworkName, NodeName,
    UserId, UserKey, UserName,
};
use otherix_schemas::vm::{
    Arch, Instruction, Machine, MachinePhase, MachineStatus, NewVm, PullPolicy, VmCommand, VmCreated, VmDeleted,
    VmEvent,
};
use uuid::Uuid;

pub(crate) fn network_id(number: u128) -> NetworkId {
    NetworkId::new(Uuid::from_u128(0x1000 + number))
}

pub(crate) fn node_id(number: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(0x2000 + number))
}

pub(crate) fn vm_id(number: u128) -> VmId {
    VmId::new(Uuid::from_u128(0x3000 + number))
}

/// A NIC id whose first digits, which the tap's name contains, are unique too.
pub(crate) fn nic_id(number: u128) -> NicId {
    NicId::new(Uuid::from_u128(number << 80))
}

/// Who creates the VMs.
pub(crate) fn owner() -> UserId {
    "admin".parse().unwrap()
}

pub(crate) fn user_id(number: u128) -> UserUuid {
    UserUuid::new(Uuid::from_u128(0x4000 + number))
}

pub(crate) fn user_key(number: u8) -> UserKey {
    UserKey::from_bytes([number; 32])
}

pub(crate) fn user_name(text: &str) -> UserName {
    text.parse().unwrap()
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
    BridgeSpec {
        bridge_name: bridge_name(name),
        ownership,
        mtu: Mtu::DEFAULT,
        vlan: None,
        dhcp: None,
        allow_spoofing: false,
    }
}

pub(crate) fn managed(name: &str) -> BridgeSpec {
    bridge(name, Ownership::Managed(Egress::None))
}

pub(crate) fn unmanaged(name: &str) -> BridgeSpec {
    bridge(name, Ownership::Unmanaged)
}

pub(crate) fn nat(name: &str, text: &str) -> BridgeSpec {
    bridge(name, Ownership::Managed(Egress::Nat(GatewaySubnet::new(subnet(text), None).unwrap())))
}

/// A managed bridge that assigns addresses.
pub(crate) fn dhcp(name: &str, text: &str) -> BridgeSpec {
    let subnet = GatewaySubnet::new(subnet(text), None).unwrap();
    BridgeSpec { dhcp: Some(Dhcp { subnet, dns: true }), ..managed(name) }
}

pub(crate) fn spec(bridge: BridgeSpec) -> NetworkSpec {
    NetworkSpec::Bridge(bridge)
}

pub(crate) fn create(id: u128, text: &str, bridge: BridgeSpec) -> Command {
    let network = NewNetwork { name: name(text), spec: NewNetworkSpec::Bridge(bridge), metadata: Metadata::default() };
    Command::Network(NetworkCommand::Create { network_id: network_id(id), network })
}

pub(crate) fn create_overlay(id: u128, text: &str, net: &str) -> Command {
    let network = NewNetwork {
        name: name(text),
        spec: NewNetworkSpec::Overlay { subnet: subnet(net), egress: Egress::None, dhcp: None, allow_spoofing: false },
        metadata: Metadata::default(),
    };
    Command::Network(NetworkCommand::Create { network_id: network_id(id), network })
}

pub(crate) fn network_created(id: u128, text: &str, spec: NetworkSpec) -> Event {
    Event::Network(NetworkEvent::Created(NetworkCreated { network_id: network_id(id), name: name(text), spec }))
}

pub(crate) fn created(id: u128, text: &str, bridge: BridgeSpec) -> Event {
    network_created(id, text, spec(bridge))
}

pub(crate) fn overlay_created(id: u128, text: &str, vni: u32, net: &str) -> Event {
    let mtu = Mtu::try_from(1390).unwrap();
    let overlay = OverlaySpec {
        vni: vni.try_into().unwrap(),
        subnet: subnet(net),
        egress: Egress::None,
        mtu,
        dhcp: None,
        allow_spoofing: false,
    };
    network_created(id, text, NetworkSpec::Overlay(overlay))
}

pub(crate) fn delete(id: u128) -> Command {
    Command::Network(NetworkCommand::Delete { network_id: network_id(id) })
}

pub(crate) fn deleted(id: u128, text: &str) -> Event {
    Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id: network_id(id), name: name(text) }))
}

fn image() -> ImageUrl {
    "https://images.example/debian-12.qcow2".parse().unwrap()
}

/// Creates VM `vm-<id>`, whose NIC has the VM's number, on a network and a node if they are given.
pub(crate) fn create_vm(id: u128, network: Option<u128>, node: Option<u128>) -> Command {
    create_vm_at(id, network, node, None)
}

/// As [`create_vm`], with a requested address.
pub(crate) fn create_vm_at(id: u128, network: Option<u128>, node: Option<u128>, ip: Option<Ipv4Addr>) -> Command {
    let vm = NewVm {
        name: format!("vm-{id}").parse().unwrap(),
        image_url: image(),
        arch: Arch::Amd64,
        network_id: network.map(network_id),
        ip,
        node_id: node.map(node_id),
        machine: None,
        metadata: otherix_schemas::value::Metadata::default(),
    };
    let mac = u32::try_from(id).unwrap();
    let nic = GeneratedNic { nic_id: nic_id(id), mac };
    Command::Vm(VmCommand::Create { vm_id: vm_id(id), nic, vm: Box::new(vm), owner: owner() })
}

/// As [`create_vm`], on a node and with a machine of the least size.
pub(crate) fn create_machine(id: u128, network: Option<u128>, node: u128) -> Command {
    let mut command = create_vm(id, network, Some(node));
    if let Command::Vm(VmCommand::Create { vm, .. }) = &mut command {
        vm.machine = Some(machine());
    }
    command
}

/// What a node offers: as many processors, and memory and disk for as many machines of [`machine`].
pub(crate) fn capacity(id: u128, machines: u64) -> NodeCapacityReported {
    let resources = Resources { vcpus: machines, memory_mb: 64 * machines, disk_gib: machines };
    let capacity = NodeCapacity { accelerator: Some(NodeAccelerator::Tcg), reason: "a test".to_owned(), resources };
    NodeCapacityReported { node_id: node_id(id), capacity }
}

pub(crate) fn report_capacity(reported: NodeCapacityReported) -> Command {
    Command::Node(NodeCommand::RecordCapacity(reported))
}

pub(crate) fn machine() -> Machine {
    let (disk_gib, image_sha256, cloud_init) = (None, None, None);
    Machine { vcpus: 1, memory_mb: 64, disk_gib, image_sha256, pull_policy: PullPolicy::IfNotPresent, cloud_init }
}

pub(crate) fn instruct(id: u128, instruction: Instruction) -> Command {
    let (vm_id, timeout_s, scope) = (vm_id(id), None, RowScope::Any);
    Command::Vm(VmCommand::Instruct { vm_id, instruction, timeout_s, scope })
}

/// Moves a VM to a node, or to any.
pub(crate) fn move_vm(id: u128, node: Option<u128>) -> Command {
    let (vm_id, node_id, timeout_s, scope) = (vm_id(id), node.map(node_id), 60, RowScope::Any);
    Command::Vm(VmCommand::Move { vm_id, node_id, timeout_s, scope })
}

pub(crate) fn cancel_move(id: u128) -> Command {
    Command::Vm(VmCommand::CancelMove { vm_id: vm_id(id), scope: RowScope::Any })
}

/// What a node reports of a machine.
pub(crate) fn machine_outcome(vm: u128, generation: u64, phase: MachinePhase, outcome: Outcome) -> ResourceOutcome {
    let machine = Some(MachineStatus { phase, started_at: None, last_line: None });
    let resource = ResourceRef::Vm(vm_id(vm));
    ResourceOutcome { machine, ..ResourceOutcome::new(resource, Position::new(generation), outcome) }
}

pub(crate) fn delete_vm(id: u128) -> Command {
    Command::Vm(VmCommand::Delete { vm_id: vm_id(id), scope: RowScope::Any })
}

/// The events of [`create_vm`].
pub(crate) fn vm_created(id: u128, network: Option<u128>, node: u128) -> Vec<Event> {
    let name = format!("vm-{id}").parse().unwrap();
    let (vm_id, node_id) = (vm_id(id), node_id(node));
    let vm = Event::Vm(VmEvent::Created(VmCreated {
        vm_id,
        name,
        image_url: image(),
        arch: Arch::Amd64,
        node_id,
        owner: Some(owner()),
        machine: None,
    }));
    let nic =
        network.into_iter().flat_map(|network| [attached(id, network, u32::try_from(id).unwrap()), bound(id, node)]);
    std::iter::once(vm).chain(nic).collect()
}

pub(crate) fn attached(id: u128, network: u128, mac: u32) -> Event {
    let (nic_id, vm_id, network_id) = (nic_id(id), vm_id(id), network_id(network));
    Event::Nic(NicEvent::Attached(NicAttached { nic_id, vm_id, network_id, mac: MacAddress::assigned(mac), ip: None }))
}

/// The events of [`create_vm`] on a network that assigns addresses.
pub(crate) fn vm_created_at(id: u128, network: u128, node: u128, ip: [u8; 4]) -> Vec<Event> {
    let mut events = vm_created(id, Some(network), node);
    for event in &mut events {
        if let Event::Nic(NicEvent::Attached(attached)) = event {
            attached.ip = Some(ip.into());
        }
    }
    events
}

pub(crate) fn bound(id: u128, node: u128) -> Event {
    Event::Nic(NicEvent::Bound(NicBound { nic_id: nic_id(id), node_id: node_id(node) }))
}

/// The events of [`delete_vm`].
pub(crate) fn vm_deleted(id: u128, network: Option<u128>) -> Vec<Event> {
    let (nic_id, vm_id) = (nic_id(id), vm_id(id));
    let detached =
        |network| Event::Nic(NicEvent::Detached(NicDetached { nic_id, vm_id, network_id: network_id(network) }));
    let deleted = Event::Vm(VmEvent::Deleted(VmDeleted { vm_id, name: format!("vm-{id}").parse().unwrap() }));
    network.map(detached).into_iter().chain([deleted]).collect()
}

pub(crate) fn join(id: u128, text: &str) -> Command {
    Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: node_id(id),
        name: node_name(text),
        mesh: None,
        arch: None,
    })
}

/// Node `id` joins as `node-<id>` and tells its architecture.
pub(crate) fn join_arch(id: u128, arch: Arch) -> Command {
    let name = node_name(&format!("node-{id}"));
    Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: node_id(id),
        name,
        mesh: None,
        arch: Some(arch),
    })
}

pub(crate) fn described(id: u128, arch: Arch) -> Event {
    Event::Node(NodeEvent::Described(NodeDescribed { node_id: node_id(id), arch }))
}

pub(crate) fn cordon(id: u128, cordoned: bool) -> Command {
    Command::Node(NodeCommand::Cordon { node_id: node_id(id), cordoned })
}

pub(crate) fn cordoned(id: u128) -> Event {
    NodeCordoned { node_id: node_id(id) }.into()
}

pub(crate) fn uncordoned(id: u128) -> Event {
    NodeUncordoned { node_id: node_id(id) }.into()
}

/// A public key that a number identifies.
pub(crate) fn key(number: u8) -> MeshPublicKey {
    MeshPublicKey::try_from([number + 1; 32]).unwrap()
}

/// Node `id` joins as `node-<id>` and offers a key and, at a port, an endpoint.
pub(crate) fn join_mesh(id: u128, number: u8, port: u16) -> Command {
    let endpoint = format!("192.0.2.{id}:{port}").parse().unwrap();
    let mesh = Some(MeshOffer { public_key: key(number), endpoint });
    Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: node_id(id),
        name: node_name(&format!("node-{id}")),
        mesh,
        arch: None,
    })
}

/// The event of [`join_mesh`] for a node that has joined before.
pub(crate) fn changed(id: u128, address: [u8; 4], number: u8, port: u16) -> Event {
    let endpoint = format!("192.0.2.{id}:{port}").parse().unwrap();
    let mesh = MeshPeer { address: Ipv4Addr::from(address), public_key: key(number), endpoint };
    Event::Node(NodeEvent::Changed(NodeChanged { node_id: node_id(id), mesh }))
}

/// Node `id` joined as `node-<id>`.
pub(crate) fn node_joined(id: u128) -> Event {
    Event::Node(NodeEvent::Joined(NodeJoined { node_id: node_id(id), name: node_name(&format!("node-{id}")) }))
}

pub(crate) fn remove(id: u128) -> Command {
    Command::Node(NodeCommand::Remove { node_id: node_id(id) })
}

/// The event of [`remove`] for a node that joined as `node-<id>`.
pub(crate) fn node_removed(id: u128) -> Event {
    Event::Node(NodeEvent::Removed(NodeRemoved { node_id: node_id(id), name: node_name(&format!("node-{id}")) }))
}

/// When something was last received from an unreachable node.
fn last_heard() -> Option<Timestamp> {
    Timestamp::from_unix_micros(1_700_000_000_000_000).ok()
}

pub(crate) fn unreachable(id: u128) -> Event {
    Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id: node_id(id), last_heard_at: last_heard() }))
}

pub(crate) fn reachable(id: u128) -> Event {
    Event::Node(NodeEvent::Reachable(NodeReachable { node_id: node_id(id) }))
}

/// Records nodes as unreachable and others as reachable again.
pub(crate) fn presence(unreachable: &[u128], reachable: &[u128]) -> Command {
    let unreachable_node = |id: &u128| UnreachableNode { node_id: node_id(*id), last_heard_at: last_heard() };
    Command::Node(NodeCommand::RecordPresence {
        unreachable: unreachable.iter().map(unreachable_node).collect(),
        reachable: reachable.iter().map(|id| node_id(*id)).collect(),
    })
}

pub(crate) fn outcome(network: u128, generation: u64, outcome: Outcome) -> ResourceOutcome {
    ResourceOutcome::new(ResourceRef::Network(network_id(network)), Position::new(generation), outcome)
}

pub(crate) fn nic_outcome(nic: u128, generation: u64, outcome: Outcome) -> ResourceOutcome {
    ResourceOutcome::new(ResourceRef::Nic(nic_id(nic)), Position::new(generation), outcome)
}

pub(crate) fn report(
    node: u128,
    incarnation: u64,
    sequence: u64,
    results: impl IntoIterator<Item = ResourceOutcome>,
) -> Command {
    let results = results.into_iter().collect();
    Command::Node(NodeCommand::RecordReport(NodeReport { node_id: node_id(node), incarnation, sequence, results }))
}

pub(crate) fn reconciled(
    node: u128,
    incarnation: u64,
    sequence: u64,
    results: impl IntoIterator<Item = ResourceOutcome>,
) -> Event {
    let results = results.into_iter().collect();
    Event::Node(NodeEvent::Reconciled(NodeReconciled { node_id: node_id(node), incarnation, sequence, results }))
}
