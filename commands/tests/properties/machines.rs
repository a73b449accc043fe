//! Nodes, their keys and their places in the mesh: commands that often conflict, and what holds after each.

use std::collections::{BTreeMap, BTreeSet};

use otherix_commands::domain::Vm;
use otherix_schemas::command::Command;
use otherix_schemas::enrollment::{EnrollmentCommand, EnrollmentEvent, NewJoinToken, NodeToEnroll};
use otherix_schemas::event::{Event, StreamId};
use otherix_schemas::id::{JoinTokenId, NodeId};
use otherix_schemas::network::{BridgeSpec, NetworkEvent};
use otherix_schemas::nic::NicEvent;
use otherix_schemas::node::{MeshPeer, NodeChanged, NodeCommand, NodeEvent, Resources};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{NewUser, UserCommand, UserEvent, UserRole};
use otherix_schemas::value::MeshPublicKey;
use otherix_schemas::vm::{Instruction, MachinePhase, VmEvent};
use proptest::prelude::*;
use uuid::Uuid;

use crate::builders::{self, *};
use crate::decisions::Given;

const INSTRUCTIONS: &[Instruction] = &[
    Instruction::Start,
    Instruction::Stop,
    Instruction::Reboot,
    Instruction::Reset,
    Instruction::Pause,
    Instruction::Resume,
];

/// Commands with so few nodes and resources that nodes are often removed while their reports are awaited.
pub(crate) fn membership_command() -> impl Strategy<Value = Command> {
    // Most VMs are decided within the first events, and so are the moves that a report at one of these ends.
    let result = (0..4, 0u128..8, any::<bool>(), 1u64..60).prop_map(|(kind, id, removed, generation)| {
        let (outcome, phase) = match removed {
            true => (Outcome::Removed, MachinePhase::Removed),
            false => (Outcome::Ready, MachinePhase::Running),
        };
        match kind {
            0 => builders::outcome(id, 1, outcome),
            1 => nic_outcome(id, 1, outcome),
            2 => machine_outcome(id, generation, phase, outcome),
            _ => machine_outcome(id, 1, phase, outcome),
        }
    });
    prop_oneof![
        3 => (0u128..8).prop_map(|id| create(id, &format!("net-{id}"), managed_or_dhcp(id))),
        3 => (0u128..8).prop_map(delete),
        3 => (0u128..6).prop_map(|id| join_mesh(id, u8::try_from(id).unwrap(), 1)),
        2 => (0u128..6).prop_map(remove),
        2 => (0u128..6, any::<bool>()).prop_map(|(id, cordoned)| cordon(id, cordoned)),
        2 => (0u128..6, 0u64..5).prop_map(|(id, machines)| report_capacity(capacity(id, machines))),
        4 => (0u128..8, prop::option::of(0u128..8)).prop_map(|(id, network)| create_vm(id, network, None)),
        2 => (0u128..8, 0u128..4, 0u8..8)
            .prop_map(|(id, network, last)| create_vm_at(id, Some(2 * network), None, Some([10, 20, 0, last].into()))),
        4 => (0u128..8, prop::option::of(0u128..8), 0u128..8)
            .prop_map(|(id, network, node)| create_machine(id, network, node)),
        4 => (0u128..8, prop::sample::select(INSTRUCTIONS)).prop_map(|(id, instruction)| instruct(id, instruction)),
        4 => (0u128..8).prop_map(delete_vm),
        6 => (0u128..8, prop::option::of(0u128..6)).prop_map(|(id, node)| move_vm(id, node)),
        1 => (0u128..8).prop_map(cancel_move),
        6 => (0u128..6, 1u64..20, prop::collection::vec(result, 1..4))
            .prop_map(|(node, sequence, results)| report(node, 1, sequence, results)),
    ]
}

/// Every second network assigns five addresses, which is less than there are VMs.
fn managed_or_dhcp(id: u128) -> BridgeSpec {
    let bridge = format!("br{id}");
    if id.is_multiple_of(2) { dhcp(&bridge, "10.20.0.0/29") } else { managed(&bridge) }
}

/// A NIC has an address exactly if its network assigns some, and none that another NIC of the network has, be it
/// detached with a tap that is not removed yet.
pub(crate) fn check_addresses(given: &Given) -> Result<(), TestCaseError> {
    let mut subnets = BTreeMap::new();
    let mut holders = BTreeSet::new();
    for envelope in &given.envelopes {
        match &envelope.event {
            Event::Network(NetworkEvent::Created(event)) => {
                subnets.insert(event.network_id, event.spec.dhcp().map(|dhcp| dhcp.subnet));
            }
            Event::Nic(NicEvent::Attached(event)) => {
                let subnet = subnets.get(&event.network_id).copied().flatten();
                prop_assert_eq!(event.ip.is_some(), subnet.is_some());
                if let (Some(ip), Some(subnet)) = (event.ip, subnet) {
                    prop_assert_eq!(subnet.check_guest(ip), Ok(()));
                }
                prop_assert_eq!(given.state.nics().get(event.nic_id).is_none_or(|nic| nic.ip == event.ip), true);
            }
            Event::Network(_)
            | Event::Nic(_)
            | Event::Vm(_)
            | Event::Node(_)
            | Event::User(_)
            | Event::Enrollment(_)
            | Event::Cluster(_) => {}
        }
    }
    let attached = given.envelopes.iter().filter_map(|envelope| {
        let Event::Nic(NicEvent::Attached(event)) = &envelope.event else { return None };
        given.state.nics().get(event.nic_id).map(|nic| (event.nic_id, nic))
    });
    for (id, nic) in attached.collect::<BTreeMap<_, _>>() {
        if let Some(ip) = nic.ip {
            prop_assert!(holders.insert((nic.network_id, ip)), "{} of NIC {} was given twice", ip, id);
        }
    }
    Ok(())
}

