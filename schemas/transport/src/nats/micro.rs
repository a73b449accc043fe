//! A service as NATS's own tools know it: `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS` (docs.nats.io, "Services
//! Framework", ADR-32), and endpoints in a queue group.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::stream::{Stream, StreamExt, select_all};
use otherix_runtime::{LogLimit, Runtime, TaskSet};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Client, Overload, RawSubscription};
use super::protocol::RawMessage;
use crate::service::encode_answer;
use crate::transport::{
    EndpointSpec, HeadersError, IncomingRequest, IncomingRequests, Message, ServiceSpec, TransportError,
};
use crate::turns::{TURN, Turns};

/// The queue group of endpoints, as other implementations have it.
const QUEUE_GROUP: &str = "q";

/// A running service.
struct MicroService {
    spec: ServiceSpec,
    id: String,
    started: Option<Timestamp>,
    statistics: Vec<Statistics>,
    malformed: LogLimit,
}

/// What an endpoint has done.
#[derive(Default)]
struct Statistics {
    requests: AtomicU64,
    errors: AtomicU64,
    /// Nanoseconds from the arrival of requests to their answers.
    processing: AtomicU64,
}

/// Registers a service. The requests own what answers `$SRV`.
pub(super) fn serve(
    client: &Client,
    spec: ServiceSpec,
    runtime: &Arc<dyn Runtime>,
) -> Result<IncomingRequests, TransportError> {
    let statistics = spec.endpoints.iter().map(|_| Statistics::default()).collect();
    let id = runtime.uuid_v4().simple().to_string();
    let service =
        Arc::new(MicroService { spec, id, started: runtime.now().ok(), statistics, malformed: LogLimit::default() });
    let mut answering = TaskSet::default();
    for verb in ["PING", "INFO", "STATS"] {
        let ServiceSpec { name, .. } = &service.spec;
        for subject in [verb.to_owned(), format!("{verb}.{name}"), format!("{verb}.{name}.{}", service.id)] {
            let queries = Messages::new(client.subscribe(format!("$SRV.{subject}"), None, None)?);
            let task = answer_queries(Arc::clone(&service), client.clone(), verb, queries);
            answering.add(runtime.spawn("service queries", task));
        }
    }
    let busy = ErrorBody::new(ErrorCode::Unavailable, "too many requests are waiting: try again later");
    let (headers, payload) = encode_answer(Err(busy));
    let overload = Overload { headers, payload };
    let mut endpoints = Vec::with_capacity(service.spec.endpoints.len());
    for (index, endpoint) in service.spec.endpoints.iter().enumerate() {
        let group = Some(QUEUE_GROUP.to_owned());
        let requests = client.subscribe(endpoint.subject.clone(), group, Some(overload.clone()))?;
        let (service, client) = (Arc::clone(&service), client.clone());
        let requests = Turns::new(RawMessages(requests));
        endpoints.push(requests.filter_map(move |request| {
            let (service, client) = (Arc::clone(&service), client.clone());
            async move { service.incoming(index, request, client).await }
        }));
    }
    let endpoints = endpoints.into_iter().map(StreamExt::boxed);
    Ok(Turns::new(select_all(endpoints))
        .map(move |request| {
            // Dropping the requests ends the service.
            let _answering = &answering;
            request
        })
        .boxed())
}

async fn answer_queries(service: Arc<MicroService>, client: Client, verb: &'static str, mut queries: Messages) {
    while let Some(Message { reply, .. }) = queries.next().await {
        let Some(reply) = reply else { continue };
        let answer = match verb {
            "PING" => service.answer("ping_response", Value::Null),
            "INFO" => service.info(),
            _ => service.stats(),
        };
        // Whoever asked for it may be gone.
        let _unless_closed = client.publish(&Message::new(reply, answer.to_string())).await;
    }
}

