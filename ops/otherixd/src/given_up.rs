//! What a new epoch gives up, and the proof that it is that: checkpoints of the earlier epoch, as far as they are known
//! here, must have been signed for the kept events followed by those given up.

use std::path::{Path, PathBuf};

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use otherix_commands::recovery::given_up::{GivenUpEvent, GivenUpProof, prove};
use otherix_commands::relay::StreamReader;
use otherix_commands::store::EventStore;
use otherix_commands::tlog::{TileStore, head_of_epoch};
use otherix_schemas::log::{CHECKPOINT_STREAM, checkpoint_subject};
use otherix_schemas::position::{Epoch, Position};
use otherix_tlog::{Hash, TreeHead};

use crate::args::StateFolder;
use crate::error::BoxError;
use crate::log_key;
use crate::nats::{is_not_found, write_private};
use crate::offline::StoppedControlPlane;

/// Kept or given-up events were changed after they were signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenUpError {
    #[error(
        "the kept events with those given up are not the {size} events for which the checkpoint of {place} was signed"
    )]
    Contradicted { place: &'static str, size: u64 },
    #[error("`{}` does not have the events that were written to it", .0.display())]
    NotAsWritten(PathBuf),
}

impl GivenUpError {
    pub(crate) const CONTRADICTED_HINT: &str = "somebody has changed the journal or the stream: keep both, and compare \
        them with backups and with `otherix audit export`; --unproven begins the epoch all the same";
}

/// The events given up, with their bytes.
#[derive(Default)]
pub(crate) struct GivenUp {
    events: Vec<GivenUpEvent>,
    /// One event a line.
    lines: Vec<u8>,
}

/// A checkpoint of the earlier epoch, signed with the log's key.
struct KnownCheckpoint {
    place: &'static str,
    note: String,
    head: TreeHead,
}

/// What is proven, as it is printed.
pub(crate) struct Statement {
    pub(crate) lines: Vec<String>,
    /// The checkpoint that proves the most.
    pub(crate) checkpoint: Option<String>,
}

impl GivenUp {
    /// Reads the events of an epoch from the stream, from a position on.
    pub(crate) async fn read(
        control_plane: &StoppedControlPlane,
        first: Position,
        epoch: Epoch,
    ) -> Result<Self, BoxError> {
        let mut given_up = Self::default();
        let Some((_, context)) = control_plane.streams.first() else { return Ok(given_up) };
        let mut reader = StreamReader::open(context, first).await?;
        while let Some(found) = reader.next().await? {
            if found.claims(control_plane.journal.identity().cluster, epoch) {
                let leaf = Hash::of_leaf(&found.message.payload);
                given_up.events.push(GivenUpEvent { position: found.position, leaf });
                given_up.lines.extend_from_slice(&found.message.payload);
                given_up.lines.push(b'\n');
            }
        }
        Ok(given_up)
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Writes the events to a file, one a line, byte for byte, and reads it again.
    pub(crate) fn write(&self, file: &Path) -> Result<(), BoxError> {
        write_private(file, &self.lines)?;
        let written = std::fs::read(file)?;
        let leaves = written.split_inclusive(|byte| *byte == b'\n');
        let leaves = leaves.map(|line| Hash::of_leaf(line.strip_suffix(b"\n").unwrap_or(line)));
        if leaves.eq(self.events.iter().map(|event| event.leaf)) {
            return Ok(());
        }
        Err(GivenUpError::NotAsWritten(file.to_owned()).into())
    }

    /// Compares all known checkpoints of the epoch with the kept events followed by these.
    ///
    /// # Errors
    /// [`GivenUpError::Contradicted`], unless `is_unproven`; or if something cannot be read.
    pub(crate) async fn prove(
        &self,
        control_plane: &StoppedControlPlane,
        state: &StateFolder,
        epoch: Epoch,
        is_unproven: bool,
    ) -> Result<Statement, BoxError> {
        let known = known_checkpoints(control_plane, state, epoch).await?;
        let heads: Vec<_> = known.iter().map(|known| known.head).collect();
        let proofs = prove(&control_plane.journal, &self.events, &heads).await?;
        let mut statement = Statement { lines: Vec::new(), checkpoint: None };
        let mut most = 0;
        for (KnownCheckpoint { place, note, head }, proof) in known.iter().zip(proofs) {
            let size = head.size();
            statement.lines.push(match proof {
                GivenUpProof::Proven { kept, given_up } => {
                    if size > most {
                        (most, statement.checkpoint) = (size, Some(note.clone()));
                    }
                    format!(
                        "proven: the checkpoint of {place} was signed for {size} events, which are exactly the first \
                         {kept} of those kept and {given_up} of the {} given up",
                        self.len()
                    )
                }
                GivenUpProof::Incomplete { found } => format!(
                    "not proven: the checkpoint of {place} was signed for {size} events, of which only the first \
                     {found} are known here: the others are lost"
                ),
                GivenUpProof::Contradicted { .. } if is_unproven => format!(
                    "not proven: the checkpoint of {place} was signed for {size} events, which are not those kept and \
                     given up"
                ),
                GivenUpProof::Contradicted { .. } => return Err(GivenUpError::Contradicted { place, size }.into()),
            });
        }
        if statement.lines.is_empty() {
            statement.lines.push(format!("not proven: no checkpoint of epoch {epoch} is known here"));
        }
        Ok(statement)
    }
}

/// The newest checkpoints of an epoch: in the log's database and on the stream. Those that the log's key has not signed
/// are ignored.
async fn known_checkpoints(
    control_plane: &StoppedControlPlane,
    state: &StateFolder,
    epoch: Epoch,
) -> Result<Vec<KnownCheckpoint>, BoxError> {
    let mut notes = Vec::new();
    if state.log().exists() {
        // A log that cannot be read must not keep an operator from restoring.
        match TileStore::open_read_only(&state.log()).and_then(|log| log.checkpoint(epoch)) {
            Ok(note) => notes.extend(note.map(|note| ("log.db", note))),
            Err(error) => tracing::warn!(%error, "the checkpoints in the log's database are not known"),
        }
    }
    notes.extend(on_stream(&control_plane.checkpoints, epoch).await?.map(|note| ("the stream", note)));
    if notes.is_empty() || !state.log_key().exists() {
        return Ok(Vec::new());
    }
    let identity = control_plane.journal.identity();
    let key = log_key::load_or_create(state, identity)?;
    let verified = notes.into_iter().filter_map(|(place, note)| {
        let head = head_of_epoch(identity.cluster, epoch, &note, key.public_key());
        if let Err(error) = &head {
            tracing::warn!(%error, place, "a checkpoint is ignored");
        }
        Some(KnownCheckpoint { place, head: head.ok()?, note })
    });
    Ok(verified.collect())
}

async fn on_stream(context: &Context, epoch: Epoch) -> Result<Option<String>, BoxError> {
    let stream = match context.get_stream(CHECKPOINT_STREAM).await {
        Err(error) if is_not_found(&error) => return Ok(None),
        stream => stream?,
    };
    match stream.get_last_raw_message_by_subject(&checkpoint_subject(epoch)).await {
        Ok(message) => Ok(String::from_utf8(message.payload.to_vec()).ok()),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
