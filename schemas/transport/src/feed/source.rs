//! How a feed reads the stream.

use std::time::Duration;

use futures::stream::StreamExt;
use otherix_schemas::event::EventRange;
use tokio::time::Instant;

use super::{Feed, FeedScope, Received};
use crate::transport::StreamReader;

/// Time without a message after which a read of the stream is restarted.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a feed reads from.
pub(super) enum FeedSource {
    /// The live subscription.
    Live,
    /// The stream must be read, from the last event that was returned.
    Behind,
    /// The stream is being read.
    Stream(StreamReader),
}

impl Feed {
    /// Begins to read the stream, unless it has no further events. After a failure the source stays
    /// [`FeedSource::Behind`].
    pub(super) async fn open_stream(&mut self) {
        if let Some(at) = self.retry_at {
            // A new connection is a reason to try again at once.
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                Ok(()) = self.connects.changed() => {}
            }
            self.retry_at = None;
        }
        self.connects.mark_unchanged();
        let range = EventRange { after: self.last, decisions_only: self.scope == FeedScope::Decisions };
        match self.connection.read_stream(range).await {
            Ok(Some(messages)) => self.source = FeedSource::Stream(messages),
            Ok(None) if self.last >= self.known_head => self.reached_end(),
            Ok(None) => self.retry_later(),
            Err(error) => {
                tracing::debug!(error = %error, "the stream cannot be read");
                self.retry_later();
            }
        }
    }

    /// Receives the next message from the stream.
    pub(super) async fn read_stream(&mut self) {
        let FeedSource::Stream(messages) = &mut self.source else { return };
        let next = match tokio::time::timeout(READ_TIMEOUT, messages.next()).await {
            Ok(Some(Ok(next))) => next,
            Ok(Some(Err(_)) | None) => {
                self.source = FeedSource::Behind;
                return self.retry_later();
            }
            Err(_elapsed) => {
                self.source = FeedSource::Behind;
                return;
            }
        };
        if next.sequence > self.last {
            self.retry.reset();
        }
        self.ready.push_back(Received { message: next.message, from_stream: true });
        if next.pending == 0 {
            if next.sequence >= self.known_head {
                self.reached_end();
            } else {
                // The stream lags behind the live events.
                self.source = FeedSource::Behind;
                self.retry_later();
            }
        }
    }

    fn retry_later(&mut self) {
        self.retry_at = Some(Instant::now() + self.retry.next_delay());
    }

    fn reached_end(&mut self) {
        self.retry.reset();
        self.source = FeedSource::Live;
        self.current = true;
    }
}
