//! Carries the journal to the stream: every event, in order, at the sequence that is its position. And tells whoever follows
//! live, at once: what is durable need not wait for its copy.
//!
//! Whenever it is not certain what the stream holds (at the start, after an error) and once a second while nothing is to be
//! carried, the stream is looked at. A shorter one is appended to; one whose limits were changed is put right; a foreign or
//! broken one is made anew from the journal. One that has events of ours which the journal lacks is left alone: it may be
//! the only copy of acknowledged events, and [`Relay::run`] ends with an error.
//!
//! Cancel-safety: [`Relay::run`] may be dropped at any await; the next run finds out what was done.

mod definition;
pub mod durables;
mod error;
mod notes;
mod stream;
mod survey;

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_MESSAGE_ID, NATS_SEQUENCE};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use otherix_runtime::Runtime;
use otherix_schemas::cloudevent::{CONTENT_TYPE, EventEnvelope};
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use otherix_transport::Nats;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::store::{Entry, EventStore};
use crate::writer::Durable;
pub use error::RelayError;
use error::{RelayInterruption, Retry};
pub use notes::{NoteError, Notes};
use stream::Verdict;
pub use survey::{Difference, StreamMessage, StreamReader, Survey, SurveyError, survey};

/// Publishes that may wait for their acknowledgement: more bring no more (100 to 1,000 were measured alike).
const WINDOW: usize = 256;

/// How long events that followers were told of wait for more before the stream gets them, unless they are so many. What the nodes make
/// of a decision comes within that time, and goes with it; and the server's work on the stream (to store, to mirror, to acknowledge) does
/// not hold up the nodes' own.
const GATHER: Duration = Duration::from_millis(10);
const BURST: usize = 64;

/// Events read from the journal at once.
const PAGE: u32 = 500;

/// How long an acknowledgement may take.
const ACK: Duration = Duration::from_secs(3);

/// How often the stream is looked at while nothing is carried.
const LOOK: Duration = Duration::from_secs(1);

/// The account of the stream, as notes name it.
const CONTROL: &str = "control";

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
    /// Publishes in a row that the server took and never acknowledged: its store may have failed for good.
    pub unanswered: u64,
}

/// Carries the journal to the stream.
pub struct Relay<S> {
    store: Arc<S>,
    context: Context,
    stored: mpsc::Receiver<Vec<Entry>>,
    durable: watch::Receiver<Durable>,
    relayed: watch::Sender<Relayed>,
    connects: watch::Receiver<u64>,
    /// The last event that followers were told of over the present connection.
    live: Position,
    notes: Notes,
    /// When the stream was created that was last found to be a copy.
    created: Option<String>,
    runtime: Arc<dyn Runtime>,
}

/// What the relay needs from other parts.
pub struct Inputs {
    /// Where it keeps what it must remember.
    pub notes: Notes,
    /// The batches that the writer stores.
    pub stored: mpsc::Receiver<Vec<Entry>>,
    pub durable: watch::Receiver<Durable>,
    pub runtime: Arc<dyn Runtime>,
}

/// An event that the stream is to be sent, and its subject there.
type Waiting = (String, Entry);

/// An acknowledgement that is awaited, and the position it is for.
type Pending = (Position, Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>);

impl<S: EventStore> Relay<S> {
    /// Returns a relay of what the writer stores.
    pub fn new(store: Arc<S>, nats: &Nats, inputs: Inputs) -> Self {
        let Inputs { notes, stored, durable, runtime } = inputs;
        let mut context = nats.jetstream();
        context.set_timeout(ACK);
        let (relayed, connects) = (watch::Sender::default(), nats.connects());
        let live = Position::ZERO;
        Self { store, context, stored, durable, relayed, connects, live, notes, created: None, runtime }
    }

    /// How far the stream is.
    pub fn relayed(&self) -> watch::Receiver<Relayed> {
        self.relayed.subscribe()
    }

    /// Waits until it is known that the stream lacks nothing but what can be carried to it; before that, nothing new may be
    /// acknowledged.
    ///
    /// # Errors
    /// When the stream has events that the journal lacks, or the journal cannot be read.
    pub async fn inspect(&self) -> Result<(), RelayError> {
        let mut retry = Retry::new(self.runtime.as_ref());
        loop {
            match stream::compare(&self.context, self.store.as_ref(), &self.notes).await {
                Ok(_) => return Ok(()),
                Err(RelayInterruption::Ended(error)) => return Err(error),
                Err(interruption) => retry.wait(&interruption).await,
            }
        }
    }

