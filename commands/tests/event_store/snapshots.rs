//! State snapshots: loading one gives the state of all events; one that is damaged, of another format, cluster or
//! epoch, or that does not fit the store, is never used; a change of the format fails a test.

use otherix_commands::config::{ClusterConfig, StoreIdentity};
use otherix_commands::domain::State;
use otherix_commands::store::{
    EventStore, LoadError, Loaded, MemoryStore, Replayed, SnapshotError, StoredSnapshot, load, replay, snapshot,
};
use otherix_commands::writer::{Cause, CommandRequest, Writer};
use otherix_runtime::SystemRuntime;
use otherix_schemas::cloudevent::{Actor, EventEnvelope, Header};
use otherix_schemas::command::Command;
use otherix_schemas::decision_chain::ChainDigest;
use otherix_schemas::enrollment::{JoinTokenCreated, NodeKeyOffered, NodeKeyRegistered};
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, CorrelationId, EventId, JoinTokenId, NetworkId, NicId, NodeId, UserUuid, VmId};
use otherix_schemas::network::{
    BridgeSpec, Dhcp, Egress, NetworkCommand, NetworkCreated, NetworkSpec, NewNetwork, NewNetworkSpec, OverlaySpec,
    Ownership,
};
use otherix_schemas::nic::{NicAttached, NicBound};
use otherix_schemas::node::{NodeCondition, NodeConditionKind, NodeConditionsChanged};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::user::{UserCreated, UserRevoked, UserRole, UserRoleChanged};
use otherix_schemas::value::{GatewaySubnet, MacAddress, Metadata, Mtu, NodeName, UserKey};
use otherix_schemas::vm::{Arch, CloudInit, Machine, Power, PullPolicy, VmCreated, VmMoveStarted, VmMoved};
use otherix_testkit::wait::wait_for;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

use super::backends::{Backend, Sqlite};
use super::sample::{Events, batch};

/// A store with ten events and a snapshot at position 6.
async fn store() -> (MemoryStore, Events) {
    let cluster = ClusterId::new(Uuid::now_v7());
    let (store, mut events) = (MemoryStore::new(cluster), Events::new(cluster));
    store.append(Position::ZERO, &batch(events.take(6))).await.unwrap();
    snapshot::save(&store, &replay(&store).await.unwrap()).await.unwrap();
    store.append(Position::new(6), &batch(events.take(4))).await.unwrap();
    (store, events)
}

#[tokio::test]
async fn a_state_is_loaded_from_snapshot_and_tail() {
    let (store, events) = store().await;
    let Loaded { replayed, snapshot, rejected } = load(&store).await.unwrap();
    assert!(rejected.is_none());
    assert_eq!((snapshot.get(), &replayed.state, replayed.digest), (6, &events.state, events.digest));
    // The events before the snapshot are not read.
    store.alter(|entries| entries.retain(|entry| entry.position.get() >= 6));
    assert_eq!(load(&store).await.unwrap().replayed.state, events.state);
    replay(&store).await.unwrap_err();
}

#[tokio::test]
async fn every_prefix_can_be_a_snapshot() {
    let cluster = ClusterId::new(Uuid::now_v7());
    let (store, mut events) = (MemoryStore::new(cluster), Events::new(cluster));
    store.append(Position::ZERO, &batch(events.take(12))).await.unwrap();
    for prefix in 1..=12u64 {
        let whole = store.reopen();
        whole.alter_snapshot(|snapshot| *snapshot = None);
        let all = whole.read(Position::ZERO, u32::MAX).await.unwrap();
        let part = MemoryStore::new(cluster);
        part.alter(|entries| entries.extend(all.iter().take(usize::try_from(prefix).unwrap()).cloned()));
        snapshot::save(&part, &replay(&part).await.unwrap()).await.unwrap();
        let saved = part.snapshot().await.unwrap().unwrap();
        assert_eq!(saved.position.get(), prefix);
        whole.save_snapshot(&saved).await.unwrap();
        let loaded = load(&whole).await.unwrap();
        assert_eq!((loaded.snapshot.get(), &loaded.replayed.state), (prefix, &events.state));
        replay(&whole).await.unwrap();
    }
}

