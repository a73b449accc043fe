//! What a look at a network says to somebody who waits for it. Pure: judges a view, looks at nothing else.
//!
//! Whom a wait waits for is not decided here: [`NetworkNodeStatus::awaited`] says it of each node. Those are the nodes that were
//! joined and reachable at the position of the decision, less those that were removed since.

use otherix_schemas::network::{NetworkNodeStatus, NetworkView, UnreportedNode};
use otherix_schemas::outcome::OutcomeStatus;

use crate::output::network::{count, few, node_status, silent_node, speaks_of};
use crate::thing::verdict::{self, Progress, Verdict, why};

/// A node that is waited for.
enum Awaited<'a> {
    Reported(&'a NetworkNodeStatus),
    Silent(&'a UnreportedNode),
}

impl Awaited<'_> {
    /// Its word on the network as it is now.
    fn status(&self, view: &NetworkView) -> Option<OutcomeStatus> {
        match self {
            Self::Reported(node) => speaks_of(view, node).then_some(node.status),
            Self::Silent(_) => None,
        }
    }

    fn is_reachable(&self) -> bool {
        match self {
            Self::Reported(node) => node.reachable,
            Self::Silent(node) => node.reachable,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Reported(node) => node.node_name.to_string(),
            Self::Silent(node) => node.node_name.to_string(),
        }
    }

    /// `node-1: pending: why`.
    fn told(&self, view: &NetworkView) -> String {
        match self {
            Self::Reported(node) => {
                let error = node.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                format!("{}: {}{error}", node.node_name, node_status(view, node))
            }
            Self::Silent(node) if node.reachable => format!("{}: has not reported", node.node_name),
            Self::Silent(node) => format!("{}: unreachable, has not reported", node.node_name),
        }
    }
}

/// The nodes that are waited for, by name.
fn awaited(view: &NetworkView) -> Vec<Awaited<'_>> {
    let reported = view.status.nodes.iter().flatten().filter(|node| node.awaited).map(Awaited::Reported);
    let silent = view.status.unreported.iter().flatten().filter(|node| node.awaited).map(Awaited::Silent);
    let mut nodes: Vec<_> = reported.chain(silent).collect();
    nodes.sort_by_key(Awaited::name);
    nodes
}

/// Whether each awaited node is ready.
pub(super) fn readiness(view: &NetworkView) -> Verdict {
    let nodes = awaited(view);
    if let Some(failed) = failed(view, &nodes) {
        return failed;
    }
    let missing: Vec<_> = nodes.iter().filter(|node| node.status(view) != Some(OutcomeStatus::Ready)).collect();
    if missing.is_empty() {
        return Verdict::Done;
    }
    let (of, done) = (number(nodes.len()), number(nodes.len() - missing.len()));
    let words = format!("{done} of {} ready{}", count(of), unreachable(&missing));
    Verdict::NotYet(Progress { done, of, words })
}

/// Whether each node has removed it.
pub(super) fn removal(view: &NetworkView) -> Verdict {
    let nodes = awaited(view);
    if let Some(failed) = failed(view, &nodes) {
        return failed;
    }
    let of = view.status.expected;
    let done = of.saturating_sub(number(nodes.len()));
    let words = format!("removed from {done} of {}{}", count(of), unreachable(&nodes.iter().collect::<Vec<_>>()));
    Verdict::NotYet(Progress { done, of, words })
}

/// The awaited nodes that say that it failed.
fn failed(view: &NetworkView, nodes: &[Awaited<'_>]) -> Option<Verdict> {
    let failed = nodes.iter().filter_map(|node| match node {
        Awaited::Reported(word) if node.status(view) == Some(OutcomeStatus::Failed) => Some(word),
        Awaited::Reported(_) | Awaited::Silent(_) => None,
    });
    let named: Vec<_> = failed.map(|node| why(&node.node_name, node.reachable, node.error.as_deref())).collect();
    (!named.is_empty()).then(|| verdict::failed(view, &named.join("; ")))
}

fn unreachable(missing: &[&Awaited<'_>]) -> String {
    let names: Vec<String> = missing.iter().filter(|node| !node.is_reachable()).map(|node| node.name()).collect();
    if names.is_empty() { String::new() } else { format!("; unreachable: {}", few(&names)) }
}

/// The nodes that are missing, and why.
pub(super) fn missing(view: &NetworkView) -> String {
    let wanted = if view.deleted_at.is_some() { OutcomeStatus::Removed } else { OutcomeStatus::Ready };
    let nodes = awaited(view);
    let missing = nodes.iter().filter(|node| node.status(view) != Some(wanted)).map(|node| node.told(view));
    missing.collect::<Vec<_>>().join("; ")
}

/// What to say of nodes that are unreachable, and were so when the network was created, so that nobody waited for them.
pub(super) fn left_out(view: &NetworkView) -> Option<String> {
    let reported = view.status.nodes.iter().flatten().filter(|node| !node.awaited && !node.reachable);
    let silent = view.status.unreported.iter().flatten().filter(|node| !node.awaited && !node.reachable);
    let mut names: Vec<String> =
        reported.map(|node| node.node_name.to_string()).chain(silent.map(silent_node)).collect();
    names.sort();
    (view.deleted_at.is_none() && !names.is_empty()).then(|| format!("not waited for: {}", few(&names)))
}

fn number(nodes: usize) -> u64 {
    u64::try_from(nodes).unwrap_or(u64::MAX)
}
