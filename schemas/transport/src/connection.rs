//! [`Connection`], the handle through which otherix uses a [`Transport`].

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_runtime::Runtime;
use otherix_schemas::event::EventRange;
use otherix_schemas::value::UserId;
use tokio::sync::watch;

use crate::transport::{
    IncomingRequests, Message, RequestError, ServiceSpec, StreamReader, Subject, Subscription, Transport,
    TransportError,
};

/// How long [`Connection::settled`] waits for its echo before it sends another one.
const ECHO_TIMEOUT: Duration = Duration::from_millis(500);

/// A user's connection to the messaging system. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    transport: Arc<dyn Transport>,
    user: watch::Receiver<UserId>,
    url: Arc<str>,
    runtime: Arc<dyn Runtime>,
    /// The W3C trace context that requests carry.
    traceparent: Option<Arc<str>>,
}

impl Connection {
    /// Returns a handle to `transport`, which connects as `user`. `url` appears in error messages.
    pub fn new(
        transport: Arc<dyn Transport>,
        user: watch::Receiver<UserId>,
        url: &str,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self { transport, user, url: url.into(), runtime, traceparent: None }
    }

    /// Its requests carry this W3C trace context, which is recorded in the events that they cause.
    #[must_use]
    pub fn traced(self, traceparent: &str) -> Self {
        Self { traceparent: Some(traceparent.into()), ..self }
    }

    pub(crate) fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The user as which the connection is authenticated, or will be next. It may change with each attempt to connect.
    pub fn user(&self) -> UserId {
        self.user.borrow().clone()
    }

    /// The server's address, for error messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The runtime of the code that uses this connection.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Counts the times that the connection was established. Messages may have been missed before each change.
    pub fn connects(&self) -> watch::Receiver<u64> {
        self.transport.connects()
    }

    /// Returns whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.transport.is_connected()
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// If the connection is closed permanently, or the message is too large.
    pub async fn publish(&self, message: Message) -> Result<(), TransportError> {
        self.transport.publish(message).await
    }

    /// Sends a request and returns the first reply.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(&self, message: Message, timeout: Duration) -> Result<Message, RequestError> {
        self.transport.request(message, timeout).await
    }

    /// Subscribes to a subject, which may contain wildcards. Messages may be missed until [`Connection::settled`]
    /// returns.
    ///
    /// # Errors
    /// If the connection is closed permanently.
    pub async fn subscribe(&self, subject: impl Into<Subject>) -> Result<Subscription, TransportError> {
        self.transport.subscribe(subject.into(), None).await
    }

    /// Subscribes as a member of a queue group: each message goes to one member.
    ///
    /// # Errors
    /// If the connection is closed permanently.
    pub async fn subscribe_in_group(
        &self,
        subject: impl Into<Subject>,
        queue_group: &str,
    ) -> Result<Subscription, TransportError> {
        self.transport.subscribe(subject.into(), Some(queue_group)).await
    }

    /// Registers a service and returns the requests to it.
    ///
    /// # Errors
    /// If the messaging system refuses it.
    pub async fn serve(&self, service: ServiceSpec) -> Result<IncomingRequests, TransportError> {
        self.transport.serve(service).await
    }

    /// Reads stored events; see [`Transport::read_stream`].
    ///
    /// # Errors
    /// If the stream cannot be read now.
    pub async fn read_stream(&self, range: EventRange) -> Result<Option<StreamReader>, TransportError> {
        self.transport.read_stream(range).await
    }

    /// Waits until the server has processed everything sent on this connection before the call, in particular until
    /// subscriptions are active. Waits for as long as there is no server.
    ///
    /// # Errors
    /// If the connection is closed permanently.
    pub async fn settled(&self) -> Result<(), TransportError> {
        loop {
            let user = self.user();
            let inbox = format!("_INBOX_{user}.{}", self.runtime.uuid_v4().simple());
            let mut echo = self.subscribe(inbox.clone()).await?;
            // The server processes a connection's messages in order, so the echo follows all others. If it is lost
            // with a connection, another one is sent.
            while user == *self.user.borrow() {
                if self.echo(&inbox, &mut echo).await?.is_break() {
                    return Ok(());
                }
            }
        }
    }

    async fn echo(&self, inbox: &str, echo: &mut Subscription) -> Result<ControlFlow<()>, TransportError> {
        self.publish(Message::new(inbox.to_owned(), Bytes::new())).await?;
        match tokio::time::timeout(ECHO_TIMEOUT, echo.next()).await {
            Ok(Some(_)) => Ok(ControlFlow::Break(())),
            Ok(None) => Err(TransportError::new("the connection is closed")),
            Err(_elapsed) => Ok(ControlFlow::Continue(())),
        }
    }
}
