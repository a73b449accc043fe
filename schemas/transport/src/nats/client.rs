//! A connection to a NATS server: publishing, subscriptions and requests.
//!
//! What others send cannot end the connection: it is read without waiting for any subscriber, and what does not fit a
//! subscription's queue is dropped. What is published waits in one buffer, so that messages published together are
//! written together.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use otherix_runtime::{LogLimit, Runtime, TaskSet};
use otherix_schemas::value::UserId;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::failure::{ConnectFailure, CredentialsRefusal};
use super::link::{self, Lifetime};
use super::protocol::{self, RawMessage};
use super::queue::{QueueReceiver, QueueSender, queue};
use super::{NatsEndpoint, address::ServerAddress};
use crate::credentials::Credentials;
use crate::transport::{Headers, Message, RequestError, Subject, TransportError};

/// Bytes that may wait to be written before publishers wait. Control messages of the protocol are not counted.
const BUFFER_MAX: usize = 4 * 1024 * 1024;

/// Bytes that wait to be written from which on refusals of requests are not sent.
const BUSY: usize = 16 * 1024;

/// The status of a reply by which a server says that no subscription received the request.
const NO_RESPONDERS: u16 = 503;

/// A client. Clones share the connection, which is closed when the last of them is dropped.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    /// The connection's task; it ends with the last client.
    _task: Arc<TaskSet<()>>,
}

/// What the connection's task and its clients share.
#[derive(Debug)]
pub(super) struct Shared {
    out: Mutex<Vec<u8>>,
    /// The buffer has something to write.
    pub(super) written: Notify,
    /// The buffer has room again.
    drained: Notify,
    subscriptions: Mutex<HashMap<u64, SubscriptionEntry>>,
    next_subscription: AtomicU64,
    pub(super) requests: Mutex<HashMap<String, PendingRequest>>,
    next_request: AtomicU64,
    /// Whom the connection is authenticated as, or will be next.
    user: watch::Sender<UserId>,
    /// A random token of the subjects on which replies arrive.
    inbox_token: String,
    connects: watch::Sender<u64>,
    /// The server that accepted the connection, while there is one.
    peer: watch::Sender<Option<SocketAddr>>,
    /// Largest message that the server accepts, in bytes.
    max_payload: AtomicUsize,
    is_closed: watch::Sender<bool>,
    /// The role of the user, as its credentials name it.
    pub(super) role: Mutex<Option<String>>,
    /// Why the server refuses the user, while it does.
    pub(super) refusal: Mutex<Option<CredentialsRefusal>>,
    dropped: LogLimit,
    pub(super) errors: LogLimit,
}

#[derive(Debug)]
struct SubscriptionEntry {
    subject: Subject,
    queue_group: Option<String>,
    target: Target,
}

/// The answer to a request that finds a service's queue full.
#[derive(Clone, Debug)]
pub(super) struct Overload {
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
}

#[derive(Debug)]
enum Target {
    Queue(QueueSender, Option<Overload>),
    /// Replies to requests.
    Inbox,
}

#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) subject: Subject,
    pub(super) reply: oneshot::Sender<Result<Message, RequestError>>,
}

impl Client {
    /// Connects in a task of its own. The receiver gets the result of the first attempt.
    pub(super) fn start(
        endpoint: &NatsEndpoint,
        addresses: Vec<ServerAddress>,
        name: &str,
        lifetime: Lifetime,
        runtime: &Arc<dyn Runtime>,
    ) -> (Self, oneshot::Receiver<Result<(), ConnectFailure>>) {
        let credentials = endpoint.credentials.current();
        let shared = Arc::new(Shared {
            out: Mutex::default(),
            written: Notify::new(),
            drained: Notify::new(),
            subscriptions: Mutex::default(),
            next_subscription: AtomicU64::new(1),
            requests: Mutex::default(),
            next_request: AtomicU64::new(1),
            user: watch::Sender::new(credentials.user().clone()),
            inbox_token: runtime.uuid_v4().simple().to_string(),
            connects: watch::Sender::new(0),
            peer: watch::Sender::new(None),
            max_payload: AtomicUsize::new(usize::MAX),
            is_closed: watch::Sender::new(false),
            role: Mutex::new(credentials.role().map(ToOwned::to_owned)),
            refusal: Mutex::default(),
            dropped: LogLimit::default(),
            errors: LogLimit::default(),
        });
        shared.subscribe_as(format!("{}*", shared.inbox()), None, Target::Inbox);
        let (first, result) = oneshot::channel();
        let settings = link::LinkSettings {
            addresses,
            credentials: Arc::clone(&endpoint.credentials),
            ca: endpoint.ca.clone(),
            name: name.to_owned(),
            lifetime,
            runtime: Arc::clone(runtime),
        };
        let mut task = TaskSet::default();
        task.add(runtime.spawn("nats connection", link::run(settings, Arc::clone(&shared), first)));
        (Self { shared, _task: Arc::new(task) }, result)
    }

