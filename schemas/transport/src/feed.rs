//! The events in order, each once, none left out, from wherever the follower stands.
//!
//! Events come live, as they become durable; what the live feed lacks (before it began, or
//! lost on the way) is read from the stream. A follower of decisions sees a gap by the position of
//! the decision before, which each event names; a follower of everything by the position itself.
//!
//! It never skips: an event that cannot be read is an error, again at each call.
//!
//! A feed that is [`Feed::anchored`] begins each read of the stream with the last event that was given, and so notices that the
//! stream has another history now. While the stream does not reach that far, it waits.
//!
//! Cancel-safety: [`Feed::next`] may be dropped at any await; what was received stays in the feed.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::{Message, Subscriber, jetstream};
use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::StreamExt;
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::event::Event;
use otherix_schemas::id::EventId;
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use tokio::sync::watch;

use crate::connection::Connection;

/// How long a read of the stream may stay silent before it is begun again.
const SILENCE: Duration = Duration::from_secs(2);

/// Pause after a failure to read the stream.
const RETRY: Duration = Duration::from_millis(50);

/// Pause before a stream that ends too early is looked at again.
const SHORT: Duration = Duration::from_millis(500);

/// Which events to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Decisions only: what a node must do.
    Decisions,
    /// Every event.
    Everything,
}

impl Scope {
    fn filter(self) -> &'static str {
        match self {
            Self::Decisions => subject::DECISIONS,
            Self::Everything => "otherix.>",
        }
    }

    /// The position of the event that comes before this one in the scope.
    fn previous(self, event: &EventEnvelope) -> Position {
        match self {
            Self::Decisions => event.header.decision_prev,
            Self::Everything => {
                // There is nothing between two epochs.
                if let Event::Cluster(ClusterEvent::Restored(restored)) = &event.event {
                    return restored.kept;
                };
                Position::new(event.header.position.get().saturating_sub(1))
            }
        }
    }
}

/// What a feed gives.
#[derive(Clone, Debug)]
pub enum Item {
    /// The next event.
    Event {
        /// The event.
        envelope: Box<EventEnvelope>,
        /// Its bytes, as the stream has them.
        bytes: Bytes,
    },
    /// All that the stream had when it was read has been given.
    Current,
}

