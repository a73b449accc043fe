//! `otherix audit export`.

use std::path::{Path, PathBuf};

use clap::Args;
use futures::try_join;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::event::EventQuery;
use otherix_schemas::position::Position;
use otherix_schemas::violations::Violations;
use otherix_tlog::tile::new_tiles;
use serde_json::json;

use super::folder::NewExport;
use super::sequence::Sequence;
use super::verify::{Origin, head_of};
use super::{checkpoint, file, tiles};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::events::{Page, next_page};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The folder, which must not exist yet
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Only events from this position on
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,

    /// Only events up to this position
    #[arg(long, value_name = "POSITION")]
    to: Option<u64>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Writes the events up to the newest checkpoint as they are stored, one a line (events.jsonl), and the checkpoint and \
tiles of the transparency log in the formats of C2SP tlog-tiles. The folder gets its name when it is complete. It has \
no key: keep that elsewhere (`otherix audit key`). Requires the permission audit:read.

Examples:
  otherix audit export export-1
  otherix audit export export-2 --from 1000 --to 2000";

/// Events that are written before the connection gets its turn.
const YIELD_AFTER: usize = 50;

/// What was exported.
pub(super) struct Exported {
    pub(super) events: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The events that the checkpoint covers.
    pub(super) size: u64,
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: ExportArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ExportArgs { folder, from, to, output } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let Exported { events, first, last, size } = write(&mut client, &folder, (from, to), printer).await?;
    match output {
        Format::Text => printer.text(&format!(
            "exported {events} events, positions {first} to {last}, to {}; the checkpoint covers {size} events\n",
            clean(&folder.display().to_string())
        )),
        Format::Json => printer.data(&json!({ "events": events, "first": first, "last": last, "size": size })),
    }
}

/// Writes an export.
pub(super) async fn write(
    client: &mut ControlPlaneClient,
    folder: &Path,
    (from, to): (Option<u64>, Option<u64>),
    printer: &mut Printer,
) -> Result<Exported, Failure> {
    let (view, note, key) = checkpoint(client).await?;
    let head = head_of(note.as_bytes(), &key).map_err(|text| {
        let text = format!("the checkpoint of the control plane is not to be believed: {text}");
        Failure::new(Exit::Unexpected, ErrorCode::Conflict, text)
    })?;
    let covered = view.position.get();
    let (first, last) = (from.unwrap_or(1), to.unwrap_or(covered));
    if first == 0 || first > last || last > covered {
        let text = format!("the range must be within the positions 1 to {covered}, which the checkpoint covers");
        return Err(Violations::one("from", text).into());
    }
    let is_part = from.is_some() || to.is_some();
    let mut sequence = Sequence::new(&Origin::parse(key.name())?.cluster);
    let epochs = if is_part { epochs_before(client, first).await? } else { Vec::new() };
    for event in &epochs {
        sequence.skip_to_epoch(event.as_bytes())?;
        sequence.next(event.as_bytes())?;
    }
    sequence.skip_to(Position::new(first));
    let mut export = NewExport::begin(folder).map_err(|error| file(&error))?;
    let mut events = EventWriter { export: &mut export, last, sequence, printer };
    let count = events.copy(client, first).await?;
    for wanted in new_tiles(0, head.size()).collect::<Vec<_>>().chunks(48) {
        for (tile, content) in tiles::fetch(client, wanted).await? {
            export.tile(tile, &content).map_err(|error| file(&error))?;
        }
    }
    if is_part {
        export.range(first, last, &epochs).map_err(|error| file(&error))?;
    }
    export.finish(note.as_bytes()).map_err(|error| file(&error))?;
    Ok(Exported { events: count, first, last, size: head.size() })
}

/// The events with which epochs began before a position.
async fn epochs_before(client: &mut ControlPlaneClient, first: u64) -> Result<Vec<String>, Failure> {
    let mut query = EventQuery { types: vec!["cluster.restored".to_owned()], ..EventQuery::default() };
    let mut epochs = Vec::new();
    loop {
        let page = next_page(&mut query, Some(Position::new(first - 1)), client).await?;
        epochs.extend(page.events);
        if page.is_last {
            return Ok(epochs);
        }
    }
}

/// Copies events into an export.
struct EventWriter<'a> {
    export: &'a mut NewExport,
    last: u64,
    /// A role that may not read some events would leave gaps.
    sequence: Sequence,
    printer: &'a mut Printer,
}

impl EventWriter<'_> {
    async fn copy(&mut self, client: &mut ControlPlaneClient, first: u64) -> Result<u64, Failure> {
        let mut query = EventQuery { after: Position::new(first - 1), ..EventQuery::default() };
        let last = Position::new(self.last);
        let (mut page, mut count) = (next_page(&mut query, Some(last), client).await?, 0);
        loop {
            let Page { events, is_last } = page;
            count += events.len() as u64;
            let after = query.after;
            if is_last {
                self.write(&events).await?;
                self.printer.end_progress();
                return Ok(count);
            }
            // The control plane reads the next page while this one is written.
            let (next, ()) = try_join!(next_page(&mut query, Some(last), client), self.write(&events))?;
            page = next;
            self.printer.progress(after.get(), self.last, &format!("{after} of {last}"));
        }
    }

    async fn write(&mut self, events: &[String]) -> Result<(), Failure> {
        for events in events.chunks(YIELD_AFTER) {
            for event in events {
                self.sequence.next(event.as_bytes()).map_err(|fault| {
                    Failure::from(fault).hint("an export takes a role that may read all events: audit:read")
                })?;
                self.export.event(event.as_bytes()).map_err(|error| file(&error))?;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