    /// Publishes a message. Waits while too much waits to be written.
    pub(super) async fn publish(&self, message: &Message) -> Result<(), TransportError> {
        let shared = &self.shared;
        if !protocol::is_subject(&message.subject)
            || message.reply.as_deref().is_some_and(|to| !protocol::is_subject(to))
        {
            return Err(TransportError::new(format!("cannot publish on `{}`", message.subject.escape_debug())));
        }
        let (size, max) = (protocol::size(message), shared.max_payload.load(Ordering::Relaxed));
        if size > max {
            return Err(TransportError::new(format!(
                "a message of {size} bytes exceeds the server's limit of {max} bytes"
            )));
        }
        loop {
            // Registered before the buffer is looked at, so that its draining is not missed.
            let mut drained = std::pin::pin!(shared.drained.notified());
            drained.as_mut().enable();
            if *shared.is_closed.borrow() {
                return Err(closed());
            }
            {
                let mut out = lock(&shared.out);
                if out.len() < BUFFER_MAX {
                    protocol::publish(message, &mut out);
                    break;
                }
            }
            drained.await;
        }
        shared.written.notify_one();
        Ok(())
    }

    /// Sends a request and returns the first reply.
    pub(super) async fn request(&self, message: Message, limit: Duration) -> Result<Message, RequestError> {
        let shared = &self.shared;
        let number = shared.next_request.fetch_add(1, Ordering::Relaxed).to_string();
        let (reply, answer) = oneshot::channel();
        let pending = PendingRequest { subject: message.subject.clone(), reply };
        lock(&shared.requests).insert(number.clone(), pending);
        let _guard = RequestGuard { shared, number: &number };
        // After it is registered, so that a refusal in between fails it.
        if let Some(refusal) = lock(&shared.refusal).as_ref() {
            return Err(RequestError::Unauthenticated(refusal.to_string()));
        }
        let message = Message { reply: Some(format!("{}{number}", shared.inbox())), ..message };
        let exchange = async {
            self.publish(&message).await?;
            answer.await.unwrap_or_else(|_| Err(closed().into()))
        };
        timeout(limit, exchange).await.unwrap_or(Err(RequestError::TimedOut))
    }

    /// Subscribes. Messages arrive once the server has processed that. If the queue is full, further messages are
    /// dropped, or answered with `overload`.
    pub(super) fn subscribe(
        &self,
        subject: Subject,
        queue_group: Option<String>,
        overload: Option<Overload>,
    ) -> Result<RawSubscription, TransportError> {
        let group = queue_group.as_deref().unwrap_or("q");
        if !protocol::is_subject(&subject) || !protocol::is_subject(group) {
            return Err(TransportError::new(format!("cannot subscribe to `{}`", subject.escape_debug())));
        }
        if *self.shared.is_closed.borrow() {
            return Err(closed());
        }
        let (sender, receiver) = queue();
        let number = self.shared.subscribe_as(subject, queue_group, Target::Queue(sender, overload));
        Ok(RawSubscription { receiver, number, client: self.clone() })
    }

    pub(super) fn connects(&self) -> watch::Receiver<u64> {
        self.shared.connects.subscribe()
    }

    pub(super) fn user(&self) -> UserId {
        self.shared.user.borrow().clone()
    }

    pub(super) fn user_changes(&self) -> watch::Receiver<UserId> {
        self.shared.user.subscribe()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.shared.peer.borrow().is_some()
    }

    pub(super) fn peer(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.shared.peer.subscribe()
    }
}

/// Removes a request that nobody waits for any more.
struct RequestGuard<'a> {
    shared: &'a Shared,
    number: &'a str,
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        lock(&self.shared.requests).remove(self.number);
    }
}

/// The messages of a subscription, as they arrive. Dropping it ends the subscription.
#[derive(Debug)]
pub(super) struct RawSubscription {
    pub(super) receiver: QueueReceiver,
    number: u64,
    client: Client,
}

impl Drop for RawSubscription {
    fn drop(&mut self) {
        let shared = &self.client.shared;
        lock(&shared.subscriptions).remove(&self.number);
        protocol::unsubscribe(self.number, &mut lock(&shared.out));
        shared.written.notify_one();
    }
}

impl Shared {
    /// The prefix of the subjects on which replies arrive, with its last dot.
    pub(super) fn inbox(&self) -> String {
        format!("_INBOX_{}.{}.", *self.user.borrow(), self.inbox_token)
    }