/// Why the next event cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The live feed could not be subscribed to.
    #[error("cannot subscribe to the live feed")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// The event after `after` cannot be read; the feed does not go past it.
    #[error("cannot read the event after position {after}")]
    Decode {
        /// The last event that was given.
        after: Position,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The stream itself lacks events: it is being rebuilt, or is not ours.
    #[error("the stream has position {found} right behind {after}")]
    Gap {
        /// The last event that was given.
        after: Position,
        /// The event that the stream has next.
        found: Position,
    },
    /// The stream has another history than the one that was followed.
    #[error("the stream has another event at position {found} where event `{expected}` was at {at}")]
    Diverged {
        /// Where the last event was.
        at: Position,
        /// The last event that was given.
        expected: EventId,
        /// What the stream has there or right behind.
        found: Position,
    },
    /// The connection was closed for good.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// A message, and where it came from.
struct Received {
    message: Message,
    from_stream: bool,
}

/// A follower of events.
pub struct Feed {
    connection: Connection,
    scope: Scope,
    live: Subscriber,
    connects: watch::Receiver<u64>,
    head: watch::Receiver<Position>,
    last: Position,
    /// The event there, if its identity is to be checked.
    anchor: Option<EventId>,
    /// Each event that is given is the next anchor.
    anchored: bool,
    /// The next event from the stream must be the anchor.
    checking: bool,
    /// The furthest position that is known to exist: the stream may lag behind the live feed.
    known: Position,
    ready: VecDeque<Received>,
    reading: Reading,
    /// The stream was read to its end, which has not been told yet.
    current: bool,
}

/// Where the feed reads from.
enum Reading {
    /// The live feed.
    Live,
    /// The stream must be read from behind the last event.
    Behind,
    /// The stream is being read.
    Stream(Box<pull::Ordered>),
}

impl Feed {
    /// Follows from behind `after`. `head` may tell of a position that exists: the feed then reads
    /// the stream if it is behind, so that a lost last message is noticed.
    ///
    /// # Errors
    /// When the live feed cannot be subscribed to.
    pub async fn new(
        connection: Connection,
        scope: Scope,
        after: Position,
        mut head: watch::Receiver<Position>,
    ) -> Result<Self, FeedError> {
        let live = connection.client().subscribe(subject::live(scope.filter())).await.map_err(FeedError::Subscribe)?;
        let connects = connection.connects();
        // Told as it became durable before there was a subscription, it may not be in the stream yet.
        let known = *head.borrow_and_update();
        Ok(Self {
            connection,
            scope,
            live,
            connects,
            head,
            last: after,
            anchor: None,
            anchored: false,
            checking: false,
            known,
            ready: VecDeque::new(),
            reading: Reading::Behind,
            current: false,
        })
    }

    /// Checks each time that the stream is read that the last event is still in it. `last` is the event that this feed
    /// follows from behind, if it is known.
    #[must_use]
    pub fn anchored(self, last: Option<EventId>) -> Self {
        Self { anchor: last, anchored: true, ..self }
    }

    /// The last event that was given.
    pub fn position(&self) -> Position {
        self.last
    }

    /// The next event, or the news that there is none for now.
    ///
    /// # Errors
    /// When the next event cannot be read: the same again until somebody mends it.
    pub async fn next(&mut self) -> Result<Item, FeedError> {
        loop {
            if let Some(item) = self.take_ready()? {
                return Ok(item);
            }
            if std::mem::take(&mut self.current) {
                return Ok(Item::Current);
            }
            match &mut self.reading {
                Reading::Live => self.wait_live().await?,
                Reading::Behind => self.open_stream().await,
                Reading::Stream(messages) => {
                    let next = tokio::time::timeout(SILENCE, messages.next()).await;
                    self.read_stream(next.ok().flatten());
                }
            }
        }
    }

    /// The next live event if it is there already.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub fn try_next(&mut self) -> Result<Option<Item>, FeedError> {
        loop {
            if let Some(item) = self.take_ready()? {
                return Ok(Some(item));
            }
            let waiting = match self.reading {
                Reading::Live => self.live.next().now_or_never().flatten(),
                Reading::Behind | Reading::Stream(_) => None,
            };
            match waiting {
                Some(message) => self.ready.push_back(Received { message, from_stream: false }),
                None => return Ok(None),
            }
        }
    }

    /// The event behind the last one, if it has been received. A gap sends the feed to the stream.
    fn take_ready(&mut self) -> Result<Option<Item>, FeedError> {
        while let Some(Received { message, from_stream }) = self.ready.front() {
            let from_stream = *from_stream;
            let envelope = match EventEnvelope::decode(&message.payload) {
                Ok(envelope) => envelope,
                Err(source) => {
                    self.begin_again();
                    // What the stream has there is what counts.
                    return if from_stream { Err(FeedError::Decode { after: self.last, source }) } else { Ok(None) };
                }
            };
            if from_stream && std::mem::take(&mut self.checking) {
                self.check(&envelope)?;
            }
            if envelope.header.position <= self.last {
                self.ready.pop_front();
                continue;
            }
            if self.scope.previous(&envelope) > self.last {
                // The stream has what is missing, and this event as well.
                let found = envelope.header.position;
                self.known = self.known.max(found);
                self.begin_again();
                return if from_stream { Err(FeedError::Gap { after: self.last, found }) } else { Ok(None) };
            }
            self.last = envelope.header.position;
            self.anchor = self.anchored.then_some(envelope.header.id);
            let bytes = self.ready.pop_front().map(|received| received.message.payload).unwrap_or_default();
            return Ok(Some(Item::Event { envelope: Box::new(envelope), bytes }));
        }
        Ok(None)
    }

    /// What was received is of no use: the stream is to be read from the last event that was given.
    fn begin_again(&mut self) {
        self.ready.clear();
        self.reading = Reading::Behind;
        self.current = false;
    }

    /// Whether the first event of a read is the last that was given.
    fn check(&mut self, first: &EventEnvelope) -> Result<(), FeedError> {
        let found = first.header.position;
        match self.anchor {
            Some(expected) if found != self.last || first.header.id != expected => {
                self.begin_again();
                Err(FeedError::Diverged { at: self.last, expected, found })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for a live event, or for a reason to read the stream.
    async fn wait_live(&mut self) -> Result<(), FeedError> {
        tokio::select! {
            biased;
            message = self.live.next() => match message {
                Some(message) => self.ready.push_back(Received { message, from_stream: false }),
                None => return Err(FeedError::Closed),
            },
            Ok(()) = self.connects.changed() => self.reading = Reading::Behind,
            Ok(()) = self.head.changed() => {
                self.known = self.known.max(*self.head.borrow_and_update());
                if self.known > self.last {
                    self.reading = Reading::Behind;
                }
            }
        }
        Ok(())
    }

    /// Begins to read the stream behind the last event, unless there is nothing to read. On failure
    /// it stays to be done.
    async fn open_stream(&mut self) {
        self.connects.mark_unchanged();
        self.checking = self.anchor.is_some();
        let first = if self.checking { self.last } else { self.last.next() };
        match ordered_consumer(&self.connection, self.scope, first).await {
            Ok(Some(messages)) => self.reading = Reading::Stream(Box::new(messages)),
            // The stream is being filled again, or has lost its end.
            Ok(None) if self.checking => tokio::time::sleep(SHORT).await,
            Ok(None) if self.last >= self.known => self.read_to_the_end(),
            Ok(None) => tokio::time::sleep(RETRY).await,
            Err(error) => {
                tracing::debug!(error = %error, "the stream cannot be read yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Takes in what came from the stream.
    fn read_stream(&mut self, next: Option<Result<jetstream::Message, pull::OrderedError>>) {
        let Some(Ok(message)) = next else {
            // Silent or broken: begin again, behind the last event.
            self.reading = Reading::Behind;
            return;
        };
        let end = message.info().ok().filter(|info| info.pending == 0).map(|info| info.stream_sequence);
        self.ready.push_back(Received { message: message.message.clone(), from_stream: true });
        match end {
            Some(sequence) if sequence >= self.known.get() => self.read_to_the_end(),
            Some(_) => self.reading = Reading::Behind,
            None => {}
        }
    }

    fn read_to_the_end(&mut self) {
        self.reading = Reading::Live;
        self.current = true;
    }
}

/// A consumer of what the stream has from a position on, unless that is nothing.
async fn ordered_consumer(
    connection: &Connection,
    scope: Scope,
    first: Position,
) -> Result<Option<pull::Ordered>, async_nats::Error> {
    let stream = jetstream::new(connection.client().clone()).get_stream_no_info(subject::STREAM).await?;
    let config = pull::OrderedConfig {
        filter_subject: scope.filter().to_owned(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first.get() },
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await?;
    if consumer.cached_info().num_pending == 0 {
        return Ok(None);
    }
    Ok(Some(consumer.messages().await?))
}
