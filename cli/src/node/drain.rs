//! `otherix node drain`: cordons a node, and moves its VMs away, one after the other.
//!
//! Cancel-safety: may be dropped at any await. A VM that moves goes on moving, and another run goes on with the others.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::node::{CordonNode, NodeById, NodeView};
use otherix_schemas::vm::{MoveVm, VmMove, VmMoveView, VmView};
use serde::Serialize;

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::duration;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::{NameOrId, Resource, list, not_found_hint, wait};
use crate::vm::moving::{ShutdownTime, is_on};

pub(super) const HELP: &str = "\
Each VM is moved to a node with room, as by `otherix vm move`, and waited for before the next. A VM that cannot be \
moved stays and goes on; at the end, a line says why (exit code 5). The node stays cordoned: `otherix node uncordon` \
ends that. If the command is interrupted, the VM that moves goes on moving, and `drain` can be run again.

Examples:
  otherix node drain node-1
  otherix node drain node-1 --dry-run
  otherix node drain node-1 --timeout 5m --wait-timeout 1h";

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    #[command(flatten)]
    shutdown: ShutdownTime,

    /// How long to wait for each VM, with a unit: ms, s, m or h; at most 24h
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    wait_timeout: Duration,

    /// Say which VMs can be moved now, and where to; change nothing
    #[arg(long)]
    dry_run: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Drained {
    moved: Vec<MovedVm>,
    /// VMs that are still on the node, or are about to be.
    stay: Vec<StayingVm>,
}

#[derive(Debug, Serialize)]
struct MovedVm {
    id: VmId,
    name: String,
    /// Where it is now, or where it would be moved to.
    node: String,
}

#[derive(Debug, Serialize)]
struct StayingVm {
    id: VmId,
    name: String,
    reason: String,
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: DrainArgs, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let node: NodeView = NameOrId::new(&args.reference).look_up_live(&mut client).await?;
    let drained = if args.dry_run {
        try_out(&mut client, &node, &args, printer).await?
    } else {
        let cordoned = client.call::<CordonNode>(&NodeById { id: node.id }).await;
        cordoned.map_err(not_found_hint::<NodeView>)?;
        drain(global, &node, &args, printer).await?
    };
    if printer.is_json() {
        printer.data(&drained)?;
    }
    result(&node, &drained, args.dry_run, printer)
}

fn result(node: &NodeView, drained: &Drained, dry_run: bool, printer: &mut Printer) -> Result<(), Failure> {
    let (name, stay) = (&node.name, drained.stay.len());
    if stay > 0 {
        let vms = if stay == 1 { "1 VM stays".to_owned() } else { format!("{stay} VMs stay") };
        let mut failure = Failure::new(Exit::Blocked, ErrorCode::Conflict, format!("{vms} on node `{name}`"));
        failure.details = drained.stay.iter().map(|vm| format!("{}: {}", clean(&vm.name), clean(&vm.reason))).collect();
        return Err(failure);
    }
    if printer.is_json() {
        return Ok(());
    }
    let name = clean(name.as_str());
    match (dry_run, drained.moved.len()) {
        (true, 0) => printer.text(&format!("node {name} has no VMs\n")),
        (true, vms) => printer.text(&format!("node {name} can be drained: VMs to move: {vms}\n")),
        (false, vms) => printer.text(&format!("node {name} is drained: VMs moved: {vms}\n")),
    }
}

/// The VMs that are on the node, and those that move to it.
async fn vms_of(client: &mut ControlPlaneClient, node: NodeId) -> Result<(Vec<VmView>, Vec<VmView>), Failure> {
    let all = list::all_pages::<VmView>(client, |page| page).await?;
    let (on, others): (Vec<VmView>, Vec<VmView>) =
        all.into_iter().filter(|vm| !vm.is_deleted()).partition(|vm| vm.node_id == node);
    let coming = |vm: &VmView| vm.moving.as_ref().is_some_and(|moving| moving.node_id == node);
    Ok((on, others.into_iter().filter(coming).collect()))
}

