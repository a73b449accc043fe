//! `otherix audit prove`.

use std::path::{Path, PathBuf};

use clap::Args;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::event::EventQuery;
use otherix_schemas::position::Position;
use otherix_tlog::{EntryProof, InclusionProof, Note, Policy, TileSource, TreeHead, VerifiedTiles, VerifierKey};

use super::folder::ExportFolder;
use super::sequence::{Fault, Sequence};
use super::verify::{Origin, head_of};
use super::{checkpoint, file, parse_key, tiles};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::events::next_page;
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::output::Printer;
use crate::output::text::clean;

#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// The position of the event
    #[arg(value_name = "POSITION")]
    position: u64,

    /// Take event and proof from the folder of an export, without a control plane
    #[arg(long, value_name = "DIR", requires = "key")]
    export: Option<PathBuf>,

    /// The public key of the log, as `otherix audit key` printed it; the one that the control plane tells when absent
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,

    /// The file to write [default: event-POSITION.tlog-proof]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) const HELP: &str = "\
Writes a file in the format C2SP tlog-proof with the event, its place in the tree, and the signed checkpoint. Whoever \
has it and the public key of the log can verify it, with `otherix audit verify FILE --key VKEY` or any other program \
for the format. An existing file is replaced.

Examples:
  otherix audit prove 42
  otherix audit prove 42 --export export-1 --key \"$(cat log.vkey)\" --out event-42.tlog-proof";

/// An event, its leaf, and the tree that it is in.
struct Entry {
    body: Vec<u8>,
    index: u64,
    note: Vec<u8>,
    key: VerifierKey,
}

fn not_found(position: u64) -> Failure {
    Failure::new(Exit::NotFound, ErrorCode::NotFound, format!("the log has no event at position {position} yet"))
}

fn proof<S: TileSource<Error: std::error::Error + 'static>>(
    entry: Entry,
    head: &TreeHead,
    tiles: S,
) -> Result<EntryProof, Failure> {
    let Entry { body, index, note, key } = entry;
    let refused = |text: String| Failure::from(Fault::somewhere(text));
    let tiles = VerifiedTiles::open(head, tiles);
    let mut tiles = tiles.map_err(|error| refused(failure::causes(&error)))?;
    let inclusion = InclusionProof::make(index, head.size(), &mut tiles);
    let inclusion = inclusion.map_err(|error| refused(failure::causes(&error)))?;
    let checkpoint = Note::parse(&note).map_err(|error| refused(error.to_string()))?;
    let proof = EntryProof { index, inclusion, checkpoint, extra: Some(body) };
    // What is handed out has been verified.
    let policy = Policy::of_log(key).map_err(|error| refused(error.to_string()))?;
    proof.verify_extra(&policy).map_err(|error| refused(failure::causes(&error)))?;
    Ok(proof)
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: ProveArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ProveArgs { position, export, key, out } = args;
    let pinned = key.as_deref().map(parse_key).transpose()?;
    let proof = match (export, pinned) {
        (Some(folder), Some(key)) => from_export(&folder, key, position)?,
        (_, pinned) => from_control_plane(global, pinned, position).await?,
    };
    let out = out.unwrap_or_else(|| PathBuf::from(format!("event-{position}.tlog-proof")));
    otherix_runtime::files::replace(&out, proof.to_string().as_bytes()).map_err(|error| file(&error))?;
    let (index, out) = (proof.index, clean(&out.display().to_string()));
    printer.text(&format!("wrote {out}: the event at position {position} is leaf {index}\n"))
}

/// Proves an event of an export.
pub(super) fn from_export(folder: &Path, key: VerifierKey, position: u64) -> Result<EntryProof, Failure> {
    let folder = ExportFolder::open(folder).map_err(|error| file(&error))?;
    let note = folder.checkpoint().map_err(|error| file(&error))?;
    let head = head_of(&note, &key).map_err(Fault::somewhere)?;
    let mut sequence = Sequence::new(&Origin::parse(key.name())?.cluster);
    if let Some((from, _)) = folder.range().map_err(|error| file(&error))? {
        if let Some(mut epochs) = folder.epochs().map_err(|error| file(&error))? {
            while let Some(body) = epochs.next().map_err(|error| file(&error))? {
                sequence.skip_to_epoch(body)?;
                sequence.next(body)?;
            }
        }
        sequence.skip_to(Position::new(from));
    }
    let mut events = folder.events().map_err(|error| file(&error))?;
    while let Some(body) = events.next().map_err(|error| file(&error))? {
        if sequence.next(body)?.position == Position::new(position) {
            let entry = Entry { body: body.to_vec(), index: sequence.count() - 1, note, key };
            return proof(entry, &head, folder.tiles());
        }
    }
    Err(not_found(position))
}

async fn from_control_plane(
    global: &GlobalArgs,
    pinned: Option<VerifierKey>,
    position: u64,
) -> Result<EntryProof, Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let (view, note, told) = checkpoint(&mut client).await?;
    let key = pinned.unwrap_or(told);
    let head = head_of(note.as_bytes(), &key).map_err(Fault::somewhere)?;
    if position == 0 || position > view.position.get() {
        return Err(not_found(position));
    }
    let mut sequence = Sequence::new(&Origin::parse(key.name())?.cluster);
    let mut query = EventQuery { types: vec!["cluster.restored".to_owned()], ..EventQuery::default() };
    loop {
        let page = next_page(&mut query, Some(Position::new(position - 1)), &mut client).await?;
        for event in &page.events {
            sequence.skip_to_epoch(event.as_bytes())?;
            sequence.next(event.as_bytes())?;
        }
        if page.is_last {
            break;
        }
    }
    let mut query = EventQuery { after: Position::new(position - 1), ..EventQuery::default() };
    let page = next_page(&mut query, Some(Position::new(position)), &mut client).await?;
    let body = page.events.into_iter().next().ok_or_else(|| not_found(position))?.into_bytes();
    sequence.skip_to(Position::new(position));
    sequence.next(&body)?;
    let index = sequence.count() - 1;
    let tiles = tiles::fetch_path(&mut client, index, head.size()).await?;
    proof(Entry { body, index, note: note.into_bytes(), key }, &head, tiles)
}
