//! The interface between otherix and a messaging system: [`Transport`], and the types of its arguments and results.
//!
//! The guarantees of an implementation, checked by `tests/conformance.rs`:
//! - Messages of one publisher on one subject arrive at a subscription in the order in which they were published,
//!   unless the implementation injects faults. Delivery is at most once: messages in flight on a connection are lost
//!   with it.
//! - A message to subscriptions of one queue group goes to exactly one of them.
//! - The first reply answers a request; a request on a subject without a subscription fails at once.
//! - A connection that is lost is re-established, and [`Transport::connects`] counts each time. Subscriptions survive
//!   the loss.
//! - Stored events are read in the order of their positions.
//!
//! Headers and subjects are plain data: no type of a client library is part of the interface.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, Stream, StreamExt};
use otherix_schemas::event::EventRange;
use otherix_schemas::position::Position;
use tokio::sync::watch;

use crate::turns::Turns;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection of one user to a messaging system.
///
/// Cancel-safety: every returned future may be dropped. Whether a message that was being published arrives is then
/// unknown.
pub trait Transport: Debug + Send + Sync {
    /// Publishes a message. While there is no connection the message waits for the next one.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>>;

    /// Publishes a request and returns the first reply. The message's `reply` is not used.
    fn request(&self, message: Message, timeout: Duration) -> BoxFuture<'_, Result<Message, RequestError>>;

    /// Subscribes to a subject, which may contain wildcards, as a member of a queue group if one is given.
    fn subscribe(
        &self,
        subject: Subject,
        queue_group: Option<&str>,
    ) -> BoxFuture<'_, Result<Subscription, TransportError>>;

    /// Registers a service and returns the requests to its endpoints. Several processes may register the same service;
    /// each request goes to one of them.
    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<IncomingRequests, TransportError>>;

    /// Reads the stored events of a range. Returns `None` if there are none.
    ///
    /// The reader continues as events are appended; [`StreamMessage::pending`] is 0 at the end.
    fn read_stream(&self, range: EventRange) -> BoxFuture<'_, Result<Option<StreamReader>, TransportError>>;

    /// Counts the times that the connection was established.
    fn connects(&self) -> watch::Receiver<u64>;

    /// Returns whether there is a connection now.
    fn is_connected(&self) -> bool;
}

/// Tokens separated by dots. In subscriptions, the token `*` stands for any one token and the last token `>` for any
/// further ones.
pub type Subject = String;

/// The header fields of a message, in their order. Names are case-sensitive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// Headers that cannot be sent or were received malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    #[error("the headers are not UTF-8")]
    Utf8,
    #[error("the headers do not begin with a version of NATS")]
    Version,
    #[error("the headers do not end with an empty line")]
    End,
    #[error("a header line has no colon")]
    Line,
    #[error("a header's name is empty, or has spaces or control characters")]
    Name,
    #[error("a header's value has control characters")]
    Value,
    #[error("there are more than {HEADERS_MAX} headers")]
    Many,
}

/// Most headers of a message. otherix itself uses five.
const HEADERS_MAX: usize = 64;

impl Headers {
    /// Returns no headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets a header.
    ///
    /// # Errors
    /// If name or value cannot be sent: a line break, for example, would begin another header.
    pub fn insert(&mut self, name: &str, value: impl Into<String>) -> Result<(), HeadersError> {
        self.0.retain(|(present, _)| present != name);
        self.append(name, value)
    }

    /// Adds a header, after others with the same name.
    ///
    /// # Errors
    /// As [`Headers::insert`].
    pub fn append(&mut self, name: &str, value: impl Into<String>) -> Result<(), HeadersError> {
        let value = value.into();
        let is_name = !name.is_empty() && !name.contains(|char: char| char.is_whitespace() || char.is_control());
        if !is_name || name.contains(':') {
            return Err(HeadersError::Name);
        }
        if value.contains(|char: char| char.is_control() && char != '\t') {
            return Err(HeadersError::Value);
        }
        if self.0.len() >= HEADERS_MAX {
            return Err(HeadersError::Many);
        }
        self.0.push((name.to_owned(), value));
        Ok(())
    }

