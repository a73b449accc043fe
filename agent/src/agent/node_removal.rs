//! The removal of this node from the cluster, which is logged once. From then on the node creates and reports nothing,
//! and removes all devices of otherix, including orphans.

use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;

use super::{Agent, HoldState};
use crate::engine::Pass;
use crate::kernel::KernelError;
use crate::left;
use crate::model::desired::Desired;

impl Agent {
    /// The cluster that this node has left, if an operator has told so. Its ledger may be lost.
    pub(super) fn left_cluster(&self) -> Option<ClusterId> {
        if !self.has_left {
            return None;
        }
        let of_ledger = self.ledger.as_ref().map(|ledger| ledger.lineage().cluster);
        of_ledger.or_else(|| left::joined_cluster(&self.state))
    }

    /// Removes all devices of otherix, because an operator has told that the node is none any more.
    pub(super) async fn remove_everything(&mut self, cluster: ClusterId) -> Result<Pass, KernelError> {
        self.mesh.set_desired(None, true, true);
        self.hold(HoldState::Nothing);
        let former = self.ledger.as_ref().map(|ledger| ledger.former().clone()).unwrap_or_default();
        let former_pass = self.remove_former(former).await?;
        let mut pass = self.reconciler.pass(&Desired::nothing(cluster, false), true).await?;
        pass.has_more |= former_pass.has_more;
        pass.notices.extend(former_pass.notices);
        // There is nobody who waits for them.
        pass.outcomes.clear();
        Ok(pass)
    }

    /// The control plane has accepted the node: it has not left its cluster.
    pub(super) fn stay(&mut self) {
        if !std::mem::take(&mut self.has_left) {
            return;
        }
        tracing::warn!("the control plane still accepts this node: it goes on, in spite of `otherix-agent leave`");
        if let Err(error) = left::forget(&self.state) {
            tracing::error!(error = %Causes(&error), "cannot remove the file `left`");
        }
    }

    /// Logs when this node was removed from the cluster or became part of it again.
    pub(super) fn log_removal(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let node = self.identity.node_id;
        let is_removed = ledger.view().is_removed(node);
        self.shared.is_removed.send_replace(is_removed);
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
