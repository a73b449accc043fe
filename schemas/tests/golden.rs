//! The stored form of every event, which never changes: each golden sample decodes to its event, and the event encodes
//! to exactly these bytes. `make generate` writes samples that are missing, and never changes one.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use otherix_schemas::cloudevent::{Actor, DecodeError, EventEnvelope, Header};
use otherix_schemas::cluster::ClusterRestored;
use otherix_schemas::enrollment::{
    JoinTokenCreated, JoinTokenRevoked, NodeKeyChanged, NodeKeyOffered, NodeKeyRegistered, NodeKeyRevoked,
};
use otherix_schemas::event::{Event, StoredError};
use otherix_schemas::id::{JoinTokenId, NodeId};
use otherix_schemas::network::{
    BridgeSpec, Dhcp, Egress, NetworkChanged, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec, OverlaySpec,
    Ownership,
};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached};
use otherix_schemas::node::{
    MeshPeer, NodeAccelerator, NodeCapacity, NodeCapacityReported, NodeChanged, NodeCondition, NodeConditionKind,
    NodeConditionsChanged, NodeCordoned, NodeDescribed, NodeJoined, NodeLabelled, NodeReachable, NodeReconciled,
    NodeRemoved, NodeUncordoned, NodeUnreachable, Resources,
};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::subject;
use otherix_schemas::user::{UserCreated, UserDeleted, UserKeyRotated, UserRevoked, UserRole, UserRoleChanged};
use otherix_schemas::value::{GatewaySubnet, Labels, MacAddress, Metadata, Mtu, NodeName, UserKey, UserName};
use otherix_schemas::vm::{
    Arch, CloudInit, Instruction, Machine, MachinePhase, MachineStatus, Power, PullPolicy, VmConsoleOpened, VmCreated,
    VmDeleted, VmInstructed, VmLabelled, VmMoveCancelled, VmMoveStarted, VmMoved,
};
use serde_json::{Value, json};

const NETWORK: &str = "0198e8c4-0000-7000-8000-000000000004";
const NODE: &str = "0198e8c4-0000-7000-8000-000000000005";
const OTHER_NODE: &str = "0198e8c4-0000-7000-8000-00000000000d";
const NIC: &str = "0198e8c4-0abc-4000-8000-000000000007";
const VM: &str = "0198e8c4-0000-7000-8000-000000000008";
const SESSION: &str = "0198e8c4-0000-4000-8000-00000000000c";
const TOKEN: &str = "0198e8c4-0000-7000-8000-00000000000a";
const USER: &str = "0198e8c4-0000-7000-8000-000000000009";
const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// The file of a golden sample, without extension: the event's type and, if it has several samples, a variant.
type Name = &'static str;

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
    NetworkCreated { network_id: parse(NETWORK), name: parse("net-dev"), spec }.into()
}

fn bridge(ownership: Ownership, vlan: Option<i64>, dhcp: Option<Dhcp>) -> Event {
    let vlan = vlan.map(|vlan| vlan.try_into().unwrap());
    created(NetworkSpec::Bridge(BridgeSpec {
        bridge_name: parse("br-dev"),
        ownership,
        mtu: Mtu::DEFAULT,
        vlan,
        dhcp,
        allow_spoofing: dhcp.is_some() && vlan.is_some(),
    }))
}

/// The change of a network to what this event creates.
fn network_changed(created: Event, description: Option<&str>, pairs: &[(&str, &str)]) -> Event {
    let Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name, spec })) = created else {
        unreachable!("a network")
    };
    let metadata = Metadata { description: description.map(parse), labels: labels(pairs) };
    NetworkChanged { network_id, name, spec, metadata }.into()
}

fn labels(labels: &[(&str, &str)]) -> Labels {
    Labels::parse(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()).unwrap()
}

fn vm_labelled(description: Option<&str>, pairs: &[(&str, &str)]) -> Event {
    VmLabelled { vm_id: parse(VM), description: description.map(parse), labels: labels(pairs) }.into()
}

