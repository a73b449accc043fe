//! [`Transport`] over a [`MemoryNetwork`].

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{StreamExt, select_all};
use otherix_schemas::event::EventRange;
use tokio::sync::watch;

use super::MemoryNetwork;
use crate::transport::{
    IncomingRequest, IncomingRequests, Message, RequestError, ServiceSpec, StreamReader, Subject, Subscription,
    Transport, TransportError,
};

/// The queue group of services, as in NATS.
const SERVICE_GROUP: &str = "q";

/// A link of a network.
#[derive(Clone, Debug)]
pub(super) struct MemoryTransport {
    pub(super) network: MemoryNetwork,
    pub(super) link: usize,
}

impl MemoryTransport {
    fn incoming(&self, message: Message) -> IncomingRequest {
        let (transport, reply) = (self.clone(), message.reply.clone());
        IncomingRequest::new(message, move |headers, payload| async move {
            let reply = reply.ok_or_else(|| TransportError::new("the request expects no reply"))?;
            transport.network.publish(transport.link, Message::new(reply, payload).with_headers(headers));
            Ok(())
        })
    }
}

impl Transport for MemoryTransport {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        self.network.publish(self.link, message);
        ready(Ok(())).boxed()
    }

    fn request(&self, message: Message, timeout: Duration) -> BoxFuture<'_, Result<Message, RequestError>> {
        async move {
            let inbox = format!("_INBOX.{}", self.network.state().id());
            let mut replies = self.network.subscribe(self.link, inbox.clone(), None);
            let message = Message { reply: Some(inbox), ..message };
            if self.network.publish(self.link, message) == 0 {
                return Err(RequestError::NoResponders);
            }
            let reply =
                tokio::time::timeout(timeout, replies.next()).await.map_err(|_elapsed| RequestError::TimedOut)?;
            reply.ok_or_else(|| TransportError::new("the connection is closed").into())
        }
        .boxed()
    }

    fn subscribe(
        &self,
        subject: Subject,
        queue_group: Option<&str>,
    ) -> BoxFuture<'_, Result<Subscription, TransportError>> {
        ready(Ok(self.network.subscribe(self.link, subject, queue_group))).boxed()
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<IncomingRequests, TransportError>> {
        let subscribe = |subject: String| self.network.subscribe(self.link, subject, Some(SERVICE_GROUP));
        let endpoints: Vec<Subscription> =
            service.endpoints.into_iter().map(|endpoint| subscribe(endpoint.subject)).collect();
        let transport = self.clone();
        ready(Ok(select_all(endpoints).map(move |message| transport.incoming(message)).boxed())).boxed()
    }

    fn read_stream(&self, range: EventRange) -> BoxFuture<'_, Result<Option<StreamReader>, TransportError>> {
        self.network.read_stream(self.link, range).boxed()
    }

    fn connects(&self) -> watch::Receiver<u64> {
        let state = self.network.state();
        match state.links.get(self.link) {
            Some(link) => link.connects.subscribe(),
            None => watch::channel(0).1,
        }
    }

    fn is_connected(&self) -> bool {
        self.network.state().is_up(self.link)
    }
}
