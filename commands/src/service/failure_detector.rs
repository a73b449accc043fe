//! Decides which nodes are unreachable from when their last requests were received. Pure: time is an argument.
//!
//! A node is judged by what was received from it: its silence is the time in which the control plane was receiving and
//! received nothing from it. A stop of the process or a lost connection does not begin a new window, or whoever can
//! cause it could keep a dead node reachable; it grants the time of one heartbeat, up to three times.

use std::collections::HashMap;
use std::time::Duration;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::UnreachableNode;
use otherix_schemas::timestamp::Timestamp;
use tokio::time::Instant;

use crate::domain::Members;

/// Heartbeats in a window.
const HEARTBEATS: u32 = 3;

#[derive(Debug)]
pub(super) struct FailureDetector {
    window: Duration,
    /// How long the control plane was receiving, as of the last check.
    receiving: Duration,
    /// The last check without an interruption since.
    checked: Option<Instant>,
    interruptions: u32,
    nodes: HashMap<NodeId, LastReceived>,
}

/// When something was last received from a node, or when the node was first known.
#[derive(Clone, Copy, Debug)]
struct LastReceived {
    at: Instant,
    /// How long the control plane had been receiving by then, and how often that was interrupted.
    receiving: Duration,
    interruptions: u32,
    /// None if nothing was received yet.
    time: Option<Timestamp>,
}

impl FailureDetector {
    /// A node is unreachable when nothing is received from it for `window`.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, receiving: Duration::ZERO, checked: None, interruptions: 0, nodes: HashMap::new() }
    }

    /// Returns the interval of checks.
    pub(super) fn check_interval(&self) -> Duration {
        self.window / 15
    }

    /// Something was received from a node. Nodes that are not members are dropped at the next check.
    pub(super) fn received(&mut self, node: NodeId, now: Instant, time: Option<Timestamp>) {
        self.nodes.insert(node, self.last_received(now, time));
    }

    fn last_received(&self, now: Instant, time: Option<Timestamp>) -> LastReceived {
        let receiving = self.receiving + self.since_check(now).unwrap_or_default();
        LastReceived { at: now, receiving, interruptions: self.interruptions, time }
    }

    /// The interval of heartbeats.
    fn heartbeat(&self) -> Duration {
        self.window / HEARTBEATS
    }

    /// The time since the last check, unless receiving was interrupted since.
    fn since_check(&self, now: Instant) -> Option<Duration> {
        self.checked.map(|checked| now.duration_since(checked)).filter(|since| *since <= self.heartbeat())
    }

    /// Receiving was interrupted. The time since the last check does not count, for nodes that were received in it too.
    pub(super) fn interrupted(&mut self) {
        if self.checked.take().is_some() {
            self.interruptions += 1;
            for last in self.nodes.values_mut() {
                last.receiving = last.receiving.min(self.receiving);
            }
        }
    }

    /// Returns the reachable members that became unreachable. Everything sent before the check must have been received.
    /// A check that is so late that a heartbeat may have been missed is an interruption.
    pub(super) fn check(&mut self, now: Instant, members: &Members) -> Vec<UnreachableNode> {
        match self.since_check(now) {
            Some(since) => self.receiving += since,
            None => self.interrupted(),
        }
        self.checked = Some(now);
        self.nodes.retain(|node, _| members.contains_key(node));
        let (window, heartbeat, receiving, interruptions) =
            (self.window, self.heartbeat(), self.receiving, self.interruptions);
        let new = self.last_received(now, None);
        let judge = |(node, is_reachable): (&NodeId, &bool)| {
            let last = *self.nodes.entry(*node).or_insert(new);
            let granted = heartbeat * (interruptions - last.interruptions).min(HEARTBEATS);
            let is_overdue = receiving.saturating_sub(last.receiving) >= window + granted;
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
