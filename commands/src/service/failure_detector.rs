//! Decides which nodes are unreachable from when their last requests were received. Pure: time is an argument.
//!
//! Only time in which the control plane was receiving counts towards the window. After its start, a stop of the process
//! or a lost connection, a new window begins for every node.

use std::collections::HashMap;
use std::time::Duration;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::UnreachableNode;
use otherix_schemas::timestamp::Timestamp;
use tokio::time::Instant;

use crate::domain::Members;

#[derive(Debug)]
pub(super) struct FailureDetector {
    window: Duration,
    /// Start of the current period of receiving without interruption; none before the first check.
    receiving_since: Option<Instant>,
    checked: Option<Instant>,
    nodes: HashMap<NodeId, LastReceived>,
}

/// When something was last received from a node, or when the node was first known.
#[derive(Clone, Copy, Debug)]
struct LastReceived {
    at: Instant,
    /// None if nothing was received yet.
    time: Option<Timestamp>,
}

impl FailureDetector {
    /// A node is unreachable when nothing is received from it for `window`.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, receiving_since: None, checked: None, nodes: HashMap::new() }
    }

    /// Returns the interval of checks.
    pub(super) fn check_interval(&self) -> Duration {
        self.window / 15
    }

    /// Something was received from a node. Nodes that are not members are dropped at the next check.
    pub(super) fn received(&mut self, node: NodeId, now: Instant, time: Option<Timestamp>) {
        self.nodes.insert(node, LastReceived { at: now, time });
    }

    /// Receiving was interrupted.
    pub(super) fn interrupted(&mut self) {
        self.checked = None;
    }

    /// Returns the reachable members that became unreachable. Everything sent before the check must have been received.
    /// A check that is so late that a heartbeat may have been missed begins a new window.
    pub(super) fn check(&mut self, now: Instant, members: &Members) -> Vec<UnreachableNode> {
        let interval = self.window / 3;
        let is_uninterrupted = self.checked.is_some_and(|checked| now.duration_since(checked) <= interval);
        self.checked = Some(now);
        let since = *self.receiving_since.insert(self.receiving_since.filter(|_| is_uninterrupted).unwrap_or(now));
        self.nodes.retain(|node, _| members.contains_key(node));
        let window = self.window;
        let judge = |(node, is_reachable): (&NodeId, &bool)| {
            let last = *self.nodes.entry(*node).or_insert(LastReceived { at: now, time: None });
            let is_overdue = now.duration_since(last.at.max(since)) >= window;
            (is_overdue && *is_reachable).then_some(UnreachableNode { node_id: *node, last_heard_at: last.time })
        };
        members.iter().filter_map(judge).collect()
    }

    /// Returns the unreachable members from which something was received within the window.
    pub(super) fn reachable_again(&self, now: Instant, members: &Members) -> Vec<NodeId> {
        let is_recent = |last: &LastReceived| last.time.is_some() && now.duration_since(last.at) < self.window;
        let unreachable = members.iter().filter(|(_, is_reachable)| !**is_reachable).map(|(node, _)| *node);
        unreachable.filter(|node| self.nodes.get(node).is_some_and(is_recent)).collect()
    }
}

#[cfg(test)]
#[path = "failure_detector_tests.rs"]
mod tests;
