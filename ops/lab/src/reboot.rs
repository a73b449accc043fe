//! Reboots nodes, as by their power switch: what runs on one is killed and its kernel forgets every link, address, route and
//! packet filter. What stays is what is on a disk, its agent's state, and its link to the underlay, cut off if it was.

use std::fs;
use std::io;

use rustix::process::Signal;

use crate::error::LabError;
use crate::lab::OpenLab;
use crate::lock::Lock;
use crate::namespace::{self, Link};
use crate::output::say;
use crate::partition;
use crate::process;
use crate::service;
use crate::target::{Node, Target};

/// Reboots a node, and returns when its agent works.
pub(crate) fn reboot(lab: &OpenLab, node: Node, changing: Lock) -> Result<(), LabError> {
    let target = Target::Node(node.0);
    lab.check(target)?;
    let was = partition::link(lab, node.0)?;
    // The agent first: it would start its mesh device's process again.
    if let Some(agent) = process::running(&lab.lab, &target.to_string())? {
        agent.end(&target.to_string(), Signal::KILL)?;
    }
    let namespace = lab.lab.node(node.0);
    if namespace::exists(&namespace) {
        // The relays of its guests go too, as its VMs would.
        namespace::empty(&namespace)?;
        namespace::remove(&namespace)?;
    }
    forget_sockets(lab, node.0)?;
    namespace::unplug_node(&lab.lab, node.0)?;
    namespace::make_node(&lab.lab, node.0)?;
    if was == Link::Partitioned {
        namespace::cut(&lab.lab, node.0)?;
    }
    say(&format!("{target} rebooted: guests that were on it are to be plugged in again"));
    service::start(lab, target, changing)
}

/// Its local sockets are in a file system that a reboot empties.
fn forget_sockets(lab: &OpenLab, node: u32) -> Result<(), LabError> {
    let folder = lab.lab.mesh_sockets(node);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::File { attempt: "remove", path: folder, source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
