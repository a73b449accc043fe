//! Cuts nodes off from the underlay, and heals that. Whatever either side sends is dropped without a word, as by a dead switch:
//! links stay up, nothing is refused. What runs on the node goes on.

use crate::error::LabError;
use crate::lab::OpenLab;
use crate::namespace::{self, Link};
use crate::output::say;
use crate::target::{Node, Target};

/// Cuts nodes off.
pub(crate) fn partition(lab: &OpenLab, nodes: &[Node]) -> Result<(), LabError> {
    each(lab, nodes, |node| match link(lab, node)? {
        Link::Partitioned => {
            say(&format!("node-{node} is cut off already"));
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

/// Lets nodes reach the underlay again.
pub(crate) fn heal(lab: &OpenLab, nodes: &[Node]) -> Result<(), LabError> {
    each(lab, nodes, |node| match link(lab, node)? {
        Link::Up => {
            say(&format!("node-{node} is not cut off"));
            Ok(())
        }
        Link::Missing => Err(LabError::NoLink(node)),
        Link::Partitioned => {
            namespace::mend(&lab.lab, node)?;
            say(&format!("node-{node} reaches the underlay again"));
            Ok(())
        }
    })
}

/// How a node's link to the underlay is.
pub(crate) fn link(lab: &OpenLab, node: u32) -> Result<Link, LabError> {
    if !namespace::exists(&lab.lab.underlay()) {
        return Ok(Link::Missing);
    }
    Ok(namespace::links(&lab.lab)?.remove(&node).unwrap_or(Link::Missing))
}

/// All nodes are looked at before the first is touched.
fn each(lab: &OpenLab, nodes: &[Node], mut act: impl FnMut(u32) -> Result<(), LabError>) -> Result<(), LabError> {
    nodes.iter().try_for_each(|node| lab.check(Target::Node(node.0)))?;
    nodes.iter().try_for_each(|node| act(node.0))
}
