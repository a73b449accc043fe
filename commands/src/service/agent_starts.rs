//! Detects that several agents use the id of one node: heartbeats of an earlier incarnation arrive after those of a
//! later one.
//!
//! In memory only: it is known again with the next heartbeats.

use std::collections::HashMap;
use std::time::Duration;

use otherix_schemas::id::NodeId;
use tokio::time::Instant;

/// Most incarnations that are kept of a node.
const INCARNATIONS_MAX: usize = 8;

/// The incarnations from which each node sent heartbeats lately.
#[derive(Debug)]
pub(super) struct AgentStarts {
    /// How long an incarnation is kept after its last heartbeat.
    window: Duration,
    nodes: HashMap<NodeId, NodeStarts>,
}

#[derive(Debug, Default)]
struct NodeStarts {
    /// The time of the last heartbeat of each incarnation, the latest last.
    heard: Vec<(u64, Instant)>,
    /// When heartbeats last alternated between incarnations.
    alternated_at: Option<Instant>,
}

impl AgentStarts {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, nodes: HashMap::new() }
    }

    /// Applies a heartbeat. Returns another incarnation that sends heartbeats too, if there is one. A new incarnation
    /// alone is a restart.
    pub(super) fn heard(&mut self, node: NodeId, incarnation: u64, now: Instant) -> Option<u64> {
        let window = self.window;
        let is_recent = |at: Instant| now.duration_since(at) <= window;
        let NodeStarts { heard, alternated_at } = self.nodes.entry(node).or_default();
        heard.retain(|(_, at)| is_recent(*at));
        let is_last = heard.last().is_some_and(|(last, _)| *last == incarnation);
        let known = heard.iter().position(|(known, _)| *known == incarnation);
        if let Some(index) = known {
            heard.remove(index);
            if !is_last {
                *alternated_at = Some(now);
            }
        } else if heard.len() >= INCARNATIONS_MAX {
            heard.remove(0);
        }
        let other = heard.last().map(|(other, _)| *other);
        heard.push((incarnation, now));
        if alternated_at.is_some_and(is_recent) { other } else { None }
    }

    /// Forgets the nodes that are not members.
    pub(super) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.nodes.retain(|node, _| is_member(*node));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Applies a heartbeat every 2.5 s, and returns what was detected at each.
    fn detected(incarnations: &[u64]) -> Vec<Option<u64>> {
        let (mut starts, begin) = (AgentStarts::new(Duration::from_secs(15)), Instant::now());
        let times = (0..).map(|number| begin + Duration::from_millis(2_500) * number);
        let node = NodeId::new(Uuid::nil());
        incarnations.iter().zip(times).map(|(incarnation, now)| starts.heard(node, *incarnation, now)).collect()
    }

    #[test]
    fn restarts_and_newer_incarnations_are_no_other_agent() {
        assert_eq!(detected(&[1, 1, 2, 2, 70_000, 70_000, 3, 3]), [None; 8]);
        assert_eq!(detected(&(1..100).collect::<Vec<_>>()), [None; 99]);
    }

    #[test]
    fn alternating_incarnations_are_two_agents_until_one_is_silent() {
        assert_eq!(detected(&[1, 2, 1, 2]), [None, None, Some(2), Some(1)]);
        assert_eq!(detected(&[1, 2, 3, 1, 2, 3])[3..], [Some(3), Some(1), Some(2)]);
        // One takes a newer incarnation, and the other is still heard.
        assert_eq!(detected(&[1, 2, 3, 2, 3])[3..], [Some(3), Some(2)]);
        let after = detected(&[1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(after.last(), Some(&None), "{after:?}");
    }

    #[test]
    fn forgets_removed_nodes() {
        let (mut starts, now) = (AgentStarts::new(Duration::from_secs(15)), Instant::now());
        starts.heard(NodeId::new(Uuid::nil()), 1, now);
        starts.retain(|_| false);
        assert!(starts.nodes.is_empty());
    }
}
