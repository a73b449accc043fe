//! The removal of this node from the cluster, which is logged once. From then on the node creates and reports nothing,
//! and removes all devices of otherix, including orphans.

use super::Agent;

impl Agent {
    /// Logs when this node was removed from the cluster or became part of it again.
    pub(super) fn log_removal(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let node = self.identity.node_id;
        let is_removed = ledger.view().is_removed(node);
        match (std::mem::replace(&mut self.is_removed, is_removed), is_removed) {
            (false, true) => tracing::warn!(
                %node, lineage = %ledger.lineage(),
                "this node was removed from the cluster: removing all devices of otherix, reporting nothing"
            ),
            (true, false) => {
                tracing::warn!(%node, lineage = %ledger.lineage(), "this node is part of the cluster again")
            }
            (true, true) | (false, false) => {}
        }
    }
}