    /// Called before each attempt to connect. If they are another user's than before, whatever waits for an answer
    /// fails, and what waits to be written is dropped: its subjects are the earlier user's.
    pub(super) fn connecting_as(&self, credentials: &Credentials) {
        *lock(&self.role) = credentials.role().map(ToOwned::to_owned);
        if *self.user.borrow() == *credentials.user() {
            return;
        }
        self.user.send_replace(credentials.user().clone());
        let inbox = format!("{}*", self.inbox());
        let mut subscriptions = lock(&self.subscriptions);
        for entry in subscriptions.values_mut() {
            if matches!(entry.target, Target::Inbox) {
                entry.subject.clone_from(&inbox);
            }
        }
        drop(subscriptions);
        // Subscriptions are written again for each connection.
        lock(&self.out).clear();
        self.drained.notify_waiters();
        self.fail_requests(|_| Some(TransportError::new("the connection has other credentials now").into()));
    }

    fn subscribe_as(&self, subject: Subject, queue_group: Option<String>, target: Target) -> u64 {
        let number = self.next_subscription.fetch_add(1, Ordering::Relaxed);
        let mut line = Vec::new();
        protocol::subscribe(&subject, queue_group.as_deref(), number, &mut line);
        // First, so that no message finds it missing.
        lock(&self.subscriptions).insert(number, SubscriptionEntry { subject, queue_group, target });
        lock(&self.out).extend_from_slice(&line);
        self.written.notify_one();
        number
    }

    /// Called when a connection was established. Returns what makes its subscriptions known to the server; one that it
    /// knows already, it ignores.
    pub(super) fn connected(&self, max_payload: usize) -> Vec<u8> {
        if max_payload > 0 {
            self.max_payload.store(max_payload, Ordering::Relaxed);
        }
        let mut out = Vec::new();
        for (number, SubscriptionEntry { subject, queue_group, target: _ }) in lock(&self.subscriptions).iter() {
            protocol::subscribe(subject, queue_group.as_deref(), *number, &mut out);
        }
        out
    }

    /// Called when the server has accepted the connection and its subscriptions were written.
    pub(super) fn established(&self, peer: SocketAddr) {
        *lock(&self.refusal) = None;
        self.peer.send_replace(Some(peer));
        self.connects.send_modify(|connects| *connects += 1);
    }

    /// Called when a connection was lost.
    pub(super) fn lost(&self) {
        self.peer.send_if_modified(|peer| peer.take().is_some());
    }

    /// Called when there will be no connection any more: subscriptions end and requests fail.
    pub(super) fn close(&self) {
        self.lost();
        self.is_closed.send_replace(true);
        lock(&self.subscriptions).clear();
        lock(&self.requests).clear();
        self.drained.notify_waiters();
    }

    /// Takes what waits to be written, and leaves `empty` in its place.
    pub(super) fn take_out(&self, empty: Vec<u8>) -> Vec<u8> {
        let taken = std::mem::replace(&mut *lock(&self.out), empty);
        if taken.len() >= BUFFER_MAX {
            self.drained.notify_waiters();
        }
        taken
    }

    /// Appends a control message.
    pub(super) fn write_control(&self, line: &[u8]) {
        lock(&self.out).extend_from_slice(line);
        self.written.notify_one();
    }

    /// Passes a message to its subscription.
    pub(super) fn deliver(&self, message: RawMessage) {
        let subscriptions = lock(&self.subscriptions);
        match subscriptions.get(&message.subscription) {
            Some(SubscriptionEntry { target: Target::Queue(sender, overload), subject, .. }) => {
                let Some(message) = sender.push(message) else { return };
                if let Some((reply, Overload { headers, payload })) = message.reply().zip(overload.clone()) {
                    self.write_unless_busy(&Message { subject: reply, reply: None, headers, payload });
                }
                if let Some(count) = self.dropped.hit() {
                    tracing::warn!(%subject, count, "messages were dropped: more arrive than can be processed");
                }
            }
            Some(SubscriptionEntry { target: Target::Inbox, .. }) => {
                drop(subscriptions);
                self.answered(message);
            }
            // It ended meanwhile.
            None => {}
        }
    }

    /// Publishes a message, unless others wait to be written: a flood is not answered with another one.
    fn write_unless_busy(&self, message: &Message) {
        let mut out = lock(&self.out);
        if out.len() < BUSY {
            protocol::publish(message, &mut out);
            self.written.notify_one();
        }
    }

    /// Passes a reply to its request.
    fn answered(&self, message: RawMessage) {
        let token =
            message.subject.strip_prefix(self.inbox().as_bytes()).and_then(|token| std::str::from_utf8(token).ok());
        let Some(PendingRequest { reply, .. }) = token.and_then(|token| lock(&self.requests).remove(token)) else {
            return;
        };
        let is_refused = message.payload.is_empty() && message.status() == Some(NO_RESPONDERS);
        let answer = if is_refused {
            Err(RequestError::NoResponders)
        } else {
            message.message().map_err(|error| RequestError::Failed(TransportError::new(error)))
        };
        // Whoever asked may be gone.
        let _unless_dropped = reply.send(answer);
    }
}

fn closed() -> TransportError {
    TransportError::new("the connection is closed")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
