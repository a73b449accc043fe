//! Carries the journal to the stream: every event, in order, at the sequence that is its position.
//!
//! Whenever it is not certain what the stream holds (at the start, after an error) the stream's last
//! message is compared with the journal. A shorter stream is appended to, another's or a broken one
//! is made anew from the journal, one that is ahead of the journal is left alone: it may be the only
//! copy of acknowledged events, and [`Relay::run`] ends with an error.
//!
//! Cancel-safety: [`Relay::run`] may be dropped at any await; the next run finds out what was done.

mod stream;

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, Context};
use otherix_schemas::cloudevent::{CONTENT_TYPE, DecodeError, Recorded};
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use otherix_transport::Connection;
use tokio::sync::{mpsc, watch};

use crate::journal::{Entry, Journal, JournalError};
use crate::writer::Durable;
use stream::Verdict;

/// Publishes that may wait for their acknowledgement: more bring no more (100 to 1,000 were measured alike).
const WINDOW: usize = 256;

/// Events read from the journal at once.
const PAGE: u32 = 500;

/// How long an acknowledgement may take.
const ACK: Duration = Duration::from_secs(5);

/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(100);

/// Why the relay ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The stream has events that the journal lacks.
    #[error(
        "the stream is at sequence {stream}, ahead of the journal at position {journal}: the journal was restored from an older backup"
    )]
    Ahead {
        /// Where the stream is.
        stream: Position,
        /// Where the journal is.
        journal: Position,
    },
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] JournalError),
    /// An event of the journal cannot be read.
    #[error("the journal's event at position {position} cannot be read")]
    Decode {
        /// Where.
        position: Position,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

/// What is not known any more, and must be looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Doubt {
    #[error("a publish was not acknowledged")]
    Publish(#[source] PublishError),
    #[error("an event went to sequence {found} instead of {expected}")]
    Sequence { expected: Position, found: u64 },
    #[error("the stream cannot be looked at")]
    Stream(#[source] async_nats::Error),
    #[error("the connection was lost, and acknowledgements with it")]
    Reconnected,
    #[error("the stream was made anew: {0}")]
    Rebuilt(&'static str),
    #[error(transparent)]
    Ended(#[from] RelayError),
}

/// How far the stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The last event that the stream acknowledged.
    pub position: Position,
    /// How often the stream was looked at and found to be the journal's copy. Whatever depends on which stream it is, a
    /// mirror say, looks again when this grows.
    pub settled: u64,
    /// How often the stream was made anew.
    pub rebuilds: u64,
}

/// Carries the journal to the stream.
pub struct Relay<J> {
    journal: Arc<J>,
    context: Context,
    stored: mpsc::Receiver<Vec<Entry>>,
    durable: watch::Receiver<Durable>,
    relayed: watch::Sender<Relayed>,
    connects: watch::Receiver<u64>,
}

/// An acknowledgement that is awaited, and the position it is for.
type Pending = (Position, Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>);

impl<J: Journal> Relay<J> {
    /// A relay of what the writer stores.
    pub fn new(
        journal: Arc<J>,
        connection: &Connection,
        stored: mpsc::Receiver<Vec<Entry>>,
        durable: watch::Receiver<Durable>,
    ) -> Self {
        let mut context = jetstream::new(connection.client().clone());
        context.set_timeout(ACK);
        Self { journal, context, stored, durable, relayed: watch::Sender::default(), connects: connection.connects() }
    }

    /// How far the stream is.
    pub fn relayed(&self) -> watch::Receiver<Relayed> {
        self.relayed.subscribe()
    }

    /// Carries until the writer ends.
    ///
    /// # Errors
    /// When the stream is ahead of the journal, or the journal cannot be read.
    pub async fn run(mut self) -> Result<(), RelayError> {
        loop {
            match self.run_until_doubt().await {
                Ok(()) => return Ok(()),
                Err(Doubt::Ended(error)) => return Err(error),
                Err(doubt) => {
                    tracing::warn!(doubt = %Causes(&doubt), "looking at the stream again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn run_until_doubt(&mut self) -> Result<(), Doubt> {
        let mut next = self.settle().await?.next();
        self.connects.mark_unchanged();
        let mut pending: VecDeque<Pending> = VecDeque::new();
        let mut entries: VecDeque<Entry> = VecDeque::new();
        let mut ended = false;
        loop {
            while pending.len() < WINDOW
                && let Some(entry) = entries.pop_front()
            {
                pending.push_back(self.publish(&entry).await?);
                next = entry.position.next();
            }
            let room = pending.len() < WINDOW;
            if room && self.durable.borrow().position >= next && self.stored.is_empty() {
                entries = self.read(next).await?;
                continue;
            }
            if ended && pending.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                ack = first(&mut pending), if !pending.is_empty() => self.acknowledged(ack)?,
                batch = self.stored.recv(), if room && !ended => match batch {
                    Some(batch) => entries = self.from(next, batch).await?,
                    None => ended = true,
                },
                Ok(()) = self.connects.changed(), if !pending.is_empty() => return Err(Doubt::Reconnected),
            }
        }
    }

    /// The part of a stored batch from `next` on; if something is missing before it, the journal has it.
    async fn from(&self, next: Position, batch: Vec<Entry>) -> Result<VecDeque<Entry>, Doubt> {
        match batch.first() {
            Some(first) if first.position > next => self.read(next).await,
            Some(_) | None => Ok(batch.into_iter().filter(|entry| entry.position >= next).collect()),
        }
    }

    async fn read(&self, next: Position) -> Result<VecDeque<Entry>, Doubt> {
        let after = Position::new(next.get() - 1);
        Ok(self.journal.read(after, PAGE).await.map_err(RelayError::from)?.into())
    }

    async fn publish(&self, entry: &Entry) -> Result<Pending, Doubt> {
        let position = entry.position;
        let message = message(entry)?.expected_last_sequence(position.get() - 1);
        let ack: PublishAckFuture =
            self.context.send_publish(subject_of(entry)?, message).await.map_err(Doubt::Publish)?;
        Ok((position, ack.into_future()))
    }

    fn acknowledged(&self, (position, ack): (Position, Result<PublishAck, PublishError>)) -> Result<(), Doubt> {
        let ack = ack.map_err(Doubt::Publish)?;
        if ack.sequence != position.get() {
            return Err(Doubt::Sequence { expected: position, found: ack.sequence });
        }
        self.relayed.send_modify(|relayed| relayed.position = position);
        Ok(())
    }

    /// Makes the stream a copy of the journal's beginning. Gives the position up to which it is one.
    async fn settle(&self) -> Result<Position, Doubt> {
        match stream::compare(&self.context, self.journal.as_ref()).await? {
            Verdict::Copy(position) => {
                stream::ensure_republish(&self.context).await?;
                self.relayed.send_modify(|relayed| {
                    relayed.position = position;
                    relayed.settled += 1;
                });
                Ok(position)
            }
            Verdict::Ahead { stream, journal } => Err(RelayError::Ahead { stream, journal }.into()),
            Verdict::Foreign(why) => {
                tracing::error!(why, "the stream is not a copy of the journal, and is made anew");
                stream::recreate(&self.context, self.journal.as_ref()).await?;
                self.relayed.send_modify(|relayed| relayed.rebuilds += 1);
                Err(Doubt::Rebuilt(why))
            }
        }
    }
}

/// The first of the awaited acknowledgements; it stays awaited if this is dropped.
async fn first(pending: &mut VecDeque<Pending>) -> (Position, Result<PublishAck, PublishError>) {
    match pending.front_mut() {
        Some((position, ack)) => {
            let done = (*position, ack.await);
            pending.pop_front();
            done
        }
        None => std::future::pending().await,
    }
}

/// The message that carries an event: its bytes are the event's.
fn message(entry: &Entry) -> Result<PublishMessage, RelayError> {
    Ok(PublishMessage::build()
        .payload(entry.body.clone())
        .message_id(entry.event_id.to_string())
        .header("Content-Type", CONTENT_TYPE))
}

fn subject_of(entry: &Entry) -> Result<String, RelayError> {
    let position = entry.position;
    let recorded = Recorded::decode(&entry.body).map_err(|source| RelayError::Decode { position, source })?;
    Ok(subject::event(&recorded.event))
}
