//! What can be done with a journal at rest.

use std::io::Write;

use otherix_commands::journal::{LoadError, OpenError, SqliteJournal, load};
use otherix_schemas::id::ClusterId;
use uuid::Uuid;

use crate::args::State;

/// Why a journal is not in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// There is none.
    #[error("there is no journal `{0}`")]
    Missing(String),
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was altered, or cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The result cannot be said.
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
}

/// Reads and checks every event, and says how many there are.
pub(crate) async fn verify(state: &State) -> Result<(), VerifyError> {
    let path = state.journal();
    if !path.exists() {
        return Err(VerifyError::Missing(path.display().to_string()));
    }
    let journal = SqliteJournal::open(&path, ClusterId::new(Uuid::nil())).await?;
    let loaded = load(&journal).await?;
    journal.close().await;
    writeln!(std::io::stdout(), "{} events, digest {:?}", loaded.state.position(), loaded.digest)?;
    Ok(())
}
