//! The mesh end to end: addresses and keys assigned at the join, peer statuses in heartbeats and views, and overlays
//! with a VM.

use std::process::Command;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NodeId;
use otherix_schemas::network::{CreateNetwork, DeleteNetwork, NetworkById, NetworkView};
use otherix_schemas::node::{
    GetNode, Heartbeat, HeartbeatAnswer, JoinAnswer, JoinNode, JoinRequest, ListNodes, MeshOffer, MeshPeerStatus,
    MeshPeerView, NodeById, NodeMesh, NodeView,
};
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::request::{PageRequest, Request};
use otherix_schemas::subject;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::vm::{CreateVm, VmDraft, VmView};
use otherix_transport::Nats;
use otherix_transport::request::CallOptions;
use uuid::Uuid;

use super::daemon::{DEADLINE, OtherixdProcess, call, create, overlay};

fn id(number: u8) -> NodeId {
    NodeId::new(Uuid::from_u128(number.into()))
}

/// A connection of node `number`, which may join.
async fn new_node(daemon: &OtherixdProcess, number: u8) -> Nats {
    daemon.node(id(number), &format!("node-{number}")).await
}

/// Joins node `number` with a key of the mesh. Returns the code and message of a refusal.
async fn join(node: &Nats, number: u8, key: u8) -> Result<(), (ErrorCode, String)> {
    let endpoint = format!("192.0.2.{number}:51820").parse().unwrap();
    let mesh = Some(MeshOffer { public_key: [key; 32].try_into().unwrap(), endpoint });
    let body = JoinRequest { node_id: id(number), name: format!("node-{number}").parse().unwrap(), mesh, arch: None };
    let answer = call::<JoinAnswer>(node, Request::of::<JoinNode>(), &body, None).await;
    answer.map(drop).map_err(|refusal| (refusal.error.code, refusal.error.message))
}

async fn mesh(admin: &Nats, number: u8) -> NodeMesh {
    let node =
        call::<NodeView>(admin, Request::of::<GetNode>(), &NodeById { id: id(number) }, None).await.unwrap().data;
    node.mesh.unwrap()
}

/// Sends a heartbeat; the reply means that it was recorded.
async fn send_heartbeat(node: &Nats, mesh: Vec<MeshPeerStatus>) {
    let beat = Heartbeat { mesh, ..Heartbeat::default() };
    let options = CallOptions { timeout: DEADLINE, idempotency_key: None };
    let answer = node.exchange(subject::heartbeat(&node.user()), &beat, options).await.unwrap();
    serde_json::from_slice::<HeartbeatAnswer>(&answer.payload).unwrap();
}

fn ago(seconds: i64) -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_unix_micros(i64::try_from(now).unwrap() - seconds * 1_000_000).unwrap()
}