fn node_labelled(description: Option<&str>, pairs: &[(&str, &str)]) -> Event {
    NodeLabelled { node_id: parse(NODE), description: description.map(parse), labels: labels(pairs) }.into()
}

fn network_deleted() -> Event {
    NetworkDeleted { network_id: parse(NETWORK), name: parse("net-dev") }.into()
}

fn network_samples() -> Vec<(Name, Event)> {
    let nat = GatewaySubnet::new(parse("10.20.0.0/24"), None).unwrap();
    let (vni, mtu) = (1000.try_into().unwrap(), 1390.try_into().unwrap());
    let overlay = |egress, dhcp| {
        created(NetworkSpec::Overlay(OverlaySpec {
            vni,
            subnet: parse("10.30.0.0/24"),
            egress,
            mtu,
            dhcp,
            allow_spoofing: false,
        }))
    };
    let on_overlay = GatewaySubnet::new(parse("10.30.0.0/24"), Some(parse("10.30.0.254"))).unwrap();
    let (plain, with_nat) = (Ownership::Managed(Egress::None), Ownership::Managed(Egress::Nat(nat)));
    vec![
        ("network.created.v1.managed", bridge(plain, None, None)),
        ("network.created.v1.nat", bridge(with_nat, Some(7), None)),
        ("network.created.v1.unmanaged", bridge(Ownership::Unmanaged, None, None)),
        ("network.created.v1.overlay", overlay(Egress::None, None)),
        ("network.created.v2", bridge(plain, None, None)),
        ("network.created.v2.dhcp", bridge(plain, None, Some(Dhcp { subnet: nat, dns: false }))),
        ("network.created.v2.nat", bridge(with_nat, Some(7), Some(Dhcp { subnet: nat, dns: true }))),
        ("network.created.v2.unmanaged", bridge(Ownership::Unmanaged, None, None)),
        ("network.created.v2.overlay", overlay(Egress::None, None)),
        ("network.created.v2.overlay-dhcp", overlay(Egress::None, Some(Dhcp { subnet: on_overlay, dns: true }))),
        ("network.created.v2.overlay-nat", overlay(Egress::Nat(on_overlay), None)),
        ("network.changed.v1", network_changed(bridge(plain, Some(12), None), None, &[])),
        (
            "network.changed.v1.described",
            network_changed(
                bridge(with_nat, None, Some(Dhcp { subnet: nat, dns: true })),
                Some("the shop"),
                &[("env", "prod"), ("otherix.dev/team", "")],
            ),
        ),
        ("network.changed.v1.overlay", network_changed(overlay(Egress::Nat(on_overlay), None), None, &[("a", "1")])),
        ("network.deleted.v1", network_deleted()),
    ]
}

fn least_machine() -> Machine {
    let (disk_gib, image_sha256, cloud_init) = (None, None, None);
    Machine { vcpus: 1, memory_mb: 64, disk_gib, image_sha256, pull_policy: PullPolicy::IfNotPresent, cloud_init }
}

fn machine() -> Machine {
    let cloud_init = CloudInit {
        user_data: Some("#cloud-config\npackages: [nginx]\n".to_owned()),
        network_config: Some("version: 2\n".to_owned()),
        ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me".to_owned()],
    };
    Machine {
        vcpus: 2,
        memory_mb: 2048,
        disk_gib: Some(20),
        image_sha256: Some(parse(&"0a".repeat(32))),
        pull_policy: PullPolicy::Always,
        cloud_init: Some(cloud_init),
    }
}

fn instructed(instruction: Instruction, timeout_s: Option<u32>) -> Event {
    VmInstructed { vm_id: parse(VM), instruction, timeout_s }.into()
}

fn move_started() -> VmMoveStarted {
    VmMoveStarted {
        vm_id: parse(VM),
        name: parse("vm-1"),
        image_url: parse("https://images.example/debian-12.qcow2"),
        arch: Arch::Amd64,
        machine: machine(),
        from_node_id: parse(NODE),
        node_id: parse(OTHER_NODE),
        power: Power::Running,
        timeout_s: 60,
    }
}