/// Alters the snapshot, and recomputes its digest if `sealed`. Asserts that it is rejected for the expected reason.
async fn assert_rejected(
    change: impl FnOnce(&mut StoredSnapshot),
    sealed: bool,
    is_expected: impl Fn(&SnapshotError) -> bool,
) {
    let (store, events) = store().await;
    store.alter_snapshot(|snapshot| {
        let snapshot = snapshot.as_mut().unwrap();
        change(snapshot);
        if sealed {
            snapshot.sha256 = snapshot.digest();
        }
    });
    let Loaded { replayed, snapshot, rejected } = load(&store).await.unwrap();
    assert!(rejected.as_ref().is_some_and(is_expected), "{rejected:?}");
    assert_eq!((snapshot, &replayed.state), (Position::ZERO, &events.state));
    // A writer deletes it.
    let store = Arc::new(store);
    Writer::open(Arc::clone(&store), ClusterConfig::default(), SystemRuntime::shared()).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap(), None);
}

#[tokio::test]
async fn a_snapshot_that_does_not_fit_is_ignored() {
    use SnapshotError as Error;
    let other = || ClusterId::new(Uuid::now_v7());
    assert_rejected(|snapshot| snapshot.format += 1, true, |error| matches!(error, Error::Format(_))).await;
    let is_identity = |error: &Error| matches!(error, Error::Identity(_));
    assert_rejected(|snapshot| snapshot.identity.cluster = other(), true, is_identity).await;
    assert_rejected(|snapshot| snapshot.identity.epoch = Epoch::new(2), true, is_identity).await;
    let is_digest = |error: &Error| matches!(error, Error::Digest);
    assert_rejected(|snapshot| snapshot.position = Position::new(5), false, is_digest).await;
    assert_rejected(|snapshot| snapshot.bytes = snapshot.bytes.slice(1..), false, is_digest).await;
    assert_rejected(|snapshot| snapshot.bytes = snapshot.bytes.slice(..snapshot.bytes.len() - 1), false, is_digest)
        .await;
    let flip = |snapshot: &mut StoredSnapshot| {
        let mut bytes = snapshot.bytes.to_vec();
        bytes[20] ^= 1;
        snapshot.bytes = bytes.into();
    };
    assert_rejected(flip, false, is_digest).await;
    let is_event = |error: &Error| matches!(error, Error::Event(_));
    assert_rejected(|snapshot| snapshot.position = Position::new(7), true, is_event).await;
    assert_rejected(|snapshot| snapshot.event_digest = snapshot.sha256, true, is_event).await;
    let is_ahead = |error: &Error| matches!(error, Error::Ahead(_));
    assert_rejected(|snapshot| snapshot.position = Position::new(11), true, is_ahead).await;
    let is_decode = |error: &Error| matches!(error, Error::Decode(_));
    assert_rejected(|snapshot| snapshot.bytes = snapshot.bytes.slice(..20), true, is_decode).await;
}

#[tokio::test]
async fn a_snapshot_of_another_position_is_ignored() {
    let (store, events) = store().await;
    let mut earlier = Events::new(store.identity().cluster);
    earlier.take(2);
    let entry = store.read(Position::new(5), 1).await.unwrap().remove(0);
    let wrong = StoredSnapshot::new(store.identity(), &earlier.state, ChainDigest::START, &entry).unwrap();
    store.save_snapshot(&wrong).await.unwrap();
    let loaded = load(&store).await.unwrap();
    assert!(matches!(loaded.rejected, Some(SnapshotError::Position(position)) if position.get() == 2));
    assert_eq!(loaded.replayed.state, events.state);
}

