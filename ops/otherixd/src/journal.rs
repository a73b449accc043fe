//! `otherixd journal verify`: checks a journal, also one that is being written to, and compares the stream with it.

use std::io::Write;
use std::time::Duration;

use otherix_commands::journal::{Gap, Journal, Loaded, SqliteJournal, check_handled, load};
use otherix_commands::relay::{Difference, Survey, survey};
use otherix_transport::{Credentials, Nats, NatsEndpoint};

use crate::args::VerifyArgs;
use crate::at_rest::AtRest;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long the server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The stream and the journal are not the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// They differ.
    #[error("the {name} is not the journal's copy: at position {position}, {what}")]
    Differs {
        /// Which stream.
        name: &'static str,
        /// Where.
        position: u64,
        /// What is there.
        what: &'static str,
    },
    /// There is none.
    #[error("there is no stream to compare with")]
    Missing,
}

/// Reads and checks every event, says how many there are, and compares the stream if that is asked for.
pub(crate) async fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    if args.stream {
        let control_plane = AtRest::take(&args.at_rest, false).await?;
        let compared = compare_all(&control_plane).await;
        control_plane.release().await;
        return compared;
    }
    // Before the journal: it has everything that the stream has by then.
    let asked = match (&args.nats, &args.credentials) {
        (Some(url), Some(credentials)) => {
            let endpoint = NatsEndpoint { url: url.clone(), credentials: Credentials::load(credentials)? };
            Some(Nats::once(&endpoint, "otherixd journal verify", CONNECT).await?)
        }
        _ => None,
    };
    let journal = SqliteJournal::open_to_read(&args.at_rest.state.journal()).await?;
    check(&journal).await?;
    if let Some(connection) = asked {
        let context = connection.jetstream();
        tell("stream", &survey(&context, &journal).await?)?;
    }
    journal.close().await;
    Ok(())
}

async fn compare_all(control_plane: &AtRest) -> Result<(), Failure> {
    check(&control_plane.journal).await?;
    if control_plane.streams.is_empty() {
        return Err(StreamError::Missing.into());
    }
    for (name, context) in &control_plane.streams {
        tell(name, &survey(context, &control_plane.journal).await?)?;
    }
    Ok(())
}

async fn check(journal: &SqliteJournal) -> Result<(), Failure> {
    journal.check_file().await?;
    let Loaded { state, digest, epoch } = load(journal).await?;
    let position = state.position();
    check_handled(journal, position).await?;
    let gaps = journal.gaps().await?;
    let left_out: u64 = gaps.iter().filter(|gap| gap.next <= position).map(Gap::positions).sum();
    let events = position.get() - left_out;
    writeln!(std::io::stdout(), "{events} events up to position {position}, epoch {epoch}, digest {digest:?}")?;
    Ok(())
}

fn tell(name: &'static str, survey: &Survey) -> Result<(), Failure> {
    if let Some(Difference { position, what }) = survey.differs {
        return Err(StreamError::Differs { name, position: position.get(), what }.into());
    }
    writeln!(std::io::stdout(), "the {name} has the same bytes up to position {}", survey.last)?;
    Ok(())
}