fn vm_samples() -> Vec<(Name, Event)> {
    let moved = VmMoved { vm_id: parse(VM), from_node_id: parse(NODE), node_id: parse(OTHER_NODE) };
    let cancelled = |reason| VmMoveCancelled { vm_id: parse(VM), node_id: parse(OTHER_NODE), reason };
    let vm_created = |owner, machine| VmCreated {
        vm_id: parse(VM),
        name: parse("vm-1"),
        image_url: parse("https://images.example/debian-12.qcow2"),
        arch: Arch::Amd64,
        node_id: parse(NODE),
        owner,
        machine,
    };
    vec![
        ("vm.created.v1", vm_created(None, None).into()),
        ("vm.created.v2", vm_created(Some(parse(USER)), None).into()),
        ("vm.created.v2.unowned", vm_created(None, None).into()),
        ("vm.created.v3", vm_created(Some(parse(USER)), Some(machine())).into()),
        ("vm.created.v3.least", vm_created(Some(parse(USER)), Some(least_machine())).into()),
        ("vm.created.v3.tap-only", vm_created(None, None).into()),
        ("vm.instructed.v1", instructed(Instruction::Start, None)),
        ("vm.instructed.v1.stop", instructed(Instruction::Stop, Some(60))),
        ("vm.move-started.v1", move_started().into()),
        ("vm.moved.v1", moved.into()),
        ("vm.move-cancelled.v1", cancelled(None).into()),
        ("vm.move-cancelled.v1.reason", cancelled(Some("its disk is full".to_owned())).into()),
        ("vm.console-opened.v1", VmConsoleOpened { vm_id: parse(VM), session: parse(SESSION) }.into()),
        ("vm.labelled.v1", vm_labelled(Some("the shop"), &[("env", "prod")])),
        ("vm.labelled.v1.none", vm_labelled(None, &[])),
        ("vm.deleted.v1", VmDeleted { vm_id: parse(VM), name: parse("vm-1") }.into()),
    ]
}

fn nic_samples() -> Vec<(Name, Event)> {
    let (nic_id, vm_id, network_id) = (parse(NIC), parse(VM), parse(NETWORK));
    let mac = MacAddress::assigned(0x12_34_56);
    vec![
        ("nic.attached.v1", NicAttached { nic_id, vm_id, network_id, mac, ip: None }.into()),
        ("nic.attached.v2", NicAttached { nic_id, vm_id, network_id, mac, ip: Some(parse("10.20.0.2")) }.into()),
        ("nic.attached.v2.without-address", NicAttached { nic_id, vm_id, network_id, mac, ip: None }.into()),
        ("nic.bound.v1", NicBound { nic_id, node_id: parse(NODE) }.into()),
        ("nic.detached.v1", NicDetached { nic_id, vm_id, network_id }.into()),
    ]
}

fn node_samples() -> Vec<(Name, Event)> {
    let node_id = parse(NODE);
    let mesh = MeshPeer {
        address: parse("10.42.0.7"),
        public_key: parse("j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8="),
        endpoint: parse("192.0.2.7:51820"),
    };
    let last_heard_at = Some(parse("2026-01-02T03:03:50.000001Z"));
    vec![
        ("node.joined.v1", NodeJoined { node_id, name: parse("node-1") }.into()),
        ("node.changed.v1", NodeChanged { node_id, mesh }.into()),
        ("node.unreachable.v1", NodeUnreachable { node_id, last_heard_at }.into()),
        ("node.unreachable.v1.unheard", NodeUnreachable { node_id, last_heard_at: None }.into()),
        ("node.reachable.v1", NodeReachable { node_id }.into()),
        ("node.conditions-changed.v1", NodeConditionsChanged { node_id, conditions: conditions() }.into()),
        ("node.conditions-changed.v1.over", NodeConditionsChanged { node_id, conditions: Vec::new() }.into()),
        ("node.described.v1", NodeDescribed { node_id, arch: Arch::Arm64 }.into()),
        ("node.cordoned.v1", NodeCordoned { node_id }.into()),
        ("node.uncordoned.v1", NodeUncordoned { node_id }.into()),
        ("node.labelled.v1", node_labelled(Some("rack 7"), &[("rack", "7"), ("ssd", "")])),
        ("node.capacity-reported.v1", NodeCapacityReported { node_id, capacity: capacity(true) }.into()),
        ("node.capacity-reported.v1.none", NodeCapacityReported { node_id, capacity: capacity(false) }.into()),
        ("node.removed.v1", NodeRemoved { node_id, name: parse("node-1") }.into()),
    ]
}