#[tokio::test]
async fn verification_compares_the_snapshot_with_the_events() {
    let (store, _) = store().await;
    replay(&store).await.unwrap();
    // Another state at the same position, with a valid digest.
    let mut other = Events::new(store.identity().cluster);
    other.take(6);
    let entry = store.read(Position::new(5), 1).await.unwrap().remove(0);
    store
        .save_snapshot(&StoredSnapshot::new(store.identity(), &other.state, ChainDigest::START, &entry).unwrap())
        .await
        .unwrap();
    let error = replay(&store).await.unwrap_err();
    assert!(
        matches!(&error, LoadError::Snapshot { position, source: SnapshotError::Differs("state") }
            if position.get() == 6),
        "{error}"
    );
}

#[tokio::test]
async fn verification_compares_the_digest_of_the_decisions() {
    let (store, _) = store().await;
    let Replayed { state, decisions, .. } = replay(&store).await.unwrap();
    let last = Position::new(state.position().get() - 1);
    let entry = store.read(last, 1).await.unwrap().remove(0);
    let wrong = StoredSnapshot::new(store.identity(), &state, decisions.after(b"another"), &entry).unwrap();
    store.save_snapshot(&wrong).await.unwrap();
    let error = replay(&store).await.unwrap_err();
    assert!(matches!(&error, LoadError::Snapshot { source: SnapshotError::Differs("decisions"), .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_snapshot_in_sqlite_is_ignored() {
    let damages = [
        "UPDATE snapshot_chunks SET bytes = zeroblob(length(bytes))",
        "UPDATE snapshot_chunks SET bytes = substr(bytes, 2)",
        "DELETE FROM snapshot_chunks",
        "UPDATE snapshots SET position = 5",
        "UPDATE snapshots SET cluster = 'x'",
        "UPDATE snapshots SET event_id = 'x'",
        "UPDATE snapshots SET format = format + 1",
    ];
    for damage in damages {
        let backend = Sqlite::new();
        let mut events = Events::new(backend.cluster());
        let store = backend.open().await;
        store.append(Position::ZERO, &batch(events.take(6))).await.unwrap();
        snapshot::save(&store, &replay(&store).await.unwrap()).await.unwrap();
        store.close().await;
        drop(store);
        backend.sql(damage);
        let store = backend.open().await;
        let loaded = load(&store).await.unwrap();
        assert_eq!((loaded.snapshot, &loaded.replayed.state), (Position::ZERO, &events.state), "{damage}");
        replay(&store).await.unwrap();
    }
}

fn create(number: u32) -> CommandRequest {
    let spec = NewNetworkSpec::Overlay {
        subnet: "10.7.0.0/24".parse().unwrap(),
        egress: Egress::None,
        dhcp: None,
        allow_spoofing: false,
    };
    let network = NewNetwork { name: format!("net-{number}").parse().unwrap(), spec, metadata: Metadata::default() };
    let command = Command::Network(NetworkCommand::Create { network_id: NetworkId::new(Uuid::now_v7()), network });
    let (actor, correlation_id) = ("admin".parse().unwrap(), CorrelationId::new(Uuid::now_v7()));
    CommandRequest { command, actor, caller: None, correlation_id, cause: Cause::default(), key: None }
}

#[tokio::test]
async fn the_writer_saves_snapshots_while_it_runs_and_when_it_ends() {
    let backend = Sqlite::new();
    let store = Arc::new(backend.open().await);
    let (writer, handle, _stored) =
        Writer::open(Arc::clone(&store), ClusterConfig::default(), SystemRuntime::shared()).await.unwrap();
    let task = tokio::spawn(writer.run());
    for first in (0..5_000).step_by(500) {
        let creates = (first..first + 500).map(|number| handle.execute(create(number)));
        futures::future::join_all(creates).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    }
    // A snapshot is saved when no event follows for some seconds.
    let saved = wait_for(Duration::from_secs(60), "a snapshot", async || store.snapshot().await.unwrap()).await;
    assert_eq!(saved.position.get(), 5_000);
    for first in (5_000..6_500).step_by(500) {
        let creates = (first..first + 500).map(|number| handle.execute(create(number)));
        futures::future::join_all(creates).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    }
    drop(handle);
    task.await.unwrap().unwrap();
    let loaded = load(store.as_ref()).await.unwrap();
    assert_eq!((loaded.snapshot.get(), loaded.rejected.is_none()), (6_500, true));
    assert_eq!(loaded.replayed.state, replay(store.as_ref()).await.unwrap().state);
}

/// A join token, and a node with two keys that had another one before.
fn enrollments(state: &State) -> Vec<Event> {
    let (token_id, node_id) = (JoinTokenId::new(Uuid::from_u128(5)), NodeId::new(Uuid::from_u128(6)));
    let (key, name): (_, NodeName) = (|number| UserKey::from_bytes([number; 32]), "node-6".parse().unwrap());
    let (node_name, expires_at) = (Some(name.clone()), state.time().unwrap());
    let registered = |key| NodeKeyRegistered { node_id, name: name.clone(), key, token_id }.into();
    vec![
        JoinTokenCreated { token_id, node_name, key: key(5), expires_at, max_uses: 2 }.into(),
        registered(key(6)),
        registered(key(7)),
        NodeKeyOffered { node_id, name: name.clone(), key: key(8) }.into(),
    ]
}

/// What version 0.1 did not know: a user with another role than at first, another that is revoked, and the owner of a
/// VM.
fn later_events(state: &State) -> Vec<EventEnvelope> {
    let id = |number| Uuid::from_u128(number);
    let user = |number: u8, role| UserCreated {
        user_id: UserUuid::new(id(number.into())),
        name: format!("user-{number}").parse().unwrap(),
        role,
        key: UserKey::from_bytes([number; 32]),
        expires_at: state.time(),
    };
    let (one, two) = (user(1, UserRole::Admin), user(2, UserRole::Viewer));
    let changed = UserRoleChanged { user_id: one.user_id, name: one.name.clone(), role: UserRole::Operator };
    let revoked = UserRevoked { user_id: two.user_id, name: two.name.clone() };
    let (disk_gib, image_sha256, pull_policy) = (Some(7), Some("0a".repeat(32).parse().unwrap()), PullPolicy::Always);
    let cloud_init = Some(CloudInit { user_data: Some("#!/bin/sh".to_owned()), ..CloudInit::default() });
    let machine = Machine { vcpus: 2, memory_mb: 64, disk_gib, image_sha256, pull_policy, cloud_init };
    let vm = VmCreated {
        vm_id: VmId::new(id(3)),
        name: "owned".parse().unwrap(),
        image_url: "https://images.example/a".parse().unwrap(),
        arch: Arch::Arm64,
        node_id: NodeId::new(id(4)),
        owner: Some(one.user_id.into()),
        machine: Some(machine),
    };
    let actor = Actor { id: one.user_id.into(), name: Some(one.name.to_string()) };
    let member = *state.nodes().keys().next().unwrap();
    let condition = NodeCondition { kind: NodeConditionKind::SetBack, detail: "an older copy".to_owned() };
    let conditions = NodeConditionsChanged { node_id: member, conditions: vec![condition] };
    let moves = moves(&vm);
    let events: [Event; 6] = [one.into(), two.into(), changed.into(), revoked.into(), vm.into(), conditions.into()];
    let events = events.into_iter().chain(enrollments(state)).chain(addresses(member)).chain(moves);
    let envelope = |(number, event)| EventEnvelope {
        header: Header {
            cluster: ClusterId::new(Uuid::nil()),
            id: EventId::new(Uuid::nil()),
            position: Position::new(state.position().get() + number),
            decision_prev: Position::ZERO,
            epoch: Epoch::FIRST,
            stream_version: 1,
            time: state.time().unwrap(),
            actor: actor.clone(),
            correlation_id: CorrelationId::new(Uuid::nil()),
            causation_id: None,
            traceparent: None,
        },
        event,
    };
    (1..).zip(events).map(envelope).collect()
}

/// A VM that moves, and one that has moved and whose old node has yet to remove it.
fn moves(vm: &VmCreated) -> Vec<Event> {
    let of = |number| VmCreated {
        vm_id: VmId::new(Uuid::from_u128(number)),
        name: format!("vm-{number}").parse().unwrap(),
        ..vm.clone()
    };
    let node_id = NodeId::new(Uuid::from_u128(32));
    let started = |created: VmCreated| {
        let VmCreated { vm_id, name, image_url, arch, node_id: from_node_id, machine, .. } = created;
        let (machine, power, timeout_s) = (machine.unwrap(), Power::Running, 60);
        VmMoveStarted { vm_id, name, image_url, arch, machine, from_node_id, node_id, power, timeout_s }
    };
    let (one, two) = (of(30), of(31));
    let moved = VmMoved { vm_id: two.vm_id, from_node_id: two.node_id, node_id };
    vec![one.clone().into(), started(one).into(), two.clone().into(), started(two).into(), moved.into()]
}

/// Networks that assign addresses, and a NIC with one.
fn addresses(node_id: NodeId) -> [Event; 4] {
    let id = Uuid::from_u128;
    let subnet = GatewaySubnet::new("10.20.0.0/24".parse().unwrap(), None).unwrap();
    let spanning = GatewaySubnet::new("10.21.0.0/24".parse().unwrap(), None).unwrap();
    let bridge = NetworkSpec::Bridge(BridgeSpec {
        bridge_name: "br-dhcp".parse().unwrap(),
        ownership: Ownership::Managed(Egress::Nat(subnet)),
        mtu: Mtu::DEFAULT,
        vlan: None,
        dhcp: Some(Dhcp { subnet, dns: false }),
        allow_spoofing: false,
    });
    let overlay = NetworkSpec::Overlay(OverlaySpec {
        vni: 5000.try_into().unwrap(),
        subnet: spanning.subnet(),
        egress: Egress::Nat(spanning),
        mtu: 1390.try_into().unwrap(),
        dhcp: Some(Dhcp { subnet: spanning, dns: true }),
        allow_spoofing: false,
    });
    let network = |number, name: &str, spec| NetworkCreated {
        network_id: NetworkId::new(id(number)),
        name: name.parse().unwrap(),
        spec,
    };
    let (nic_id, vm_id, network_id) = (NicId::new(id(22)), VmId::new(id(3)), NetworkId::new(id(20)));
    let (mac, ip) = (MacAddress::assigned(7), Some("10.20.0.2".parse().unwrap()));
    [
        network(20, "net-dhcp", bridge).into(),
        network(21, "net-overlay", overlay).into(),
        NicAttached { nic_id, vm_id, network_id, mac, ip }.into(),
        NicBound { nic_id, node_id }.into(),
    ]
}

/// Serialises the state of the journal of version 0.1, which has every event type of that version, and of later events.
#[tokio::test]
async fn the_format_is_that_of_the_checked_in_snapshot() {
    let folder = otherix_testkit::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    std::fs::write(&path, std::fs::read(format!("{fixtures}/v0.1/journal.db")).unwrap()).unwrap();
    let journal = otherix_commands::store::SqliteStore::open(&path, ClusterId::new(Uuid::nil())).await.unwrap();
    let Replayed { mut state, decisions, .. } = replay(&journal).await.unwrap();
    let last = journal.read(Position::new(state.position().get() - 1), 1).await.unwrap().remove(0);
    let identity: StoreIdentity = journal.identity();
    later_events(&state).iter().for_each(|event| state.evolve(event));
    let bytes = StoredSnapshot::new(identity, &state, decisions, &last).unwrap().bytes;
    let file = format!("{fixtures}/state-snapshot-format-{}.bin", snapshot::FORMAT);
    if std::env::var_os("OTHERIX_WRITE_FIXTURES").is_some() {
        std::fs::write(&file, &bytes).unwrap();
    }
    assert!(
        std::fs::read(&file).unwrap() == bytes,
        "the serialised state has changed: raise `store::snapshot::FORMAT`, and run this test with \
         OTHERIX_WRITE_FIXTURES=1"
    );
}
