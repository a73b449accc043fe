//! Power-cycles nodes: every process is killed, and every link, address, route and packet filter is lost. The agent's
//! state on disk is kept, and so is the link to the underlay, still cut off if it was.

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

/// Reboots a node, and returns when its agent is operational.
pub(crate) fn reboot(lab: &OpenLab, node: Node, changing: Lock) -> Result<(), LabError> {
    let target = Target::Node(node.0);
    lab.check(target)?;
    let before = partition::link(lab, node.0)?;
    // The agent first: it would restart the process of its mesh device.
    if let Some(agent) = process::running(&lab.lab, &target.to_string())? {
        agent.end(&target.to_string(), Signal::KILL)?;
    }
    let namespace = lab.lab.node(node.0);
    if namespace::exists(&namespace) {
        // This kills the relays of its guests too.
        namespace::empty(&namespace)?;
        namespace::remove(&namespace)?;
    }
    remove_sockets(lab, node.0)?;
    namespace::unplug_node(&lab.lab, node.0)?;
    namespace::make_node(&lab.lab, node.0)?;
    if before == Link::Partitioned {
        namespace::cut(&lab.lab, node.0)?;
    }
    say(&format!("{target} rebooted: plug its guests in again"));
    service::start(lab, target, changing)
}

/// Removes its local sockets: on a real node their file system is lost in a reboot.
fn remove_sockets(lab: &OpenLab, node: u32) -> Result<(), LabError> {
    let folder = lab.lab.mesh_sockets(node);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::File { attempt: "remove", path: folder, source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
