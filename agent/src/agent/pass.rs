//! Makes passes: what the node must have, from the ledger and from what is known of its surroundings.

use std::collections::BTreeSet;

use otherix_runtime::LogLimit;
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use tokio::time::Instant;

use super::guests::AnsweredGuests;
use super::needs::{self, NodeNeeds};
use super::{Agent, HoldState, hold};
use crate::engine::{Pass, Reconciler};
use crate::kernel::KernelError;
use crate::ledger::Ledger;
use crate::model::desired::{Desired, desired};
use crate::model::mesh::desired_mesh_device;
use crate::model::mesh_device::MeshFaults;
use crate::model::withdrawal::Withdrawals;
use crate::release::ReleasedLineage;
use crate::withdrawn::WithdrawnNetwork;

impl Agent {
    /// Makes a pass, and takes over its outcomes.
    pub(super) async fn pass(&mut self) {
        self.log_removal();
        let begun = Instant::now();
        let reconciled = self.reconcile().await;
        self.outcome_log.passed(begun.elapsed(), reconciled.is_err());
        match reconciled {
            Ok(Pass { outcomes, notices, withdrawals, has_more }) => {
                self.needs_pass = has_more || !withdrawals.is_empty();
                self.withdraw(withdrawals);
                outcomes.iter().for_each(|outcome| self.note_nic(outcome));
                let latest: Vec<_> = self.machines.latest().cloned().collect();
                outcomes.into_iter().chain(latest).for_each(|outcome| self.observe(outcome));
                if notices != self.notices {
                    notices.iter().for_each(|notice| tracing::warn!("{notice}"));
                    self.notices = notices;
                }
            }
            Err(error) => {
                // The next pass reads the links again, within a second.
                static FAILED: LogLimit = LogLimit::new();
                if let Some(hits) = FAILED.hit() {
                    tracing::error!(error = %Causes(&error), hits, "cannot reconcile");
                }
                self.needs_pass = false;
            }
        }
        // After the pass, which has made the taps.
        self.responder.set(&self.answered.guests);
        self.responder.set_gateways(&self.answered.gateways);
        let node = self.identity.node_id;
        if let Some(ledger) = &self.ledger {
            // A NIC that moved away is not ready when it comes back.
            self.ready_nics.retain(|id| ledger.view().nic(*id).is_some_and(|nic| nic.node() == Some(node)));
        }
        if let Some(vms) = self.wanted_vms.take() {
            self.machines.set(&vms, &self.ready_nics);
        }
    }

    fn note_nic(&mut self, outcome: &ResourceOutcome) {
        let ResourceRef::Nic(id) = outcome.resource else { return };
        if outcome.outcome == Outcome::Ready {
            self.ready_nics.insert(id);
        } else {
            self.ready_nics.remove(&id);
        }
    }

    async fn reconcile(&mut self) -> Result<Pass, KernelError> {
        if let Some(cluster) = self.left_cluster() {
            self.answered = AnsweredGuests::default();
            return self.remove_everything(cluster).await;
        }
        let Some(ledger) = &self.ledger else {
            return Ok(Pass::default());
        };
        let lineage = ledger.lineage();
        let mut desired = desired(ledger.view(), lineage.cluster, self.identity.node_id);
        self.answered = self.zones.update(ledger.view(), &desired);
        let is_released = self.is_settled(lineage) && self.released == ReleasedLineage::Lineage(lineage);
        let mesh = desired_mesh_device(ledger.view(), self.identity.node_id);
        let is_current = self.is_current(ledger) || self.is_removed;
        if is_current {
            self.guard.forget_updated(&desired);
        }
        let NodeNeeds { mut needs, is_unresolved } = self.needs.borrow_and_update().clone();
        let vital = self.guard.vital(&mut needs, is_unresolved);
        let withdrawn = self.guard.withdrawals();
        let (needs, mesh_addresses) = needs::with_mesh(&needs, mesh.as_ref());
        desired.cluster_addresses.nats = needs::nats_servers(&needs, &self.nats_ports);
        desired.set_vxlan_port(self.mesh.vxlan_port());
        self.mesh.set_watched(desired.watched_nodes());
        self.mesh.set_needed(needs::of(&needs, &mesh_addresses));
        let is_changed = self.reconciler.observe(|observed| {
            let is_changed =
                observed.needs != needs || observed.vital.as_ref() != Some(&vital) || observed.withdrawn != withdrawn;
            (observed.needs, observed.mesh_addresses) = (needs, mesh_addresses);
            (observed.vital, observed.withdrawn) = (Some(vital), withdrawn);
            is_changed
        });
        if is_changed {
            // The connection may have been lost by a change that the kernel does not notify of.
            self.reconciler.expire_look_ups();
        }
        self.mesh.set_desired(mesh, self.is_removed && is_released, is_released && is_current);
        // A node that has just joined the mesh is not proven to be reachable yet.
        observe_mesh(&mut self.reconciler, self.mesh.current_faults());
        if is_released {
            self.wanted_vms = Some(desired.vms.clone());
            let former = ledger.former().clone();
            self.hold(HoldState::Nothing);
            let former_pass = self.remove_former(former).await?;
            let mut pass = self.reconciler.pass(&desired, is_current).await?;
            pass.has_more |= former_pass.has_more;
            pass.notices.extend(former_pass.notices);
            return Ok(pass);
        }
        let clusters = ledger.clusters();
        let ours = self.reconciler.owned().await?;
        let (held, outcomes) = hold::hold_deletions(&mut desired, lineage, &clusters, ours);
        self.hold(if self.is_settled(lineage) { HoldState::Held(held) } else { HoldState::Unknown });
        let mut pass = self.reconciler.pass(&desired, false).await?;
        pass.outcomes.extend(outcomes);
        Ok(pass)
    }

    /// Remembers networks that are withdrawn, before they are.
    fn withdraw(&mut self, withdrawals: Withdrawals) {
        let Some(ledger) = &self.ledger else { return };
        for (id, withdrawal) in withdrawals {
            let network = ledger.view().networks().find(|(other, _)| *other == id);
            let name = network.map_or_else(|| id.to_string(), |(_, network)| network.name.to_string());
            self.guard.withdraw(id, WithdrawnNetwork { name, withdrawal });
        }
    }

    /// Removes the devices of clusters that this node was part of.
    pub(super) async fn remove_former(&mut self, former: BTreeSet<ClusterId>) -> Result<Pass, KernelError> {
        let mut all = Pass::default();
        for cluster in &former {
            let nothing = Desired::nothing(*cluster, true);
            let Pass { outcomes: _, notices, withdrawals: _, has_more } = self.reconciler.pass(&nothing, true).await?;
            all.notices.extend(notices);
            all.has_more |= has_more;
        }
        if !former.is_empty()
            && !self.reconciler.owned().await?.iter().any(|(owner, _)| former.contains(&owner.cluster))
        {
            self.ledger.iter_mut().for_each(Ledger::forget_former);
            self.ledger_saver.changed();
        }
        Ok(all)
    }
}

/// Returns whether the faults of the mesh are others than before.
pub(super) fn observe_mesh(reconciler: &mut Reconciler, faults: MeshFaults) -> bool {
    reconciler.observe(|observed| std::mem::replace(&mut observed.mesh_faults, faults.clone()) != faults)
}
