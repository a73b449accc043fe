//! Pins the stored form of every event, for ever: each golden sample reads as the event it is of, and that event is
//! written as exactly these bytes. A sample is never changed; `make generate` writes only those that are missing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::fs;
use std::path::PathBuf;

use otherix_schemas::cloudevent::{DecodeError, EventEnvelope, Header};
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::event::{Event, StoredError};
use otherix_schemas::network::{
    BridgeSpec, Egress, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec, OverlaySpec, Ownership,
};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached, NicEvent};
use otherix_schemas::node::{
    MeshPeer, NodeChanged, NodeEvent, NodeJoined, NodeReachable, NodeReconciled, NodeRemoved, NodeUnreachable,
};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::value::{MacAddress, Mtu, Nat};
use otherix_schemas::vm::{Arch, VmCreated, VmDeleted, VmEvent};
use serde_json::{Value, json};

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn header() -> Header {
    Header {
        cluster: parse("0198e8c4-0000-7000-8000-000000000001"),
        id: parse("0198e8c4-0000-7000-8000-000000000002"),
        position: Position::new(7),
        decision_prev: Position::new(5),
        epoch: Epoch::FIRST,
        stream_version: 1,
        time: parse("2026-01-02T03:04:05.678901Z"),
        actor: parse("admin"),
        correlation_id: parse("0198e8c4-0000-7000-8000-000000000003"),
        causation_id: None,
        traceparent: None,
    }
}

fn created(spec: NetworkSpec) -> Event {
    let network_id = parse("0198e8c4-0000-7000-8000-000000000004");
    Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name: parse("net-dev"), spec }))
}

fn bridge(ownership: Ownership, vlan: Option<i64>) -> Event {
    let vlan = vlan.map(|vlan| vlan.try_into().unwrap());
    created(NetworkSpec::Bridge(BridgeSpec { bridge_name: parse("br-dev"), ownership, mtu: Mtu::DEFAULT, vlan }))
}

/// Of VMs and their NICs.
fn vm_samples() -> Vec<(&'static str, Event)> {
    let nic_id = parse("0198e8c4-0abc-4000-8000-000000000007");
    let vm_id = parse("0198e8c4-0000-7000-8000-000000000008");
    let node_id = parse("0198e8c4-0000-7000-8000-000000000005");
    let network_id = parse("0198e8c4-0000-7000-8000-000000000004");
    let vm_created = VmCreated {
        vm_id,
        name: parse("vm-1"),
        image_url: parse("https://images.example/debian-12.qcow2"),
        arch: Arch::Amd64,
        node_id,
    };
    let attached = NicAttached { nic_id, vm_id, network_id, mac: MacAddress::assigned(0x12_34_56) };
    vec![
        ("vm.created.v1", Event::Vm(VmEvent::Created(vm_created))),
        ("vm.deleted.v1", Event::Vm(VmEvent::Deleted(VmDeleted { vm_id, name: parse("vm-1") }))),
        ("nic.attached.v1", Event::Nic(NicEvent::Attached(attached))),
        ("nic.bound.v1", Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id }))),
        ("nic.detached.v1", Event::Nic(NicEvent::Detached(NicDetached { nic_id, vm_id, network_id }))),
    ]
}

/// Of the mesh.
fn mesh_samples() -> Vec<(&'static str, Event)> {
    let restored = |highest_mesh_address, mesh_addresses_left_out| {
        Event::Cluster(ClusterEvent::Restored(ClusterRestored {
            cluster_id: header().cluster,
            kept: Position::new(5),
            highest_position: Position::new(6),
            highest_vni: Some(1007.try_into().unwrap()),
            highest_mesh_address,
            mesh_addresses_left_out,
        }))
    };
    let mesh = MeshPeer {
        address: parse("10.42.0.7"),
        public_key: parse("j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8="),
        endpoint: parse("192.0.2.7:51820"),
    };
    let changed = NodeChanged { node_id: parse("0198e8c4-0000-7000-8000-000000000005"), mesh };
    vec![
        ("node.changed.v1", Event::Node(NodeEvent::Changed(changed))),
        ("cluster.restored.v1", restored(None, 0)),
        ("cluster.restored.v2", restored(Some(parse("10.42.0.9")), 1000)),
    ]
}

