//! `start`, `stop` and the other commands on what a VM does.

use std::time::Duration;

use clap::Args;
use otherix_schemas::id::VmId;
use otherix_schemas::request::RequestType;
use otherix_schemas::vm::{
    PauseVm, RebootVm, ResetVm, ResumeVm, SHUTDOWN_S, Shutdown, StartVm, StopVm, VmById, VmView,
};

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::duration;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::args::WaitArgs;
use crate::resource::{NameOrId, Resource, not_found_hint, wait};

/// A VM, and how long to wait for it.
#[derive(Debug, Args)]
pub(crate) struct PowerArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// Output format; with json and --wait, the VM is printed after the wait
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    wait: WaitArgs,
}

/// A VM that is to shut down.
#[derive(Debug, Args)]
pub(crate) struct ShutdownArgs {
    #[command(flatten)]
    pub(crate) power: PowerArgs,

    /// How long the guest may take, in whole seconds, before its machine is turned off, with a unit: s, m or h; at most
    /// 1h [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,

    /// Turn its machine off at once, without asking the guest
    #[arg(long, conflicts_with = "timeout")]
    force: bool,
}

/// The commands that say nothing but which VM.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plain {
    Start,
    Reset,
    Pause,
    Resume,
}

/// Carries out one of them.
pub(super) async fn plain(
    global: &GlobalArgs,
    which: Plain,
    args: PowerArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let body = |id| VmById { id };
    match which {
        Plain::Start => instruct::<StartVm>(global, args, "is to start", body, printer).await,
        Plain::Reset => instruct::<ResetVm>(global, args, "is to be reset", body, printer).await,
        Plain::Pause => instruct::<PauseVm>(global, args, "is to pause", body, printer).await,
        Plain::Resume => instruct::<ResumeVm>(global, args, "is to go on", body, printer).await,
    }
}

/// Carries out `stop`.
pub(super) async fn stop(global: &GlobalArgs, args: ShutdownArgs, printer: &mut Printer) -> Result<(), Failure> {
    let timeout_s = Some(args.timeout_s());
    instruct::<StopVm>(global, args.power, "is to stop", |id| Shutdown { id, timeout_s }, printer).await
}

/// Carries out `reboot`.
pub(super) async fn reboot(global: &GlobalArgs, args: ShutdownArgs, printer: &mut Printer) -> Result<(), Failure> {
    let timeout_s = Some(args.timeout_s());
    instruct::<RebootVm>(global, args.power, "is to reboot", |id| Shutdown { id, timeout_s }, printer).await
}

impl ShutdownArgs {
    fn timeout_s(&self) -> u32 {
        match (self.force, self.timeout) {
            (true, _) => 0,
            (false, None) => SHUTDOWN_S,
            // What is too long, the control plane refuses.
            (false, Some(timeout)) => u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

/// Sends the request, and waits for the node if requested.
async fn instruct<R: RequestType<Answer = VmView>>(
    global: &GlobalArgs,
    PowerArgs { reference, output: _, wait }: PowerArgs,
    done: &str,
    body: impl FnOnce(VmId) -> R::Body,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = NameOrId::new(&reference).resolve::<VmView>(&mut client).await?;
    let outcomes = if wait.wait { Some(LiveFeed::outcomes(&mut client).await?) } else { None };
    let answer = client.call::<R>(&body(VmId::new(id))).await;
    let view = answer.map_err(not_found_hint::<VmView>)?.data;
    if !printer.is_json() {
        printer.text(&format!("{} {} {done}\n", VmView::NOUN, clean(view.name())))?;
    }
    let Some(outcomes) = outcomes else {
        return if printer.is_json() { printer.data(&view) } else { Ok(()) };
    };
    let (last, result) = wait::until_ready(client, outcomes, view, wait.wait_timeout, printer).await;
    if printer.is_json() {
        printer.data(&last)?;
    }
    result
}
