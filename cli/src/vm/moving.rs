//! `otherix vm move`.

use std::time::Duration;

use clap::Args;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::node::NodeView;
use otherix_schemas::vm::{CancelVmMove, MoveVm, SHUTDOWN_S, VmById, VmMove, VmView};

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::duration;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::args::WaitArgs;
use crate::resource::{NameOrId, not_found_hint, wait};

pub(super) const HELP: &str = "\
The VM is shut down as by `stop`, its disk is copied to the other node through the mesh, and it is started there, if \
it was to run. Its MAC and IP address stay. Until the copy is complete, the VM is on its node, where it is started \
again if it cannot be moved or the move is cancelled; `get` and `list` show how far it is. What was written to its \
console stays behind.

Examples:
  otherix vm move web-1 --node node-2 --wait --wait-timeout 10m
  otherix vm move web-1
  otherix vm move web-1 --cancel";

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// Where to: the name or UUID of a node [default: one with room]
    #[arg(long, value_name = "NAME|UUID", conflicts_with = "cancel")]
    node: Option<String>,

    #[command(flatten)]
    shutdown: ShutdownTime,

    /// Let a VM that moves stay on its node
    #[arg(long, conflicts_with_all = ["timeout", "force"])]
    cancel: bool,

    /// Output format; with json and --wait, the VM is printed after the wait
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    wait: WaitArgs,
}

/// How long a guest may take to shut down.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ShutdownTime {
    /// How long the guest may take to shut down, in whole seconds, before its machine is turned off, with a unit: s, m
    /// or h; at most 1h [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,

    /// Turn its machine off at once, without asking the guest
    #[arg(long, conflicts_with = "timeout")]
    force: bool,
}

impl ShutdownTime {
    pub(crate) fn seconds(self) -> u32 {
        match (self.force, self.timeout) {
            (true, _) => 0,
            (false, None) => SHUTDOWN_S,
            // What is too long, the control plane refuses.
            (false, Some(timeout)) => u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: MoveArgs, printer: &mut Printer) -> Result<(), Failure> {
    let MoveArgs { reference, node, shutdown, cancel, output: _, wait } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = VmId::new(NameOrId::new(&reference).resolve::<VmView>(&mut client).await?);
    let node_id = match node {
        Some(node) => Some(NodeId::new(NameOrId::new(&node).resolve::<NodeView>(&mut client).await?)),
        None => None,
    };
    let outcomes = if wait.wait { Some(LiveFeed::outcomes(&mut client).await?) } else { None };
    let answer = if cancel {
        client.call::<CancelVmMove>(&VmById { id }).await
    } else {
        let timeout_s = Some(shutdown.seconds());
        client.call::<MoveVm>(&VmMove { id, node_id, timeout_s }).await
    };
    let view = answer.map_err(not_found_hint::<VmView>)?.data;
    if !printer.is_json() {
        printer.text(&text(&view))?;
    }
    let Some(outcomes) = outcomes else {
        return if printer.is_json() { printer.data(&view) } else { Ok(()) };
    };
    let target = view.moving.as_ref().map_or(view.node_id, |moving| moving.node_id);
    let (last, result) = wait::until_ready(client, outcomes, view, wait.wait_timeout, printer).await;
    if printer.is_json() {
        printer.data(&last)?;
    }
    result.and_then(|()| is_on(&last, target))
}

fn text(view: &VmView) -> String {
    let (name, node) = (clean(view.name.as_str()), clean(view.node_name.as_str()));
    match &view.moving {
        Some(moving) => {
            format!("VM {name} is moving from node {node} to node {}\n", clean(moving.node_name.as_str()))
        }
        None => format!("VM {name} stays on node {node}\n"),
    }
}

/// Whether a VM that does not move any more is where it was to be.
pub(crate) fn is_on(view: &VmView, target: NodeId) -> Result<(), Failure> {
    if view.node_id == target {
        return Ok(());
    }
    let (name, node) = (&view.name, &view.node_name);
    let reason = view.warnings.iter().find(|warning| warning.starts_with("it was not moved"));
    let reason = reason.map_or_else(|| "the move was cancelled".to_owned(), Clone::clone);
    let message = format!("VM `{name}` is on node `{node}`: {reason}");
    Err(Failure::new(Exit::NodeFailed, ErrorCode::Conflict, message))
}