#[tokio::test]
async fn nodes_join_the_mesh_and_report_peers() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let mut nodes = Vec::new();
    for number in [1, 2, 3] {
        let node = new_node(&daemon, number).await;
        join(&node, number, number).await.unwrap();
        nodes.push(node);
    }
    let [first, second, _] = &nodes[..] else { panic!() };
    join(first, 1, 1).await.unwrap();
    let (code, message) = join(second, 2, 3).await.unwrap_err();
    assert_eq!(code, ErrorCode::Conflict);
    assert!(message.contains("`node-3`"), "{message}");
    // Exactly the three nodes, with one mesh address each, in the stream as in the journal.
    let events = daemon.assert_stream_is_copy().await;
    assert_eq!(events, 6);
    let sql = "SELECT stream_id, type, json_extract(body, '$.data.mesh.address') FROM events
        WHERE stream_id LIKE 'node/%' AND stream_version > 1 ORDER BY position";
    let output =
        Command::new("sqlite3").arg("-readonly").arg(daemon.state().join("journal.db")).arg(sql).output().unwrap();
    let changed = |number| format!("node/{}|dev.otherix.node.changed.v1|10.42.0.{number}\n", id(number));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), changed(1) + &changed(2) + &changed(3));

    let initial = mesh(&admin, 1).await.peers.unwrap();
    assert!(initial.iter().all(|peer| !peer.established && peer.last_handshake_at.is_none()), "{initial:?}");
    let peer_status = |number, at: Option<Timestamp>| MeshPeerStatus {
        node_id: id(number),
        last_handshake_at: at,
        rx_bytes: 5_000_000_000,
        tx_bytes: 7,
    };
    let (recent, old) = (ago(100), ago(181));
    send_heartbeat(first, vec![peer_status(2, Some(recent)), peer_status(3, Some(old)), peer_status(9, Some(recent))])
        .await;
    let shown = mesh(&admin, 1).await;
    assert_eq!((shown.address.to_string().as_str(), shown.public_key.bytes()), ("10.42.0.1", [1; 32]));
    let short =
        |peer: &MeshPeerView| (peer.node_id, peer.established, peer.last_handshake_at, peer.rx_bytes, peer.tx_bytes);
    let peers: Vec<_> = shown.peers.iter().flatten().map(short).collect();
    assert_eq!(peers, [(id(2), true, Some(recent), 5_000_000_000, 7), (id(3), false, Some(old), 5_000_000_000, 7)]);
    assert_eq!(
        mesh(&admin, 2).await.peers.unwrap()[0].last_handshake_at,
        None,
        "a heartbeat affects only the node's own view"
    );
    send_heartbeat(first, Vec::new()).await;
    assert_eq!(mesh(&admin, 1).await.peers.unwrap(), initial);

    let list =
        call::<Vec<NodeView>>(&admin, Request::of::<ListNodes>(), &PageRequest::default(), None).await.unwrap().data;
    let meshes: Vec<_> = list.into_iter().map(|node| node.mesh.unwrap()).collect();
    assert!(meshes.iter().all(|mesh| mesh.peers.is_none()), "{meshes:?}");
    // Peer statuses are not events.
    assert_eq!(daemon.assert_stream_is_copy().await, events);
}

#[tokio::test]
async fn exhausted_supernet_and_vni_range_are_rejected() {
    let flags = &["--mesh-supernet", "192.0.2.0/30", "--vni-range", "1000-1001", "--underlay-mtu", "9000"];
    let daemon = OtherixdProcess::start_with(flags).await;
    let admin = daemon.connect("admin").await;
    for number in [1, 2] {
        join(&new_node(&daemon, number).await, number, number).await.unwrap();
        assert_eq!(mesh(&admin, number).await.address.octets(), [192, 0, 2, number]);
    }
    let (code, message) = join(&new_node(&daemon, 3).await, 3, 3).await.unwrap_err();
    assert_eq!(code, ErrorCode::Conflict);
    assert_eq!(
        message,
        "the mesh's supernet `192.0.2.0/30` is used up: the control plane needs one with higher addresses"
    );

    let first = create(&admin, &overlay("over-1")).await;
    let shown = (first.vni.map(u32::from), first.bridge_name.as_str(), i64::from(first.mtu), first.managed);
    assert_eq!(shown, (Some(1000), "otb1000", 8890, true));
    let by_id = NetworkById { id: first.id };
    call::<NetworkView>(&admin, Request::of::<DeleteNetwork>(), &by_id, Some("gone")).await.unwrap();
    let second = create(&admin, &overlay("over-2")).await;
    assert_eq!(second.vni.map(u32::from), Some(1001), "no VNI is reused");
    let refusal =
        call::<NetworkView>(&admin, Request::of::<CreateNetwork>(), &overlay("over-3"), None).await.unwrap_err().error;
    assert_eq!(refusal.code, ErrorCode::Conflict);
    assert_eq!(refusal.message, "the VNI range is used up: the control plane needs a range with higher VNIs");

    let vm = VmDraft {
        name: "vm-1".to_owned(),
        image_url: Some("https://images.example/debian-12.qcow2".to_owned()),
        arch: Some("amd64".to_owned()),
        network_id: Some(second.id.to_string()),
        ip: None,
        node_id: None,
        machine: None,
        ..VmDraft::default()
    };
    let vm = call::<VmView>(&admin, Request::of::<CreateVm>(), &vm, Some("vm")).await.unwrap().data;
    let nic = vm.nic.unwrap();
    assert_eq!((vm.status, nic.bridge_name.as_str(), nic.network_id), (OutcomeStatus::Pending, "otb1001", second.id));
    let refused =
        call::<NetworkView>(&admin, Request::of::<DeleteNetwork>(), &NetworkById { id: second.id }, None).await;
    assert_eq!(refused.unwrap_err().error.details["vm_nics"], 1);
}
