//! A network as people are shown it.

use otherix_schemas::network::{EgressView, NetworkNodeStatus, NetworkStatus, NetworkView, UnreportedNode};
use otherix_schemas::outcome::OutcomeStatus;

use super::table::{self, or_nothing};
use super::text;

/// The heading of [`row`].
pub(crate) const COLUMNS: [&str; 8] = ["NAME", "TYPE", "BRIDGE", "MANAGED", "EGRESS", "SUBNET", "MTU", "READY"];

/// All that is known of a network.
pub(crate) fn details(view: &NetworkView) -> String {
    let mut lines = vec![("name", view.name.to_string())];
    lines.extend(fields(view));
    if let Some(at) = view.deleted_at {
        lines.push(("deleted", at.to_string()));
    }
    let warnings = text::warnings(&view.status.warnings);
    format!("{}status:\n{}{}\n{warnings}", table::fields(&lines), nodes(view), reported(view))
}

/// The fields of a network, its name aside.
pub(crate) fn fields(view: &NetworkView) -> Vec<(&'static str, String)> {
    vec![
        ("id", view.id.to_string()),
        ("type", view.kind.to_string()),
        ("bridge", view.bridge_name.clone()),
        ("managed", yes(view.managed)),
        ("egress", egress(view)),
        ("subnet", or_nothing(view.subnet)),
        ("gateway", or_nothing(view.gateway)),
        ("mtu", view.mtu.to_string()),
        ("vlan", or_nothing(view.vlan.map(|vlan| vlan.get()))),
        ("vni", or_nothing(view.vni)),
        ("created", view.created_at.to_string()),
    ]
}

/// A network in a list.
pub(crate) fn row(view: &NetworkView) -> Vec<String> {
    let NetworkStatus { ready, expected, nodes: _, unreported: _, reported: _, warnings: _ } = &view.status;
    vec![
        view.name.to_string(),
        view.kind.to_string(),
        view.bridge_name.clone(),
        yes(view.managed),
        egress(view),
        or_nothing(view.subnet),
        view.mtu.to_string(),
        format!("{ready}/{expected}"),
    ]
}

/// The table of nodes; none when no node has reported.
fn nodes(view: &NetworkView) -> String {
    let rows: Vec<Vec<String>> = view
        .status
        .nodes
        .iter()
        .flatten()
        .map(|node| vec![node.node_name.to_string(), node_status(view, node), or_nothing(node.error.clone())])
        .collect();
    if rows.is_empty() { String::new() } else { table::table(&["NODE", "STATUS", "ERROR"], &rows) }
}

/// A node's status, with what one must know to believe it.
pub(crate) fn node_status(view: &NetworkView, node: &NetworkNodeStatus) -> String {
    let status = node.status.as_str();
    match (speaks_of(view, node), node.reachable) {
        (true, true) => status.to_owned(),
        (true, false) => format!("{status} (unreachable)"),
        (false, true) => format!("{status} (outdated)"),
        (false, false) => format!("{status} (outdated, unreachable)"),
    }
}

/// Whether a node's word is about the network as it is now.
pub(crate) fn speaks_of(view: &NetworkView, node: &NetworkNodeStatus) -> bool {
    node.observed_generation >= view.generation
}

/// How many nodes have not reported, and which; for a deleted network, how many have confirmed.
fn reported(view: &NetworkView) -> String {
    let NetworkStatus { nodes, unreported, reported, expected, ready: _, warnings: _ } = &view.status;
    let silent: Vec<String> = unreported.iter().flatten().map(silent_node).collect();
    if view.deleted_at.is_some() {
        let gone = nodes.iter().flatten();
        let gone = gone.filter(|node| node.status == OutcomeStatus::Removed && speaks_of(view, node)).count();
        let silent = if silent.is_empty() { String::new() } else { format!("; not yet reported: {}", few(&silent)) };
        return format!("deleted; {gone} of {} confirmed its removal{silent}", count_have(*expected));
    }
    let silent = if silent.is_empty() { String::new() } else { format!(": {}", few(&silent)) };
    match (expected.saturating_sub(*reported), *expected) {
        (0, 0) => "no node is expected to report".to_owned(),
        (0, 1) => "the only node has reported".to_owned(),
        (0, all) => format!("all {all} nodes have reported"),
        (missing, all) if missing == all => format!("no node has reported yet, of {}{silent}", count(all)),
        (missing, all) => format!("{missing} of {} not yet reported{silent}", count_have(all)),
    }
}

/// A node that has not reported.
pub(crate) fn silent_node(node: &UnreportedNode) -> String {
    let unreachable = if node.reachable { "" } else { " (unreachable)" };
    format!("{}{unreachable}", node.node_name)
}

/// Names in a row, as many as one can take in.
pub(crate) fn few(names: &[String]) -> String {
    const FEW: usize = 8;
    let (shown, rest) = names.split_at(names.len().min(FEW));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", shown.join(", "))
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(nodes: u64) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

fn count_have(nodes: u64) -> String {
    if nodes == 1 { "1 node has".to_owned() } else { format!("{nodes} nodes have") }
}

fn yes(answer: bool) -> String {
    if answer { "yes" } else { "no" }.to_owned()
}

fn egress(view: &NetworkView) -> String {
    match view.egress {
        EgressView::Nat => "nat",
        EgressView::None => "none",
    }
    .to_owned()
}
