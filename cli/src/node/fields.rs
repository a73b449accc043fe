//! The fields of a node, as `get` and `list` show them.

use otherix_schemas::node::{
    MeshPeerView, NetworkCounts, NodeCapacity, NodeMesh, NodeNetworkStatus, NodeView, Resources,
};

use crate::output::table::{self, optional, table_unless_empty, yes_no};

/// The heading of [`row`].
pub(super) const COLUMNS: [&str; 9] = ["NAME", "STATUS", "READY", "PENDING", "FAILED", "VMS", "NICS", "MESH", "SINCE"];

/// The heading of the table of mesh peers.
const PEER_COLUMNS: [&str; 7] = ["PEER", "ADDRESS", "ENDPOINT", "ESTABLISHED", "LAST-HANDSHAKE", "RX", "TX"];

/// The row in a list: `*` marks a node with warnings.
pub(super) fn row(view: &NodeView) -> Vec<String> {
    let NetworkCounts { ready, pending, failed } = view.network_counts;
    let mark = if view.warnings.is_empty() { "" } else { "*" };
    let mut row = vec![view.name.to_string(), format!("{}{mark}", status(view))];
    row.extend([ready, pending, failed, view.vms, view.nics].map(|count| count.to_string()));
    row.push(optional(view.mesh.as_ref().map(|mesh| mesh.address)));
    row.push(view.reachable_since.to_string());
    row
}

/// The text of `get`.
pub(super) fn details(view: &NodeView) -> String {
    let NodeView { id, name, reachable_since, joined_at, arch, vms, nics, network_counts, warnings, .. } = view;
    let NetworkCounts { ready, pending, failed } = network_counts;
    let mut lines = vec![
        ("name", name.to_string()),
        ("id", id.to_string()),
        ("status", format!("{} since {reachable_since}", presence(view))),
        ("joined", joined_at.to_string()),
        ("vms", vms.to_string()),
        ("nics", nics.to_string()),
        ("networks", format!("{ready} ready, {pending} pending, {failed} failed")),
    ];
    lines.extend(table::metadata(view.description.as_ref(), &view.labels));
    if view.cordoned {
        lines.push(("cordoned", "yes: no VMs are placed on it".to_owned()));
    }
    lines.extend(arch.map(|arch| ("arch", arch.to_string())));
    lines.extend(view.capacity.as_ref().map(|capacity| ("accelerator", accelerator(capacity))));
    lines.extend(
        view.capacity.as_ref().zip(view.allocated).map(|(capacity, taken)| ("allocated", allocated(capacity, taken))),
    );
    let networks: Vec<&NodeNetworkStatus> = view.networks.iter().flatten().collect();
    let row = |network: &&NodeNetworkStatus| {
        let NodeNetworkStatus { network_name, status, error, .. } = network;
        vec![network_name.to_string(), status.as_str().to_owned(), optional(error.as_ref())]
    };
    let rows = table_unless_empty(&["NETWORK", "STATUS", "ERROR"], &networks.iter().map(row).collect::<Vec<_>>());
    let mesh = view.mesh.as_ref().map(mesh).unwrap_or_default();
    let of_networks = networks.iter().flat_map(|NodeNetworkStatus { network_name, warnings, .. }| {
        warnings.iter().map(move |warning| format!("{network_name}: {warning}"))
    });
    let warnings: Vec<_> = warnings.iter().cloned().chain(of_networks).collect();
    format!("{}{rows}{mesh}{}", table::fields(&lines), table::warnings(&warnings))
}

/// What executes guests on the node, and why.
fn accelerator(capacity: &NodeCapacity) -> String {
    let NodeCapacity { accelerator, reason, .. } = capacity;
    match accelerator {
        Some(accelerator) => format!("{} ({reason})", accelerator.as_str()),
        None => format!("none ({reason})"),
    }
}

/// What the machines take of what the node offers.
fn allocated(capacity: &NodeCapacity, taken: Resources) -> String {
    let Resources { vcpus, memory_mb, disk_gib } = capacity.resources;
    format!(
        "{} of {vcpus} vCPUs, {} of {memory_mb} MiB of memory, {} of {disk_gib} GiB of disk",
        taken.vcpus, taken.memory_mb, taken.disk_gib
    )
}

/// The node's membership in the mesh, and the last reported state of its peers.
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
        let mut row = vec![node_name.to_string(), address.to_string(), endpoint.to_string(), yes_no(*established)];
        row.push(optional(last_handshake_at.as_ref()));
        row.extend([rx_bytes, tx_bytes].map(|bytes| bytes.to_string()));
        row
    };
    let rows: Vec<_> = peers.iter().flatten().map(row).collect();
    let rows =
        if rows.is_empty() { "no other node is in the mesh\n".to_owned() } else { table::table(&PEER_COLUMNS, &rows) };
    format!("mesh:\n{}{rows}", table::fields(&lines))
}

fn status(view: &NodeView) -> String {
    let cordoned = if view.cordoned { ", cordoned" } else { "" };
    format!("{}{cordoned}", presence(view))
}

fn presence(view: &NodeView) -> &'static str {
    if view.reachable { "reachable" } else { "unreachable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_warnings_is_marked() {
        let node = |warnings: &[&str]| -> NodeView {
            let node = serde_json::json!({
                "id": "01890000-0000-7000-8000-000000000001", "name": "node-1", "reachable": true,
                "reachable_since": "2026-01-01T00:00:00Z", "joined_at": "2026-01-01T00:00:00Z", "vms": 0, "nics": 0,
                "network_counts": { "ready": 1, "pending": 0, "failed": 0 }, "mesh": null, "warnings": warnings,
            });
            serde_json::from_value(node).unwrap()
        };
        let status = |node: &NodeView| row(node).get(1).cloned().unwrap();
        assert_eq!(status(&node(&[])), "reachable");
        assert_eq!(status(&node(&["two agents run as this node"])), "reachable*");
        assert_eq!(status(&NodeView { cordoned: true, ..node(&[]) }), "reachable, cordoned");
        let details = details(&node(&["two agents"]));
        assert!(details.contains("reachable since") && details.contains("two agents"), "{details}");
    }
}
