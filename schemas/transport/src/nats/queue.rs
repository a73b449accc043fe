//! The queue between a connection and one of its subscriptions: bounded in messages and bytes, and fair. Messages of
//! each sender are in a queue of their own, and the senders take turns, so that whoever floods a subscription delays
//! and drops its own messages and nobody else's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::client::lock;
use super::protocol::RawMessage;

/// Most messages of one sender. A burst of reports after a restart is smaller.
const SENDER_MESSAGES_MAX: usize = 4096;

/// Most bytes of one sender, counted with [`OVERHEAD`].
const SENDER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most bytes of all senders.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a message takes in memory beside its subject, headers and payload, in bytes.
const OVERHEAD: usize = 256;

/// The messages of a sender.
#[derive(Debug, Default)]
struct SenderQueue {
    messages: VecDeque<RawMessage>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    senders: HashMap<u64, SenderQueue>,
    /// Senders with messages, in the order of their turns.
    turns: VecDeque<u64>,
    bytes: usize,
    waker: Option<Waker>,
    is_closed: bool,
}

/// Where a connection puts the messages of a subscription. When it is dropped, the queue ends.
#[derive(Debug)]
pub(super) struct QueueSender(Arc<Mutex<Queue>>);

/// The messages of a subscription.
#[derive(Debug)]
pub(super) struct QueueReceiver(Arc<Mutex<Queue>>);

/// Returns an empty queue.
pub(super) fn queue() -> (QueueSender, QueueReceiver) {
    let queue = Arc::new(Mutex::new(Queue::default()));
    (QueueSender(Arc::clone(&queue)), QueueReceiver(queue))
}

fn weight(message: &RawMessage) -> usize {
    let optional = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    OVERHEAD + message.subject.len() + optional(&message.reply) + optional(&message.headers) + message.payload.len()
}

impl QueueSender {
    /// Appends a message. If its sender's queue, or all of them together, are full, returns it.
    pub(super) fn push(&self, message: RawMessage) -> Option<RawMessage> {
        let (key, weight) = (message.sender(), weight(&message));
        let waker = {
            let mut queue = lock(&self.0);
            let Queue { senders, turns, bytes, waker, is_closed: _ } = &mut *queue;
            let sender = senders.entry(key).or_default();
            let is_full = sender.messages.len() >= SENDER_MESSAGES_MAX
                || sender.bytes + weight > SENDER_BYTES_MAX
                || *bytes + weight > BYTES_MAX;
            if is_full {
                return Some(message);
            }
            if sender.messages.is_empty() {
                turns.push_back(key);
            }
            sender.bytes += weight;
            *bytes += weight;
            sender.messages.push_back(message);
            waker.take()
        };
        waker.iter().for_each(Waker::wake_by_ref);
        None
    }
}

impl Drop for QueueSender {
    fn drop(&mut self) {
        let waker = {
            let mut queue = lock(&self.0);
            queue.is_closed = true;
            queue.waker.take()
        };
        waker.iter().for_each(Waker::wake_by_ref);
    }
}

impl QueueReceiver {
    /// Takes the first message of the sender whose turn it is; `None` when the connection is closed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<RawMessage>> {
        let mut queue = lock(&self.0);
        let Queue { senders, turns, bytes, waker, is_closed } = &mut *queue;
        while let Some(key) = turns.pop_front() {
            let Some(sender) = senders.get_mut(&key) else { continue };
            let Some(message) = sender.messages.pop_front() else { continue };
            let weight = weight(&message);
            sender.bytes -= weight;
            *bytes -= weight;
            if sender.messages.is_empty() {
                senders.remove(&key);
            } else {
                turns.push_back(key);
            }
            return Poll::Ready(Some(message));
        }
        if *is_closed {
            return Poll::Ready(None);
        }
        *waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;

    use super::*;

    /// A message of the client with this id.
    fn message(client: u64, payload: usize) -> RawMessage {
        let headers =
            format!("NATS/1.0\r\nNats-Request-Info: {{\"acc\":\"A\",\"id\":{client},\"user\":\"a\"}}\r\n\r\n");
        let payload = Bytes::from(vec![0; payload]);
        let subject = Bytes::from_static(b"a");
        RawMessage { subject, subscription: 1, reply: None, headers: Some(headers.into()), payload }
    }

    async fn next(receiver: &mut QueueReceiver) -> Option<u64> {
        poll_fn(|context| receiver.poll(context)).await.map(|message| message.sender())
    }

    #[tokio::test]
    async fn senders_take_turns() {
        let (sender, mut receiver) = queue();
        for client in [1, 1, 1, 2, 3, 3] {
            assert!(sender.push(message(client, 0)).is_none());
        }
        let mut turns = Vec::new();
        for _ in 0..6 {
            turns.push(next(&mut receiver).await.unwrap());
        }
        assert_eq!(turns, [1, 2, 3, 1, 3, 1]);
        drop(sender);
        assert_eq!(next(&mut receiver).await, None);
    }

    #[tokio::test]
    async fn a_flood_drops_its_own_messages_only() {
        let (sender, mut receiver) = queue();
        let accepted = (0..10_000).filter(|_| sender.push(message(1, 0)).is_none()).count();
        assert_eq!(accepted, SENDER_MESSAGES_MAX);
        assert!(sender.push(message(2, 1000)).is_none());
        assert_eq!((next(&mut receiver).await, next(&mut receiver).await), (Some(1), Some(2)));
        let (sender, _receiver) = queue();
        let accepted = (0..100).filter(|_| sender.push(message(1, 1_000_000)).is_none()).count();
        assert_eq!(accepted, SENDER_BYTES_MAX / 1_000_400, "bytes are limited, too");
    }

    #[test]
    fn a_sender_cannot_pretend_to_be_another() {
        let appended = "Nats-Request-Info: {\"acc\":\"A\",\"id\":7,\"user\":\"a\"}";
        for forged in ["X: Nats-Request-Info: {\"id\":5}", "Nats-Request-Info: {\"id\":5}", "X: {\"id\":5}"] {
            let headers = format!("NATS/1.0\r\n{forged}\r\n{appended}\r\n\r\n");
            assert_eq!(RawMessage { headers: Some(headers.into()), ..message(1, 0) }.sender(), 7, "{forged}");
            // It did not cross accounts.
            let headers = format!("NATS/1.0\r\n{appended}\r\n{forged}\r\nY: z\r\n\r\n");
            assert_eq!(RawMessage { headers: Some(headers.into()), ..message(1, 0) }.sender(), 0, "{forged}");
        }
    }

    #[tokio::test]
    async fn a_waiting_receiver_is_woken() {
        let (sender, mut receiver) = queue();
        let waiting = tokio::spawn(async move { next(&mut receiver).await });
        tokio::task::yield_now().await;
        assert!(sender.push(message(5, 0)).is_none());
        assert_eq!(waiting.await.unwrap(), Some(5));
    }
}
