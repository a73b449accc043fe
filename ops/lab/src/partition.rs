//! Partitions nodes from the underlay, and heals that. Packets of both sides are dropped silently, as by a failed
//! switch: links stay up and nothing is refused. The node's processes keep running.

use crate::error::LabError;
use crate::lab::OpenLab;
use crate::namespace::{self, Link};
use crate::output::say;
use crate::target::{Node, Target};

/// Partitions nodes.
pub(crate) fn partition(lab: &OpenLab, nodes: &[Node]) -> Result<(), LabError> {
    each(lab, nodes, |node| match link(lab, node)? {
        Link::Partitioned => {
            say(&format!("node-{node} is already cut off"));
            Ok(())
        }
        Link::Missing => Err(LabError::NoLink(node)),
        Link::Up => {
            namespace::cut(&lab.lab, node)?;
            say(&format!("node-{node} is cut off, until `otherix-lab heal node-{node}`"));
            Ok(())
        }
    })
}

/// Ends the partition of nodes.
pub(crate) fn heal(lab: &OpenLab, nodes: &[Node]) -> Result<(), LabError> {
    each(lab, nodes, |node| match link(lab, node)? {
        Link::Up => {
            say(&format!("node-{node} is not cut off"));
            Ok(())
        }
        Link::Missing => Err(LabError::NoLink(node)),
        Link::Partitioned => {
            namespace::heal(&lab.lab, node)?;
            say(&format!("node-{node} reaches the underlay again"));
            Ok(())
        }
    })
}

/// The state of a node's link to the underlay.
pub(crate) fn link(lab: &OpenLab, node: u32) -> Result<Link, LabError> {
    if !namespace::exists(&lab.lab.underlay()) {
        return Ok(Link::Missing);
    }
    Ok(namespace::links(&lab.lab)?.remove(&node).unwrap_or(Link::Missing))
}

/// Validates all nodes before the first is changed.
fn each(lab: &OpenLab, nodes: &[Node], mut act: impl FnMut(u32) -> Result<(), LabError>) -> Result<(), LabError> {
    nodes.iter().try_for_each(|node| lab.check(Target::Node(node.0)))?;
    nodes.iter().try_for_each(|node| act(node.0))
}
