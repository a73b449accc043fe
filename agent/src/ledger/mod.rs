//! The ledger: what this node knows to have been decided, of which life of which cluster, and up to which event. With it a
//! node begins where it ended, with nobody else in reach.
//!
//! Owns how decisions are joined to it ([`Ledger::take_in`]: only one that follows on the last) and its form on disk
//! ([`format`]); [`store`] reads and writes the file, [`keeper`] decides when. Never acts on what it says.

pub mod format;
pub mod keeper;
pub mod store;

use std::collections::BTreeSet;

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::position::{Epoch, Position};
use serde::{Deserialize, Serialize};

use crate::model::view::View;

/// One life of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its journal's life.
    pub epoch: Epoch,
}

impl std::fmt::Display for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cluster, epoch } = self;
        write!(f, "epoch {epoch} of cluster {cluster}")
    }
}

/// What has been decided, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    lineage: Lineage,
    /// The event at the view's position.
    last: Option<EventId>,
    /// Clusters that this node was part of before, of which something may be left on it.
    former: BTreeSet<ClusterId>,
    view: View,
}

/// A decision that does not follow on what this node knows: what it knows is not what happened, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// It is of another cluster.
    #[error("a decision at position {at} is of cluster `{found}`, and this node follows cluster `{known}`")]
    Cluster {
        /// Where.
        at: Position,
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        known: ClusterId,
    },
    /// It is of an earlier life.
    #[error("the decision at position {at} is of epoch {found}, and this node is in epoch {known} already")]
    Epoch {
        /// Where.
        at: Position,
        /// Which epoch it is of.
        found: Epoch,
        /// Which epoch it should be of, at least.
        known: Epoch,
    },
    /// It has another past.
    #[error("the decision at position {at} follows on {previous}, and the last that this node knows is {known}")]
    Past {
        /// Where.
        at: Position,
        /// Where the decision before it is.
        previous: Position,
        /// Where it should be.
        known: Position,
    },
}

impl Ledger {
    /// Knows nothing of `cluster` yet. `former` are the clusters that this node was part of before.
    pub fn begin(cluster: ClusterId, mut former: BTreeSet<ClusterId>) -> Self {
        former.remove(&cluster);
        let lineage = Lineage { cluster, epoch: Epoch::FIRST };
        Self { lineage, last: None, former, view: View::default() }
    }

    /// Which life of which cluster the last decision is of.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// What has been decided.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The last event, and where it is.
    pub fn end(&self) -> (Position, Option<EventId>) {
        (self.view.position(), self.last)
    }

    /// Clusters of which something may be left on this node.
    pub fn former(&self) -> &BTreeSet<ClusterId> {
        &self.former
    }

    /// All clusters that devices of this node may be of.
    pub fn clusters(&self) -> BTreeSet<ClusterId> {
        let mut clusters = self.former.clone();
        clusters.insert(self.lineage.cluster);
        clusters
    }

    /// Nothing is left of the clusters before.
    pub fn forget_former(&mut self) {
        self.former.clear();
    }

    /// The view, to drop what is settled.
    pub fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// Takes the next decision in. One that was taken in before changes nothing.
    ///
    /// # Errors
    /// When it does not follow on what is known; nothing is changed then.
    pub fn take_in(&mut self, envelope: EventEnvelope) -> Result<(), Divergence> {
        let EventEnvelope { header, event } = envelope;
        let (at, known) = (header.position, self.view.position());
        let Lineage { cluster, epoch } = self.lineage;
        if header.cluster != cluster {
            return Err(Divergence::Cluster { at, found: header.cluster, known: cluster });
        }
        if at <= known {
            return Ok(());
        }
        if header.epoch < epoch {
            return Err(Divergence::Epoch { at, found: header.epoch, known: epoch });
        }
        if header.decision_prev != known {
            return Err(Divergence::Past { at, previous: header.decision_prev, known });
        }
        self.view.apply(at, event);
        self.lineage.epoch = header.epoch;
        self.last = Some(header.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
