//! The queue between a connection and one of its subscriptions, bounded in messages and in bytes: a subscriber that is
//! slow, or a sender that floods it, costs messages of this subscription, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::protocol::RawMessage;

/// Most messages in a queue.
const MESSAGES_MAX: usize = 1 << 16;

/// Most bytes in a queue, counted with [`OVERHEAD`].
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a message takes in memory beside its subject, headers and payload, in bytes.
const OVERHEAD: usize = 256;

#[derive(Debug, Default)]
struct Load {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// Where a connection puts the messages of a subscription.
#[derive(Debug)]
pub(super) struct QueueSender {
    sender: mpsc::UnboundedSender<RawMessage>,
    load: Arc<Load>,
}

/// The messages of a subscription.
#[derive(Debug)]
pub(super) struct QueueReceiver {
    receiver: mpsc::UnboundedReceiver<RawMessage>,
    load: Arc<Load>,
}

/// Returns an empty queue.
pub(super) fn queue() -> (QueueSender, QueueReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let load = Arc::new(Load::default());
    (QueueSender { sender, load: Arc::clone(&load) }, QueueReceiver { receiver, load })
}

fn weight(message: &RawMessage) -> usize {
    let optional = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    OVERHEAD + message.subject.len() + optional(&message.reply) + optional(&message.headers) + message.payload.len()
}

impl QueueSender {
    /// Appends a message. A queue that is full returns it.
    pub(super) fn push(&self, message: RawMessage) -> Option<RawMessage> {
        let Load { messages, bytes } = self.load.as_ref();
        let weight = weight(&message);
        // Only the connection pushes, so that the counts do not grow meanwhile.
        if messages.load(Ordering::Relaxed) >= MESSAGES_MAX || bytes.load(Ordering::Relaxed) + weight > BYTES_MAX {
            return Some(message);
        }
        messages.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(weight, Ordering::Relaxed);
        self.sender.send(message).err().map(|error| error.0)
    }
}

impl QueueReceiver {
    /// Takes the first message; `None` when the connection is closed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<RawMessage>> {
        self.receiver.poll_recv(context).map(|message| {
            message.inspect(|message| {
                self.load.messages.fetch_sub(1, Ordering::Relaxed);
                self.load.bytes.fetch_sub(weight(message), Ordering::Relaxed);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;

    use super::*;

    fn message(payload: usize) -> RawMessage {
        let payload = Bytes::from(vec![0; payload]);
        RawMessage { subject: Bytes::from_static(b"a"), subscription: 1, reply: None, headers: None, payload }
    }

    #[tokio::test]
    async fn is_bounded_in_messages_and_in_bytes() {
        let (sender, mut receiver) = queue();
        let count = (0..).take_while(|_| sender.push(message(0)).is_none()).count();
        assert_eq!(count, BYTES_MAX / (OVERHEAD + 1));
        poll_fn(|context| receiver.poll(context)).await.unwrap();
        assert!(sender.push(message(0)).is_none());
        let (sender, mut receiver) = queue();
        assert!(sender.push(message(BYTES_MAX - OVERHEAD - 1)).is_none());
        assert!(sender.push(message(0)).is_some());
        poll_fn(|context| receiver.poll(context)).await.unwrap();
        assert!(sender.push(message(0)).is_none());
    }
}
