//! [`Transport`] over a [`Client`].

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use otherix_runtime::Runtime;
use otherix_schemas::event::EventRange;
use tokio::sync::watch;

use super::client::Client;
use super::{events, micro};
use crate::transport::{
    IncomingRequests, Message, RequestError, ServiceSpec, StreamReader, Subject, Subscription, Transport,
    TransportError,
};

/// A NATS client.
#[derive(Debug)]
pub(super) struct NatsTransport {
    pub(super) client: Client,
    pub(super) runtime: Arc<dyn Runtime>,
}

impl Transport for NatsTransport {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        async move { self.client.publish(&message).await }.boxed()
    }

    fn request(&self, message: Message, timeout: Duration) -> BoxFuture<'_, Result<Message, RequestError>> {
        self.client.request(message, timeout).boxed()
    }

    fn subscribe(
        &self,
        subject: Subject,
        queue_group: Option<&str>,
    ) -> BoxFuture<'_, Result<Subscription, TransportError>> {
        let subscription = self.client.subscribe(subject, queue_group.map(ToOwned::to_owned), None);
        ready(subscription.map(|messages| Subscription::new(micro::Messages::new(messages)))).boxed()
    }

    fn serve(&self, service: ServiceSpec) -> BoxFuture<'_, Result<IncomingRequests, TransportError>> {
        ready(micro::serve(&self.client, service, &self.runtime)).boxed()
    }

    fn read_stream(&self, range: EventRange) -> BoxFuture<'_, Result<Option<StreamReader>, TransportError>> {
        events::read(self.client.clone(), range).boxed()
    }

    fn connects(&self) -> watch::Receiver<u64> {
        self.client.connects()
    }

    fn is_connected(&self) -> bool {
        self.client.is_connected()
    }
}
