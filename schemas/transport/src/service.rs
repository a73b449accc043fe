//! Serving requests: the user is taken from the server's attestation and must agree with the subject, the permission is
//! checked, and every request is answered.
//!
//! Cancel-safety: dropping [`RequestServer::serve`] stops accepting requests; those in progress are answered.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{FutureExt, join_all};
use futures::stream::StreamExt;
use otherix_runtime::{LogLimit, Runtime};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::json_schema::schema_id;
use otherix_schemas::permission::Role;
use otherix_schemas::request::{
    DRY_RUN, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_MAX, Request, STALE, ServiceKind, TRACEPARENT, parse_body,
};
use otherix_schemas::subject::{REQUESTS, RequestSubject};
use otherix_schemas::value::UserId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::connection::Connection;
use crate::transport::{
    EndpointSpec, Headers, IncomingRequest, IncomingRequests, Message, ServiceSpec, TransportError,
};

/// The header in which the server names the sender of a message that crosses accounts with `share: true`. The server
/// appends it, and removes one of this name that a client sends; should more than one be left, the last is the
/// server's.
pub const REQUEST_INFO: &str = "Nats-Request-Info";

/// The headers of an answer that is an error: its code and the HTTP status with the same meaning (NATS ADR-32).
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";

/// Longest trace context, in bytes: that of W3C Trace Context, version 00.
const TRACEPARENT_MAX: usize = 55;

/// A request whose user is authenticated and has the permission.
#[derive(Clone, Debug)]
pub struct Call {
    pub request: Request,
    pub user: UserId,
    pub body: Bytes,
    /// Makes it safe to repeat a command.
    pub idempotency_key: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The command is decided only, and not recorded.
    pub dry_run: bool,
    /// The answer to a query need not reflect the latest acknowledged commands.
    pub stale: bool,
}

impl Call {
    /// Parses the body.
    ///
    /// # Errors
    /// `validation_failed` if it is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ErrorBody> {
        parse_body(&self.body)
    }
}

/// The fields of the attestation that are used.
#[derive(Deserialize)]
struct Attestation {
    user: Option<String>,
    kind: Option<String>,
}

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
#[derive(Clone, Debug)]
pub struct Connections {
    pub people: Connection,
    /// Requests and heartbeats of nodes.
    pub nodes: Connection,
}

/// A registered service. Its requests are queued until [`RequestServer::serve`] is called.
pub struct RequestServer {
    incoming: [IncomingRequests; 2],
    runtime: Arc<dyn Runtime>,
}

impl RequestServer {
    /// Registers the service, with an endpoint for each of its requests. The endpoints' metadata document the requests
    /// for `$SRV.INFO`.
    ///
    /// # Errors
    /// If the messaging system refuses it.
    pub async fn start(connections: &Connections, kind: ServiceKind) -> Result<Self, ServeError> {
        let Connections { people, nodes } = connections;
        let (of_nodes, of_people): (Vec<Request>, Vec<Request>) =
            kind.requests().partition(|request| is_from_nodes(*request));
        let runtime = Arc::clone(people.runtime());
        let incoming = [register(people, kind, of_people).await?, register(nodes, kind, of_nodes).await?];
        Ok(Self { incoming, runtime })
    }

    /// Handles each request in its own task until the connection is closed.
    pub async fn serve<Handler, Answer>(self, handler: Handler)
    where
        Handler: Fn(Call) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Bytes, ErrorBody>> + Send + 'static,
    {
        let Self { incoming, runtime } = self;
        let handler = Arc::new(handler);
        let limit = Arc::new(Semaphore::new(AT_ONCE));
        let serving = incoming.map(|mut incoming| {
            let (handler, limit, runtime) = (Arc::clone(&handler), Arc::clone(&limit), Arc::clone(&runtime));
            async move {
                while let Some(request) = incoming.next().await {
                    // It is never closed. Further requests wait in the connection's queue, which is bounded.
                    let permit = Arc::clone(&limit).acquire_owned().await.ok();
                    let handler = Arc::clone(&handler);
                    let task = async move {
                        let answer = async { handler(admit(&request.message)?).await };
                        let answer = unless_panicking(answer).await;
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
    Role::Node.has(request.permission)
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

/// Checks user, permission and headers of a request.
fn admit(message: &Message) -> Result<Call, ErrorBody> {
    let header = |name: &str| message.headers.get(name).map(ToString::to_string);
    let subject: RequestSubject = message
        .subject
        .parse()
        .map_err(|_| ErrorBody::new(ErrorCode::NotFound, format!("there is no request `{}`", message.subject)))?;
    let RequestSubject { user, request } = subject;
    authenticate(&user, message.headers.get_last(REQUEST_INFO))?;
    let permission = request.permission;
    if !Role::of(&user).is_some_and(|role| role.has(permission)) {
        let text = format!("user `{user}` lacks the permission `{}`", permission.as_str());
        return Err(ErrorBody::new(ErrorCode::PermissionDenied, text).with_detail("permission", permission.as_str()));
    }
    let idempotency_key = header(IDEMPOTENCY_KEY);
    if idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX) {
        let text = format!("an idempotency key must have 1 to {IDEMPOTENCY_KEY_MAX} bytes");
        return Err(ErrorBody::new(ErrorCode::ValidationFailed, text));
    }
    let traceparent = header(TRACEPARENT).filter(|context| context.len() <= TRACEPARENT_MAX);
    let (dry_run, stale) = (header(DRY_RUN).is_some(), header(STALE).is_some());
    Ok(Call { request, user, body: message.payload.clone(), idempotency_key, traceparent, dry_run, stale })
}

/// Returns the user that the server attests as the sender of a message that crossed accounts. A message that the server
/// itself sent on a client's behalf (a JetStream reply, for example) has another kind than `Client`, and no sender.
pub fn attested_sender(headers: &Headers) -> Option<UserId> {
    parse_attestation(headers.get_last(REQUEST_INFO)?)
}

fn parse_attestation(info: &str) -> Option<UserId> {
    let Attestation { user, kind } = serde_json::from_str(info).ok()?;
    user.filter(|_| kind.as_deref() == Some("Client"))?.parse().ok()
}

/// Checks that the server attests the user in the subject.
fn authenticate(user: &UserId, info: Option<&str>) -> Result<(), ErrorBody> {
    if info.and_then(parse_attestation).as_ref() == Some(user) {
        return Ok(());
    }
    static REFUSED: LogLimit = LogLimit::new();
    if let Some(count) = REFUSED.hit() {
        tracing::warn!(%user, info, count, "requests were refused: the server does not attest their user");
    }
    Err(ErrorBody::new(ErrorCode::Unauthenticated, format!("the request does not come from user `{user}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_attested_clients_only() {
        let user: UserId = "admin".parse().unwrap();
        let good = r#"{"acc":"CLIENTS","user":"admin","host":"127.0.0.1","kind":"Client"}"#;
        assert!(authenticate(&user, Some(good)).is_ok());
        for bad in [
            None,
            Some("nonsense"),
            Some(r#"{"user":"viewer","kind":"Client"}"#),
            Some(r#"{"user":"admin","kind":"JetStream"}"#),
            Some(r#"{"kind":"JetStream"}"#),
        ] {
            assert_eq!(authenticate(&user, bad).unwrap_err().error.code, ErrorCode::Unauthenticated, "{bad:?}");
        }
    }
}
