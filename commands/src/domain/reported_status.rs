//! The last status that a node reported for a network, a NIC or the machine of a VM.

use otherix_schemas::outcome::{Outcome, OutcomeStatus};
use otherix_schemas::position::Position;
use otherix_schemas::vm::MachineStatus;
use serde::{Deserialize, Serialize};

/// The last status that a node reported for a resource, and the generation it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedStatus {
    /// The decision that it is about.
    pub generation: Position,
    pub outcome: Outcome,
    pub warnings: Vec<String>,
    /// Present for machines of VMs.
    #[serde(default)]
    pub machine: Option<MachineStatus>,
}

impl ReportedStatus {
    /// Returns whether `outcome` revokes this status: it replaces a settled one of the same generation, or is not
    /// settled itself.
    pub(super) fn is_revoked_by(&self, generation: Position, outcome: &Outcome) -> bool {
        let is_pending = |outcome: &Outcome| outcome.status() == OutcomeStatus::Pending;
        self.generation == generation && (!is_pending(&self.outcome) || is_pending(outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_settled_status_can_be_revoked() {
        let (pending, failed) = (Outcome::Pending("w".to_owned()), Outcome::Failed("f".to_owned()));
        let is_revoked = |before: &Outcome, by: &Outcome| {
            let (generation, outcome) = (Position::new(1), before.clone());
            ReportedStatus { generation, outcome, warnings: Vec::new(), machine: None }.is_revoked_by(generation, by)
        };
        assert!(!is_revoked(&pending, &Outcome::Ready) && !is_revoked(&pending, &failed));
        assert!(is_revoked(&Outcome::Ready, &pending) && is_revoked(&failed, &Outcome::Ready));
        assert!(is_revoked(&pending, &Outcome::Pending("for another".to_owned())));
    }
}
