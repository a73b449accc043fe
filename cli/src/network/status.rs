//! The status of a network on the nodes, as text.

use otherix_schemas::network::{NetworkNodeStatus, NetworkStatus, NetworkView, UnreportedNode};
use otherix_schemas::outcome::OutcomeStatus;

use crate::output::table::{self, optional};

/// The table of the nodes that have reported, and a line on those that have not.
pub(super) fn status(view: &NetworkView) -> String {
    let nodes = view.status.nodes.iter().flatten();
    let row = |node: &NetworkNodeStatus| {
        vec![node.node_name.to_string(), node_status(view, node), optional(node.error.as_ref())]
    };
    let nodes = table::table_unless_empty(&["NODE", "STATUS", "ERROR"], &nodes.map(row).collect::<Vec<_>>());
    format!("{nodes}{}\n", reports(view))
}

/// The status on a node, with whether it is outdated or the node unreachable.
pub(super) fn node_status(view: &NetworkView, node: &NetworkNodeStatus) -> String {
    let status = node.status.as_str();
    match (is_current(view, node), node.reachable) {
        (true, true) => status.to_owned(),
        (true, false) => format!("{status} (unreachable)"),
        (false, true) => format!("{status} (outdated)"),
        (false, false) => format!("{status} (outdated, unreachable)"),
    }
}

/// Whether a reported status is about the network's last generation.
pub(super) fn is_current(view: &NetworkView, node: &NetworkNodeStatus) -> bool {
    node.observed_generation >= view.generation
}

/// How many nodes have not reported, and which; for a deleted network, how many have confirmed the removal.
fn reports(view: &NetworkView) -> String {
    let NetworkStatus { nodes, unreported, reported, expected, ready: _, warnings: _ } = &view.status;
    let unreported: Vec<String> = unreported.iter().flatten().map(unreported_node).collect();
    if view.deleted_at.is_some() {
        let removed = nodes.iter().flatten();
        let removed = removed.filter(|node| node.status == OutcomeStatus::Removed && is_current(view, node)).count();
        let rest =
            if unreported.is_empty() { String::new() } else { format!("; not reported yet: {}", few(&unreported)) };
        return format!("deleting; removal confirmed by {removed} of {}{rest}", count(*expected));
    }
    let names = if unreported.is_empty() { String::new() } else { format!(": {}", few(&unreported)) };
    match (expected.saturating_sub(*reported), *expected) {
        (0, 0) => "no node is expected to report".to_owned(),
        (0, 1) => "the only node has reported".to_owned(),
        (0, all) => format!("all {all} nodes have reported"),
        (1, 1) => format!("the only node has not reported yet{names}"),
        (missing, all) if missing == all => format!("none of {all} nodes has reported yet{names}"),
        (1, all) => format!("1 of {all} nodes has not reported yet{names}"),
        (missing, all) => format!("{missing} of {all} nodes have not reported yet{names}"),
    }
}

/// A node that has not reported.
pub(super) fn unreported_node(node: &UnreportedNode) -> String {
    let unreachable = if node.reachable { "" } else { " (unreachable)" };
    format!("{}{unreachable}", node.node_name)
}

/// The first few names, and how many more there are.
pub(super) fn few(names: &[String]) -> String {
    const FEW: usize = 8;
    let (shown, rest) = names.split_at(names.len().min(FEW));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", shown.join(", "))
}

/// `1 node`, `2 nodes`.
pub(super) fn count(nodes: u64) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}
