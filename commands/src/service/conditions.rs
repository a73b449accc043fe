//! Conditions of nodes that heartbeats show, and which of them are to be recorded.
//!
//! In memory only, beside what is recorded: a condition that is recorded is over if it has not been seen for a while
//! although the node was heard, and not because the control plane has just started.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::{CONDITION_DETAIL_MAX, NodeCondition, NodeConditionKind, NodeConditionsChanged};
use tokio::time::Instant;

use crate::domain::RecordedConditions;

/// Changes of a node that are recorded in a row.
const BURST: u32 = 4;

/// Time until one more is: an event is kept for ever, and nodes may be hostile.
const REFILL: Duration = Duration::from_secs(30);

/// The conditions of all nodes.
#[derive(Debug)]
pub(super) struct Conditions {
    /// How long a condition is present after it was last seen.
    window: Duration,
    nodes: HashMap<NodeId, Seen>,
}

/// What heartbeats of a node have shown.
#[derive(Debug)]
struct Seen {
    first_heard: Instant,
    last_heard: Instant,
    /// When each condition was last seen, and its detail then.
    conditions: BTreeMap<NodeConditionKind, (Instant, String)>,
    /// Changes that may be recorded.
    allowance: u32,
    /// When the allowance was last refilled.
    refilled: Instant,
}

impl Conditions {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, nodes: HashMap::new() }
    }

    /// Applies a heartbeat, and the conditions that it shows.
    pub(super) fn heard(
        &mut self,
        node: NodeId,
        found: impl IntoIterator<Item = (NodeConditionKind, String)>,
        now: Instant,
    ) {
        let seen = self.nodes.entry(node).or_insert_with(|| Seen {
            first_heard: now,
            last_heard: now,
            conditions: BTreeMap::new(),
            allowance: BURST,
            refilled: now,
        });
        // After a silence, all that the node tells takes some heartbeats.
        if now.duration_since(seen.last_heard) > self.window {
            seen.first_heard = now;
        }
        seen.last_heard = now;
        for (kind, detail) in found {
            seen.conditions.insert(kind, (now, clean(detail)));
        }
    }

    /// Forgets the nodes that are not members.
    pub(super) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.nodes.retain(|node, _| is_member(*node));
    }

    /// Returns what is to be recorded of all nodes, or of one.
    pub(super) fn changes(
        &mut self,
        only: Option<NodeId>,
        recorded: &RecordedConditions,
        now: Instant,
    ) -> Vec<NodeConditionsChanged> {
        let (window, none) = (self.window, BTreeMap::new());
        let change = |node: NodeId, seen: &mut Seen| {
            let before = recorded.get(&node).unwrap_or(&none);
            let present = seen.present(before, window, now);
            let is_same = present.iter().map(|condition| condition.kind).eq(before.keys().copied());
            let is_due = !is_same && seen.take_allowance(now);
            is_due.then_some(NodeConditionsChanged { node_id: node, conditions: present })
        };
        match only {
            Some(node) => self.nodes.get_mut(&node).and_then(|seen| change(node, seen)).into_iter().collect(),
            None => self.nodes.iter_mut().filter_map(|(node, seen)| change(*node, seen)).collect(),
        }
    }
}

impl Seen {
    /// The conditions that are present, by their kinds. Those that are recorded keep their details.
    fn present(
        &mut self,
        recorded: &BTreeMap<NodeConditionKind, String>,
        window: Duration,
        now: Instant,
    ) -> Vec<NodeCondition> {
        let is_recent = |at: Instant| now.duration_since(at) <= window;
        let (is_heard, is_new) = (is_recent(self.last_heard), is_recent(self.first_heard));
        self.conditions.retain(|_, (at, _)| is_recent(*at) || !is_heard);
        let mut present: BTreeMap<NodeConditionKind, String> =
            self.conditions.iter().map(|(kind, (_, detail))| (*kind, detail.clone())).collect();
        // A silent node tells nothing, and a control plane that has just started may not have heard all of it.
        let stays = |kind: &NodeConditionKind| is_new || !is_heard || self.conditions.contains_key(kind);
        for (kind, detail) in recorded.iter().filter(|(kind, _)| stays(kind)) {
            present.insert(*kind, detail.clone());
        }
        present.into_iter().map(|(kind, detail)| NodeCondition { kind, detail }).collect()
    }

    fn take_allowance(&mut self, now: Instant) -> bool {
        let elapsed = now.duration_since(self.refilled);
        let refills = u32::try_from(elapsed.as_secs() / REFILL.as_secs()).unwrap_or(BURST).min(BURST);
        if refills > 0 {
            self.refilled += REFILL * refills;
            self.allowance = self.allowance.saturating_add(refills).min(BURST);
        }
        if elapsed > REFILL * BURST {
            self.refilled = now;
        }
        let is_allowed = self.allowance > 0;
        self.allowance = self.allowance.saturating_sub(1);
        is_allowed
    }
}

/// A detail as it is recorded.
fn clean(detail: String) -> String {
    let mut detail: String = detail.chars().filter(|char| !char.is_control()).collect();
    detail.truncate(detail.floor_char_boundary(CONDITION_DETAIL_MAX));
    detail
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
