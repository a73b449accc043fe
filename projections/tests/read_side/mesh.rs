//! The mesh in the view of a node: its address, key and endpoint as last decided, and all other nodes of the mesh as
//! its peers.

use otherix_projections::node;
use otherix_projections::query::Page;
use otherix_schemas::node::{MeshPeerView, NodeView};
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;

use super::support::{ReadSide, WriteSide, id, join, join_mesh, rebuilt_rows};

async fn node(read: &ReadSide, write: &WriteSide, number: u128) -> NodeView {
    read.reach(write.head()).await;
    node::query::by_id(&read.db(), id(number)).unwrap().unwrap()
}

/// Each peer: its name, address and endpoint.
fn peers(view: &NodeView) -> Vec<(String, String, String)> {
    let shown = |peer: &MeshPeerView| {
        assert!(!peer.established && peer.last_handshake_at.is_none(), "no status was reported");
        (peer.node_name.to_string(), peer.address.to_string(), peer.endpoint.to_string())
    };
    view.mesh.as_ref().unwrap().peers.as_ref().unwrap().iter().map(shown).collect()
}

fn peer(number: u8, port: u16) -> (String, String, String) {
    (format!("node-{number}"), format!("10.42.0.{number}"), format!("192.0.2.{number}:{port}"))
}

#[tokio::test]
async fn a_node_shows_its_mesh_membership_and_its_peers() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.execute(join_mesh(1, 1, 51820)).await;
    assert_eq!(peers(&node(&read, &write, 1).await), []);
    // Nodes 10 and 2 are not in the mesh yet.
    for number in [10, 2] {
        write.execute(join(number)).await;
    }
    assert_eq!(node(&read, &write, 2).await.mesh, None);
    assert_eq!(peers(&node(&read, &write, 1).await), []);
    write.execute(join_mesh(2, 2, 51820)).await;
    write.execute(join_mesh(3, 3, 51820)).await;
    assert_eq!(peers(&node(&read, &write, 1).await), [peer(2, 51820), peer(3, 51820)]);
    assert_eq!(peers(&node(&read, &write, 3).await), [peer(1, 51820), peer(2, 51820)]);

    let before = node(&read, &write, 2).await.mesh.unwrap();
    write.execute(join_mesh(2, 9, 7)).await;
    let after = node(&read, &write, 2).await.mesh.unwrap();
    assert_eq!((after.address, after.endpoint.to_string().as_str()), (before.address, "192.0.2.2:7"));
    assert_eq!((before.public_key.bytes(), after.public_key.bytes()), ([2; 32], [9; 32]));
    assert_eq!(peers(&node(&read, &write, 1).await), [peer(2, 7), peer(3, 51820)]);

    let by_name = node::query::by_name(&read.db(), &"NODE-2".parse().unwrap()).unwrap().unwrap();
    assert_eq!(by_name, node(&read, &write, 2).await);
    let all = node::query::list(&read.db(), Page { limit: 20, after: Position::ZERO }).unwrap().views;
    let short: Vec<_> =
        all.iter().map(|node| node.mesh.as_ref().map(|mesh| (mesh.address.octets(), &mesh.peers))).collect();
    let at = |last| Some(([10, 42, 0, last], &None));
    assert_eq!(short, [at(1), None, at(2), at(3)]);
    let row = "SELECT name, mesh_address, mesh_public_key, mesh_endpoint FROM nodes WHERE mesh_address LIKE '%.2'";
    assert_eq!(read.sql(row), "node-2|10.42.0.2|CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=|192.0.2.2:7\n");
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}
