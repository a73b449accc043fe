//! When nodes were last heard, and which of them are to count as unreachable. Pure: time is an argument.
//!
//! A silence is held against a node only for as long as there were ears for it. Whoever has just begun to listen, was stopped
//! for a while or lost its connection knows nothing of the time before: every silence begins anew then.

use std::collections::HashMap;
use std::time::Duration;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::UnreachableNode;
use otherix_schemas::timestamp::Timestamp;
use tokio::time::Instant;

use crate::domain::Members;

/// When nodes were last heard.
#[derive(Debug)]
pub(super) struct Hearing {
    window: Duration,
    /// Since when it is listened without a break; none before the first look.
    since: Option<Instant>,
    looked: Option<Instant>,
    nodes: HashMap<NodeId, Heard>,
}

/// When a node was last heard, or first known of.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    time: Option<Timestamp>,
}

impl Hearing {
    /// A node that is silent for `window` is unreachable.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, since: None, looked: None, nodes: HashMap::new() }
    }

    /// How often to look.
    pub(super) fn look_every(&self) -> Duration {
        self.window / 15
    }

    /// Something came from a node of the cluster. What is kept of others is dropped at the next look.
    pub(super) fn hear(&mut self, node: NodeId, now: Instant, time: Option<Timestamp>) {
        self.nodes.insert(node, Heard { at: now, time });
    }

    /// There were no ears for a while.
    pub(super) fn begin_anew(&mut self) {
        self.looked = None;
    }

    /// Looks, all that was said before having been heard: the nodes that fell silent. A look that comes so late that a sign
    /// of life may have been missed is the first of a new window.
    pub(super) fn silent(&mut self, now: Instant, members: &Members) -> Vec<UnreachableNode> {
        let interval = self.window / 3;
        let unbroken = self.looked.is_some_and(|looked| now.duration_since(looked) <= interval);
        self.looked = Some(now);
        let since = *self.since.insert(self.since.filter(|_| unbroken).unwrap_or(now));
        self.nodes.retain(|node, _| members.contains_key(node));
        let window = self.window;
        let judge = |(node, reachable): (&NodeId, &bool)| {
            let heard = *self.nodes.entry(*node).or_insert(Heard { at: now, time: None });
            let silent = now.duration_since(heard.at.max(since)) >= window;
            (silent && *reachable).then_some(UnreachableNode { node_id: *node, last_heard_at: heard.time })
        };
        members.iter().filter_map(judge).collect()
    }

    /// The nodes that count as unreachable and are heard.
    pub(super) fn back(&self, now: Instant, members: &Members) -> Vec<NodeId> {
        let unreachable = members.iter().filter(|(_, reachable)| !**reachable).map(|(node, _)| *node);
        unreachable.filter(|node| self.nodes.get(node).is_some_and(|heard| self.is_fresh(now, heard))).collect()
    }

    fn is_fresh(&self, now: Instant, heard: &Heard) -> bool {
        heard.time.is_some() && now.duration_since(heard.at) < self.window
    }
}

#[cfg(test)]
#[path = "hearing_tests.rs"]
mod tests;
