//! What a feed follows, what it returns, and why it may fail.

use bytes::Bytes;
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::decision_chain::SignedHead;
use otherix_schemas::event::Event;
use otherix_schemas::position::Position;
use otherix_schemas::subject;

use crate::transport::TransportError;

/// Which events a feed follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedScope {
    /// Decisions only: what nodes must carry out.
    Decisions,
    Everything,
}

impl FeedScope {
    /// The subject of these events in the stream.
    pub(super) fn subject(self) -> &'static str {
        match self {
            Self::Decisions => subject::DECISIONS,
            Self::Everything => "otherix.>",
        }
    }

    /// Returns the position of the event that precedes this one in the scope.
    pub(super) fn previous(self, event: &EventEnvelope) -> Position {
        match self {
            Self::Decisions => event.header.decision_prev,
            Self::Everything => {
                // The positions of a gap between two epochs have no events.
                if let Event::Cluster(ClusterEvent::Restored(restored)) = &event.event {
                    return restored.kept;
                };
                Position::new(event.header.position.get().saturating_sub(1))
            }
        }
    }
}

/// What a feed returns.
#[derive(Clone, Debug)]
pub enum FeedItem {
    /// The next event.
    Event {
        envelope: Box<EventEnvelope>,
        /// The event's bytes as the stream has them.
        bytes: Bytes,
        /// The head of the chain of decisions that a live event came with. Not verified.
        signed_head: Option<Box<SignedHead>>,
    },
    /// All events that the stream had when it was read have been returned.
    Current,
}

/// Why the next event cannot be returned.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("cannot subscribe to live events")]
    Subscribe(#[source] TransportError),
    /// The feed does not skip the event.
    #[error("cannot decode the event after position {after}")]
    Decode {
        /// Position of the last event that was returned.
        after: Position,
        #[source]
        source: DecodeError,
    },
    /// The stream lacks events: it is being rebuilt, or is not a copy of the event store.
    #[error("the stream continues at position {found} after position {after}: events are missing")]
    Gap {
        /// Position of the last event that was returned.
        after: Position,
        found: Position,
    },
    #[error("the connection is closed")]
    Closed,
}
