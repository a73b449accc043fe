//! Networks and VMs: commands that often conflict, and what holds after each.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::NetworkEvent;
use otherix_schemas::nic::NicEvent;
use otherix_schemas::node::NodeEvent;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::vm::VmCommand;
use proptest::prelude::*;

use crate::builders::{self, *};
use crate::decisions::Given;

/// Commands with few names, bridges, subnets and ids, so that they often conflict.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    let id = 0u128..40;
    let label = prop::sample::select(vec!["a", "A", "b", "B", "straße", "STRASSE", "c"]);
    let bridge = prop::sample::select(vec!["br0", "br1", "br2"]);
    let net = prop::sample::select(vec!["10.0.0.0/16", "10.0.1.0/24", "10.1.0.0/16", "192.168.0.0/30"]);
    let outcome = prop_oneof![
        Just(Outcome::Ready),
        Just(Outcome::Removed),
        Just(Outcome::Failed("broken".to_owned())),
        Just(Outcome::Pending("waiting".to_owned())),
    ];
    let results = prop::collection::vec((any::<bool>(), id.clone(), 0u64..60, outcome), 0..4);
    prop_oneof![
        3 => (id.clone(), label.clone(), bridge.clone()).prop_map(|(id, name, br)| create(id, name, managed(br))),
        2 => (id.clone(), label.clone(), bridge.clone()).prop_map(|(id, name, br)| create(id, name, unmanaged(br))),
        3 => (id.clone(), label.clone(), bridge, net.clone())
            .prop_map(|(id, name, br, net)| create(id, name, nat(br, net))),
        3 => (id.clone(), label, net).prop_map(|(id, name, net)| create_overlay(id, name, net)),
        5 => id.clone().prop_map(delete),
        6 => (id.clone(), prop::option::of(id.clone()), prop::option::of(0u128..4), 0u32..3).prop_map(vm_with_mac),
        3 => id.prop_map(delete_vm),
        1 => (0u128..4, 0u128..4).prop_map(|(id, name)| join(id, &format!("node-{name}"))),
        2 => (0u128..9).prop_map(remove),
        3 => (0u128..9, 0u8..9, 1u16..3).prop_map(|(id, number, port)| join_mesh(id, number, port)),
        2 => (prop::collection::vec(0u128..4, 0..3), prop::collection::vec(0u128..4, 0..3))
            .prop_map(|(unreachable, reachable)| presence(&unreachable, &reachable)),
        4 => (0u128..4, 1u64..3, 1u64..9, results).prop_map(|(node, incarnation, sequence, results)| {
            let results = results.into_iter().map(|(is_nic, id, generation, result)| {
                let of = if is_nic { nic_outcome } else { builders::outcome };
                of(id, generation, result)
            });
            report(node, incarnation, sequence, results)
        }),
    ]
}

/// A VM whose NIC's MAC address is chosen from `mac` on, so that addresses conflict.
fn vm_with_mac((id, network, node, mac): (u128, Option<u128>, Option<u128>, u32)) -> Command {
    let mut command = create_vm(id, network, node);
    if let Command::Vm(VmCommand::Create { nic, .. }) = &mut command {
        nic.mac = mac;
    }
    command
}

/// No two NICs share an address, detached ones included; each is on an existing network, and every VM on a node.
pub(crate) fn check_vms(given: &Given) -> Result<(), TestCaseError> {
    let state = &given.state;
    let mut names = BTreeSet::new();
    let mut macs = BTreeSet::new();
    let mut on_networks: BTreeMap<NetworkId, usize> = BTreeMap::new();
    for (vm_id, vm) in state.vms() {
        prop_assert!(names.insert(vm.name.key()), "a VM name is not unique");
        prop_assert!(state.nodes().contains_key(&vm.node_id));
        for (_, nic) in state.nics().of_vm(*vm_id) {
            prop_assert!(!nic.detached && nic.node_id == Some(vm.node_id));
            prop_assert!(state.live_network(nic.network_id).is_some(), "a NIC is on a deleted network");
            *on_networks.entry(nic.network_id).or_default() += 1;
        }
    }
    // Including detached NICs whose taps may still exist.
    let attached = given.envelopes.iter().filter_map(|envelope| {
        let Event::Nic(NicEvent::Attached(event)) = &envelope.event else { return None };
        state.nics().get(event.nic_id)
    });
    for nic in attached {
        prop_assert!(macs.insert(nic.mac), "a MAC address is not unique");
    }
    for (id, _) in state.live_networks() {
        let count = on_networks.get(&id).copied().unwrap_or_default();
        prop_assert_eq!(state.nics().count_of_network(id), count);
    }
    for (id, node) in state.nodes() {
        let here = state.vms().iter().filter(|(_, vm)| vm.node_id == *id);
        let nics = here.map(|(vm_id, _)| state.nics().of_vm(*vm_id).count()).sum::<usize>();
        prop_assert_eq!(node.nics, nics);
    }
    Ok(())
}

/// Names, bridges, NAT subnets, VNIs and presence, after every command.
pub(crate) fn check_invariants(given: &Given) -> Result<(), TestCaseError> {
    let live: Vec<_> = given.state.live_networks().collect();
    let names: BTreeSet<_> = live.iter().map(|(_, network)| network.name.key()).collect();
    prop_assert_eq!(names.len(), live.len(), "a network name is not unique");
    let mut bridges: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (_, network) in &live {
        bridges.entry(network.spec.bridge_name()).or_default().push(network.spec.managed());
    }
    for (bridge, managed) in bridges {
        prop_assert!(managed.len() == 1 || !managed.contains(&true), "bridge {} is shared", bridge);
    }
    let subnets: Vec<_> = live.iter().filter_map(|(_, network)| network.spec.nat()).map(|nat| nat.subnet()).collect();
    for (index, one) in subnets.iter().enumerate() {
        prop_assert!(subnets.iter().skip(index + 1).all(|other| !one.overlaps(*other)));
    }
    let vnis: Vec<_> = given
        .envelopes
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Network(NetworkEvent::Created(event)) => event.spec.vni(),
            Event::User(_)
            | Event::Enrollment(_)
            | Event::Network(_)
            | Event::Vm(_)
            | Event::Nic(_)
            | Event::Node(_)
            | Event::Cluster(_) => None,
        })
        .collect();
    let mut presence: BTreeMap<NodeId, bool> = BTreeMap::new();
    for envelope in &given.envelopes {
        let (node, reachable, before) = match &envelope.event {
            Event::Node(NodeEvent::Joined(event)) => (event.node_id, true, None),
            Event::Node(NodeEvent::Unreachable(event)) => (event.node_id, false, Some(true)),
            Event::Node(NodeEvent::Reachable(event)) => (event.node_id, true, Some(false)),
            Event::Node(NodeEvent::Removed(event)) => {
                prop_assert!(presence.remove(&event.node_id).is_some(), "only a member is removed");
                continue;
            }
            Event::User(_)
            | Event::Enrollment(_)
            | Event::Network(_)
            | Event::Vm(_)
            | Event::Nic(_)
            | Event::Node(_)
            | Event::Cluster(_) => continue,
        };
        prop_assert_eq!(presence.insert(node, reachable), before, "an event that does not change the presence");
    }
    prop_assert_eq!(&presence, &given.state.roster().members);
    prop_assert!(vnis.is_sorted_by(|one, next| one < next), "VNIs do not increase: {:?}", vnis);
    Ok(())
}
