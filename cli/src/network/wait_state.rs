//! Determines whether a wait for a network is over. Pure: depends on the view only.
//!
//! The control plane decides which nodes are awaited ([`NetworkNodeStatus::awaited`]): those that were joined and
//! reachable at the position of the decision, without those removed since.

use otherix_schemas::network::{NetworkNodeStatus, NetworkView, UnreportedNode};
use otherix_schemas::outcome::OutcomeStatus;

use super::status::{count, few, is_current, node_status, unreported_node};
use crate::resource::wait_state::{self, WaitProgress, WaitState, node_failure};

/// A node that is waited for.
enum Awaited<'a> {
    Reported(&'a NetworkNodeStatus),
    Unreported(&'a UnreportedNode),
}

impl Awaited<'_> {
    /// The status it reported for the last generation.
    fn status(&self, view: &NetworkView) -> Option<OutcomeStatus> {
        match self {
            Self::Reported(node) => is_current(view, node).then_some(node.status),
            Self::Unreported(_) => None,
        }
    }

    fn is_reachable(&self) -> bool {
        match self {
            Self::Reported(node) => node.reachable,
            Self::Unreported(node) => node.reachable,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Reported(node) => node.node_name.to_string(),
            Self::Unreported(node) => node.node_name.to_string(),
        }
    }

    /// `node-1: pending: error`.
    fn describe(&self, view: &NetworkView) -> String {
        match self {
            Self::Reported(node) => {
                let error = node.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                format!("{}: {}{error}", node.node_name, node_status(view, node))
            }
            Self::Unreported(node) if node.reachable => format!("{}: not reported yet", node.node_name),
            Self::Unreported(node) => format!("{}: unreachable, not reported yet", node.node_name),
        }
    }
}

/// The nodes that are waited for, by name.
fn awaited(view: &NetworkView) -> Vec<Awaited<'_>> {
    let reported = view.status.nodes.iter().flatten().filter(|node| node.awaited).map(Awaited::Reported);
    let unreported = view.status.unreported.iter().flatten().filter(|node| node.awaited).map(Awaited::Unreported);
    let mut nodes: Vec<_> = reported.chain(unreported).collect();
    nodes.sort_by_key(Awaited::name);
    nodes
}

/// Whether the network is ready on each awaited node.
pub(super) fn readiness(view: &NetworkView) -> WaitState {
    let nodes = awaited(view);
    if let Some(failed) = failed(view, &nodes) {
        return failed;
    }
    let missing: Vec<_> = nodes.iter().filter(|node| node.status(view) != Some(OutcomeStatus::Ready)).collect();
    if missing.is_empty() {
        return WaitState::Done;
    }
    let (of, done) = (number(nodes.len()), number(nodes.len() - missing.len()));
    let message = format!("{done} of {} ready{}", count(of), unreachable(&missing));
    WaitState::Pending(WaitProgress { done, of, message })
}

/// Whether each node has removed it.
pub(super) fn removal(view: &NetworkView) -> WaitState {
    let nodes = awaited(view);
    if let Some(failed) = failed(view, &nodes) {
        return failed;
    }
    let of = view.status.expected;
    let done = of.saturating_sub(number(nodes.len()));
    let message = format!("removed from {done} of {}{}", count(of), unreachable(&nodes.iter().collect::<Vec<_>>()));
    WaitState::Pending(WaitProgress { done, of, message })
}

/// The failure, if awaited nodes reported one.
fn failed(view: &NetworkView, nodes: &[Awaited<'_>]) -> Option<WaitState> {
    let failed = nodes.iter().filter_map(|node| match node {
        Awaited::Reported(reported) if node.status(view) == Some(OutcomeStatus::Failed) => Some(reported),
        Awaited::Reported(_) | Awaited::Unreported(_) => None,
    });
    let failures: Vec<_> =
        failed.map(|node| node_failure(&node.node_name, node.reachable, node.error.as_deref())).collect();
    (!failures.is_empty()).then(|| wait_state::failed(view, &failures.join("; ")))
}

fn unreachable(missing: &[&Awaited<'_>]) -> String {
    let names: Vec<String> = missing.iter().filter(|node| !node.is_reachable()).map(|node| node.name()).collect();
    if names.is_empty() { String::new() } else { format!("; unreachable: {}", few(&names)) }
}

/// The awaited nodes on which the network has not reached the goal, with their status.
pub(super) fn pending(view: &NetworkView) -> String {
    let goal = if view.deleted_at.is_some() { OutcomeStatus::Removed } else { OutcomeStatus::Ready };
    let nodes = awaited(view);
    let pending = nodes.iter().filter(|node| node.status(view) != Some(goal)).map(|node| node.describe(view));
    pending.collect::<Vec<_>>().join("; ")
}

/// The nodes that were not awaited because they were already unreachable at the creation.
pub(super) fn not_awaited(view: &NetworkView) -> Option<String> {
    let reported = view.status.nodes.iter().flatten().filter(|node| !node.awaited && !node.reachable);
    let unreported = view.status.unreported.iter().flatten().filter(|node| !node.awaited && !node.reachable);
    let mut names: Vec<String> =
        reported.map(|node| node.node_name.to_string()).chain(unreported.map(unreported_node)).collect();
    names.sort();
    (view.deleted_at.is_none() && !names.is_empty()).then(|| format!("not waited for: {}", few(&names)))
}

fn number(nodes: usize) -> u64 {
    u64::try_from(nodes).unwrap_or(u64::MAX)
}