/// What machines take of each node is the sum of those that are on it.
pub(crate) fn check_allocated(given: &Given) -> Result<(), TestCaseError> {
    for (id, node) in given.state.nodes() {
        // A VM that moves has room on both nodes.
        let is_on = |vm: &&Vm| vm.node_id == *id || vm.moving.as_ref().is_some_and(|moving| moving.node_id == *id);
        let on_it: Vec<_> = given.state.vms().values().filter(is_on).collect();
        prop_assert_eq!(node.vms, on_it.len());
        let machines = on_it.into_iter().filter_map(|vm| vm.machine.as_ref());
        let sum = machines.map(|machine| Resources::from(&machine.spec)).fold(Resources::default(), Resources::plus);
        prop_assert_eq!(node.allocated, sum);
    }
    Ok(())
}

fn token(id: u128) -> JoinTokenId {
    JoinTokenId::new(Uuid::from_u128(id))
}

pub(crate) fn create_token(id: u128, label: Option<&str>, key: u8, max_uses: u32) -> Command {
    let expires_at = Timestamp::from_unix_micros(40_000_000).unwrap();
    let draft = NewJoinToken { node_name: label.map(node_name), key: user_key(key), expires_at, max_uses };
    Command::Enrollment(EnrollmentCommand::CreateToken { token_id: token(id), token: draft })
}

pub(crate) fn enroll(id: u128, new: u128, label: &str, key: u8, own: Option<u128>) -> Command {
    let node = NodeToEnroll { name: node_name(label), key: user_key(key), node_id: own.map(node_id) };
    Command::Enrollment(EnrollmentCommand::Enroll { token_id: token(id), new_id: node_id(new), node })
}

pub(crate) fn offer_key(id: u128, key: u8) -> Command {
    Command::Enrollment(EnrollmentCommand::OfferKey { node_id: node_id(id), key: user_key(key) })
}

pub(crate) fn join_with_key(id: u128, label: &str, key: u8) -> Command {
    let (node_id, name, key) = (node_id(id), node_name(label), (&user_key(key)).into());
    Command::Node(NodeCommand::Join { node_id, name, key, mesh: None, arch: None })
}

/// Commands on join tokens and nodes with few names and keys, some of which users have.
pub(crate) fn enrollment_command() -> impl Strategy<Value = Command> {
    let label = || prop::sample::select(vec!["node-1", "NODE-1", "node-2", "node-3"]);
    prop_oneof![
        3 => (0u128..6, prop::option::of(label()), 0u8..40, 1u32..3)
            .prop_map(|(id, label, key, max_uses)| create_token(id, label, key, max_uses)),
        1 => (0u128..6).prop_map(|id| Command::Enrollment(EnrollmentCommand::RevokeToken { token_id: token(id) })),
        6 => (0u128..6, 0u128..6, label(), 0u8..40, prop::option::of(0u128..6))
            .prop_map(|(id, new, label, key, own)| enroll(id, new, label, key, own)),
        2 => (0u128..6, 0u8..40).prop_map(|(id, key)| offer_key(id, key)),
        3 => (0u128..6, 0u8..40, label()).prop_map(|(id, key, label)| join_with_key(id, label, key)),
        1 => (0u128..6).prop_map(remove),
        2 => (0u128..8, 0u8..40).prop_map(|(id, key)| {
            let (name, role) = (user_name(&format!("user-{id}")), UserRole::Viewer);
            let user = NewUser { name, role, key: user_key(key), expires_at: None };
            Command::User(UserCommand::Create { user_id: user_id(id), user })
        }),
    ]
}

