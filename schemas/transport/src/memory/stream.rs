//! The event stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream;
use futures::stream::StreamExt;
use otherix_schemas::event::EventRange;
use otherix_schemas::position::Position;
use otherix_schemas::subject::DECISIONS;
use tokio::sync::Notify;

use super::subscribers::matches;
use super::{MemoryNetwork, State};
use crate::transport::{Message, StreamMessage, StreamReader, TransportError};

/// The subjects of all events.
const ALL: &str = "otherix.>";

/// The stream's messages by their sequences.
#[derive(Debug)]
pub(super) struct MemoryStream {
    /// Distinguishes it from its predecessors.
    id: u64,
    messages: BTreeMap<Position, Message>,
    last: Position,
    appended: Arc<Notify>,
}

/// There is no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no event stream")]
pub struct StreamMissing;

/// A message could not be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Missing(#[from] StreamMissing),
    #[error("the last sequence is {last}, not {expected}")]
    WrongLast { last: Position, expected: Position },
}

impl MemoryStream {
    pub(super) fn new(id: u64) -> Self {
        Self { id, messages: BTreeMap::new(), last: Position::ZERO, appended: Arc::new(Notify::new()) }
    }

    pub(super) fn last(&self) -> Position {
        self.last
    }

    pub(super) fn append(&mut self, message: Message, expected: Position) -> Result<Position, AppendError> {
        if self.last != expected {
            return Err(AppendError::WrongLast { last: self.last, expected });
        }
        self.last = expected.next();
        self.messages.insert(self.last, message);
        self.appended.notify_waiters();
        Ok(self.last)
    }

    /// Returns the first message with a matching subject at or after a sequence.
    fn find(&self, subject: &str, first: Position) -> Option<StreamMessage> {
        let mut found = self.messages.range(first..).filter(|(_, message)| matches(subject, &message.subject));
        let (sequence, message) = found.next()?;
        let pending = u64::try_from(found.count()).unwrap_or(u64::MAX);
        Some(StreamMessage { message: message.clone(), sequence: *sequence, pending })
    }
}

/// A position in the stream, and the connection over which it is read.
struct StreamCursor {
    network: MemoryNetwork,
    link: usize,
    /// The link's count of connects when the reader was opened.
    connects: u64,
    stream: u64,
    subject: &'static str,
    next: Position,
    failed: bool,
}

impl MemoryNetwork {
    pub(super) async fn read_stream(
        &self,
        link: usize,
        range: EventRange,
    ) -> Result<Option<StreamReader>, TransportError> {
        let EventRange { after, decisions_only } = range;
        let (subject, first) = (if decisions_only { DECISIONS } else { ALL }, after.next());
        self.delay().await;
        let state = self.state();
        let connects = state.connects(link).ok_or_else(disconnected)?;
        let stream = state.stream.as_ref().ok_or_else(|| TransportError::new(StreamMissing))?;
        if stream.find(subject, first).is_none() {
            return Ok(None);
        }
        let cursor = StreamCursor {
            network: self.clone(),
            link,
            connects,
            stream: stream.id,
            subject,
            next: first,
            failed: false,
        };
        Ok(Some(stream::unfold(cursor, StreamCursor::step).boxed()))
    }

    async fn delay(&self) {
        let delay = self.state().faults.delay(&*self.runtime);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

impl State {
    /// Returns how often a link that is up has connected.
    fn connects(&self, link: usize) -> Option<u64> {
        self.links.get(link).filter(|link| link.is_up).map(|link| *link.connects.borrow())
    }
}

fn disconnected() -> TransportError {
    TransportError::new("there is no connection")
}

impl StreamCursor {
    /// Returns the next message; an error ends the reader.
    async fn step(mut self) -> Option<(Result<StreamMessage, TransportError>, Self)> {
        if self.failed {
            return None;
        }
        let next = self.read().await;
        self.failed = next.is_err();
        Some((next, self))
    }

    async fn read(&mut self) -> Result<StreamMessage, TransportError> {
        self.network.delay().await;
        loop {
            let appended = match self.find()? {
                Ok(found) => {
                    self.next = found.sequence.next();
                    return Ok(found);
                }
                Err(appended) => appended,
            };
            appended.notified().await;
        }
    }

    /// Returns the next message, or the notification to wait for if it has not been appended yet.
    fn find(&self) -> Result<Result<StreamMessage, Arc<Notify>>, TransportError> {
        let mut state = self.network.state();
        if let Some(pause) = state.faults.cut(&*self.network.runtime) {
            state.cut(self.link);
            self.network.restore_after(self.link, pause);
        }
        if state.connects(self.link) != Some(self.connects) {
            return Err(disconnected());
        }
        let stream = state.stream.as_ref().filter(|stream| stream.id == self.stream);
        let stream = stream.ok_or_else(|| TransportError::new(StreamMissing))?;
        Ok(stream.find(self.subject, self.next).ok_or_else(|| Arc::clone(&stream.appended)))
    }
}
