//! The state of mesh peers, as reported by a node and shown by `node get`.

use std::time::{SystemTime, UNIX_EPOCH};

use otherix_schemas::id::NodeId;
use otherix_schemas::node::MeshPeerStatus;
use otherix_schemas::timestamp::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::control_plane::ControlPlane;
use crate::node::{SimulatedNode, run};

fn ago(seconds: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    let micros = i64::try_from(now).expect("fits into i64") - seconds * 1_000_000;
    Timestamp::from_unix_micros(micros).expect("a timestamp")
}

#[tokio::test]
async fn shows_the_reported_state_of_mesh_peers() {
    let control_plane = ControlPlane::start();
    let one = SimulatedNode::join_mesh(&control_plane, 1).await;
    for number in [2, 3] {
        SimulatedNode::join_mesh(&control_plane, number).await;
    }
    let (recent, old) = (ago(20), ago(200));
    let status = |number, at| MeshPeerStatus {
        node_id: NodeId::new(Uuid::from_u128(number)),
        last_handshake_at: Some(at),
        rx_bytes: 1_234_567,
        tx_bytes: 89,
    };
    one.send_heartbeat(vec![status(3, old), status(2, recent)]).await;

    let shown = run(&control_plane, "node get node-1").await.stdout;

    let expected = format!(
        "mesh:\n  address:    10.42.0.1\n  public key: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n  \
         endpoint:   192.0.2.1:51820\n\
         PEER    ADDRESS    ENDPOINT         ESTABLISHED  LAST-HANDSHAKE               RX       TX\n\
         node-2  10.42.0.2  192.0.2.2:51820  yes          {recent}  1234567  89\n\
         node-3  10.42.0.3  192.0.2.3:51820  no           {old}  1234567  89\n"
    );
    assert!(shown.ends_with(&expected), "{shown}");
    let view: Value = serde_json::from_str(&run(&control_plane, "node get node-1 -o json").await.stdout).expect("JSON");
    let peer = json!({
        "node_id": Uuid::from_u128(2), "node_name": "node-2", "address": "10.42.0.2", "endpoint": "192.0.2.2:51820",
        "established": true, "last_handshake_at": recent.to_string(), "rx_bytes": 1_234_567, "tx_bytes": 89,
    });
    assert_eq!(view["mesh"]["peers"][0], peer);
    assert_eq!(view["mesh"]["peers"][1]["established"], false);
    let list: Value = serde_json::from_str(&run(&control_plane, "node list -o json").await.stdout).expect("JSON");
    let membership = json!({
        "address": "10.42.0.1", "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "endpoint": "192.0.2.1:51820",
    });
    assert_eq!(list["data"][0]["mesh"], membership);
}