    /// Returns the first header with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(present, _)| *present == name).map(|(_, value)| value)
    }

    /// Returns the last header with this name.
    pub fn get_last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }

    /// Returns all headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A message on a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub subject: Subject,
    /// Where replies are expected.
    pub reply: Option<Subject>,
    pub headers: Headers,
    pub payload: Bytes,
}

impl Message {
    /// Returns a message without headers that expects no reply.
    pub fn new(subject: impl Into<Subject>, payload: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), reply: None, headers: Headers::new(), payload: payload.into() }
    }

    /// Adds headers.
    #[must_use]
    pub fn with_headers(self, headers: Headers) -> Self {
        Self { headers, ..self }
    }
}

/// The messages of a subscription, which ends when it is dropped.
pub struct Subscription(Turns<BoxStream<'static, Message>>);

impl Subscription {
    /// Returns a subscription over a stream that unsubscribes when it is dropped.
    pub fn new(messages: impl Stream<Item = Message> + Send + 'static) -> Self {
        Self(Turns::new(messages.boxed()))
    }

    /// Waits for the next message. Returns `None` when the connection is closed permanently.
    ///
    /// Cancel-safety: no message is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Message> {
        self.0.next().await
    }

    /// Returns the next message if it has arrived.
    pub fn try_next(&mut self) -> Option<Message> {
        self.0.stream.next().now_or_never().flatten()
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.0.poll_next_unpin(context)
    }
}

/// A service: its name and description, and the subjects on which it takes requests.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub name: String,
    pub description: String,
    /// A semantic version.
    pub version: String,
    pub endpoints: Vec<EndpointSpec>,
}

/// An endpoint of a service.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// May contain wildcards.
    pub subject: String,
    /// Shown to clients that query the service.
    pub metadata: HashMap<String, String>,
}

/// The requests to a service. Dropping it ends the service.
pub type IncomingRequests = BoxStream<'static, IncomingRequest>;

/// Sends the reply to a request.
type Respond = Box<dyn FnOnce(Headers, Bytes) -> BoxFuture<'static, Result<(), TransportError>> + Send>;

/// A request to a service. It can be answered once.
pub struct IncomingRequest {
    pub message: Message,
    respond: Respond,
}

impl IncomingRequest {
    /// Returns a request whose reply is sent by `respond`.
    pub fn new<F>(message: Message, respond: impl FnOnce(Headers, Bytes) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), TransportError>> + Send + 'static,
    {
        Self { message, respond: Box::new(|headers, payload| respond(headers, payload).boxed()) }
    }

    /// Sends the reply.
    ///
    /// # Errors
    /// If it cannot be published, or the requester expects none.
    pub async fn respond(self, headers: Headers, payload: Bytes) -> Result<(), TransportError> {
        (self.respond)(headers, payload).await
    }
}

/// The messages of the event stream from a position on. After an error, the reader returns no more messages.
pub type StreamReader = BoxStream<'static, Result<StreamMessage, TransportError>>;

/// A message of the event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMessage {
    pub message: Message,
    /// Its sequence in the stream.
    pub sequence: Position,
    /// Number of messages after this one, at the time at which it was sent.
    pub pending: u64,
}

/// The failure of an operation, with the text and causes of the implementation.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(BoxError);

impl TransportError {
    /// Wraps the implementation's error.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no subscription for it.
    #[error("no responders")]
    NoResponders,
    /// There was no reply in time. The request may have been carried out.
    #[error("timed out")]
    TimedOut,
    /// The messaging system does not permit it to the user, who has this role.
    #[error("the server does not permit `{subject}`")]
    Denied { subject: Subject, role: Option<String> },
    /// The messaging system refuses the user, for this reason. A request that was sent before may have been carried
    /// out.
    #[error("{0}")]
    Unauthenticated(String),
    #[error(transparent)]
    Failed(#[from] TransportError),
}