fn capacity(runs_machines: bool) -> NodeCapacity {
    let (accelerator, reason) = if runs_machines {
        (Some(NodeAccelerator::Kvm), "a trial guest booted with KVM")
    } else {
        (None, "this node has no `qemu-system-x86_64`: install QEMU, and restart the agent")
    };
    let resources = Resources { vcpus: 32, memory_mb: 65_536, disk_gib: 1_000 };
    NodeCapacity { accelerator, reason: reason.to_owned(), resources }
}

fn conditions() -> Vec<NodeCondition> {
    let condition = |kind, detail: &str| NodeCondition { kind, detail: detail.to_owned() };
    vec![
        condition(NodeConditionKind::DuplicateAgent, "two agents run as this node"),
        condition(NodeConditionKind::SetBack, "the agent was started with an older copy of its state"),
        condition(NodeConditionKind::Contradiction, "another history"),
    ]
}

fn reconciled_samples() -> Vec<(Name, Event)> {
    let result = |outcome| ResourceOutcome::new(ResourceRef::Network(parse(NETWORK)), Position::new(7), outcome);
    let reconciled = |results| NodeReconciled { node_id: parse(NODE), incarnation: 3, sequence: 14, results };
    let networks = vec![
        result(Outcome::Ready),
        result(Outcome::Pending("waiting for removal of bridge `br-dev`".to_owned())),
        result(Outcome::Failed("there is a bridge `br-dev` already".to_owned())),
        result(Outcome::Removed),
    ];
    let nic = ResourceRef::Nic(parse(NIC));
    let with_nic = vec![
        ResourceOutcome { warnings: vec!["a foreign firewall drops it".to_owned()], ..result(Outcome::Ready) },
        ResourceOutcome { resource: nic, ..result(Outcome::Failed("no tap".to_owned())) },
    ];
    let machine = |phase, started_at, last_line: Option<&str>| {
        Some(MachineStatus { phase, started_at, last_line: last_line.map(str::to_owned) })
    };
    let of_machine =
        |outcome, machine| ResourceOutcome { resource: ResourceRef::Vm(parse(VM)), machine, ..result(outcome) };
    let since = Some(parse("2026-01-02T03:04:05.678901Z"));
    let with_machines = vec![
        of_machine(Outcome::Ready, machine(MachinePhase::Running, since, None)),
        of_machine(
            Outcome::Failed("its guest panicked 5 times in 10 minutes".to_owned()),
            machine(MachinePhase::Failed, None, Some("Kernel panic - not syncing: VFS")),
        ),
    ];
    vec![
        ("node.reconciled.v1", reconciled(networks).into()),
        ("node.reconciled.v2", reconciled(with_nic.clone()).into()),
        ("node.reconciled.v3", reconciled(with_nic).into()),
        ("node.reconciled.v3.machines", reconciled(with_machines).into()),
    ]
}

fn cluster_samples() -> Vec<(Name, Event)> {
    let restored = |highest_mesh_address, mesh_addresses_left_out| ClusterRestored {
        cluster_id: header().cluster,
        kept: Position::new(5),
        highest_position: Position::new(6),
        highest_vni: Some(1007.try_into().unwrap()),
        highest_mesh_address,
        mesh_addresses_left_out,
    };
    vec![
        ("cluster.restored.v1", restored(None, 0).into()),
        ("cluster.restored.v2", restored(Some(parse("10.42.0.9")), 1000).into()),
    ]
}

