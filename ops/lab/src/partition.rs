//! Partitions nodes from the underlay, and heals partitions. Packets in both directions are dropped silently, as by a
//! failed switch: links stay up and no connection is refused. The node's processes keep running.

use crate::error::LabError;
use crate::lab::OpenLab;
use crate::namespace::{self, UnderlayLink};
use crate::output::report_progress;
use crate::target::{LabService, NodeNumber};

/// Partitions nodes.
pub(crate) fn partition(lab: &OpenLab, nodes: &[NodeNumber]) -> Result<(), LabError> {
    change_all(lab, nodes, |node| match link(lab, node)? {
        UnderlayLink::Partitioned => {
            report_progress(&format!("node-{node} is already cut off"));
            Ok(())
        }
        UnderlayLink::Missing => Err(LabError::NoLink(node)),
        UnderlayLink::Up => {
            namespace::cut_off(&lab.lab, node)?;
            report_progress(&format!("node-{node} is cut off, until `otherix-lab heal node-{node}`"));
            Ok(())
        }
    })
}

/// Ends the partition of nodes.
pub(crate) fn heal(lab: &OpenLab, nodes: &[NodeNumber]) -> Result<(), LabError> {
    change_all(lab, nodes, |node| match link(lab, node)? {
        UnderlayLink::Up => {
            report_progress(&format!("node-{node} is not cut off"));
            Ok(())
        }
        UnderlayLink::Missing => Err(LabError::NoLink(node)),
        UnderlayLink::Partitioned => {
            namespace::heal(&lab.lab, node)?;
            report_progress(&format!("node-{node} reaches the underlay again"));
            Ok(())
        }
    })
}

/// The state of a node's link to the underlay.
pub(crate) fn link(lab: &OpenLab, node: u32) -> Result<UnderlayLink, LabError> {
    if !namespace::exists(&lab.lab.underlay()) {
        return Ok(UnderlayLink::Missing);
    }
    Ok(namespace::links(&lab.lab)?.remove(&node).unwrap_or(UnderlayLink::Missing))
}

/// Validates all nodes before the first is changed.
fn change_all(
    lab: &OpenLab,
    nodes: &[NodeNumber],
    mut change: impl FnMut(u32) -> Result<(), LabError>,
) -> Result<(), LabError> {
    nodes.iter().try_for_each(|node| lab.check(LabService::Node(node.0)))?;
    nodes.iter().try_for_each(|node| change(node.0))
}
