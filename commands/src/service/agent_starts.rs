//! Detects that several agents use the id of one node: heartbeats of an earlier incarnation arrive after those of a
//! later one. And that an agent was started with an older copy of its state: its ledger ended before decisions that an
//! earlier incarnation had on disk.
//!
//! In memory only: it is known again with the next heartbeats.

use std::collections::HashMap;
use std::time::Duration;

use otherix_schemas::id::NodeId;
use otherix_schemas::position::Position;
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
    /// The last decision that an agent had on disk, and its incarnation.
    saved: Option<(Position, u64)>,
    /// The incarnation that was started with less than that, and what shows it.
    set_back: Option<(u64, String)>,
}

/// What a heartbeat tells of the agent's ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct LedgerPositions {
    /// The last decision when the agent was started.
    pub(super) started_with: Position,
    /// The last decision on disk.
    pub(super) saved: Position,
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
        let NodeStarts { heard, alternated_at, .. } = self.nodes.entry(node).or_default();
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

    /// Applies what a heartbeat tells of the ledger. Returns what shows that the agent was started with an older copy
    /// of its state, if it was.
    pub(super) fn ledger(&mut self, node: NodeId, incarnation: u64, ledger: LedgerPositions) -> Option<String> {
        let NodeStarts { saved, set_back, .. } = self.nodes.entry(node).or_default();
        let LedgerPositions { started_with, saved: own } = ledger;
        if let Some((position, _)) = saved.filter(|(position, by)| *by != incarnation && started_with < *position) {
            let text = format!("its ledger ended with position {started_with}, and had position {position} before");
            *set_back = Some((incarnation, text));
        }
        if saved.is_none_or(|(position, _)| position <= own) {
            *saved = Some((own, incarnation));
        }
        set_back.as_ref().filter(|(of, _)| *of == incarnation).map(|(_, text)| text.clone())
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
    fn a_ledger_that_ended_before_what_was_on_disk_was_set_back() {
        let mut starts = AgentStarts::new(Duration::from_secs(15));
        let mut ledger = |incarnation, started_with, saved| {
            let (started_with, saved) = (Position::new(started_with), Position::new(saved));
            starts.ledger(NodeId::new(Uuid::nil()), incarnation, LedgerPositions { started_with, saved })
        };
        // It follows, and is restarted, also without the decisions that were not saved.
        for (incarnation, started_with, saved) in [(1, 0, 0), (1, 0, 7), (1, 0, 9), (2, 9, 9), (2, 9, 20), (3, 20, 25)]
        {
            assert_eq!(ledger(incarnation, started_with, saved), None);
        }
        let text = "its ledger ended with position 9, and had position 25 before";
        assert_eq!(ledger(4, 9, 9).as_deref(), Some(text));
        assert_eq!(ledger(4, 9, 30).as_deref(), Some(text), "until its next start");
        assert_eq!(ledger(5, 30, 30), None);
        // A copy that runs beside the original.
        assert!(ledger(6, 9, 9).is_some());
        assert_eq!(ledger(5, 30, 31), None);
        assert!(ledger(6, 9, 31).is_some());
    }

    #[test]
    fn forgets_removed_nodes() {
        let (mut starts, now) = (AgentStarts::new(Duration::from_secs(15)), Instant::now());
        starts.heard(NodeId::new(Uuid::nil()), 1, now);
        starts.retain(|_| false);
        assert!(starts.nodes.is_empty());
    }
}