fn user_samples() -> Vec<(Name, Event)> {
    let (user_id, name, key): (_, UserName, UserKey) = (parse(USER), parse("alice"), parse(KEY));
    let role = UserRole::Developer;
    let expires_at = Some(parse("2026-04-02T03:04:05.678901Z"));
    let created = |expires_at| UserCreated { user_id, name: name.clone(), role, key: key.clone(), expires_at };
    vec![
        ("user.created.v1", created(None).into()),
        ("user.created.v1.expiring", created(expires_at).into()),
        ("user.role-changed.v1", UserRoleChanged { user_id, name: name.clone(), role: UserRole::Admin }.into()),
        ("user.key-rotated.v1", UserKeyRotated { user_id, name: name.clone(), key: key.clone(), expires_at }.into()),
        ("user.revoked.v1", UserRevoked { user_id, name: name.clone() }.into()),
        ("user.deleted.v1", UserDeleted { user_id, name: name.clone() }.into()),
    ]
}

fn enrollment_samples() -> Vec<(Name, Event)> {
    let (token_id, node_id, name): (JoinTokenId, NodeId, NodeName) = (parse(TOKEN), parse(NODE), parse("node-1"));
    let (key, expires_at, max_uses): (UserKey, _, _) = (parse(KEY), parse("2026-01-02T04:04:05.678901Z"), 3);
    let created = |node_name| JoinTokenCreated { token_id, node_name, key: key.clone(), expires_at, max_uses };
    vec![
        ("join-token.created.v1", created(None).into()),
        ("join-token.created.v1.named", created(Some(name.clone())).into()),
        ("join-token.revoked.v1", JoinTokenRevoked { token_id }.into()),
        (
            "node-key.registered.v1",
            NodeKeyRegistered { node_id, name: name.clone(), key: key.clone(), token_id }.into(),
        ),
        ("node-key.offered.v1", NodeKeyOffered { node_id, name: name.clone(), key: key.clone() }.into()),
        ("node-key.changed.v1", NodeKeyChanged { node_id, name: name.clone(), key: key.clone() }.into()),
        ("node-key.revoked.v1", NodeKeyRevoked { node_id, name }.into()),
    ]
}

fn samples() -> Vec<(Name, EventEnvelope)> {
    let named = Header { actor: Actor { id: parse(USER), name: Some("alice".to_owned()) }, ..header() };
    let traced = Header {
        causation_id: Some(parse("0198e8c4-0000-7000-8000-000000000006")),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..header()
    };
    [
        network_samples(),
        vm_samples(),
        nic_samples(),
        node_samples(),
        reconciled_samples(),
        user_samples(),
        enrollment_samples(),
        cluster_samples(),
    ]
    .into_iter()
    .flatten()
    .map(|(name, event)| (name, EventEnvelope { header: header(), event }))
    .chain([("network.deleted.v1.traced", EventEnvelope { header: traced, event: network_deleted() })])
    .chain([("network.deleted.v1.named", EventEnvelope { header: named, event: network_deleted() })])
    .collect()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("golden/{name}.json"))
}

/// Whether the sample is of the shape in which its event is stored now.
fn is_current(name: &str, envelope: &EventEnvelope) -> bool {
    name.starts_with(envelope.event.declaration().schema_name())
}

#[test]
fn generated_samples_decode_and_encode_unchanged() {
    for (name, envelope) in samples() {
        let bytes = envelope.encode().unwrap();
        if is_current(name, &envelope) && !path(name).exists() && std::env::var_os("OTHERIX_GENERATE").is_some() {
            fs::write(path(name), &bytes).unwrap();
        }
        let golden = fs::read(path(name)).unwrap_or_else(|_| panic!("golden sample `{name}` is missing"));
        assert_eq!(EventEnvelope::decode(&golden).unwrap(), envelope, "{name}");
        let (decoded, type_name) = EventEnvelope::decode_with_type(&golden).unwrap();
        let stored_subject = subject::stored_event(&type_name, &decoded.event.stream_id().to_string());
        assert_eq!(stored_subject.unwrap(), subject::event(&envelope.event), "{name}");
        if is_current(name, &envelope) {
            assert_eq!(String::from_utf8(bytes).unwrap(), String::from_utf8(golden).unwrap(), "{name}");
        }
    }
    assert_eq!(fs::read_dir("golden").unwrap().count(), samples().len(), "a file is no sample, or two have one name");
}

