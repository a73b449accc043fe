use std::fs;
use std::os::unix::fs::PermissionsExt;

use otherix_schemas::cloudevent::Header;
use otherix_schemas::event::Event;
use otherix_schemas::id::{CorrelationId, EventId, NetworkId, NodeId, VmId};
use otherix_schemas::network::{
    BridgeSpec, Egress, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec, OverlaySpec, Ownership,
};
use otherix_schemas::node::{MeshPeer, NodeChanged, NodeEvent, NodeRemoved};
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{GatewaySubnet, MeshPublicKey, Mtu};
use otherix_schemas::vm::{VmCreated, VmDeleted};
use otherix_testkit::tempdir;
use proptest::prelude::*;
use uuid::Uuid;

use super::format::{self, FormatError};
use super::store::{self, StoredLedger};
use super::*;

/// Applies a decision, as if the chain ended with its position.
fn apply(ledger: &mut Ledger, envelope: EventEnvelope) -> Result<(), Divergence> {
    let digest = ChainDigest::START.after(&envelope.header.position.get().to_be_bytes());
    ledger.apply(envelope, digest)
}

fn cluster() -> ClusterId {
    ClusterId::new(Uuid::from_u128(7))
}

fn network(number: u8) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

fn created(number: u8) -> Event {
    let subnet = "10.1.0.0/24".parse().unwrap();
    let bridge = |ownership| {
        let bridge_name = format!("br-{number}").parse().unwrap();
        NetworkSpec::Bridge(BridgeSpec {
            bridge_name,
            ownership,
            mtu: Mtu::DEFAULT,
            vlan: None,
            dhcp: None,
            allow_spoofing: false,
        })
    };
    let spec = match number % 4 {
        0 => bridge(Ownership::Unmanaged),
        1 => bridge(Ownership::Managed(Egress::None)),
        2 => bridge(Ownership::Managed(Egress::Nat(GatewaySubnet::new(subnet, None).unwrap()))),
        _ => NetworkSpec::Overlay(OverlaySpec {
            vni: 1000.try_into().unwrap(),
            subnet,
            egress: Egress::None,
            mtu: Mtu::DEFAULT,
            dhcp: None,
            allow_spoofing: false,
        }),
    };
    Event::Network(NetworkEvent::Created(NetworkCreated {
        network_id: network(number),
        name: format!("net-{number}").parse().unwrap(),
        spec,
    }))
}

fn deleted(number: u8) -> Event {
    let name = format!("net-{number}").parse().unwrap();
    Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id: network(number), name }))
}

fn mesh_joined(number: u8) -> Event {
    let mesh = MeshPeer {
        address: [10, 42, 0, number].into(),
        public_key: MeshPublicKey::try_from([number + 1; 32]).unwrap(),
        endpoint: format!("192.0.2.{number}:51820").parse().unwrap(),
    };
    Event::Node(NodeEvent::Changed(NodeChanged { node_id: NodeId::new(Uuid::from_u128(number.into())), mesh }))
}

fn removed(number: u8) -> Event {
    let name = format!("node-{number}").parse().unwrap();
    Event::Node(NodeEvent::Removed(NodeRemoved { node_id: NodeId::new(Uuid::from_u128(number.into())), name }))
}

fn envelope(position: u64, previous: u64, epoch: u32, event: Event) -> EventEnvelope {
    let header = Header {
        cluster: cluster(),
        id: EventId::new(Uuid::from_u128(position.into())),
        position: Position::new(position),
        decision_prev: Position::new(previous),
        epoch: Epoch::new(epoch),
        stream_version: 1,
        time: Timestamp::from_unix_micros(1).unwrap(),
        actor: "admin".parse().unwrap(),
        correlation_id: CorrelationId::new(Uuid::nil()),
        causation_id: None,
        traceparent: None,
    };
    EventEnvelope { header, event }
}

