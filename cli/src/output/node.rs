//! A node as people are shown it.

use otherix_schemas::view::{NetworkCounts, NetworkOnNode, NodeView};

use super::table::{self, or_nothing};
use super::text;

/// The heading of [`row`].
pub(crate) const COLUMNS: [&str; 8] = ["NAME", "STATUS", "READY", "PENDING", "FAILED", "VMS", "NICS", "SINCE"];

/// A node in a list.
pub(crate) fn row(view: &NodeView) -> Vec<String> {
    let NetworkCounts { ready, pending, failed } = view.network_counts;
    let mut row = vec![view.name.to_string(), status(view).to_owned()];
    row.extend([ready, pending, failed, view.vms, view.nics].map(|count| count.to_string()));
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
    let networks: Vec<&NetworkOnNode> = view.networks.iter().flatten().collect();
    let row = |network: &&NetworkOnNode| {
        let NetworkOnNode { network_name, status, error, .. } = network;
        vec![network_name.to_string(), status.as_str().to_owned(), or_nothing(error.as_ref())]
    };
    let rows: Vec<_> = networks.iter().map(row).collect();
    let rows = if rows.is_empty() { String::new() } else { table::table(&["NETWORK", "STATUS", "ERROR"], &rows) };
    let warned = networks.iter().flat_map(|NetworkOnNode { network_name, warnings, .. }| {
        warnings.iter().map(move |warning| format!("{network_name}: {warning}"))
    });
    format!("{}{rows}{}", table::fields(&lines), text::warnings(&warned.collect::<Vec<_>>()))
}

fn status(view: &NodeView) -> &'static str {
    if view.reachable { "reachable" } else { "unreachable" }
}