fn samples() -> Vec<(&'static str, EventEnvelope)> {
    let node_id = parse("0198e8c4-0000-7000-8000-000000000005");
    let network_id = parse("0198e8c4-0000-7000-8000-000000000004");
    let nic_id = parse("0198e8c4-0abc-4000-8000-000000000007");
    let nat = Nat::new(parse("10.20.0.0/24"), None).unwrap();
    let overlay =
        OverlaySpec { vni: 1000.try_into().unwrap(), subnet: parse("10.30.0.0/24"), mtu: 1390.try_into().unwrap() };
    let result = |outcome| ResourceOutcome::new(ResourceRef::Network(network_id), Position::new(7), outcome);
    let reconciled = NodeReconciled {
        node_id,
        incarnation: 3,
        sequence: 14,
        results: vec![
            result(Outcome::Ready),
            result(Outcome::Pending("waiting for removal of bridge `br-dev`".to_owned())),
            result(Outcome::Failed("there is a bridge `br-dev` already".to_owned())),
            result(Outcome::Removed),
        ],
    };
    let warned = NodeReconciled {
        results: vec![
            ResourceOutcome { warnings: vec!["a foreign firewall drops it".to_owned()], ..result(Outcome::Ready) },
            ResourceOutcome { resource: ResourceRef::Nic(nic_id), ..result(Outcome::Failed("no tap".to_owned())) },
        ],
        ..reconciled.clone()
    };
    let with = |event| EventEnvelope { header: header(), event };
    let unreachable =
        |last_heard_at| with(Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id, last_heard_at })));
    let traced = Header {
        causation_id: Some(parse("0198e8c4-0000-7000-8000-000000000006")),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..header()
    };
    let mut samples = vec![
        ("network.created.v1.managed", with(bridge(Ownership::Managed(Egress::None), None))),
        ("network.created.v1.nat", with(bridge(Ownership::Managed(Egress::Nat(nat)), Some(7)))),
        ("network.created.v1.unmanaged", with(bridge(Ownership::Unmanaged, None))),
        ("network.created.v1.overlay", with(created(NetworkSpec::Overlay(overlay)))),
        (
            "network.deleted.v1",
            with(Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, name: parse("net-dev") }))),
        ),
        ("node.joined.v1", with(Event::Node(NodeEvent::Joined(NodeJoined { node_id, name: parse("node-1") })))),
        ("node.unreachable.v1", unreachable(Some(parse("2026-01-02T03:03:50.000001Z")))),
        ("node.unreachable.v1.unheard", unreachable(None)),
        ("node.reachable.v1", with(Event::Node(NodeEvent::Reachable(NodeReachable { node_id })))),
        ("node.removed.v1", with(Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name: parse("node-1") })))),
        ("node.reconciled.v1", with(Event::Node(NodeEvent::Reconciled(reconciled.clone())))),
        ("node.reconciled.v2", with(Event::Node(NodeEvent::Reconciled(warned)))),
        (
            "network.deleted.v1.traced",
            EventEnvelope {
                header: traced,
                event: Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, name: parse("net-dev") })),
            },
        ),
    ];
    samples.extend(vm_samples().into_iter().chain(mesh_samples()).map(|(name, event)| (name, with(event))));
    samples
}

/// Shapes that nothing is written in any more.
const SUPERSEDED: [&str; 2] = ["cluster.restored.v1", "node.reconciled.v1"];

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("golden/{name}.json"))
}

