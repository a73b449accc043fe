//! Copies the event store to the JetStream stream: every event, in order, at the sequence that is its position. Live
//! subscribers receive an event as soon as it is durable, before its copy is stored.
//!
//! Whenever the content of the stream is uncertain (at the start, after an error), and once a second while idle, the
//! relay inspects the stream. Missing events are appended; a changed definition is reset; a foreign or broken stream is
//! rebuilt from the event store. A stream with events that the event store lacks is not changed: it may be the only
//! copy of acknowledged events, and [`Relay::run`] ends with an error.
//!
//! Cancel-safety: [`Relay::run`] may be dropped at any await; the next run determines what was done.

mod age;
mod definition;
mod direct;
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
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID, NATS_SEQUENCE};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use otherix_runtime::Runtime;
use otherix_schemas::cloudevent::{CONTENT_TYPE, EventEnvelope};
use otherix_schemas::decision_chain::{DecisionHead, DecisionSigner, SIGNED_HEAD};
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use otherix_transport::JetStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::store::{Entry, EventStore};
use crate::writer::{Durable, StoredBatch};
pub use definition::{StreamLimits, StreamSettings};
pub use error::RelayError;
use error::{RelayInterruption, Retry};
pub use notes::{NoteError, Notes};
use stream::StreamCondition;
pub use survey::{Difference, StreamMessage, StreamReader, Survey, SurveyError, survey, survey_as_client};

/// Events that may be published without an acknowledgement. Larger windows are not faster (100 to 1,000 were measured
/// alike).
const WINDOW: usize = 256;

/// How long events that live subscribers have received wait for more before they are published to the stream, and how
/// many events end the wait. The nodes' reports on a decision arrive within that time and are published with it, and
/// the server's work on the stream (storing, mirroring, acknowledging) does not slow down the nodes.
const GATHER: Duration = Duration::from_millis(10);
const BURST: usize = 64;

/// Events read from the event store at once.
const PAGE: u32 = 500;

/// Time-out of an acknowledgement.
const ACK: Duration = Duration::from_secs(3);

/// Interval of inspections while nothing is published.
const INSPECT: Duration = Duration::from_secs(1);

/// The stream's account, as in the names of notes.
const CONTROL: &str = "control";

/// The progress of the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The last event that the stream acknowledged.
    pub position: Position,
    /// How many times the stream was found to be a copy of the event store, or made one. Whatever depends on the
    /// stream's identity, such as a mirror, has to be checked when this grows.
    pub settled: u64,
    /// How many times the stream was rebuilt.
    pub rebuilds: u64,
    /// Consecutive publishes that the server accepted and never acknowledged: its store may have failed.
    pub unanswered: u64,
}

/// Copies the event store to the stream.
pub struct Relay<S> {
    store: Arc<S>,
    context: Context,
    stored: mpsc::Receiver<StoredBatch>,
    durable: watch::Receiver<Durable>,
    relayed: watch::Sender<Relayed>,
    connects: watch::Receiver<u64>,
    /// The last event that was sent to live subscribers over the current connection.
    live: Position,
    notes: Notes,
    signer: Arc<DecisionSigner>,
    /// Creation time of the stream that was last found to be a copy.
    created: Option<String>,
    settings: StreamSettings,
    runtime: Arc<dyn Runtime>,
}

/// What the relay needs from other parts.
pub struct Inputs {
    /// What the relay keeps between two starts.
    pub notes: Notes,
    /// The batches that the writer stores.
    pub stored: mpsc::Receiver<StoredBatch>,
    pub durable: watch::Receiver<Durable>,
    /// Signs the heads of the chain of decisions for live subscribers.
    pub signer: Arc<DecisionSigner>,
    pub settings: StreamSettings,
    pub runtime: Arc<dyn Runtime>,
}

/// An event to be published, and its subject on the stream.
type Waiting = (String, Entry);

/// Events that were published together. The server acknowledges the last one only: each event expects the sequence of
/// the one before it, so the last is stored only if all of them are.
struct Burst {
    events: usize,
    last: Position,
    ack: Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>,
}

impl<S: EventStore> Relay<S> {
    /// Returns a relay of what the writer stores.
    pub fn new(store: Arc<S>, nats: &JetStream, inputs: Inputs) -> Self {
        let Inputs { notes, stored, durable, signer, settings, runtime } = inputs;
        let mut context = nats.context();
        context.set_timeout(ACK);
        let (relayed, connects) = (watch::Sender::default(), nats.connects());
        let live = Position::ZERO;
        let created = None;
        Self { store, context, stored, durable, relayed, connects, live, notes, signer, created, settings, runtime }
    }

    /// Returns the progress of the relay.
    pub fn relayed(&self) -> watch::Receiver<Relayed> {
        self.relayed.subscribe()
    }

