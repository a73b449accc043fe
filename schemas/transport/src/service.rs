//! The serving side of requests: who asks is taken from the server's attestation and must agree with
//! the subject, the permission is checked, and every request gets an answer.
//!
//! Cancel-safety: dropping [`Requests::serve`] stops taking requests; those under way are answered.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{self, NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Service, ServiceExt};
use bytes::Bytes;
use futures::stream::{StreamExt, select_all};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::json_schema::schema_id;
use otherix_schemas::permission::Role;
use otherix_schemas::request::{
    IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_MAX, Request, STALE, ServiceKind, TRACEPARENT, parse_body,
};
use otherix_schemas::subject::{REQUESTS, RequestSubject};
use otherix_schemas::value::UserId;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::connection::Connection;

/// What the server writes about who sent a message that crosses accounts with `share: true`. A
/// header of this name that a client sends is overwritten.
const REQUEST_INFO: &str = "Nats-Request-Info";

/// Longest trace context, in bytes: what W3C Trace Context, version 00, has.
const TRACEPARENT_MAX: usize = 55;

/// A request that somebody may make.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub user: UserId,
    /// The request's body.
    pub body: Bytes,
    /// Makes a command safe to repeat.
    pub idempotency_key: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// A query's answer may be behind what was acknowledged.
    pub stale: bool,
}

impl Call {
    /// The body as what it must be.
    ///
    /// # Errors
    /// `validation_failed`, when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ErrorBody> {
        parse_body(&self.body)
    }
}

/// The part of the attestation that counts.
#[derive(Deserialize)]
struct Attestation {
    user: Option<String>,
    kind: Option<String>,
}

/// The service could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve requests")]
pub struct ServeError(#[source] async_nats::Error);

impl ServeError {
    /// From what NATS said.
    pub fn new(cause: async_nats::Error) -> Self {
        Self(cause)
    }
}

/// A NATS service, and the requests that come to it. They wait until they are served.
pub struct Requests {
    /// Ends its endpoints when it is dropped.
    _service: Service,
    endpoints: Vec<Endpoint>,
}

impl Requests {
    /// Registers the NATS service, with an endpoint for each of its requests. The endpoints' metadata document the
    /// requests for `$SRV.INFO`.
    ///
    /// # Errors
    /// If the NATS connection is closed.
    pub async fn start(connection: &Connection, kind: ServiceKind) -> Result<Self, ServeError> {
        let builder = connection.client().service_builder().description(kind.description());
        let service = builder.start(kind.name(), env!("CARGO_PKG_VERSION")).await.map_err(ServeError)?;
        let group = service.group(format!("{REQUESTS}.*"));
        let mut endpoints = Vec::new();
        for request in kind.requests() {
            let endpoint = group.endpoint_builder().name(request.name.replace('.', "-")).metadata(metadata(request));
            endpoints.push(endpoint.add(request.name).await.map_err(ServeError)?);
        }
        Ok(Self { _service: service, endpoints })
    }

    /// Serves them, each in a task of its own, until the connection is closed.
    pub async fn serve<Handler, Answer>(self, handler: Handler)
    where
        Handler: Fn(Call) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Bytes, ErrorBody>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let mut incoming = select_all(self.endpoints);
        while let Some(message) = incoming.next().await {
            let handler = Arc::clone(&handler);
            tokio::spawn(async move {
                let answer = match admit(&message) {
                    Ok(call) => handler(call).await,
                    Err(refusal) => Err(refusal),
                };
                respond(&message, answer).await;
            });
        }
    }
}

/// What `$SRV.INFO` says of a request's endpoint. Schemas are named by their `$id`.
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

/// An answer as it is sent: an error has the headers of a NATS service's error.
pub fn parts(answer: Result<Bytes, ErrorBody>) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    let body = answer.unwrap_or_else(|error| {
        headers.insert(NATS_SERVICE_ERROR, error.error.code.as_str());
        headers.insert(NATS_SERVICE_ERROR_CODE, error.error.code.status().to_string());
        serde_json::to_vec(&error).unwrap_or_default().into()
    });
    (headers, body)
}

/// Whoever has gone does not need the answer, so a failure to send it is only noted.
async fn respond(message: &service::Request, answer: Result<Bytes, ErrorBody>) {
    let (headers, body) = parts(answer);
    if let Err(error) = message.respond_with_headers(Ok(body), headers).await {
        tracing::debug!(error = %error, "an answer could not be sent");
    }
}

/// The call that a message makes, if whoever sent it may make it.
fn admit(message: &service::Request) -> Result<Call, ErrorBody> {
    let message = &message.message;
    let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name)).map(ToString::to_string);
    let subject: RequestSubject = message
        .subject
        .parse()
        .map_err(|_| ErrorBody::new(ErrorCode::NotFound, format!("there is no request `{}`", message.subject)))?;
    let RequestSubject { user, request } = subject;
    attested(&user, header(REQUEST_INFO).as_deref())?;
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
    let stale = header(STALE).is_some();
    Ok(Call { request, user, body: message.payload.clone(), idempotency_key, traceparent, stale })
}

/// The user that the server vouches for as the sender of a message that crossed accounts. A message that the server itself
/// made on somebody's behalf (a JetStream reply, say) has another kind than `Client`, and no sender.
pub fn sender(headers: Option<&HeaderMap>) -> Option<UserId> {
    vouched(headers?.get(REQUEST_INFO)?.as_str())
}

fn vouched(info: &str) -> Option<UserId> {
    let Attestation { user, kind } = serde_json::from_str(info).ok()?;
    user.filter(|_| kind.as_deref() == Some("Client"))?.parse().ok()
}

/// Whether the server vouches for the user in the subject.
fn attested(user: &UserId, info: Option<&str>) -> Result<(), ErrorBody> {
    if info.and_then(vouched).as_ref() == Some(user) {
        return Ok(());
    }
    tracing::warn!(%user, info, "a request was refused: the server does not vouch for its user");
    Err(ErrorBody::new(ErrorCode::Unauthenticated, format!("the request does not come from user `{user}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_word_counts() {
        let user: UserId = "admin".parse().unwrap();
        let good = r#"{"acc":"CLIENTS","user":"admin","host":"127.0.0.1","kind":"Client"}"#;
        assert!(attested(&user, Some(good)).is_ok());
        for bad in [
            None,
            Some("nonsense"),
            Some(r#"{"user":"viewer","kind":"Client"}"#),
            Some(r#"{"user":"admin","kind":"JetStream"}"#),
            Some(r#"{"kind":"JetStream"}"#),
        ] {
            assert_eq!(attested(&user, bad).unwrap_err().error.code, ErrorCode::Unauthenticated, "{bad:?}");
        }
    }
}
