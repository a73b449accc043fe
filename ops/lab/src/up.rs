//! Creates a lab, or its missing parts.

use crate::args::UpOptions;
use crate::error::LabError;
use crate::lab::{Lab, LabDescription, OpenLab};
use crate::lock::LabLock;
use crate::namespace;
use crate::output::report_progress;
use crate::program;
use crate::service::{
    await_control_plane, await_node, join_obstacle, launch_forward, launch_node, launch_otherixd, listen,
};

/// Returns when every node has joined.
pub(crate) fn up(lab: &Lab, options: &UpOptions) -> Result<(), LabError> {
    let bin_dir = program::bin_dir(options.bin_dir.as_deref())?;
    let nats_server = program::nats_server(options.nats_server.as_deref())?;
    let _lock = LabLock::of(lab)?;
    let existing = lab.read_description()?;
    let (port, listener) = match &existing {
        Some(description) => (description.port, None),
        None => {
            let listener = listen(0)?;
            let port = listener.local_addr().map_err(LabError::Accept)?.port();
            (port, Some(listener))
        }
    };
    let nodes = existing.map_or(0, |description| description.nodes).max(options.nodes);
    let description = LabDescription { port, nodes, bin_dir, nats_server };
    lab.create_folders()?;
    lab.write_description(&description)?;
    let lab = OpenLab { lab: lab.clone(), description };

    let (underlay, outside) = (lab.lab.underlay(), namespace::OUTSIDE);
    report_progress(&format!(
        "network: namespace {underlay} with the underlay {}/24, and {outside} outside",
        namespace::CONTROL
    ));
    namespace::create_underlay(&lab.lab)?;
    namespace::create_outside(&lab.lab)?;
    for node in 1..=nodes {
        namespace::create_node(&lab.lab, node)?;
    }
    report_progress(&format!("control plane: otherixd, reached at {}", lab.url()));
    launch_forward(&lab, listener)?;
    launch_otherixd(&lab)?;
    if lab.lab.hold_file().exists() {
        report_progress("nats is stopped, and the nodes join once `otherix-lab start nats` has started it");
        return (1..=nodes).try_for_each(|node| launch_node(&lab, node));
    }
    await_control_plane(&lab)?;
    for node in 1..=nodes {
        launch_node(&lab, node)?;
    }
    let mut joined = 0;
    for node in 1..=nodes {
        match join_obstacle(&lab, node)? {
            Some(obstacle) => report_progress(&format!("node-{node} joins when {obstacle}")),
            None => {
                await_node(&lab, node)?;
                joined += 1;
            }
        }
    }
    report_progress(&format!("nodes: {joined} joined"));
    report_progress("ready: `eval \"$(otherix-lab env)\"` points `otherix` at it");
    Ok(())
}
