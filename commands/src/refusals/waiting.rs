//! Refused commands that wait to be stored.

use std::collections::{BTreeMap, VecDeque};

use super::Refusal;

/// Refusals that may wait.
pub(super) const WAITING_MAX: usize = 1024;

/// The refusals, the oldest first. If they are too many, the caller who has most loses one of its own.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    refusals: VecDeque<Refusal>,
    /// How many each caller has.
    of_callers: BTreeMap<String, usize>,
}

impl Waiting {
    /// Adds a refusal. Returns whether one was dropped.
    pub(super) fn push(&mut self, refusal: Refusal) -> bool {
        *self.of_callers.entry(refusal.actor.clone()).or_default() += 1;
        self.refusals.push_back(refusal);
        if self.refusals.len() <= WAITING_MAX {
            return false;
        }
        let most = self.of_callers.iter_mut().max_by_key(|(_, count)| **count);
        let Some((actor, count)) = most else { return false };
        *count -= 1;
        // The newest: those before it tell how it began.
        let last = self.refusals.iter().rposition(|refusal| refusal.actor == *actor);
        last.and_then(|last| self.refusals.remove(last)).is_some()
    }

    /// Removes and returns all, the oldest first.
    pub(super) fn take(&mut self) -> VecDeque<Refusal> {
        self.of_callers.clear();
        std::mem::take(&mut self.refusals)
    }
}