fn sample() -> Ledger {
    let mut ledger = Ledger::begin(cluster(), BTreeSet::from([cluster(), ClusterId::new(Uuid::nil())]));
    apply(&mut ledger, envelope(2, 0, 1, created(1))).unwrap();
    apply(&mut ledger, envelope(5, 2, 1, created(2))).unwrap();
    apply(&mut ledger, envelope(6, 5, 2, deleted(1))).unwrap();
    ledger
}

#[test]
fn only_the_next_decision_is_applied() {
    let mut ledger = sample();
    let before = ledger.clone();
    assert_eq!(before.lineage().epoch, Epoch::new(2));
    assert_eq!(before.former().len(), 1, "the present cluster is not a former one");

    apply(&mut ledger, envelope(5, 2, 1, created(2))).unwrap();
    let foreign = |mut envelope: EventEnvelope| {
        envelope.header.cluster = ClusterId::new(Uuid::nil());
        envelope
    };
    let refused = [
        apply(&mut ledger, foreign(envelope(7, 6, 2, created(3)))),
        apply(&mut ledger, envelope(7, 6, 1, created(3))),
        apply(&mut ledger, envelope(9, 8, 2, created(3))),
        apply(&mut ledger, envelope(9, 5, 3, created(3))),
    ];
    assert!(matches!(
        refused,
        [
            Err(Divergence::Cluster { .. }),
            Err(Divergence::Epoch { .. }),
            Err(Divergence::Past { .. }),
            Err(Divergence::Past { .. })
        ]
    ));
    assert_eq!(ledger, before);
    apply(&mut ledger, envelope(9, 6, 3, created(3))).unwrap();
    assert_eq!((ledger.lineage().epoch, ledger.position()), (Epoch::new(3), Position::new(9)));
}

#[test]
fn file_is_private_and_no_other_file_remains() {
    let folder = tempdir().unwrap();
    assert!(matches!(store::read(folder.path(), 1), StoredLedger::Absent));
    let ledger = sample();
    store::write(folder.path(), &ledger).unwrap();
    let path = folder.path().join("ledger.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file remains");
    let StoredLedger::Present(found) = store::read(folder.path(), 1) else { panic!("no ledger") };
    assert_eq!(*found, ledger);
}

#[test]
fn damaged_file_is_renamed_and_newer_file_is_kept() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("ledger.json");
    let text = format::encode(&sample()).unwrap();
    for (number, length) in [0, 3, 60, text.len() - 1].into_iter().enumerate() {
        fs::write(&path, &text[..length]).unwrap();
        assert!(matches!(store::read(folder.path(), number as u64), StoredLedger::Absent));
        assert!(!path.exists());
        let aside = folder.path().join(format!("ledger.json.damaged-{number}"));
        assert_eq!(fs::read(aside).unwrap(), &text[..length]);
    }
    let newer = String::from_utf8(text).unwrap().replacen("\"format\":5", "\"format\":6", 1);
    fs::write(&path, &newer).unwrap();
    assert!(matches!(store::read(folder.path(), 9), StoredLedger::Newer(FormatError::Newer(6))));
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    fs::write(&path, newer.replacen("\"format\":6", "\"format\":2", 1)).unwrap();
    assert!(
        matches!(store::read(folder.path(), 9), StoredLedger::Absent),
        "an older format lacks decisions that the stream has"
    );
}

#[test]
fn unknown_decision_or_field_means_a_newer_version() {
    use sha2::Digest;
    let text = String::from_utf8(format::encode(&sample()).unwrap()).unwrap();
    for (from, to) in [("network.created.v2", "network.created.v9"), ("\"former\"", "\"later\"")] {
        let body = text.split_once('\n').unwrap().1.replace(from, to);
        let digest: String = sha2::Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let altered = format!("{{\"format\":3,\"sha256\":\"{digest}\"}}\n{body}");
        let error = format::decode(altered.as_bytes()).unwrap_err();
        assert!(matches!(error, FormatError::Decision(_) | FormatError::Shape(_)), "{error:?}");
    }
}

