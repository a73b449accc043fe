//! A node as people are shown it.

use otherix_schemas::node::{MeshPeerView, NetworkCounts, NodeMesh, NodeNetworkStatus, NodeView};

use super::table::{self, or_nothing};
use super::text;

/// The heading of [`row`].
pub(crate) const COLUMNS: [&str; 9] = ["NAME", "STATUS", "READY", "PENDING", "FAILED", "VMS", "NICS", "MESH", "SINCE"];

/// The heading of the peers' table.
const PEERS: [&str; 7] = ["PEER", "ADDRESS", "ENDPOINT", "ESTABLISHED", "LAST-HANDSHAKE", "RX", "TX"];

/// A node in a list.
pub(crate) fn row(view: &NodeView) -> Vec<String> {
    let NetworkCounts { ready, pending, failed } = view.network_counts;
    let mut row = vec![view.name.to_string(), status(view).to_owned()];
    row.extend([ready, pending, failed, view.vms, view.nics].map(|count| count.to_string()));
    row.push(or_nothing(view.mesh.as_ref().map(|mesh| mesh.address)));
    row.push(view.reachable_since.to_string());
    row
}

/// All that is known of a node.
pub(crate) fn details(view: &NodeView) -> String {
    let NodeView { id, name, reachable_since, joined_at, vms, nics, network_counts, .. } = view;
    let NetworkCounts { ready, pending, failed } = network_counts;
    let lines = [
        ("name", name.to_string()),
        ("id", id.to_string()),
        ("status", format!("{} since {reachable_since}", status(view))),
        ("joined", joined_at.to_string()),
        ("vms", vms.to_string()),
        ("nics", nics.to_string()),
        ("networks", format!("{ready} ready, {pending} pending, {failed} failed")),
    ];
    let networks: Vec<&NodeNetworkStatus> = view.networks.iter().flatten().collect();
    let row = |network: &&NodeNetworkStatus| {
        let NodeNetworkStatus { network_name, status, error, .. } = network;
        vec![network_name.to_string(), status.as_str().to_owned(), or_nothing(error.as_ref())]
    };
    let rows: Vec<_> = networks.iter().map(row).collect();
    let rows = if rows.is_empty() { String::new() } else { table::table(&["NETWORK", "STATUS", "ERROR"], &rows) };
    let mesh = view.mesh.as_ref().map(mesh).unwrap_or_default();
    let warned = networks.iter().flat_map(|NodeNetworkStatus { network_name, warnings, .. }| {
        warnings.iter().map(move |warning| format!("{network_name}: {warning}"))
    });
    format!("{}{rows}{mesh}{}", table::fields(&lines), text::warnings(&warned.collect::<Vec<_>>()))
}

/// The node's place in the mesh, and its peers there.
fn mesh(mesh: &NodeMesh) -> String {
    let NodeMesh { address, public_key, endpoint, peers } = mesh;
    let lines = [
        ("  address", address.to_string()),
        ("  public key", public_key.to_string()),
        ("  endpoint", endpoint.to_string()),
    ];
    let row = |peer: &MeshPeerView| {
        let MeshPeerView { node_name, address, endpoint, established, last_handshake_at, rx_bytes, tx_bytes, .. } =
            peer;
        let established = if *established { "yes" } else { "no" };
        let mut row = vec![node_name.to_string(), address.to_string(), endpoint.to_string(), established.to_owned()];
        row.push(or_nothing(last_handshake_at.as_ref()));
        row.extend([rx_bytes, tx_bytes].map(|bytes| bytes.to_string()));
        row
    };
    let rows: Vec<_> = peers.iter().flatten().map(row).collect();
    let rows = if rows.is_empty() { "no other node is in the mesh\n".to_owned() } else { table::table(&PEERS, &rows) };
    format!("mesh:\n{}{rows}", table::fields(&lines))
}

fn status(view: &NodeView) -> &'static str {
    if view.reachable { "reachable" } else { "unreachable" }
}