/// No key is registered twice, by whomever. A key is that of one node at most, and no key of a node that was removed
/// is valid. A node has one name, and a name belongs to one node. A token is redeemed as often as it may be.
pub(crate) fn check_enrollments(given: &Given) -> Result<(), TestCaseError> {
    let (callers, state) = (given.state.callers(), &given.state);
    let mut keys = BTreeSet::new();
    for envelope in &given.envelopes {
        let key = match &envelope.event {
            Event::User(UserEvent::Created(event)) => &event.key,
            Event::Enrollment(EnrollmentEvent::TokenCreated(event)) => &event.key,
            Event::Enrollment(EnrollmentEvent::KeyRegistered(event)) => &event.key,
            Event::Enrollment(EnrollmentEvent::KeyOffered(event)) => &event.key,
            Event::User(_)
            | Event::Enrollment(_)
            | Event::Network(_)
            | Event::Vm(_)
            | Event::Nic(_)
            | Event::Node(_)
            | Event::Cluster(_) => continue,
        };
        prop_assert!(keys.insert(key.clone()), "a key was registered twice");
        let found = callers.find(&key.into(), Some(envelope.header.time)).ok();
        let node = found.and_then(|caller| caller.node_id());
        prop_assert_eq!(node, callers.enrollments().node_of(key).map(|(id, _)| id));
        if let Some(id) = node {
            prop_assert!(!state.roster().removed.contains_key(&id), "a removed node has a key");
        }
    }
    let mut names = BTreeSet::new();
    for (id, keys) in callers.enrollments().nodes().iter().filter(|(_, keys)| keys.present.is_some()) {
        prop_assert!(names.insert(keys.name.key()), "two nodes have a name");
        prop_assert!(state.nodes().get(id).is_none_or(|node| node.name == keys.name), "a node has two names");
    }
    for token in callers.enrollments().tokens().values() {
        prop_assert!(token.uses <= token.max_uses, "a token was redeemed too often");
    }
    Ok(())
}

/// Assigned addresses only increase and never change, and a key belongs to the first node that had it.
pub(crate) fn check_mesh(given: &Given) -> Result<(), TestCaseError> {
    let mut nodes: BTreeMap<NodeId, MeshPeer> = BTreeMap::new();
    let mut keys: BTreeMap<MeshPublicKey, NodeId> = BTreeMap::new();
    let mut highest = None;
    for envelope in &given.envelopes {
        if let Event::Node(NodeEvent::Removed(removed)) = &envelope.event {
            nodes.remove(&removed.node_id);
        }
        let Event::Node(NodeEvent::Changed(NodeChanged { node_id, mesh })) = &envelope.event else { continue };
        match nodes.insert(*node_id, *mesh) {
            Some(before) => {
                prop_assert_eq!(before.address, mesh.address);
                prop_assert_ne!(before, *mesh, "an event that changes nothing");
            }
            None => {
                prop_assert!(highest < Some(mesh.address), "{} is assigned twice", mesh.address);
                highest = Some(mesh.address);
                let host =
                    given.config.mesh.first_host() <= mesh.address && mesh.address <= given.config.mesh.last_host();
                prop_assert!(host, "{} is not a host address", mesh.address);
            }
        }
        prop_assert_eq!(*keys.entry(mesh.public_key).or_insert(*node_id), *node_id, "two nodes share a key");
    }
    for (id, node) in given.state.nodes() {
        prop_assert_eq!(node.mesh, nodes.get(id).copied());
    }
    Ok(())
}

/// A removed node has no further events and is not awaited; names of nodes are unique.
pub(crate) fn check_nodes(given: &Given) -> Result<(), TestCaseError> {
    let state = &given.state;
    let mut removed: BTreeSet<NodeId> = BTreeSet::new();
    for envelope in &given.envelopes {
        if let StreamId::Node(id) = envelope.event.stream_id() {
            prop_assert!(!removed.contains(&id), "{} has an event after its removal", id);
        }
        if let Event::Node(NodeEvent::Removed(event)) = &envelope.event {
            removed.insert(event.node_id);
        }
        if let Event::Vm(VmEvent::Created(event)) = &envelope.event {
            prop_assert!(!removed.contains(&event.node_id), "a VM on a removed node");
        }
    }
    prop_assert_eq!(&removed, &state.roster().removed.keys().copied().collect());
    prop_assert!(state.nodes().keys().eq(state.roster().members.keys()));
    prop_assert!(state.nodes().keys().all(|id| !removed.contains(id)));
    let names: BTreeSet<_> = state.nodes().values().map(|node| node.name.key()).collect();
    prop_assert_eq!(names.len(), state.nodes().len(), "a node name is not unique");
    let known = given.envelopes.iter().filter_map(|envelope| {
        let Event::Network(NetworkEvent::Created(event)) = &envelope.event else { return None };
        state.network(event.network_id)
    });
    for network in known {
        prop_assert!(network.outcomes.keys().all(|id| state.nodes().contains_key(id)));
        if let Some(deletion) = &network.deletion {
            prop_assert!(!deletion.awaited.is_empty(), "a deleted network that awaits no node was kept");
            prop_assert!(deletion.awaited.iter().all(|id| state.nodes().contains_key(id)));
        }
    }
    let nics = given.envelopes.iter().filter_map(|envelope| {
        let Event::Nic(NicEvent::Attached(event)) = &envelope.event else { return None };
        state.nics().get(event.nic_id)
    });
    for nic in nics {
        prop_assert!(nic.node_id.is_some_and(|id| state.nodes().contains_key(&id)), "the NIC's node does not exist");
        prop_assert!(nic.outcomes.keys().all(|id| state.nodes().contains_key(id)));
    }
    Ok(())
}
