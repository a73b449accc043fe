//! The event feed: events in order, each exactly once, without gaps, from any position on.
//!
//! Events arrive live, as soon as they are durable. Those that the live subscription lacks (from before it began, or lost on
//! the way) are read from the stream. A feed of decisions detects a gap by the position of the previous decision, which each
//! event carries; a feed of all events by the position itself.
//!
//! A feed never skips an event: one that cannot be decoded is returned as an error, on every call.
//!
//! An anchored feed ([`Feed::anchored`]) begins each read of the stream with the event that it returned last, and so detects
//! that the stream's history has changed. While the stream does not reach that far, the feed waits.
//!
//! Cancel-safety: [`Feed::next`] may be dropped at any await; what was received stays in the feed.

mod item;
mod reading;

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use otherix_runtime::Backoff;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::EventId;
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use tokio::sync::watch;
use tokio::time::Instant;

use self::reading::Reading;
use crate::connection::Connection;
use crate::transport::Subscription;

pub use item::{FeedError, Item, Scope};

/// Delays before the stream is read again after a failure, or because it lacks an event that is known to exist. The first one
/// bounds the latency of an event that was lost on the live subscription.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Delays before a stream that is shorter than what the feed has returned is read again: it is being rebuilt.
const SHORT_MIN: Duration = Duration::from_millis(500);
const SHORT_MAX: Duration = Duration::from_secs(1);

/// The payload of a message, and how it was received.
struct Received {
    payload: Bytes,
    from_stream: bool,
}

/// Follows events.
pub struct Feed {
    connection: Connection,
    scope: Scope,
    live: Subscription,
    connects: watch::Receiver<u64>,
    head: watch::Receiver<Position>,
    /// Position of the last event that was returned.
    last: Position,
    /// Id of the event at `last`, if it is to be verified.
    anchor: Option<EventId>,
    /// Each event that is returned becomes the next anchor.
    anchored: bool,
    /// The next event from the stream must be the anchor.
    verifying: bool,
    /// The highest position that is known to exist: the stream may lag behind the live events.
    known: Position,
    ready: VecDeque<Received>,
    reading: Reading,
    /// The stream was read to its end, which is yet to be returned as [`Item::Current`].
    current: bool,
    retry: Backoff,
    short: Backoff,
    /// The stream is not read before this time.
    retry_at: Option<Instant>,
}

impl Feed {
    /// Follows the events after position `after`. `head` may announce positions that exist: the feed then reads the stream if
    /// it is behind, so that the loss of the last live message is detected.
    ///
    /// # Errors
    /// [`FeedError::Subscribe`].
    pub async fn new(
        connection: Connection,
        scope: Scope,
        after: Position,
        mut head: watch::Receiver<Position>,
    ) -> Result<Self, FeedError> {
        let live = connection.subscribe(subject::live(scope.subject())).await.map_err(FeedError::Subscribe)?;
        let connects = connection.connects();
        // An event that was announced before the subscription existed may not be in the stream yet.
        let known = *head.borrow_and_update();
        let retry = Backoff::new(RETRY_MIN, RETRY_MAX, connection.runtime().as_ref());
        let short = Backoff::new(SHORT_MIN, SHORT_MAX, connection.runtime().as_ref());
        Ok(Self {
            connection,
            scope,
            live,
            connects,
            head,
            last: after,
            anchor: None,
            anchored: false,
            verifying: false,
            known,
            ready: VecDeque::new(),
            reading: Reading::Behind,
            current: false,
            retry,
            short,
            retry_at: None,
        })
    }

    /// Verifies at each read of the stream that the last event that was returned is still in it. `last` is the event at the
    /// position that this feed follows from, if it is known.
    #[must_use]
    pub fn anchored(self, last: Option<EventId>) -> Self {
        Self { anchor: last, anchored: true, ..self }
    }

    /// Returns the position of the last event that was returned.
    pub fn position(&self) -> Position {
        self.last
    }

    /// Waits for the next event, or for the end of what the stream has.
    ///
    /// # Errors
    /// [`FeedError`], until its cause is removed.
    pub async fn next(&mut self) -> Result<Item, FeedError> {
        loop {
            if let Some(item) = self.take_ready()? {
                return Ok(item);
            }
            if mem::take(&mut self.current) {
                return Ok(Item::Current);
            }
            match &self.reading {
                Reading::Live => self.wait_live().await?,
                Reading::Behind => self.open_stream().await,
                Reading::Stream(_) => self.read_stream().await,
            }
        }
    }

    /// Returns the next live event if it has arrived.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub fn try_next(&mut self) -> Result<Option<Item>, FeedError> {
        loop {
            if let Some(item) = self.take_ready()? {
                return Ok(Some(item));
            }
            let arrived = match self.reading {
                Reading::Live => self.live.try_next(),
                Reading::Behind | Reading::Stream(_) => None,
            };
            match arrived {
                Some(message) => self.ready.push_back(Received { payload: message.payload, from_stream: false }),
                None => return Ok(None),
            }
        }
    }

    /// Returns the event after the last one, if it has been received. At a gap the stream is read.
    fn take_ready(&mut self) -> Result<Option<Item>, FeedError> {
        while let Some(Received { payload, from_stream }) = self.ready.front() {
            let from_stream = *from_stream;
            let envelope = match EventEnvelope::decode(payload) {
                Ok(envelope) => envelope,
                Err(source) => {
                    self.discard_received();
                    // A live message may be anyone's; only the stream's copy counts.
                    return if from_stream { Err(FeedError::Decode { after: self.last, source }) } else { Ok(None) };
                }
            };
            if from_stream && mem::take(&mut self.verifying) {
                self.verify(&envelope)?;
            }
            if envelope.header.position <= self.last {
                self.ready.pop_front();
                continue;
            }
            if self.scope.previous(&envelope) > self.last {
                // The stream has the missing events, and this one as well.
                let found = envelope.header.position;
                self.known = self.known.max(found);
                self.discard_received();
                return if from_stream { Err(FeedError::Gap { after: self.last, found }) } else { Ok(None) };
            }
            self.last = envelope.header.position;
            self.anchor = self.anchored.then_some(envelope.header.id);
            let bytes = self.ready.pop_front().map(|received| received.payload).unwrap_or_default();
            return Ok(Some(Item::Event { envelope: Box::new(envelope), bytes }));
        }
        Ok(None)
    }

    /// Discards what was received and has the stream read from the last event that was returned.
    fn discard_received(&mut self) {
        self.ready.clear();
        self.reading = Reading::Behind;
        self.current = false;
    }

    /// Checks that the first event of a read is the last one that was returned.
    fn verify(&mut self, first: &EventEnvelope) -> Result<(), FeedError> {
        let found = first.header.position;
        match self.anchor {
            Some(expected) if found != self.last || first.header.id != expected => {
                self.discard_received();
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
                Some(message) => self.ready.push_back(Received { payload: message.payload, from_stream: false }),
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
}
