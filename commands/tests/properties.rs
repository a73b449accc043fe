//! Invariants for any sequence of commands: names, bridges and NAT subnets are unique, a VNI or mesh address is never
//! assigned twice, a public key belongs to one node, a removed node never returns and is never awaited, no NIC is
//! attached to a deleted network, names and keys of users are unique, there is an admin once there was one, and the
//! state is a function of the events: replaying a prefix gives the state at that position.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use std::collections::{BTreeMap, BTreeSet};

use builders::*;
use decisions::{Given, given};
use otherix_commands::config::ClusterConfig;
use otherix_commands::domain::State;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::command::Command;
use otherix_schemas::enrollment::{EnrollmentCommand, EnrollmentEvent, NewJoinToken, NodeToEnroll};
use otherix_schemas::event::{Event, StreamId};
use otherix_schemas::id::{JoinTokenId, NetworkId, NodeId};
use otherix_schemas::network::{NetworkCommand, NetworkEvent};
use otherix_schemas::nic::NicEvent;
use otherix_schemas::node::{MeshPeer, NodeChanged, NodeCommand, NodeEvent};
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{NewExpiry, NewUser, RegisteredUser, UserCommand, UserEvent, UserRole};
use otherix_schemas::value::{MeshPublicKey, VniRange};
use otherix_schemas::vm::{VmCommand, VmEvent};
use proptest::prelude::*;
use uuid::Uuid;

