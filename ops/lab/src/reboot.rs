//! Power-cycles nodes: every process is killed, and every link, address, route and packet filter is lost. The agent's
//! state on disk is kept. The link to the underlay is recreated, and stays cut off if it was.

use std::fs;
use std::io;

use rustix::process::Signal;

use crate::error::LabError;
use crate::lab::OpenLab;
use crate::lock::LabLock;
use crate::machines;
use crate::namespace::{self, UnderlayLink};
use crate::output::report_progress;
use crate::partition;
use crate::process;
use crate::service;
use crate::target::{LabService, NodeNumber};

/// Reboots a node, and returns when its agent is operational.
pub(crate) fn reboot(lab: &OpenLab, node: NodeNumber, lock: LabLock) -> Result<(), LabError> {
    let target = LabService::Node(node.0);
    lab.check(target)?;
    let before = partition::link(lab, node.0)?;
    // The agent first, because it would restart the process of its mesh device.
    if let Some(agent) = process::running(&lab.lab, &target.to_string())? {
        agent.end(&target.to_string(), Signal::KILL)?;
    }
    machines::kill([lab.lab.node_state(node.0)])?;
    let namespace = lab.lab.node(node.0);
    if namespace::exists(&namespace) {
        // This kills the relays of its guests too.
        namespace::kill_processes(&namespace)?;
        namespace::remove(&namespace)?;
    }
    remove_sockets(lab, node.0)?;
    namespace::delete_node_link(&lab.lab, node.0)?;
    namespace::create_node(&lab.lab, node.0)?;
    if before == UnderlayLink::Partitioned {
        namespace::cut_off(&lab.lab, node.0)?;
    }
    report_progress(&format!("{target} rebooted: plug its guests in again"));
    service::start(lab, target, lock)
}

/// Removes the node's local sockets: on a real node they are on a file system that a reboot empties.
fn remove_sockets(lab: &OpenLab, node: u32) -> Result<(), LabError> {
    let folder = lab.lab.mesh_sockets(node);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::File { attempt: "remove", path: folder, source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
