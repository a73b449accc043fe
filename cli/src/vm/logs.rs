//! `otherix vm logs`.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use otherix_schemas::vm::{ConsoleOutput, VmView};
use tokio::time::{Instant, sleep};

use super::harmless::{Harmless, last_lines};
use super::reader::{GAP, Reader, WAIT_MS, failure};
use crate::client::{ControlPlaneClient, GlobalArgs, is_transient};
use crate::failure::Failure;
use crate::output::Printer;
use crate::resource::NameOrId;

pub(super) const HELP: &str = "\
The VM's node keeps the last 1 to 2 MiB of what the guest wrote to its serial console, also while the VM is stopped. \
Control characters are made harmless if stdout is a terminal, unless --raw is given; otherwise bytes are written as \
they are kept. With -f, output is written as it comes, through restarts of the VM, its node and the control plane.

Examples:
  otherix vm logs web-1
  otherix vm logs web-1 --tail 50
  otherix vm logs web-1 -f
  otherix vm logs web-1 --raw > console.log";

/// How long to try if nothing answers, without -f.
const LIMIT: Duration = Duration::from_secs(8);

/// Between attempts.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// Show the last lines only [default: all that are kept]
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,

    /// Go on with what the VM writes, until interrupted
    #[arg(short, long)]
    follow: bool,

    /// Write control characters to a terminal, too: a guest can make it do what it likes
    #[arg(long)]
    raw: bool,
}

/// Carries out the command.
pub(crate) async fn run(global: &GlobalArgs, args: LogsArgs, printer: &mut Printer) -> Result<(), Failure> {
    let LogsArgs { reference, tail, follow, raw } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let vm: VmView = NameOrId::new(&reference).look_up_live(&mut client).await?;
    let mut reader = Reader::new(client.lasting().await?, vm.id, None);
    let mut harmless = (!raw && std::io::stdout().is_terminal()).then(Harmless::default);
    let mut kept = Vec::new();
    loop {
        let output = first(&reader).await?;
        reader.advance(&output);
        kept.extend(output.data.0);
        if !output.has_more {
            break;
        }
    }
    let shown = tail.map_or(kept.as_slice(), |lines| last_lines(&kept, lines));
    if print(shown, &mut harmless, printer)?.is_break() || !follow {
        return Ok(());
    }
    let mut is_answered = true;
    loop {
        match reader.ask(WAIT_MS).await {
            Ok(output) => {
                is_answered = true;
                if output.is_gap {
                    printer.note(GAP);
                }
                reader.advance(&output);
                if print(&output.data.0, &mut harmless, printer)?.is_break() {
                    return Ok(());
                }
            }
            Err(error) if is_transient(&error) => {
                if std::mem::replace(&mut is_answered, false) {
                    printer.note(&format!("{}; still waiting", failure(error).body.error.message));
                }
                sleep(PAUSE).await;
            }
            Err(error) => return Err(failure(error)),
        }
    }
}

/// Asks at once, and again for a while if nothing answers.
async fn first(reader: &Reader) -> Result<ConsoleOutput, Failure> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match reader.ask(0).await {
            Ok(output) => return Ok(output),
            Err(error) if is_transient(&error) && Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
            Err(error) => return Err(failure(error)),
        }
    }
}

fn print(bytes: &[u8], harmless: &mut Option<Harmless>, printer: &mut Printer) -> Result<ControlFlow<()>, Failure> {
    match harmless {
        Some(harmless) => printer.bytes(harmless.text(bytes).as_bytes()),
        None => printer.bytes(bytes),
    }
}