/// Commands with few names, bridges, subnets and ids, so that they often conflict.
fn command() -> impl Strategy<Value = Command> {
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

/// Commands with so few nodes and resources that nodes are often removed while their reports are awaited.
fn membership_command() -> impl Strategy<Value = Command> {
    let result = (any::<bool>(), 0u128..8, any::<bool>()).prop_map(|(is_nic, id, removed)| {
        let of = if is_nic { nic_outcome } else { builders::outcome };
        of(id, 1, if removed { Outcome::Removed } else { Outcome::Ready })
    });
    prop_oneof![
        3 => (0u128..8).prop_map(|id| create(id, &format!("net-{id}"), managed(&format!("br{id}")))),
        3 => (0u128..8).prop_map(delete),
        3 => (0u128..6).prop_map(|id| join_mesh(id, u8::try_from(id).unwrap(), 1)),
        2 => (0u128..6).prop_map(remove),
        4 => (0u128..8, prop::option::of(0u128..8)).prop_map(|(id, network)| create_vm(id, network, None)),
        4 => (0u128..8).prop_map(delete_vm),
        4 => (0u128..6, 1u64..20, prop::collection::vec(result, 1..4))
            .prop_map(|(node, sequence, results)| report(node, 1, sequence, results)),
    ]
}

/// Commands on users with few names and keys, among which one is often the last admin.
fn user_command() -> impl Strategy<Value = Command> {
    let role = prop::sample::select(UserRole::ALL.to_vec());
    let label = prop::sample::select(vec!["ann", "Ann", "bob", "straße", "STRASSE"]);
    let user = Command::User;
    prop_oneof![
        6 => (0u128..8, label, 0u8..12, role.clone()).prop_map(move |(id, label, key, role)| {
            let user = NewUser { name: user_name(label), role, key: user_key(key), expires_at: None };
            Command::User(UserCommand::Create { user_id: user_id(id), user })
        }),
        1 => (0u128..8, 0u8..12).prop_map(move |(id, key)| {
            user(UserCommand::CreateFirst { user_id: user_id(id), name: user_name("ann"), key: user_key(key) })
        }),
        4 => (0u128..8, role).prop_map(move |(id, role)| user(UserCommand::SetRole { user_id: user_id(id), role })),
        4 => (0u128..8, 0u8..24).prop_map(move |(id, key)| {
            let (user_id, key, expiry) = (user_id(id), user_key(key), NewExpiry::Unchanged);
            user(UserCommand::Rotate { user_id, key, expiry })
        }),
        3 => (0u128..8).prop_map(move |id| user(UserCommand::Revoke { user_id: user_id(id) })),
        3 => (0u128..8).prop_map(move |id| user(UserCommand::Delete { user_id: user_id(id) })),
    ]
}

/// Commands on join tokens and nodes with few names and keys, some of which users have.
fn enrollment_command() -> impl Strategy<Value = Command> {
    let label = || prop::sample::select(vec!["node-1", "NODE-1", "node-2", "node-3"]);
    let (enrollment, token) = (Command::Enrollment, |id| JoinTokenId::new(Uuid::from_u128(id)));
    prop_oneof![
        3 => (0u128..6, prop::option::of(label()), 0u8..40, 1u32..3).prop_map(move |(id, label, key, max_uses)| {
            let (node_name, key) = (label.map(node_name), user_key(key));
            let expires_at = Timestamp::from_unix_micros(40_000_000).unwrap();
            let token_ = NewJoinToken { node_name, key, expires_at, max_uses };
            enrollment(EnrollmentCommand::CreateToken { token_id: token(id), token: token_ })
        }),
        1 => (0u128..6).prop_map(move |id| enrollment(EnrollmentCommand::RevokeToken { token_id: token(id) })),
        6 => (0u128..6, 0u128..6, label(), 0u8..40, prop::option::of(0u128..6)).prop_map(
            move |(id, new, label, key, own)| {
                let node = NodeToEnroll { name: node_name(label), key: user_key(key), node_id: own.map(node_id) };
                enrollment(EnrollmentCommand::Enroll { token_id: token(id), new_id: node_id(new), node })
            }
        ),
        2 => (0u128..6, 0u8..40).prop_map(move |(id, key)| {
            enrollment(EnrollmentCommand::OfferKey { node_id: node_id(id), key: user_key(key) })
        }),
        3 => (0u128..6, 0u8..40, label()).prop_map(|(id, key, label)| {
            let (node_id, name, key) = (node_id(id), node_name(label), (&user_key(key)).into());
            Command::Node(NodeCommand::Join { node_id, name, key, mesh: None, arch: None })
        }),
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
fn check_enrollments(given: &Given) -> Result<(), TestCaseError> {
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

/// Names are unique; no key is registered twice; whoever holds a key that was given up is refused; an admin stays.
fn check_users(given: &Given) -> Result<(), TestCaseError> {
    let callers = given.state.callers();
    let mut names = BTreeSet::new();
    prop_assert!(callers.users().values().all(|user| names.insert(user.name.key())), "a user's name is not unique");
    let registered = |event: &Event| match event {
        Event::User(UserEvent::Created(event)) => Some(event.key.clone()),
        Event::User(UserEvent::KeyRotated(event)) => Some(event.key.clone()),
        Event::User(_)
        | Event::Enrollment(_)
        | Event::Network(_)
        | Event::Vm(_)
        | Event::Nic(_)
        | Event::Node(_)
        | Event::Cluster(_) => None,
    };
    let mut keys = BTreeSet::new();
    for key in given.envelopes.iter().filter_map(|envelope| registered(&envelope.event)) {
        let active = callers.users().values().find(|user| user.key == key && user.revoked_at.is_none());
        let found = callers.find(&(&key).into(), None);
        prop_assert_eq!(found.map(|caller| caller.name).ok(), active.map(|user| user.name.to_string()));
        if let Some(user) = active {
            let revoked = callers.revoked().get(&(&key).into());
            prop_assert!(revoked.is_none_or(|key| key.valid_after <= user.valid_after), "its credential is revoked");
        } else {
            prop_assert!(callers.revoked().contains_key(&(&key).into()), "a key that was given up is not revoked");
        }
        prop_assert!(keys.insert(key), "a key was registered twice");
    }
    let is_admin =
        |user: &RegisteredUser| user.role == UserRole::Admin && user.revoked_at.is_none() && user.expires_at.is_none();
    let made_admin = |event: &Event| match event {
        Event::User(UserEvent::Created(event)) => event.role == UserRole::Admin,
        Event::User(_)
        | Event::Enrollment(_)
        | Event::Network(_)
        | Event::Vm(_)
        | Event::Nic(_)
        | Event::Node(_)
        | Event::Cluster(_) => false,
    };
    if given.envelopes.iter().any(|envelope| made_admin(&envelope.event)) {
        prop_assert!(callers.users().values().any(is_admin), "there is no admin any more");
    }
    Ok(())
}

/// A VM whose NIC's MAC address is chosen from `mac` on, so that addresses conflict.
fn vm_with_mac((id, network, node, mac): (u128, Option<u128>, Option<u128>, u32)) -> Command {
    let mut command = create_vm(id, network, node);
    if let Command::Vm(VmCommand::Create { nic, .. }) = &mut command {
        nic.mac = mac;
    }
    command
}

/// Whether a command would create a resource with an id in use. Real ids are random, so such commands are skipped.
fn reuses_id(given: &Given, command: &Command) -> bool {
    given.envelopes.iter().any(|envelope| match (&envelope.event, command) {
        (Event::Network(NetworkEvent::Created(event)), Command::Network(NetworkCommand::Create { network_id, .. })) => {
            event.network_id == *network_id
        }
        (Event::Vm(VmEvent::Created(event)), Command::Vm(VmCommand::Create { vm_id, .. })) => event.vm_id == *vm_id,
        (
            Event::User(UserEvent::Created(event)),
            Command::User(UserCommand::Create { user_id, .. } | UserCommand::CreateFirst { user_id, .. }),
        ) => event.user_id == *user_id,
        (
            Event::Enrollment(EnrollmentEvent::TokenCreated(event)),
            Command::Enrollment(EnrollmentCommand::CreateToken { token_id, .. }),
        ) => event.token_id == *token_id,
        (
            Event::Enrollment(EnrollmentEvent::KeyRegistered(event)),
            Command::Enrollment(EnrollmentCommand::Enroll { new_id, .. }),
        ) => event.node_id == *new_id,
        (Event::Node(NodeEvent::Joined(event)), Command::Enrollment(EnrollmentCommand::Enroll { new_id, .. })) => {
            event.node_id == *new_id
        }
        _ => false,
    })
}

/// No two NICs share an address, detached ones included; each is on an existing network, and every VM on a node.
fn check_vms(given: &Given) -> Result<(), TestCaseError> {
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

/// Assigned addresses only increase and never change, and a key belongs to the first node that had it.
fn check_mesh(given: &Given) -> Result<(), TestCaseError> {
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
fn check_nodes(given: &Given) -> Result<(), TestCaseError> {
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

/// Names, bridges, NAT subnets, VNIs and presence, after every command.
fn check_invariants(given: &Given) -> Result<(), TestCaseError> {
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

/// Replaces the generations in a report by the current ones.
fn with_current_generations(given: &Given, mut command: Command) -> Command {
    if let Command::Node(NodeCommand::RecordReport(report)) = &mut command {
        for result in &mut report.results {
            let current = match result.resource {
                ResourceRef::Network(id) => given.state.network(id).map(|network| network.generation),
                ResourceRef::Nic(id) => given.state.nics().get(id).map(|nic| nic.generation),
            };
            result.generation = current.unwrap_or(result.generation);
        }
    }
    command
}

/// Executes the commands, checks all invariants after each, and compares every state with a replay.
fn check(commands: Vec<Command>, prepared: fn(&Given, Command) -> Command) -> Result<(), TestCaseError> {
    let vni = |number: u32| number.try_into().unwrap();
    let vnis = VniRange::new(vni(1000), vni(1004)).unwrap();
    // Fewer addresses than nodes.
    let mesh = subnet("192.0.2.0/29");
    let mut given = given([]).configured(ClusterConfig { vnis, mesh, ..ClusterConfig::default() });
    let mut states = Vec::new();
    for command in commands {
        let command = prepared(&given, command);
        if reuses_id(&given, &command) {
            continue;
        }
        let before = given.envelopes.len();
        if given.execute(&command).is_err() {
            prop_assert_eq!(given.envelopes.len(), before, "a rejected command has no effect");
        }
        if given.envelopes.len() > before {
            states.push(given.state.clone());
        }
        check_invariants(&given)?;
        check_vms(&given)?;
        check_mesh(&given)?;
        check_nodes(&given)?;
        check_users(&given)?;
        check_enrollments(&given)?;
    }
    let mut replayed = State::default();
    let mut states = states.iter().peekable();
    for envelope in &given.envelopes {
        // A state restored from a snapshot must continue like the replayed one.
        let bytes = postcard::to_allocvec(&replayed).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<State>(&bytes).unwrap(), &replayed);
        // From the stored bytes.
        let stored = EventEnvelope::decode(&envelope.encode().unwrap()).unwrap();
        replayed.evolve(&stored);
        // A command may lead to several events.
        if let Some(state) = states.next_if(|state| state.position() == replayed.position()) {
            prop_assert_eq!(&replayed, state);
        }
    }
    prop_assert!(states.next().is_none());
    prop_assert_eq!(replayed.position(), Position::new(given.envelopes.len() as u64));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_every_prefix_replays(commands in prop::collection::vec(command(), 1..60)) {
        check(commands, |_, command| command)?;
    }

    #[test]
    fn invariants_hold_while_nodes_join_and_leave(commands in prop::collection::vec(membership_command(), 1..60)) {
        check(commands, with_current_generations)?;
    }

    #[test]
    fn invariants_hold_while_machines_join(commands in prop::collection::vec(enrollment_command(), 1..60)) {
        check(commands, |_, command| command)?;
    }

    #[test]
    fn invariants_hold_while_users_come_and_go(commands in prop::collection::vec(user_command(), 1..60)) {
        check(commands, |_, command| command)?;
    }
}
