//! Serving requests: each is admitted ([`crate::admission`]), handled in a task of its own, and answered.
//!
//! Cancel-safety: dropping [`RequestServer::serve`] stops accepting requests; those in progress are answered.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt, join_all};
use futures::stream::StreamExt;
use otherix_runtime::Runtime;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::json_schema::schema_id;
use otherix_schemas::permission::Role;
use otherix_schemas::request::{Request, ServiceKind};
use otherix_schemas::subject::{REQUESTS, RequestSubject};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{Caller, Callers};
use otherix_schemas::value::UserId;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::admission::admit;
pub use crate::admission::{Call, REQUEST_INFO, Sender, authorize};
use crate::connection::Connection;
use crate::transport::{
    EndpointSpec, Headers, IncomingRequest, IncomingRequests, Message, ServiceSpec, TransportError,
};

/// The headers of an answer that is an error: its code and the HTTP status with the same meaning (NATS ADR-32).
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// A service could not be registered.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve requests")]
pub struct ServeError(#[source] TransportError);

impl ServeError {
    /// Wraps what prevented the registration.
    pub fn new(cause: TransportError) -> Self {
        Self(cause)
    }
}

/// Most bytes of an answer: the server's `max_payload` of 1 MiB, less its headers.
pub const ANSWER_MAX: usize = (1 << 20) - 4096;

/// Requests of one service that are handled at the same time.
const AT_ONCE: usize = 4096;

/// The connections on which requests arrive: each kind of sender has one of its own, so that a flood of one kind does
/// not delay the other.
#[derive(Clone)]
pub struct Connections {
    pub people: Connection,
    /// Requests and heartbeats of nodes.
    pub nodes: Connection,
    /// Told of each request when it is answered.
    pub observer: RequestObserver,
}

/// Told of requests.
pub type RequestObserver = Arc<dyn Fn(&Served<'_>) + Send + Sync>;

/// A request that was answered, or refused.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// None if it is no request that there is.
    pub request: Option<Request>,
    /// The key of the sender, as its subject says; none if it does not.
    pub sender: Option<&'a UserId>,
    pub refusal: Option<&'a ErrorBody>,
    /// From its arrival to the answer.
    pub took: Duration,
}

/// A request that was refused, with the reason.
#[derive(Clone, Copy, Debug)]
pub struct Denied<'a> {
    pub request: Request,
    pub caller: &'a Caller,
    pub body: &'a [u8],
    pub refusal: &'a ErrorBody,
}

/// A registered service. Its requests are queued until [`RequestServer::serve`] is called.
pub struct RequestServer {
    incoming: [IncomingRequests; 2],
    callers: watch::Receiver<Callers>,
    observer: RequestObserver,
    runtime: Arc<dyn Runtime>,
}

impl RequestServer {
    /// Registers the service, with an endpoint for each of its requests. The endpoints' metadata document the requests
    /// for `$SRV.INFO`. Requests of others than the callers are refused.
    ///
    /// # Errors
    /// If the messaging system refuses it.
    pub async fn start(
        connections: &Connections,
        kind: ServiceKind,
        callers: watch::Receiver<Callers>,
    ) -> Result<Self, ServeError> {
        let Connections { people, nodes, observer } = connections;
        let (of_nodes, of_people): (Vec<Request>, Vec<Request>) =
            kind.requests().partition(|request| is_from_nodes(*request));
        let runtime = Arc::clone(people.runtime());
        let incoming = [register(people, kind, of_people).await?, register(nodes, kind, of_nodes).await?];
        Ok(Self { incoming, callers, observer: Arc::clone(observer), runtime })
    }

