//! [`Transport`] over a NATS client.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::service::{self, ServiceExt};
use async_nats::{Client, Request, RequestErrorKind, jetstream};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{StreamExt, select_all};
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use tokio::sync::watch;

use crate::transport::{
    IncomingRequest, IncomingRequests, Message, RequestError, ServiceSpec, StreamMessage, StreamReader, Subject,
    Subscription, Transport, TransportError,
};

/// A NATS client, and how often it has connected.
#[derive(Debug)]
pub(super) struct NatsTransport {
    pub(super) client: Client,
    pub(super) connects: watch::Receiver<u64>,
}

impl From<async_nats::Message> for Message {
    fn from(message: async_nats::Message) -> Self {
        let async_nats::Message { subject, reply, payload, headers, status: _, description: _, length: _ } = message;
        Self { subject, reply, headers: headers.unwrap_or_default(), payload }
    }
}

impl Transport for NatsTransport {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        async move {
            let Message { subject, reply, headers, payload } = message;
            let client = &self.client;
            // An empty header block would be sent as such.
            let published = match (reply, headers.is_empty()) {
                (None, true) => client.publish(subject, payload).await,
                (None, false) => client.publish_with_headers(subject, headers, payload).await,
                (Some(reply), true) => client.publish_with_reply(subject, reply, payload).await,
                (Some(reply), false) => client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
            };
            published.map_err(TransportError::new)
        }
        .boxed()
    }

    fn request(&self, message: Message, timeout: Duration) -> BoxFuture<'_, Result<Message, RequestError>> {
        async move {
            let Message { subject, reply: _, headers, payload } = message;
            let mut request = Request::new().payload(payload).timeout(Some(timeout));
            if !headers.is_empty() {
                request = request.headers(headers);
            }
            let reply = self.client.send_request(subject, request).await.map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => RequestError::NoResponders,
                RequestErrorKind::TimedOut => RequestError::TimedOut,
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::Other => {
                    RequestError::Failed(TransportError::new(error))
                }
            })?;
            Ok(reply.into())
        }
        .boxed()
    }

    fn subscribe(
        &self,
        subject: Subject,
        queue_group: Option<&str>,
    ) -> BoxFuture<'_, Result<Subscription, TransportError>> {
        let queue_group = queue_group.map(ToOwned::to_owned);
        async move {
            let subscribed = match queue_group {
                Some(group) => self.client.queue_subscribe(subject, group).await,
                None => self.client.subscribe(subject).await,
            };
            Ok(Subscription::new(subscribed.map_err(TransportError::new)?.map(Message::from)))
        }
        .boxed()
    }

    fn serve(&self, spec: ServiceSpec) -> BoxFuture<'_, Result<IncomingRequests, TransportError>> {
        async move {
            let ServiceSpec { name, description, version, endpoints: specs } = spec;
            let builder = self.client.service_builder().description(description);
            let service = builder.start(name, version).await.map_err(TransportError::new)?;
            let mut endpoints = Vec::with_capacity(specs.len());
            for spec in specs {
                let builder = service.endpoint_builder().name(spec.name).metadata(spec.metadata);
                endpoints.push(builder.add(spec.subject).await.map_err(TransportError::new)?);
            }
            let requests = select_all(endpoints).map(move |request| {
                // Dropping the service ends it, so its requests own it.
                let _service = &service;
                incoming(request)
            });
            Ok(requests.boxed())
        }
        .boxed()
    }

    fn read_stream(
        &self,
        subject: &'static str,
        first: Position,
    ) -> BoxFuture<'_, Result<Option<StreamReader>, TransportError>> {
        async move { open(&self.client, subject, first).await.map_err(TransportError::new) }.boxed()
    }

    fn connects(&self) -> watch::Receiver<u64> {
        self.connects.clone()
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }
}

fn incoming(mut request: service::Request) -> IncomingRequest {
    let received = &mut request.message;
    // Only the headers are costly to copy, and sending the reply does not need them.
    let message = Message {
        subject: received.subject.clone(),
        reply: received.reply.clone(),
        headers: received.headers.take().unwrap_or_default(),
        payload: received.payload.clone(),
    };
    IncomingRequest::new(message, move |headers, payload| async move {
        request.respond_with_headers(Ok(payload), headers).await.map_err(TransportError::new)
    })
}

async fn open(
    client: &Client,
    subject: &'static str,
    first: Position,
) -> Result<Option<StreamReader>, async_nats::Error> {
    let stream = jetstream::new(client.clone()).get_stream_no_info(STREAM).await?;
    let config = pull::OrderedConfig {
        filter_subject: subject.to_owned(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first.get().max(1) },
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await?;
    if consumer.cached_info().num_pending == 0 {
        return Ok(None);
    }
    let messages = consumer.messages().await?.map(|message| {
        let message = message.map_err(TransportError::new)?;
        let info = message.info().map_err(TransportError::new)?;
        let (sequence, pending) = (Position::new(info.stream_sequence), info.pending);
        Ok(StreamMessage { sequence, pending, message: message.message.into() })
    });
    Ok(Some(messages.boxed()))
}