#[test]
fn every_generated_sample_reads_and_writes_as_ever() {
    for (name, envelope) in samples() {
        let bytes = envelope.encode().unwrap();
        if SUPERSEDED.contains(&name) {
            assert_eq!(EventEnvelope::decode(&fs::read(path(name)).unwrap()).unwrap(), envelope, "{name}");
            continue;
        }
        if !path(name).exists() && std::env::var_os("OTHERIX_GENERATE").is_some() {
            fs::write(path(name), &bytes).unwrap();
        }
        let golden = fs::read(path(name)).unwrap_or_else(|_| panic!("golden sample `{name}` is missing"));
        assert_eq!(EventEnvelope::decode(&golden).unwrap(), envelope, "{name}");
        assert_eq!(String::from_utf8(bytes).unwrap(), String::from_utf8(golden).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir("golden").unwrap().count(), samples().len(), "a sample is of nothing, or is left out");
}

#[test]
fn an_independent_reader_finds_a_cloudevent() {
    use cloudevents::{AttributesReader, Data, Event as CloudEvent};
    for (name, envelope) in samples() {
        let event: CloudEvent = serde_json::from_slice(&envelope.encode().unwrap()).unwrap();
        let extension = |name: &str| event.extension(name).map(ToString::to_string);
        assert_eq!(event.specversion().as_str(), "1.0");
        assert_eq!(event.id(), envelope.header.id.to_string());
        assert_eq!(event.source(), "/otherix/0198e8c4-0000-7000-8000-000000000001");
        assert!(event.ty().starts_with("dev.otherix.") && event.ty().ends_with(['1', '2']), "{name}");
        assert_eq!(event.subject(), Some(envelope.event.stream_id().to_string().as_str()));
        assert_eq!(event.time().unwrap().to_rfc3339(), "2026-01-02T03:04:05.678901+00:00");
        assert_eq!(event.datacontenttype(), Some("application/json"));
        assert!(event.dataschema().unwrap().as_str().starts_with("urn:otherix:schema:"));
        assert_eq!(extension("sequence").as_deref(), Some("00000000000000000007"));
        assert_eq!(extension("decisionprev").as_deref(), Some("00000000000000000005"));
        assert_eq!(extension("actor").as_deref(), Some("admin"));
        assert_eq!(extension("epoch").as_deref(), Some("1"));
        assert_eq!(extension("streamversion").as_deref(), Some("1"));
        for (extension, _) in event.iter_extensions() {
            assert!(extension.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{extension}");
        }
        assert!(matches!(event.data(), Some(Data::Json(Value::Object(_)))), "{name}");
    }
}

/// The first sample with a change laid over it.
fn changed(change: impl FnOnce(&mut Value)) -> Result<EventEnvelope, DecodeError> {
    let mut event: Value = serde_json::from_slice(&samples()[0].1.encode().unwrap()).unwrap();
    change(&mut event);
    EventEnvelope::decode(event.to_string().as_bytes())
}

type Change = fn(&mut Value);

#[test]
fn what_is_no_event_of_ours_is_refused() {
    assert!(changed(|_| {}).is_ok());
    let unknown = changed(|event| event["type"] = json!("dev.otherix.network.painted.v1"));
    assert!(matches!(unknown, Err(DecodeError::Stored(StoredError::UnknownType(_)))));
    let changes: [(&str, Change); 9] = [
        ("version", |event| event["specversion"] = json!("0.3")),
        ("source", |event| event["source"] = json!("/other/1")),
        ("subject", |event| event["subject"] = json!("network/0198e8c4-0000-7000-8000-00000000000f")),
        ("sequence", |event| event["sequence"] = json!("7")),
        ("extension", |event| event["colour"] = json!("red")),
        ("field", |event| event["data"]["colour"] = json!("red")),
        ("egress without a subnet", |event| event["data"]["egress"] = json!("nat")),
        ("a bridge with a VNI", |event| event["data"]["vni"] = json!(1000)),
        ("a reserved bridge", |event| event["data"]["bridge_name"] = json!("otb1000")),
    ];
    for (what, change) in changes {
        assert!(changed(change).is_err(), "{what}");
    }
}
