//! `otherixd journal verify`: verifies a journal, even while it is being written to, and compares the stream with it.

use std::io::Write;
use std::time::Duration;

use otherix_commands::relay::{Difference, Survey, survey, survey_as_client};
use otherix_commands::store::{EventStore, Gap, Replayed, check_idempotency_records, replay};
use otherix_transport::{Credentials, JetStream};

use crate::args::VerifyArgs;
use crate::error::BoxError;
use crate::event_store::{self, JournalStore};
use crate::offline::StoppedControlPlane;

/// Time-out for the connection to NATS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The stream is not a copy of the journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the {name} differs from the journal at position {position}: {what}")]
    Differs { name: &'static str, position: u64, what: &'static str },
    #[error("there is no stream to compare with")]
    Missing,
    #[error("--nats needs --credentials, or --stream while the control plane is stopped")]
    NoCredentials,
}

/// Verifies every event, prints their number, and compares the stream if requested.
pub(crate) async fn verify(args: &VerifyArgs) -> Result<(), BoxError> {
    if args.stream {
        let control_plane = StoppedControlPlane::open(&args.offline, false).await?;
        let compared = compare_all(&control_plane).await;
        control_plane.close().await;
        return compared;
    }
    // Connect before reading the journal, which then has every event that the stream has.
    let connection = match (args.offline.own.settings(&args.offline.state)?, &args.credentials) {
        (Some(own), Some(credentials)) => {
            let endpoint = own.endpoint_of(&Credentials::load(credentials)?);
            Some(JetStream::once(&endpoint, "otherixd journal verify", CONNECT_TIMEOUT).await?)
        }
        (Some(_), None) => return Err(StreamError::NoCredentials.into()),
        (None, _) => None,
    };
    let journal = event_store::open_read_only(&args.offline.state).await?;
    check(&journal).await?;
    if let Some(connection) = connection {
        report("stream", &survey_as_client(connection.client(), &journal).await?)?;
    }
    journal.close().await;
    Ok(())
}

async fn compare_all(control_plane: &StoppedControlPlane) -> Result<(), BoxError> {
    check(&control_plane.journal).await?;
    if control_plane.streams.is_empty() {
        return Err(StreamError::Missing.into());
    }
    for (name, context) in &control_plane.streams {
        report(name, &survey(context, &control_plane.journal).await?)?;
    }
    Ok(())
}

async fn check(journal: &JournalStore) -> Result<(), BoxError> {
    journal.check().await?;
    let Replayed { state, digest, decisions: _, epoch } = replay(journal).await?;
    let position = state.position();
    check_idempotency_records(journal, position).await?;
    let gaps = journal.gaps().await?;
    let skipped: u64 = gaps.iter().filter(|gap| gap.next <= position).map(Gap::positions).sum();
    let events = position.get() - skipped;
    writeln!(std::io::stdout(), "{events} events up to position {position}, epoch {epoch}, digest {digest:?}")?;
    Ok(())
}

fn report(name: &'static str, survey: &Survey) -> Result<(), BoxError> {
    if let Some(Difference { position, what }) = survey.differs {
        return Err(StreamError::Differs { name, position: position.get(), what }.into());
    }
    match survey.first {
        None => writeln!(std::io::stdout(), "the {name} is identical up to position {}", survey.last)?,
        // It has limits.
        Some(first) if first > survey.last => {
            writeln!(std::io::stdout(), "the {name} has deleted all events up to position {}", survey.last)?;
        }
        Some(first) => {
            writeln!(std::io::stdout(), "the {name} is identical from position {first} to {}", survey.last)?;
        }
    }
    Ok(())
}