    /// Handles each request in its own task until the connection is closed. `denied` is told of those that callers lack
    /// the permission for.
    pub async fn serve<Handler, Answer>(self, handler: Handler, denied: impl Fn(Denied<'_>) + Send + Sync + 'static)
    where
        Handler: Fn(Call) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Bytes, ErrorBody>> + Send + 'static,
    {
        let Self { incoming, callers, observer, runtime } = self;
        let (handler, denied) = (Arc::new(handler), Arc::new(denied));
        let limit = Arc::new(Semaphore::new(AT_ONCE));
        let serving = incoming.map(|mut incoming| {
            let (handler, limit, runtime) = (Arc::clone(&handler), Arc::clone(&limit), Arc::clone(&runtime));
            let (callers, denied, observer) = (callers.clone(), Arc::clone(&denied), Arc::clone(&observer));
            async move {
                while let Some(request) = incoming.next().await {
                    // It is never closed. Further requests wait in the connection's queue, which is bounded.
                    let permit = Arc::clone(&limit).acquire_owned().await.ok();
                    let (handler, callers, now) = (Arc::clone(&handler), callers.clone(), runtime.now().ok());
                    let (denied, observer, begun) = (Arc::clone(&denied), Arc::clone(&observer), Instant::now());
                    let task = async move {
                        let answer = async {
                            let call = {
                                let callers = callers.borrow();
                                let told =
                                    |refusal: &ErrorBody| tell(&request.message, (&callers, now), refusal, &*denied);
                                admit(&request.message, &callers, now).inspect_err(told)?
                            };
                            handler(call).await
                        };
                        let answer = unless_panicking(answer).await;
                        observe(&request.message, answer.as_ref().err(), begun, &*observer);
                        respond(request, answer).await;
                        drop(permit);
                    };
                    drop(runtime.spawn_boxed("request", Box::pin(task)));
                }
            }
        });
        join_all(serving).await;
    }
}

/// Tells of a request that is about to be answered.
fn observe(
    message: &Message,
    refusal: Option<&ErrorBody>,
    begun: Instant,
    observer: &(dyn Fn(&Served<'_>) + Send + Sync),
) {
    let subject: Option<RequestSubject> = message.subject.parse().ok();
    let (request, sender) = (subject.as_ref().map(|subject| subject.request), subject.as_ref().map(|s| &s.user));
    observer(&Served { request, sender, refusal, took: begun.elapsed() });
}

/// Tells of a request that its caller lacks the permission for.
fn tell(
    message: &Message,
    (callers, now): (&Callers, Option<Timestamp>),
    refusal: &ErrorBody,
    denied: &impl Fn(Denied<'_>),
) {
    if refusal.error.code != ErrorCode::PermissionDenied {
        return;
    }
    // Its sender was attested.
    let Ok(RequestSubject { user, request }) = message.subject.parse() else { return };
    if let Ok(caller) = callers.find(&user, now) {
        denied(Denied { request, caller: &caller, body: &message.payload, refusal });
    }
}

/// Registers some of a service's requests on a connection. Ends at once, when served, if there are none.
async fn register(
    connection: &Connection,
    kind: ServiceKind,
    requests: Vec<Request>,
) -> Result<IncomingRequests, ServeError> {
    if requests.is_empty() {
        return Ok(futures::stream::empty().boxed());
    }
    let endpoint = |request: Request| EndpointSpec {
        name: request.name.replace('.', "-"),
        subject: format!("{REQUESTS}.*.{}", request.name),
        metadata: metadata(request),
    };
    let service = ServiceSpec {
        name: kind.name().to_owned(),
        description: kind.description().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        endpoints: requests.into_iter().map(endpoint).collect(),
    };
    connection.serve(service).await.map_err(ServeError)
}

/// Whether nodes make such requests. Operators may make some of them, too.
fn is_from_nodes(request: Request) -> bool {
    [Role::Node, Role::NodeJoin].into_iter().any(|role| role.has(request.permission))
}

/// A panic while a request is handled is an error of that request alone.
async fn unless_panicking(handled: impl Future<Output = Result<Bytes, ErrorBody>>) -> Result<Bytes, ErrorBody> {
    AssertUnwindSafe(handled).catch_unwind().await.unwrap_or_else(|_| {
        Err(ErrorBody::new(ErrorCode::Internal, "an unexpected error: the control plane's log has the details"))
    })
}

/// The metadata of a request's endpoint in `$SRV.INFO`. Schemas are named by their `$id`.
fn metadata(request: Request) -> HashMap<String, String> {
    let schema = |name: String| schema_id(&name);
    [
        ("summary", request.summary.to_owned()),
        ("description", request.description.to_owned()),
        ("permission", request.permission.as_str().to_owned()),
        ("request_schema", schema(request.body_schema_name())),
        ("answer_schema", schema(request.answer_schema_name())),
        ("error_schema", schema("error".to_owned())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Returns headers and body of an answer. An error has the headers of a NATS service error.
pub fn encode_answer(answer: Result<Bytes, ErrorBody>) -> (Headers, Bytes) {
    let mut headers = Headers::new();
    let body = answer.unwrap_or_else(|error| {
        let code = error.error.code;
        for (name, value) in [(SERVICE_ERROR, code.as_str()), (SERVICE_ERROR_CODE, &code.status().to_string())] {
            // Codes are plain words and numbers.
            let _always_valid = headers.insert(name, value);
        }
        serde_json::to_vec(&error).unwrap_or_default().into()
    });
    (headers, body)
}

/// Sends an answer. A failure is only logged: the requester is gone.
async fn respond(request: IncomingRequest, answer: Result<Bytes, ErrorBody>) {
    let (mut headers, mut body) = encode_answer(answer);
    if body.len() > ANSWER_MAX {
        let text = format!("the answer of {} bytes is too large: select less, with `limit`", body.len());
        (headers, body) = encode_answer(Err(ErrorBody::new(ErrorCode::Unavailable, text)));
    }
    if let Err(error) = request.respond(headers, body).await {
        tracing::debug!(error = %error, "an answer could not be sent");
    }
}
