//! The ledger: the decisions that this node has, their lineage, and the position of the last one. A node starts with
//! it, even if the control plane is unreachable.
//!
//! [`Ledger::apply`] accepts only the decision that follows the last one. [`format`] is the file format, [`store`]
//! reads and writes the file, and [`saver`] determines when.

pub mod format;
pub mod saver;
pub mod store;

use std::collections::BTreeSet;

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::decision_chain::ChainDigest;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};
use serde::{Deserialize, Serialize};

use crate::model::chain_proof::ChainEnd;
use crate::model::cluster_view::ClusterView;

/// An epoch of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    pub cluster: ClusterId,
    pub epoch: Epoch,
}

impl std::fmt::Display for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cluster, epoch } = self;
        write!(f, "epoch {epoch} of cluster {cluster}")
    }
}

/// The decisions that this node has, as a cluster view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    lineage: Lineage,
    /// The digest of the chain of decisions up to the view's position. `None` if the file was written by a version that
    /// did not verify decisions.
    chain: Option<ChainDigest>,
    /// Clusters that this node was part of, whose devices may still exist.
    former: BTreeSet<ClusterId>,
    view: ClusterView,
}

/// A decision does not follow the last one of the ledger: the histories differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    #[error("the decision at position {at} is of cluster `{found}`, and the ledger is of cluster `{known}`")]
    Cluster { at: Position, found: ClusterId, known: ClusterId },
    #[error("the decision at position {at} is of epoch {found}, and the ledger is in the later epoch {known}")]
    Epoch { at: Position, found: Epoch, known: Epoch },
    #[error("the decision at position {at} follows position {previous}, and the ledger ends at {known}")]
    Past { at: Position, previous: Position, known: Position },
}

impl Ledger {
    /// Returns an empty ledger. `former` are the clusters that this node was part of.
    pub fn begin(cluster: ClusterId, mut former: BTreeSet<ClusterId>) -> Self {
        former.remove(&cluster);
        let lineage = Lineage { cluster, epoch: Epoch::FIRST };
        Self { lineage, chain: Some(ChainDigest::START), former, view: ClusterView::default() }
    }

    /// The lineage of the last decision.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    pub fn view(&self) -> &ClusterView {
        &self.view
    }

    /// The position of the last decision.
    pub fn position(&self) -> Position {
        self.view.position()
    }

    /// The end of the chain of decisions, if it is known.
    pub fn chain_end(&self) -> Option<ChainEnd> {
        self.chain.map(|digest| ChainEnd { position: self.position(), digest })
    }

    /// The other clusters whose devices may still exist.
    pub fn former(&self) -> &BTreeSet<ClusterId> {
        &self.former
    }

    /// Returns all clusters whose devices may exist, with the present one.
    pub fn clusters(&self) -> BTreeSet<ClusterId> {
        let mut clusters = self.former.clone();
        clusters.insert(self.lineage.cluster);
        clusters
    }

    /// Forgets the former clusters, because none of their devices is left.
    pub fn forget_former(&mut self) {
        self.former.clear();
    }

    /// The view, to forget resources whose removal is confirmed.
    pub fn view_mut(&mut self) -> &mut ClusterView {
        &mut self.view
    }

    /// Applies the next decision, after which the chain has this digest. One that was applied before is ignored.
    ///
    /// # Errors
    /// [`Divergence`] if it does not follow the last one. The ledger is then unchanged.
    pub fn apply(&mut self, envelope: EventEnvelope, digest: ChainDigest) -> Result<(), Divergence> {
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
        self.chain = Some(digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