/// Asks for each VM by itself: whether all have room at once is found out when they are moved.
async fn try_out(
    client: &mut ControlPlaneClient,
    node: &NodeView,
    args: &DrainArgs,
    printer: &mut Printer,
) -> Result<Drained, Failure> {
    let mut drained = Drained::default();
    for vm in vms_of(client, node.id).await?.0 {
        client.renew();
        let answer = match vm.moving.clone() {
            Some(moving) => Ok(moving.node_name),
            None => {
                let tried = client.try_out::<MoveVm>(&request(&vm, args)).await;
                tried.map(|answer| answer.data.moving.map_or(answer.data.node_name, |moving| moving.node_name))
            }
        };
        let (id, name) = (vm.id, vm.name.to_string());
        match answer {
            Ok(to) => {
                if !printer.is_json() {
                    printer.text(&format!("{} can move to node {}\n", clean(&name), clean(to.as_str())))?;
                }
                drained.moved.push(MovedVm { id, name, node: to.to_string() });
            }
            Err(failure) => drained.stay.push(StayingVm { id, name, reason: reason(failure)? }),
        }
    }
    Ok(drained)
}

fn request(vm: &VmView, args: &DrainArgs) -> VmMove {
    VmMove { id: vm.id, node_id: None, timeout_s: Some(args.shutdown.seconds()) }
}

/// Why a VM is not moved; the failure, if it is not about this VM.
fn reason(failure: Failure) -> Result<String, Failure> {
    match failure.exit {
        Exit::Conflict | Exit::Blocked | Exit::NodeFailed | Exit::TimedOut | Exit::NotFound => {
            Ok(failure.body.error.message)
        }
        Exit::Success
        | Exit::Unexpected
        | Exit::Usage
        | Exit::Denied
        | Exit::Unreachable
        | Exit::Differs
        | Exit::NotCompared => Err(failure),
    }
}

async fn drain(
    global: &GlobalArgs,
    node: &NodeView,
    args: &DrainArgs,
    printer: &mut Printer,
) -> Result<Drained, Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let (mut moved, mut stay) = (Vec::new(), BTreeMap::new());
    loop {
        // Some may have come meanwhile, that were moving to the node when it was cordoned.
        let (on, coming) = vms_of(&mut client, node.id).await?;
        let Some(vm) = on.into_iter().find(|vm| !stay.contains_key(&vm.id)) else {
            stay.extend(coming.into_iter().map(|vm| {
                let (id, name) = (vm.id, vm.name.to_string());
                (id, StayingVm { id, name, reason: "it moves to this node: drain the node again".to_owned() })
            }));
            return Ok(Drained { moved, stay: stay.into_values().collect() });
        };
        let (id, name) = (vm.id, vm.name.to_string());
        match move_away(global, vm, args, printer).await {
            Ok(to) => {
                if !printer.is_json() {
                    printer.text(&format!("{} is on node {}\n", clean(&name), clean(&to)))?;
                }
                moved.push(MovedVm { id, name, node: to });
            }
            // Deleted meanwhile.
            Err(failure) if failure.exit == Exit::NotFound => {}
            Err(failure) => drop(stay.insert(id, StayingVm { id, name, reason: reason(failure)? })),
        }
    }
}

/// Moves a VM, and waits until it is as it is to be. Returns where it is.
async fn move_away(
    global: &GlobalArgs,
    vm: VmView,
    args: &DrainArgs,
    printer: &mut Printer,
) -> Result<String, Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let outcomes = LiveFeed::outcomes(&mut client).await?;
    let from = vm.node_id;
    let vm = if vm.moving.is_some() { vm } else { client.call::<MoveVm>(&request(&vm, args)).await?.data };
    let target = vm.moving.as_ref().map(|VmMoveView { node_id, .. }| *node_id);
    let (last, result) = wait::until_ready(client, outcomes, vm, args.wait_timeout, printer).await;
    // Whether it runs there is no matter of this node any more.
    if last.node_id != from {
        if let Err(failure) = result {
            printer.note(&failure.body.error.message);
        }
        return Ok(last.node_name.to_string());
    }
    result?;
    is_on(&last, target.unwrap_or(from))?;
    Err(Failure::new(Exit::NodeFailed, ErrorCode::Conflict, format!("VM `{}` is still here", last.name)))
}
