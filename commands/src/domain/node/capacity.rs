//! What nodes offer to machines of VMs, and whether there is room for one more.

use otherix_schemas::cloudevent::Header;
use otherix_schemas::node::{NodeCapacity, NodeCapacityReported, Resources};
use otherix_schemas::timestamp::Timestamp;

use super::{Node, Nodes};
use crate::domain::{Decision, Rejection, State};

impl Node {
    /// Checks whether a machine has room on the node. One that has not told what it offers counts as large enough.
    pub(in crate::domain) fn check_room(&self, needed: Resources) -> Result<(), Rejection> {
        let Some(NodeCapacity { accelerator, reason, resources }) = &self.capacity else { return Ok(()) };
        let node = self.name.clone();
        if accelerator.is_none() {
            return Err(Rejection::NodeRunsNoMachines { node, reason: reason.clone() });
        }
        let free = resources.minus(self.allocated);
        if free.covers(needed) { Ok(()) } else { Err(Rejection::NoRoom { node, needed, free }) }
    }
}

impl Nodes {
    pub(super) fn capacity_reported(&mut self, header: &Header, event: &NodeCapacityReported) {
        if let Some(node) = self.get_mut(event.node_id) {
            node.version = header.stream_version;
            // The first is free. Each further one is a change, as is a revoked status.
            if node.capacity.is_some() {
                node.allowance = node.allowance.less_one(header.time);
            }
            node.capacity = Some(event.capacity.clone());
        }
    }
}

/// Records what a node offers, unless that is recorded.
pub(super) fn record(state: &State, now: Timestamp, reported: &NodeCapacityReported) -> Result<Decision, Rejection> {
    let node = reported.node_id;
    let Some(member) = state.nodes().get(&node) else { return Err(state.roster().unknown(node)) };
    if member.capacity.as_ref() == Some(&reported.capacity) {
        return Ok(Vec::new().into());
    }
    if member.capacity.is_some()
        && let Some(retry_after_ms) = member.allowance.wait_ms(now, state.time().unwrap_or(now))
    {
        return Err(Rejection::TooManyChanges { node, retry_after_ms });
    }
    Ok(vec![reported.clone().into()].into())
}
