//! Creates a lab, or its missing parts.

use crate::args::UpOptions;
use crate::error::LabError;
use crate::lab::{Description, Lab, OpenLab};
use crate::lock::Lock;
use crate::namespace;
use crate::output::say;
use crate::program;
use crate::service::{await_control, await_node, launch_forward, launch_node, launch_otherixd, listen, obstacle};

/// Returns when every node has joined.
pub(crate) fn up(lab: &Lab, options: &UpOptions) -> Result<(), LabError> {
    let bin_dir = program::bin_dir(options.bin_dir.as_deref())?;
    let nats_server = program::nats_server(options.nats_server.as_deref())?;
    let _changing = Lock::of(lab)?;
    let before = lab.described()?;
    let (port, listener) = match &before {
        Some(description) => (description.port, None),
        None => {
            let listener = listen(0)?;
            let port = listener.local_addr().map_err(LabError::Accept)?.port();
            (port, Some(listener))
        }
    };
    let nodes = before.map_or(0, |description| description.nodes).max(options.nodes);
    let description = Description { port, nodes, bin_dir, nats_server };
    lab.make_folders()?;
    lab.describe(&description)?;
    let lab = OpenLab { lab: lab.clone(), description };

    let (underlay, outside) = (lab.lab.underlay(), namespace::OUTSIDE);
    say(&format!("network: namespace {underlay} with the underlay {}/24, and {outside} outside", namespace::CONTROL));
    namespace::make_underlay(&lab.lab)?;
    namespace::make_outside(&lab.lab)?;
    for node in 1..=nodes {
        namespace::make_node(&lab.lab, node)?;
    }
    say(&format!("control plane: otherixd, reached at {}", lab.url()));
    launch_forward(&lab, listener)?;
    launch_otherixd(&lab)?;
    if lab.lab.hold().exists() {
        say("nats is stopped, and the nodes join once `otherix-lab start nats` has started it");
        return (1..=nodes).try_for_each(|node| launch_node(&lab, node));
    }
    await_control(&lab)?;
    for node in 1..=nodes {
        launch_node(&lab, node)?;
    }
    let mut joined = 0;
    for node in 1..=nodes {
        match obstacle(&lab, node)? {
            Some(obstacle) => say(&format!("node-{node} joins when {obstacle}")),
            None => {
                await_node(&lab, node)?;
                joined += 1;
            }
        }
    }
    say(&format!("nodes: {joined} joined"));
    say("ready: `eval \"$(otherix-lab env)\"` points `otherix` at it");
    Ok(())
}
