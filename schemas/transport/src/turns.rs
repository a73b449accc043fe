//! Streams that give way to other tasks. All tasks share one thread: a command needs it several times, and each time it
//! would wait for as many messages of a flood as are taken in a row.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{Stream, StreamExt};

/// Messages that are taken in a row. Handling one takes some 10 µs.
pub(crate) const TURN: u32 = 16;

/// A stream that is pending once after every [`TURN`] items, ready as the next one may be.
pub(crate) struct Turns<S> {
    pub(crate) stream: S,
    taken: u32,
}

impl<S> Turns<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, taken: 0 }
    }
}

impl<S: Stream + Unpin> Stream for Turns<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.taken >= TURN {
            self.taken = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.stream.poll_next_unpin(context);
        self.taken = if next.is_ready() { self.taken + 1 } else { 0 };
        next
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::future::join;

    use super::*;

    #[tokio::test]
    async fn others_run_after_a_turn_and_nothing_is_lost() {
        let taken = Cell::new(0);
        let take = async {
            let mut items = Turns::new(futures::stream::iter(0..100));
            while let Some(item) = items.next().await {
                assert_eq!(item, taken.replace(item + 1));
            }
        };
        let other = async {
            let mut before = 0;
            while taken.get() < 100 {
                assert!(taken.get() - before <= 16, "{} in a row", taken.get() - before);
                before = taken.get();
                tokio::task::yield_now().await;
            }
        };
        join(take, other).await;
        assert_eq!(taken.get(), 100);
    }
}