/// Returns a ledger as a version wrote it that kept no names of VMs.
fn without_names(ledger: &Ledger) -> Vec<u8> {
    use sha2::Digest;
    let text = String::from_utf8(format::encode(ledger).unwrap()).unwrap();
    let mut body: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    assert!(body.as_object_mut().unwrap().remove("names").is_some());
    let body = format!("{body}\n");
    let digest: String = sha2::Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"format\":4,\"sha256\":\"{digest}\"}}\n{body}").into_bytes()
}

#[test]
fn without_names_of_vms_decisions_are_read_again_where_they_are_resolved() {
    let ledger = sample();
    let read = format::decode(&without_names(&ledger)).unwrap();
    assert_eq!(read, ledger, "no network resolves names");
    let mut resolving = ledger;
    let subnet = GatewaySubnet::new("10.1.0.0/24".parse().unwrap(), None).unwrap();
    let Event::Network(NetworkEvent::Created(mut event)) = created(2) else { unreachable!() };
    let NetworkSpec::Bridge(spec) = &mut event.spec else { unreachable!() };
    spec.dhcp = Some(otherix_schemas::network::Dhcp { subnet, dns: true });
    apply(&mut resolving, envelope(9, 6, 3, Event::Network(NetworkEvent::Created(event)))).unwrap();
    let read = format::decode(&without_names(&resolving)).unwrap();
    assert!(read.chain_end().is_none() && resolving.chain_end().is_some());
    assert_eq!((read.view(), read.lineage()), (resolving.view(), resolving.lineage()), "it is used meanwhile");
    let read = format::decode(&format::encode(&resolving).unwrap()).unwrap();
    assert_eq!(read, resolving);
}

#[test]
fn names_of_all_vms_are_kept() {
    let mut ledger = sample();
    let (vm_id, node_id) = (VmId::new(Uuid::from_u128(5)), NodeId::new(Uuid::from_u128(6)));
    let (image_url, arch) = ("http://images.example/a.img".parse().unwrap(), otherix_schemas::vm::Arch::Amd64);
    let created =
        VmCreated { vm_id, name: "web".parse().unwrap(), image_url, arch, node_id, owner: None, machine: None };
    apply(&mut ledger, envelope(9, 6, 3, created.into())).unwrap();
    ledger.view_mut().forget_elsewhere(NodeId::new(Uuid::nil()));
    let read = format::decode(&format::encode(&ledger).unwrap()).unwrap();
    assert_eq!((read.view().names()[&vm_id].as_str(), &read), ("web", &ledger));
    apply(&mut ledger, envelope(11, 9, 3, VmDeleted { vm_id, name: "web".parse().unwrap() }.into())).unwrap();
    assert!(ledger.view().names().is_empty());
}

proptest! {
    #[test]
    fn decoded_ledger_equals_the_encoded_one(steps in prop::collection::vec((0u8..12, 0usize..4), 0..60)) {
        let mut ledger = Ledger::begin(cluster(), BTreeSet::new());
        for (index, (number, kind)) in steps.into_iter().enumerate() {
            let position = index as u64 * 2 + 1;
            let event = [created as fn(u8) -> Event, deleted, mesh_joined, removed][kind](number);
            let previous = ledger.position().get();
            apply(&mut ledger, envelope(position, previous, 1, event)).unwrap();
            if number == 0 {
                ledger.view_mut().forget(ResourceRef::Network(network(number)), NodeId::new(Uuid::nil()));
            }
        }
        prop_assert_eq!(format::decode(&format::encode(&ledger).unwrap()).unwrap(), ledger);
    }

    #[test]
    fn altered_file_is_detected(at in any::<prop::sample::Index>(), bit in 0u32..8) {
        let ledger = sample();
        let mut text = format::encode(&ledger).unwrap();
        let at = at.index(text.len());
        text[at] ^= 1 << bit;
        // An alteration without effect on the meaning is accepted.
        if let Ok(read) = format::decode(&text) {
            prop_assert_eq!(read, ledger);
        }
    }
}