impl MicroService {
    /// Returns the request. One whose headers are malformed is answered here.
    async fn incoming(self: Arc<Self>, index: usize, request: RawMessage, client: Client) -> Option<IncomingRequest> {
        let reply = request.reply();
        let message = match request.message() {
            Ok(message) => message,
            Err(error) => {
                self.refuse(index, error, reply, &client).await;
                return None;
            }
        };
        let arrived = Instant::now();
        Some(IncomingRequest::new(message, move |headers, payload| async move {
            if let Some(statistics) = self.statistics.get(index) {
                let took = u64::try_from(arrived.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let is_error = !headers.is_empty();
                statistics.requests.fetch_add(1, Ordering::Relaxed);
                statistics.errors.fetch_add(is_error.into(), Ordering::Relaxed);
                statistics.processing.fetch_add(took, Ordering::Relaxed);
            }
            let reply = reply.ok_or_else(|| TransportError::new("the request expects no reply"))?;
            client.publish(&Message::new(reply, payload).with_headers(headers)).await
        }))
    }

    async fn refuse(&self, index: usize, error: HeadersError, reply: Option<String>, client: &Client) {
        if let Some(statistics) = self.statistics.get(index) {
            statistics.requests.fetch_add(1, Ordering::Relaxed);
            statistics.errors.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(count) = self.malformed.hit() {
            tracing::warn!(%error, count, "requests with malformed headers were refused");
        }
        if let Some(reply) = reply {
            let (headers, payload) = encode_answer(Err(ErrorBody::new(ErrorCode::ValidationFailed, error.to_string())));
            let _unless_closed = client.publish(&Message::new(reply, payload).with_headers(headers)).await;
        }
    }

    /// Returns what every answer to a query has, and what this kind has besides.
    fn answer(&self, kind: &str, more: Value) -> Value {
        let ServiceSpec { name, version, .. } = &self.spec;
        let kind = format!("io.nats.micro.v1.{kind}");
        let mut answer = json!({ "type": kind, "name": name, "id": self.id, "version": version, "metadata": {} });
        if let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) {
            answer.extend(more);
        }
        answer
    }

    fn info(&self) -> Value {
        let endpoint = |endpoint: &EndpointSpec| {
            let EndpointSpec { name, subject, metadata } = endpoint;
            json!({ "name": name, "subject": subject, "queue_group": QUEUE_GROUP, "metadata": metadata })
        };
        let endpoints: Vec<Value> = self.spec.endpoints.iter().map(endpoint).collect();
        self.answer("info_response", json!({ "description": self.spec.description, "endpoints": endpoints }))
    }

    fn stats(&self) -> Value {
        let endpoint = |(endpoint, statistics): (&EndpointSpec, &Statistics)| {
            let EndpointSpec { name, subject, metadata: _ } = endpoint;
            let [requests, errors, processing] = [&statistics.requests, &statistics.errors, &statistics.processing]
                .map(|count| count.load(Ordering::Relaxed));
            let average = processing.checked_div(requests).unwrap_or(0);
            json!({
                "name": name, "subject": subject, "queue_group": QUEUE_GROUP, "num_requests": requests,
                "num_errors": errors, "last_error": "", "processing_time": processing,
                "average_processing_time": average,
            })
        };
        let endpoints: Vec<Value> = self.spec.endpoints.iter().zip(&self.statistics).map(endpoint).collect();
        let started = self.started.map(|started| started.to_string());
        self.answer("stats_response", json!({ "started": started, "endpoints": endpoints }))
    }
}

/// The messages of a subscription as they arrived.
pub(super) struct RawMessages(pub(super) RawSubscription);

impl Stream for RawMessages {
    type Item = RawMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RawMessage>> {
        self.0.receiver.poll(context)
    }
}

/// The messages of a subscription, without those whose headers are malformed.
pub(super) struct Messages {
    raw: RawMessages,
    malformed: LogLimit,
}

impl Messages {
    pub(super) fn new(subscription: RawSubscription) -> Self {
        Self { raw: RawMessages(subscription), malformed: LogLimit::default() }
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        for _ in 0..TURN {
            let Poll::Ready(next) = self.raw.poll_next_unpin(context) else { return Poll::Pending };
            let Some(raw) = next else { return Poll::Ready(None) };
            match raw.message() {
                Ok(message) => return Poll::Ready(Some(message)),
                Err(error) => {
                    if let Some(count) = self.malformed.hit() {
                        tracing::warn!(%error, count, "messages with malformed headers were ignored");
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
