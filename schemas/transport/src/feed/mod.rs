//! The event feed: events in order, each exactly once, without gaps, from any position on.
//!
//! Events arrive live, as soon as they are durable. Those that the live subscription lacks (earlier ones, and lost
//! ones) are read from the stream. A feed of decisions detects a gap by the position of the previous decision, which
//! each event carries; a feed of all events by the position itself.
//!
//! A feed never skips an event: one that cannot be decoded is returned as an error, on every call.
//!
//! A feed does not know whether the events are those of the event store: who must not be deceived, as nodes, verifies
//! them by the signed heads that some live decisions come with ([`otherix_schemas::decision_chain`]).
//!
//! Cancel-safety: [`Feed::next`] may be dropped at any await; what was received stays in the feed.

mod item;
mod source;

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use otherix_runtime::Backoff;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::decision_chain::{SIGNED_HEAD, SignedHead};
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use tokio::sync::watch;
use tokio::time::Instant;

use self::source::FeedSource;
use crate::connection::Connection;
use crate::transport::{Message, Subscription};

pub use item::{FeedError, FeedItem, FeedScope};

/// Delays before the stream is read again after a failure, or because it lacks an event that is known to exist. The
/// first one bounds the latency of an event that was lost on the live subscription.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// A message with an event, and how it was received.
struct Received {
    message: Message,
    from_stream: bool,
}

/// A subscriber to events, in order and without gaps.
pub struct Feed {
    connection: Connection,
    scope: FeedScope,
    live: Subscription,
    connects: watch::Receiver<u64>,
    head: watch::Receiver<Position>,
    /// Position of the last event that was returned.
    last: Position,
    /// The highest position that is known to exist: the stream may lag behind the live events.
    known_head: Position,
    ready: VecDeque<Received>,
    source: FeedSource,
    /// The stream was read to its end, which is yet to be returned as [`FeedItem::Current`].
    current: bool,
    retry: Backoff,
    /// The stream is not read before this time.
    retry_at: Option<Instant>,
}

impl Feed {
    /// Follows the events after position `after`. `head` announces positions that exist: if the feed is behind, it
    /// reads the stream, so that the loss of the last live message is detected.
    ///
    /// # Errors
    /// [`FeedError::Subscribe`].
    pub async fn new(
        connection: Connection,
        scope: FeedScope,
        after: Position,
        mut head: watch::Receiver<Position>,
    ) -> Result<Self, FeedError> {
        let live = connection.subscribe(subject::live(scope.subject())).await.map_err(FeedError::Subscribe)?;
        let connects = connection.connects();
        // An event that was announced before the subscription existed may not be in the stream yet.
        let known_head = *head.borrow_and_update();
        let retry = Backoff::new(RETRY_MIN, RETRY_MAX, connection.runtime().as_ref());
        Ok(Self {
            connection,
            scope,
            live,
            connects,
            head,
            last: after,
            known_head,
            ready: VecDeque::new(),
            source: FeedSource::Behind,
            current: false,
            retry,
            retry_at: None,
        })
    }

    /// Returns the position of the last event that was returned.
    pub fn position(&self) -> Position {
        self.last
    }

    /// Waits for the next event, or for the end of what the stream has.
    ///
    /// # Errors
    /// [`FeedError`], until its cause is removed.
    pub async fn next(&mut self) -> Result<FeedItem, FeedError> {
        loop {
            if let Some(item) = self.take_ready()? {
                return Ok(item);
            }
            if mem::take(&mut self.current) {
                return Ok(FeedItem::Current);
            }
            match &self.source {
                FeedSource::Live => self.wait_live().await?,
                FeedSource::Behind => self.open_stream().await,
                FeedSource::Stream(_) => self.read_stream().await,
            }
        }
    }

    /// Returns the next live event if it has arrived.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub fn try_next(&mut self) -> Result<Option<FeedItem>, FeedError> {
        loop {
            if let Some(item) = self.take_ready()? {
                return Ok(Some(item));
            }
            let arrived = match self.source {
                FeedSource::Live => self.live.try_next(),
                FeedSource::Behind | FeedSource::Stream(_) => None,
            };
            match arrived {
                Some(message) => self.ready.push_back(Received { message, from_stream: false }),
                None => return Ok(None),
            }
        }
    }

    /// Returns the event after the last one, if it has been received. At a gap the stream is read.
    fn take_ready(&mut self) -> Result<Option<FeedItem>, FeedError> {
        while let Some(Received { message, from_stream }) = self.ready.front() {
            let from_stream = *from_stream;
            let envelope = match EventEnvelope::decode(&message.payload) {
                Ok(envelope) => envelope,
                Err(source) if from_stream => {
                    self.discard_received();
                    return Err(FeedError::Decode { after: self.last, source });
                }
                Err(_) => {
                    // Only the stored event is authoritative. If this was one, the next event or a heartbeat shows
                    // that it is missing.
                    self.ready.pop_front();
                    continue;
                }
            };
            if envelope.header.position <= self.last {
                self.ready.pop_front();
                continue;
            }
            if self.scope.previous(&envelope) > self.last {
                // The stream has the missing events, and this one as well.
                let found = envelope.header.position;
                self.known_head = self.known_head.max(found);
                self.discard_received();
                return if from_stream { Err(FeedError::Gap { after: self.last, found }) } else { Ok(None) };
            }
            self.last = envelope.header.position;
            // One that is malformed counts as none: whoever needs it asks the control plane.
            let signed =
                message.headers.get(SIGNED_HEAD).and_then(|text| serde_json::from_str::<SignedHead>(text).ok());
            let bytes = self.ready.pop_front().map(|received| received.message.payload).unwrap_or_default();
            return Ok(Some(FeedItem::Event {
                envelope: Box::new(envelope),
                bytes,
                signed_head: signed.map(Box::new),
            }));
        }
        Ok(None)
    }

    /// Discards received messages, so that the stream is read from the last event that was returned.
    fn discard_received(&mut self) {
        self.ready.clear();
        self.source = FeedSource::Behind;
        self.current = false;
    }

    /// Waits for a live event, or for a reason to read the stream.
    async fn wait_live(&mut self) -> Result<(), FeedError> {
        tokio::select! {
            biased;
            message = self.live.next() => match message {
                Some(message) => self.ready.push_back(Received { message, from_stream: false }),
                None => return Err(FeedError::Closed),
            },
            Ok(()) = self.connects.changed() => self.source = FeedSource::Behind,
            Ok(()) = self.head.changed() => {
                self.known_head = self.known_head.max(*self.head.borrow_and_update());
                if self.known_head > self.last {
                    self.source = FeedSource::Behind;
                }
            }
        }
        Ok(())
    }
}