    /// Carries until the writer ends.
    ///
    /// # Errors
    /// When the stream has events that the journal lacks, or the journal cannot be read.
    pub async fn run(mut self) -> Result<(), RelayError> {
        let mut retry = Retry::new(self.runtime.as_ref());
        loop {
            let before = *self.relayed.borrow();
            match self.run_until_interrupted().await {
                Ok(()) => return Ok(()),
                Err(RelayInterruption::Ended(error)) => return Err(error),
                Err(interruption) => {
                    if self.relayed.borrow().position > before.position {
                        retry.reset();
                    }
                    if interruption.is_timeout() {
                        self.relayed.send_modify(|relayed| relayed.unanswered += 1);
                    }
                    retry.wait(&interruption).await;
                }
            }
        }
    }

    async fn run_until_interrupted(&mut self) -> Result<(), RelayInterruption> {
        // What was asked over a connection that is lost is not answered any more.
        drop(self.connects.wait_for(|connects| *connects > 0).await);
        if self.connects.has_changed().unwrap_or_default() {
            // Nor was it heard, unless the stream has it: that came behind.
            self.live = Position::ZERO;
        }
        self.connects.mark_unchanged();
        let mut connects = self.connects.clone();
        let mut next = tokio::select! {
            biased;
            settled = self.settle() => settled?.next(),
            Ok(()) = connects.changed() => return Err(RelayInterruption::Reconnected),
        };
        let mut pending: VecDeque<Pending> = VecDeque::new();
        // What followers were told of and the stream has not been sent yet; it is sent at `due`.
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let mut due = None;
        let mut ended = false;
        let mut look = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if ended || waiting.len() >= BURST || due.is_some_and(|due| Instant::now() >= due) {
                while pending.len() < WINDOW
                    && let Some(waiting) = waiting.pop_front()
                {
                    pending.push_back(self.publish(waiting).await?);
                }
            }
            let room = pending.len() + waiting.len() < WINDOW;
            if room && self.durable.borrow().position >= next && self.stored.is_empty() {
                let batch = self.read(next).await?;
                next = self.tell(batch, &mut waiting).await?.unwrap_or(next);
                due = Some(Instant::now());
                continue;
            }
            if ended && pending.is_empty() && waiting.is_empty() {
                return Ok(());
            }
            due = due.filter(|_| !waiting.is_empty());
            let (idle, sendable) = (pending.is_empty() && waiting.is_empty(), pending.len() < WINDOW);
            tokio::select! {
                biased;
                ack = first(&mut pending), if !pending.is_empty() => self.acknowledged(ack)?,
                batch = self.stored.recv(), if room && !ended => match batch {
                    Some(batch) => {
                        let batch = self.from(next, batch).await?;
                        next = self.tell(batch, &mut waiting).await?.unwrap_or(next);
                        due.get_or_insert_with(|| Instant::now() + GATHER);
                    }
                    None => ended = true,
                },
                Ok(()) = self.connects.changed() => return Err(RelayInterruption::Reconnected),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && sendable => {}
                _ = look.tick() => self.look(idle).await?,
            }
        }
    }

    /// The part of a stored batch from `next` on; if something is missing before it, the journal has it.
    async fn from(&self, next: Position, batch: Vec<Entry>) -> Result<VecDeque<Entry>, RelayInterruption> {
        match batch.first() {
            Some(first) if first.position > next => self.read(next).await,
            Some(_) | None => Ok(batch.into_iter().filter(|entry| entry.position >= next).collect()),
        }
    }

    async fn read(&self, next: Position) -> Result<VecDeque<Entry>, RelayInterruption> {
        let after = Position::new(next.get() - 1);
        Ok(self.store.read(after, PAGE).await.map_err(RelayError::from)?.into())
    }

    /// Tells followers of events, unless they were told, and adds these to what waits for the stream. Gives the position behind them.
    ///
    /// On one connection the server passes them on before it stores them: followers have been told of all that the stream has.
    async fn tell(
        &mut self,
        entries: VecDeque<Entry>,
        waiting: &mut VecDeque<Waiting>,
    ) -> Result<Option<Position>, RelayInterruption> {
        let client = self.context.client();
        let mut next = None;
        for entry in entries {
            let subject = subject_of(&entry)?;
            if entry.position > self.live {
                let mut headers = headers(&entry);
                headers.insert(NATS_SEQUENCE, entry.position.to_string());
                let told = client.publish_with_headers(subject::live(&subject), headers, entry.body.clone()).await;
                told.map_err(|error| RelayInterruption::Stream(error.into()))?;
                self.live = entry.position;
            }
            next = Some(entry.position.next());
            waiting.push_back((subject, entry));
        }
        Ok(next)
    }

    async fn publish(&self, (subject, entry): Waiting) -> Result<Pending, RelayInterruption> {
        let position = entry.position;
        let message = message(&entry).expected_last_sequence(position.get() - 1);
        let ack: PublishAckFuture =
            self.context.send_publish(subject, message).await.map_err(RelayInterruption::Publish)?;
        Ok((position, ack.into_future()))
    }

    fn acknowledged(
        &self,
        (position, ack): (Position, Result<PublishAck, PublishError>),
    ) -> Result<(), RelayInterruption> {
        let ack = ack.map_err(RelayInterruption::Publish)?;
        if ack.sequence != position.get() {
            return Err(RelayInterruption::Sequence { expected: position, found: ack.sequence });
        }
        self.relayed.send_modify(|relayed| {
            relayed.position = position;
            relayed.unanswered = 0;
        });
        Ok(())
    }

    /// Looks whether somebody has changed the stream. While nothing is under way, nothing may have come into it either.
    async fn look(&self, idle: bool) -> Result<(), RelayInterruption> {
        let gaps = self.store.gaps().await.map_err(RelayError::from)?;
        let info = stream::info(&self.context).await?.ok_or(RelayInterruption::Changed)?;
        let as_left = self.created.as_deref() == Some(&info.created.to_string())
            && stream::is_as_defined(&info)
            && stream::is_whole(&info, &gaps)
            && (!idle || info.state.last_sequence == self.relayed.borrow().position.get());
        if !as_left {
            return Err(RelayInterruption::Changed);
        }
        durables::restore(&self.context, &self.notes, CONTROL).await.map_err(RelayInterruption::Durables)
    }

    /// Makes the stream a copy of the journal's beginning. Gives the position up to which it is one.
    async fn settle(&mut self) -> Result<Position, RelayInterruption> {
        let (context, journal, notes) = (&self.context, self.store.as_ref(), &self.notes);
        // What was never in the stream has not been heard, and is published. After a start everybody connects anew, and looks.
        let Relayed { position, settled, .. } = *self.relayed.borrow();
        let until = if settled > 0 { position } else { journal.head().await.map_err(RelayError::from)? };
        let position = match stream::compare(context, journal, notes).await? {
            Verdict::Copy(position) => position,
            Verdict::Filling(position) => stream::fill(context, journal, notes, position..until).await?,
            Verdict::Foreign { why, differs } => {
                tracing::error!(
                    why,
                    at = differs.map(Position::get),
                    "the stream is not a copy of the journal, and is made anew"
                );
                self.relayed.send_modify(|relayed| relayed.rebuilds += 1);
                stream::recreate(context, notes, differs).await?;
                stream::fill(context, journal, notes, Position::ZERO..until).await?
            }
        };
        durables::restore(context, notes, CONTROL).await.map_err(RelayInterruption::Durables)?;
        let info = stream::info(context).await?.ok_or(RelayInterruption::Changed)?;
        let created = info.created.to_string();
        self.notes.set_verified(&created);
        self.created = Some(created);
        self.relayed.send_modify(|relayed| {
            relayed.position = position;
            relayed.settled += 1;
            if position >= self.durable.borrow().position {
                relayed.unanswered = 0;
            }
        });
        Ok(position)
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
fn message(entry: &Entry) -> PublishMessage {
    PublishMessage::build().payload(entry.body.clone()).headers(headers(entry))
}

fn headers(entry: &Entry) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, entry.event_id.to_string());
    headers.insert("Content-Type", CONTENT_TYPE);
    headers
}

fn subject_of(entry: &Entry) -> Result<String, RelayError> {
    let position = entry.position;
    let envelope = EventEnvelope::decode(&entry.body).map_err(|source| RelayError::Decode { position, source })?;
    Ok(subject::event(&envelope.event))
}
