//! `otherixd rebuild`: rebuilds the read models from the journal while the control plane is stopped. Holds the journal's lock.

use std::io::Write;

use otherix_commands::journal::{Entry, Journal, JournalError, OpenError, SqliteJournal};
use otherix_projections::rebuild::{Rebuild, RebuildError};
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use uuid::Uuid;

use crate::args::State;

/// Events read and applied per transaction.
const BATCH: u32 = 1_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no journal `{0}`")]
    Missing(String),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot read the journal")]
    Journal(#[from] JournalError),
    #[error("the journal's entry at position {position} is not an event")]
    Decode {
        position: Position,
        #[source]
        source: DecodeError,
    },
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
}

/// Fills new read models, swaps them for the old ones, and prints their position.
pub(crate) async fn rebuild(state: &State) -> Result<(), Error> {
    let path = state.journal();
    if !path.exists() {
        return Err(Error::Missing(path.display().to_string()));
    }
    let journal = SqliteJournal::open(&path, ClusterId::new(Uuid::nil())).await?;
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
    writeln!(std::io::stdout(), "read models rebuilt, up to position {done}")?;
    Ok(())
}
