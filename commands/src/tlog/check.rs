//! Compares a log's database with the journal it belongs to, without changing either: for backups.

use std::collections::BTreeMap;
use std::path::Path;

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::ClusterId;
use otherix_schemas::log::origin;
use otherix_schemas::position::{Epoch, Position};
use otherix_tlog::tile::TileHashes;
use otherix_tlog::{CheckpointError, Hash, Policy, SignatureKind, TileBuilder, TileSource, TreeHead, VerifierKey};

use super::numbering::LeafNumbering;
use super::tiles::{TileStore, TileStoreError};
use crate::store::{EventStore, StoreError};

/// Events read from the event store at once.
const PAGE: u32 = 1000;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedLog {
    /// The newest checkpoint of the journal's epoch, and its head.
    pub newest: Option<(String, TreeHead)>,
    /// Checkpoints of this epoch that the journal does not continue, as the log has found before. With any, its tree is
    /// known to differ from the journal's, and is not compared.
    pub contradictions: usize,
}

/// The log is not that of the journal.
#[derive(Debug, thiserror::Error)]
pub enum LogCheckError {
    #[error(transparent)]
    Tiles(#[from] TileStoreError),
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
    #[error("the log has a checkpoint of epoch {found}, and the journal is in epoch {epoch}")]
    LaterEpoch { found: Epoch, epoch: Epoch },
    #[error("the log's checkpoint of epoch {epoch} is not signed with its key")]
    Signature {
        epoch: Epoch,
        #[source]
        source: CheckpointError,
    },
    #[error("the log's checkpoint covers {size} events, and the journal has {events}")]
    Ahead { size: u64, events: u64 },
    #[error("the journal's first {size} events have another root than the log's checkpoint of epoch {epoch}")]
    Root { epoch: Epoch, size: u64 },
    #[error("the log's tile `{0}` is not that of the journal's events")]
    Tile(String),
    #[error("the event at position {0} cannot be read")]
    Event(Position),
    #[error("the tree cannot be built: {0}")]
    Tree(String),
}

/// Checks the signatures of all checkpoints, the roots of those whose events the journal has, and the tiles of the
/// newest one. `key` is the log's, of any epoch. Blocks while it reads the log's database.
///
/// # Errors
/// If something cannot be read, or the log is not that of the journal.
pub async fn check_log<S: EventStore>(store: &S, path: &Path, key: &VerifierKey) -> Result<CheckedLog, LogCheckError> {
    let log = TileStore::open_read_only(path)?;
    log.check()?;
    let epoch = store.identity().epoch;
    let contradictions = log.contradictions(epoch)?.len();
    let numbering = LeafNumbering::new(store.gaps().await?);
    let events = numbering.size_at(store.head().await?);
    let ends = ends_of_epochs(store, &numbering).await?;
    let (mut newest, mut roots) = (None, BTreeMap::<u64, Vec<(Epoch, TreeHead)>>::new());
    for (of, note) in log.checkpoints()? {
        if of > epoch {
            return Err(LogCheckError::LaterEpoch { found: of, epoch });
        }
        let head = head_of_epoch(store.identity().cluster, of, &note, key)
            .map_err(|source| LogCheckError::Signature { epoch: of, source })?;
        // What an earlier epoch had after its last event that was kept is not in the journal.
        let end = ends.iter().find(|(begun, _)| *begun > of).map_or(events, |(_, end)| *end);
        if head.size() <= end {
            roots.entry(head.size()).or_default().push((of, head));
        } else if of == epoch {
            return Err(LogCheckError::Ahead { size: head.size(), events });
        }
        if of == epoch {
            newest = Some((note, head));
        }
    }
    if contradictions == 0 {
        let has_tiles = log.epoch()? == Some(epoch);
        let signed = newest.as_ref().filter(|_| has_tiles).map_or(0, |(_, head)| head.size());
        compare_trees(store, &log, &roots, signed).await?;
    }
    Ok(CheckedLog { newest, contradictions })
}

/// The epochs that begin in the journal, and the number of events before each.
async fn ends_of_epochs<S: EventStore>(
    store: &S,
    numbering: &LeafNumbering,
) -> Result<Vec<(Epoch, u64)>, LogCheckError> {
    let mut ends = Vec::new();
    for gap in store.gaps().await? {
        let first = store.read(gap.kept, 1).await?.into_iter().next().ok_or(LogCheckError::Event(gap.next))?;
        let event = EventEnvelope::decode(&first.body).map_err(|_| LogCheckError::Event(gap.next))?;
        ends.push((event.header.epoch, numbering.size_at(gap.kept)));
    }
    Ok(ends)
}

/// The head of a checkpoint of an epoch's log, if the log's key, which may be given by the name of another epoch, has
/// signed it.
///
/// # Errors
/// If it is not to be believed.
pub fn head_of_epoch(
    cluster: ClusterId,
    epoch: Epoch,
    note: &str,
    key: &VerifierKey,
) -> Result<TreeHead, CheckpointError> {
    let name = origin(cluster, epoch).parse().map_err(|_| CheckpointError::Key)?;
    let key = VerifierKey::new(name, SignatureKind::Note, key.as_bytes()).map_err(|_| CheckpointError::Key)?;
    Ok(*Policy::of_log(key)?.verify(note.as_bytes())?.checkpoint().head())
}

/// Compares the roots at these sizes, and the tiles of the first `signed` events.
async fn compare_trees<S: EventStore>(
    store: &S,
    mut log: &TileStore,
    roots: &BTreeMap<u64, Vec<(Epoch, TreeHead)>>,
    signed: u64,
) -> Result<(), LogCheckError> {
    let (mut builder, mut position) = (TileBuilder::default(), Position::ZERO);
    let until = roots.keys().next_back().copied().unwrap_or_default();
    while builder.head().size() < until {
        let page = store.read(position, PAGE).await?;
        let Some(last) = page.last() else { break };
        position = last.position;
        for entry in &page {
            builder.append(Hash::of_leaf(&entry.body)).map_err(|error| LogCheckError::Tree(error.to_string()))?;
            let size = builder.edge().size();
            for tile in builder.take_complete().iter().filter(|_| size <= signed) {
                compare_tile(&mut log, tile)?;
            }
            for (epoch, head) in roots.get(&size).into_iter().flatten() {
                if builder.head() != *head {
                    return Err(LogCheckError::Root { epoch: *epoch, size });
                }
            }
            if size == signed {
                builder.partial().try_for_each(|tile| compare_tile(&mut log, &tile))?;
            }
        }
    }
    Ok(())
}

fn compare_tile(log: &mut &TileStore, tile: &TileHashes) -> Result<(), LogCheckError> {
    match log.tile(tile.tile())? {
        Some(stored) if stored == tile.to_bytes() => Ok(()),
        Some(_) | None => Err(LogCheckError::Tile(tile.tile().to_string())),
    }
}