    /// Waits until the stream could be inspected and has no event that the event store lacks. Before that, no command
    /// may be acknowledged.
    ///
    /// # Errors
    /// If the stream has events that the event store lacks, or the event store cannot be read.
    pub async fn inspect(&self) -> Result<(), RelayError> {
        let mut retry = Retry::new(self.runtime.as_ref());
        loop {
            match stream::compare(&self.context, self.store.as_ref(), &self.notes, self.settings).await {
                Ok(_) => return Ok(()),
                Err(RelayInterruption::Ended(error)) => return Err(error),
                Err(interruption) => retry.wait(&interruption).await,
            }
        }
    }

    /// Copies events until the writer ends.
    ///
    /// # Errors
    /// If the stream has events that the event store lacks, or the event store cannot be read.
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
                    if interruption.is_unanswered() {
                        self.relayed.send_modify(|relayed| relayed.unanswered += 1);
                    }
                    retry.wait(&interruption).await;
                }
            }
        }
    }

    async fn run_until_interrupted(&mut self) -> Result<(), RelayInterruption> {
        // Requests over a lost connection are not answered.
        drop(self.connects.wait_for(|connects| *connects > 0).await);
        if self.connects.has_changed().unwrap_or_default() {
            // Live subscribers may have missed what is not in the stream yet: it was sent before.
            self.live = Position::ZERO;
        }
        self.connects.mark_unchanged();
        let mut connects = self.connects.clone();
        let mut next = tokio::select! {
            biased;
            settled = self.settle() => settled?.next(),
            Ok(()) = connects.changed() => return Err(RelayInterruption::Reconnected),
        };
        let mut pending: VecDeque<Burst> = VecDeque::new();
        // Events that live subscribers have received, to be published to the stream at `due`.
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let mut due = None;
        let mut ended = false;
        let mut inspection = tokio::time::interval_at(Instant::now() + INSPECT, INSPECT);
        inspection.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if ended || waiting.len() >= BURST || due.is_some_and(|due| Instant::now() >= due) {
                let count = waiting.len().min(WINDOW.saturating_sub(published(&pending)));
                pending.extend(publish(&self.context, waiting.drain(..count)).await?);
            }
            let room = published(&pending) + waiting.len() < WINDOW;
            if room && self.durable.borrow().position >= next && self.stored.is_empty() {
                let decisions = self.durable.borrow().decisions;
                let entries = self.read(next).await?;
                next = self.send_live(entries, decisions, &mut waiting).await?.unwrap_or(next);
                due = Some(Instant::now());
                continue;
            }
            if ended && pending.is_empty() && waiting.is_empty() {
                return Ok(());
            }
            due = due.filter(|_| !waiting.is_empty());
            let (idle, sendable) = (pending.is_empty() && waiting.is_empty(), published(&pending) < WINDOW);
            tokio::select! {
                biased;
                (last, ack) = first(&mut pending), if !pending.is_empty() => self.acknowledged(last, ack)?,
                batch = self.stored.recv(), if room && !ended => match batch {
                    Some(StoredBatch { entries, decisions }) => {
                        let entries = self.from(next, entries).await?;
                        next = self.send_live(entries, decisions, &mut waiting).await?.unwrap_or(next);
                        due.get_or_insert_with(|| Instant::now() + GATHER);
                    }
                    None => ended = true,
                },
                Ok(()) = self.connects.changed() => return Err(RelayInterruption::Reconnected),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && sendable => {}
                _ = inspection.tick() => self.check_unchanged(idle).await?,
            }
        }
    }

    /// Returns the part of a stored batch from `next` on. Events missing before it are read from the event store.
    async fn from(&self, next: Position, entries: Vec<Entry>) -> Result<VecDeque<Entry>, RelayInterruption> {
        match entries.first() {
            Some(first) if first.position > next => self.read(next).await,
            Some(_) | None => Ok(entries.into_iter().filter(|entry| entry.position >= next).collect()),
        }
    }

    async fn read(&self, next: Position) -> Result<VecDeque<Entry>, RelayInterruption> {
        let after = Position::new(next.get() - 1);
        let entries = self.store.read(after, PAGE).await.map_err(RelayError::from)?;
        entries.iter().try_for_each(check)?;
        Ok(entries.into())
    }

    /// Sends events to live subscribers, unless they were sent, and queues them for the stream. Returns the position
    /// after them. The decision at the position of `decisions` is sent with that head, signed.
    ///
    /// As both use one connection, live subscribers receive an event before the stream stores it.
    async fn send_live(
        &mut self,
        entries: VecDeque<Entry>,
        decisions: DecisionHead,
        waiting: &mut VecDeque<Waiting>,
    ) -> Result<Option<Position>, RelayInterruption> {
        let client = self.context.client();
        let mut next = None;
        for entry in entries {
            let subject = subject_of(&entry)?;
            if entry.position > self.live {
                let mut headers = headers(&entry);
                headers.insert(NATS_SEQUENCE, entry.position.to_string());
                if entry.position == decisions.position {
                    let signed = serde_json::to_string(&decisions.sign(&self.signer, None));
                    headers.insert(SIGNED_HEAD, signed.map_err(RelayError::Head)?);
                }
                let sent = client.publish_with_headers(subject::live(&subject), headers, entry.body.clone()).await;
                sent.map_err(|error| RelayInterruption::Stream(error.into()))?;
                self.live = entry.position;
            }
            next = Some(entry.position.next());
            waiting.push_back((subject, entry));
        }
        Ok(next)
    }

    fn acknowledged(&self, position: Position, ack: Result<PublishAck, PublishError>) -> Result<(), RelayInterruption> {
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

    /// Checks that no other client has changed the stream. While the relay is idle, no message may have been added
    /// either.
    async fn check_unchanged(&self, idle: bool) -> Result<(), RelayInterruption> {
        let gaps = self.store.gaps().await.map_err(RelayError::from)?;
        let info = stream::info(&self.context).await?.ok_or(RelayInterruption::Changed)?;
        let is_unchanged = self.created.as_deref() == Some(&info.created.to_string())
            && stream::is_as_defined(&info, self.settings.limits)
            && stream::is_whole(&info, &gaps, self.settings.limits)
            && (!idle || info.state.last_sequence == self.relayed.borrow().position.get());
        if !is_unchanged {
            return Err(RelayInterruption::Changed);
        }
        durables::restore(&self.context, &self.notes, CONTROL).await.map_err(RelayInterruption::Durables)
    }

    /// Makes the stream a copy of the first events of the event store. Returns the position of the last of them.
    async fn settle(&mut self) -> Result<Position, RelayInterruption> {
        let (context, store, notes) = (&self.context, self.store.as_ref(), &self.notes);
        // Events that were never in the stream have not been sent to live subscribers over this connection, and are
        // sent then. After a start, all clients reconnect and read the stream.
        let Relayed { position, settled, .. } = *self.relayed.borrow();
        let until = if settled > 0 { position } else { store.head().await.map_err(RelayError::from)? };
        let settings = self.settings;
        let position = match stream::compare(context, store, notes, settings).await? {
            StreamCondition::Copy(position) => position,
            StreamCondition::Filling(position) => {
                stream::fill(context, store, (notes, settings.limits), position..until).await?
            }
            StreamCondition::Foreign { why, differs } => {
                tracing::error!(
                    why,
                    at = differs.map(Position::get),
                    "the stream is not a copy of the journal and is rebuilt"
                );
                self.relayed.send_modify(|relayed| relayed.rebuilds += 1);
                // What the limits would delete is not stored again.
                let oldest = age::before(store, settings.limits.max_age, self.runtime.now().ok()).await;
                let after = oldest.map_err(RelayError::from)?.min(until);
                stream::recreate(context, notes, differs, settings, after).await?;
                stream::fill(context, store, (notes, settings.limits), after..until).await?
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

/// Publishes events to the stream. Returns the burst, unless there are none.
async fn publish(
    context: &Context,
    events: impl ExactSizeIterator<Item = Waiting>,
) -> Result<Option<Burst>, RelayInterruption> {
    let (client, count) = (context.client(), events.len());
    for (number, (subject, entry)) in (1..).zip(events) {
        let last = entry.position;
        let mut headers = headers(&entry);
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (last.get() - 1).to_string());
        if number < count {
            let sent = client.publish_with_headers(subject, headers, entry.body).await;
            sent.map_err(|error| RelayInterruption::Stream(error.into()))?;
        } else {
            let message = PublishMessage::build().payload(entry.body).headers(headers);
            let ack = context.send_publish(subject, message).await.map_err(RelayInterruption::Publish)?;
            return Ok(Some(Burst { events: count, last, ack: ack.into_future() }));
        }
    }
    Ok(None)
}

fn published(pending: &VecDeque<Burst>) -> usize {
    pending.iter().map(|burst| burst.events).sum()
}

/// Waits for the first pending acknowledgement; it stays pending if this is dropped.
async fn first(pending: &mut VecDeque<Burst>) -> (Position, Result<PublishAck, PublishError>) {
    match pending.front_mut() {
        Some(burst) => {
            let done = (burst.last, (&mut burst.ack).await);
            pending.pop_front();
            done
        }
        None => std::future::pending().await,
    }
}

fn headers(entry: &Entry) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, entry.event_id.to_string());
    headers.insert("Content-Type", CONTENT_TYPE);
    headers
}

/// Checks that what the event store returned is an event.
fn check(entry: &Entry) -> Result<(), RelayError> {
    let decoded = EventEnvelope::decode(&entry.body);
    decoded.map(drop).map_err(|source| RelayError::Decode { position: entry.position, source })
}

fn subject_of(entry: &Entry) -> Result<String, RelayError> {
    let subject = subject::stored_event(&entry.type_name, &entry.stream_id);
    subject.map_err(|source| RelayError::Decode { position: entry.position, source: source.into() })
}