#[test]
fn every_declared_event_has_a_sample() {
    let declared: BTreeSet<_> = Event::declarations().map(|declaration| declaration.schema_name().to_owned()).collect();
    let sampled = samples().into_iter().map(|(name, _)| name.split('.').take(3).collect::<Vec<_>>().join("."));
    assert_eq!(sampled.collect::<BTreeSet<_>>(), declared);
}

#[test]
fn cloudevents_sdk_reads_every_event() {
    use cloudevents::{AttributesReader, Data, Event as CloudEvent};
    for (name, envelope) in samples() {
        let event: CloudEvent = serde_json::from_slice(&envelope.encode().unwrap()).unwrap();
        let extension = |name: &str| event.extension(name).map(ToString::to_string);
        assert_eq!(event.specversion().as_str(), "1.0");
        assert_eq!(event.id(), envelope.header.id.to_string());
        assert_eq!(event.source(), "/otherix/0198e8c4-0000-7000-8000-000000000001");
        assert!(event.ty().starts_with("dev.otherix.") && event.ty().ends_with(['1', '2', '3']), "{name}");
        assert_eq!(event.subject(), Some(envelope.event.stream_id().to_string().as_str()));
        assert_eq!(envelope.event.declaration().aggregate(), envelope.event.stream_id().aggregate());
        assert_eq!(event.time().unwrap().to_rfc3339(), "2026-01-02T03:04:05.678901+00:00");
        assert_eq!(event.datacontenttype(), Some("application/json"));
        assert!(event.dataschema().unwrap().as_str().starts_with("urn:otherix:schema:"));
        assert_eq!(extension("sequence").as_deref(), Some("00000000000000000007"));
        assert_eq!(extension("decisionprev").as_deref(), Some("00000000000000000005"));
        assert_eq!(extension("actor"), Some(envelope.header.actor.id.to_string()));
        assert_eq!(extension("actorname"), envelope.header.actor.name);
        assert_eq!(extension("epoch").as_deref(), Some("1"));
        assert_eq!(extension("streamversion").as_deref(), Some("1"));
        for (extension, _) in event.iter_extensions() {
            assert!(extension.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{extension}");
        }
        assert!(matches!(event.data(), Some(Data::Json(Value::Object(_)))), "{name}");
    }
}

/// Decodes the first sample after `change`.
fn changed(change: impl FnOnce(&mut Value)) -> Result<EventEnvelope, DecodeError> {
    let mut event: Value = serde_json::from_slice(&samples()[0].1.encode().unwrap()).unwrap();
    change(&mut event);
    EventEnvelope::decode(event.to_string().as_bytes())
}

type Change = fn(&mut Value);

#[test]
fn rejects_foreign_and_inconsistent_events() {
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
        ("a reserved bridge name", |event| event["data"]["bridge_name"] = json!("otb1000")),
    ];
    for (what, change) in changes {
        assert!(changed(change).is_err(), "{what}");
    }
}

/// The patterns of the envelope are part of the published schema.
#[test]
fn every_golden_sample_has_the_form_that_the_schema_of_events_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_slice(&fs::read(folder.join("json/event.json")).unwrap()).unwrap();
    let patterns: Vec<_> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, rules)| Some((name, regex::Regex::new(rules.get("pattern")?.as_str()?).unwrap())))
        .collect();
    assert!(patterns.len() >= 6, "{patterns:?}");
    for file in fs::read_dir(folder.join("golden")).unwrap() {
        let path = file.unwrap().path();
        let event: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (name, pattern) in &patterns {
            let value = event[name.as_str()].as_str().unwrap();
            assert!(pattern.is_match(value), "{}: {name} `{value}` {pattern}", path.display());
        }
    }
}
