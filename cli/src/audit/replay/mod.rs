//! `otherix audit replay`: read models of an export, which are queried without a control plane (docs/adr/0040).

mod feed;
mod folder;

use std::path::PathBuf;

use clap::Args;
use otherix_projections::offline::{ReplayError, replay};
use otherix_runtime::SystemRuntime;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::position::Position;
use otherix_schemas::request::AsOf;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::violations::Violations;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use self::feed::{IN_FLIGHT, Read, ReceivedEvents};
pub(crate) use self::folder::replayed_models;
use self::folder::{NewReplay, Summary};
use super::folder::ExportFolder;
use super::sequence::Fault;
use super::verify::{Known, Origin, Report};
use super::{file, parse_key};
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::moment;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The folder of an export with all events
    #[arg(value_name = "DIR")]
    export: PathBuf,

    /// The last event that is applied: its position, or an RFC 3339 time or a time ago (30s, 10m, 1h, 7d) at or before
    /// which it was recorded [default: the last one of the export]
    #[arg(long, value_name = "POSITION|TIME")]
    to: Option<String>,

    /// The folder of the read models, which must not exist yet [default: the export's name with `.replay`]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,

    /// The public key of the log, as `otherix audit key` prints it; without it nothing is verified but the order
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Applies the events of an export, as the control plane does, to read models that are at one position for good. `get` \
and `list` of networks, VMs, nodes and users answer from them with --offline FOLDER (or OTHERIX_OFFLINE): with the \
same output as the control plane had with --at that position, and with neither a control plane nor credentials. What \
heartbeats alone told, such as handshakes of the mesh, is in no event.

With --key, all of the export is verified as by `audit verify`, and nothing is left if anything is wrong. The folder \
gets its name when it is complete.

Examples:
  otherix audit replay export-1 --key \"$(cat log.vkey)\" --into replay-1
  otherix audit replay export-1 --key \"$(cat log.vkey)\" --to 1042 --into replay-1042
  otherix --offline replay-1 network list
  OTHERIX_OFFLINE=replay-1042 otherix node get node-1 -o json";

/// Carries out the command.
pub(super) async fn run(args: ReplayArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ReplayArgs { export, to, into, key, output } = args;
    let mut violations = Violations::default();
    let to = to.and_then(|to| violations.check("to", moment::as_of(&to)));
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let key = key.as_deref().map(parse_key).transpose()?;
    let into = into.unwrap_or_else(|| {
        // Without the slash that completion adds.
        let mut name = export.components().as_path().as_os_str().to_owned();
        name.push(".replay");
        name.into()
    });
    let export = ExportFolder::open(&export).map_err(|error| file(&error))?;
    if let Some((from, to)) = export.range().map_err(|error| file(&error))? {
        let text =
            format!("the export has the positions {from} to {to} alone: a replay takes all events from the first");
        return Err(Failure::new(Exit::Usage, ErrorCode::ValidationFailed, text)
            .hint("export without --from and --to, and replay to a position with --to"));
    }
    let known = key.map(Known::key_alone);
    let new = NewReplay::begin(&into).map_err(|error| file(&error))?;
    let Replayed { report, origin, count, position, time } = fold(&export, known, to, &new.models()).await?;
    let is_verified = report.is_some();
    let unproven = unproven(report);
    let log = &origin;
    new.finish(&Summary { log, position, time, events: count, verified: is_verified }).map_err(|error| file(&error))?;
    let folder = into.display().to_string();
    if matches!(output, Format::Json) {
        return printer.data(&json!({
            "log": log, "events": count, "position": position, "time": time, "folder": folder,
            "verified": is_verified, "not_proven": unproven,
        }));
    }
    let of = if is_verified { "verified" } else { "unverified" };
    let mut text = format!("replayed: {count} {of} events of the log {}, to {}\n", clean(log), clean(&folder));
    text.push_str(&format!("  the last one, at position {position}, is of {time}\nnot proven:\n"));
    text.extend(unproven.iter().map(|line| format!("  {}\n", clean(line))));
    printer.text(&text)
}

fn unproven(report: Option<Report>) -> Vec<String> {
    match report {
        Some(report) => report.unproven,
        None => vec!["that these are the events that were signed: that takes --key".to_owned()],
    }
}

/// What was replayed.
pub(super) struct Replayed {
    /// What was verified; `None` without a key.
    pub(super) report: Option<Report>,
    /// The name of the log.
    pub(super) origin: String,
    /// The number of events that were applied.
    pub(super) count: u64,
    /// The last of them.
    pub(super) position: Position,
    pub(super) time: Timestamp,
}

/// Makes read models of the events of an export up to a moment. They are verified while they are applied: on an error,
/// what was made is of no use.
pub(super) async fn fold(
    export: &ExportFolder,
    known: Option<Known>,
    to: Option<AsOf>,
    models: &std::path::Path,
) -> Result<Replayed, Failure> {
    let origin = match &known {
        Some(known) => known.key.name().clone(),
        None => export.claimed_origin().map_err(|error| file(&error))?,
    };
    let cluster = Origin::parse(&origin)?.cluster;
    let cluster_id =
        cluster.parse().map_err(|_| Fault::somewhere(format!("`{cluster}` is not the id of a cluster")))?;
    let (sender, received) = mpsc::channel(IN_FLIGHT);
    let export = export.clone();
    let reading = spawn_blocking(move || Read::all(&export, &cluster, known.as_ref(), to, sender));
    let events = ReceivedEvents::new(received);
    let applied = replay(models, cluster_id, SystemRuntime::shared(), &events).await;
    // Whoever still sends finds that nobody receives.
    drop(events);
    let read = reading.await.map_err(|error| unexpected(&error))?;
    // What is wrong with the events is why they cannot be applied.
    let Read { report, selection } = read?;
    let (position, time, count) = selection.end()?;
    let applied = applied.map_err(|error: ReplayError| unexpected(&error))?;
    if applied != position {
        let text = format!("the events were applied up to position {applied}, and not to {position}");
        return Err(Failure::new(Exit::Unexpected, ErrorCode::Internal, text));
    }
    Ok(Replayed { report, origin: origin.to_string(), count, position, time })
}

fn unexpected(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Unexpected, ErrorCode::Internal, failure::causes(error))
}
