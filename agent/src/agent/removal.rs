//! That this node was removed from the cluster: it is said once, and from then on the node makes nothing, reports nothing, and
//! removes whatever is otherix's on it, what it does not know included, for nothing can be wanted on it any more.

use super::Agent;

impl Agent {
    /// Says that this node was removed, when that is news.
    pub(super) fn note_removal(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let node = self.identity.node_id;
        let removed = ledger.view().is_removed(node);
        match (std::mem::replace(&mut self.removed, removed), removed) {
            (false, true) => tracing::warn!(
                %node, lineage = %ledger.lineage(),
                "this node was removed from the cluster: removing whatever is otherix's on it, reporting nothing"
            ),
            (true, false) => {
                tracing::warn!(%node, lineage = %ledger.lineage(), "this node is part of the cluster again")
            }
            (true, true) | (false, false) => {}
        }
    }
}
