//! Read models made anew from the journal, while the control plane is stopped: it holds the journal's lock, and so does this.

use std::io::Write;

use otherix_commands::store::{Entry, EventStore, StoreError, OpenError, SqliteStore};
use otherix_projections::rebuild::{Rebuild, RebuildError};
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use uuid::Uuid;

use crate::args::State;

/// Events that are read and applied at once.
const BATCH: u32 = 1_000;

/// Why the read models are not made anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is nothing to make them from.
    #[error("there is no journal `{0}`")]
    Missing(String),
    /// The journal does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
    /// It holds something else.
    #[error("the journal's entry at position {position} is no event")]
    Decode {
        /// Which.
        position: Position,
        /// Why not.
        #[source]
        source: DecodeError,
    },
    /// The read models.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The result cannot be said.
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
}

/// Makes them anew beside the old ones, swaps, and says how far they go.
pub(crate) async fn rebuild(state: &State) -> Result<(), Error> {
    let path = state.journal();
    if !path.exists() {
        return Err(Error::Missing(path.display().to_string()));
    }
    let journal = SqliteStore::open(&path, ClusterId::new(Uuid::nil())).await?;
    let head = journal.head().await?;
    let rebuild = Rebuild::begin(&state.read_models(), journal.identity().cluster, head).await?;
    let mut done = Position::ZERO;
    loop {
        let entries = journal.read(done, BATCH).await?;
        let Some(last) = entries.last() else { break };
        done = last.position;
        let decode = |entry: &Entry| {
            EventEnvelope::decode(&entry.body).map_err(|source| Error::Decode { position: entry.position, source })
        };
        rebuild.take_in(&entries.iter().map(decode).collect::<Result<Vec<_>, _>>()?).await?;
    }
    rebuild.swap().await?;
    journal.close().await;
    writeln!(std::io::stdout(), "read models made anew, up to position {done}")?;
    Ok(())
}
