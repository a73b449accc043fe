//! What a node last said of a network or a NIC.

use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;

use super::flaps::takes_back;

/// A node's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which decision it is about.
    pub generation: Position,
    /// How it went.
    pub outcome: Outcome,
    /// What works against it.
    pub warnings: Vec<String>,
}

impl Said {
    /// Whether a word about `generation` takes this one back.
    pub(super) fn is_taken_back_by(&self, generation: Position, outcome: &Outcome) -> bool {
        self.generation == generation && takes_back(&self.outcome, outcome)
    }
}
