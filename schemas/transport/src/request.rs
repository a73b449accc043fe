//! Requests to the control plane. The answer is a success or the error body that the service sent; every other failure
//! means that the service was not reached.

use std::time::Duration;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::request::{AT, Answer, AsOf, DRY_RUN, IDEMPOTENCY_KEY, Request, RequestType, STALE, TRACEPARENT};
use otherix_schemas::subject::RequestSubject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::Connection;
use crate::service::{SERVICE_ERROR, SERVICE_ERROR_CODE};
use crate::transport::{Headers, HeadersError, Message, RequestError, TransportError};

/// How a request is made.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// Makes it safe to repeat a command: all requests with the same key are carried out once.
    pub idempotency_key: Option<String>,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service rejected it, or failed.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// No service handles such requests: the control plane is down.
    #[error("no control plane answers at `{url}`")]
    NoService { url: String },
    /// It is unknown whether the request was carried out.
    #[error("no answer from `{url}` within {} ms", timeout.as_millis())]
    TimedOut { url: String, timeout: Duration },
    /// The request could not be sent.
    #[error("cannot send the request to `{url}`")]
    Transport {
        url: String,
        #[source]
        source: TransportError,
    },
    /// The request cannot be encoded, or the answer cannot be decoded.
    #[error("the answer is malformed")]
    Malformed(#[from] serde_json::Error),
}

impl Connection {
    /// Sends a request to the control plane and returns its answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<R: RequestType>(
        &self,
        body: &R::Body,
        options: CallOptions,
    ) -> Result<Answer<R::Answer>, CallError> {
        self.call_untyped(Request::of::<R>(), body, options).await
    }

    /// Sends a request that is known only at run time, or whose body need not be valid.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call_untyped<Body: Serialize + Sync, Data: DeserializeOwned>(
        &self,
        request: Request,
        body: &Body,
        options: CallOptions,
    ) -> Result<Answer<Data>, CallError> {
        let subject = RequestSubject { user: self.user(), request }.to_string();
        Ok(serde_json::from_slice(&self.exchange(subject, body, options).await?.payload)?)
    }

    /// Sends a query that is answered at once from the current read models, which may not reflect the latest
    /// acknowledged commands.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call_stale<R: RequestType>(
        &self,
        body: &R::Body,
        timeout: Duration,
    ) -> Result<Answer<R::Answer>, CallError> {
        let subject = RequestSubject { user: self.user(), request: Request::of::<R>() }.to_string();
        let headers = self.headers([(STALE, "true")])?;
        Ok(serde_json::from_slice(&self.send(subject, body, headers, timeout).await?.payload)?)
    }

    /// Sends a query that is answered as of a moment of the past.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call_at<R: RequestType>(
        &self,
        body: &R::Body,
        at: AsOf,
        timeout: Duration,
    ) -> Result<Answer<R::Answer>, CallError> {
        let subject = RequestSubject { user: self.user(), request: Request::of::<R>() }.to_string();
        let headers = self.headers([(AT, at.to_string().as_str())])?;
        Ok(serde_json::from_slice(&self.send(subject, body, headers, timeout).await?.payload)?)
    }

    /// Sends a command that is decided and not recorded.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call_dry_run<R: RequestType>(
        &self,
        body: &R::Body,
        timeout: Duration,
    ) -> Result<Answer<R::Answer>, CallError> {
        let subject = RequestSubject { user: self.user(), request: Request::of::<R>() }.to_string();
        let headers = self.headers([(DRY_RUN, "true")])?;
        Ok(serde_json::from_slice(&self.send(subject, body, headers, timeout).await?.payload)?)
    }

    /// Sends `body` to `subject` and returns the reply, unless it is an error.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn exchange<Body: Serialize + Sync>(
        &self,
        subject: String,
        body: &Body,
        options: CallOptions,
    ) -> Result<Message, CallError> {
        let CallOptions { timeout, idempotency_key } = options;
        let headers = self.headers(idempotency_key.as_deref().map(|key| (IDEMPOTENCY_KEY, key)))?;
        self.send(subject, body, headers, timeout).await
    }

    fn headers<'a>(&'a self, values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Headers, CallError> {
        let mut headers = Headers::new();
        let trace = self.traceparent().map(|context| (TRACEPARENT, context));
        let mut inserted = values.into_iter().chain(trace).map(|(name, value)| headers.insert(name, value));
        let inserted: Result<(), HeadersError> = inserted.by_ref().collect();
        let url = || self.url().to_owned();
        inserted.map_err(|error| CallError::Transport { url: url(), source: TransportError::new(error) })?;
        Ok(headers)
    }

    async fn send<Body: Serialize + Sync>(
        &self,
        subject: String,
        body: &Body,
        headers: Headers,
        timeout: Duration,
    ) -> Result<Message, CallError> {
        let message = Message::new(subject, serde_json::to_vec(body)?).with_headers(headers);
        let url = || self.url().to_owned();
        let reply = self.request(message, timeout).await.map_err(|error| match error {
            RequestError::NoResponders => CallError::NoService { url: url() },
            RequestError::TimedOut => CallError::TimedOut { url: url(), timeout },
            RequestError::Denied { subject, role } => CallError::Refused(denied(&subject, role)),
            RequestError::Unauthenticated(reason) => {
                CallError::Refused(ErrorBody::new(ErrorCode::Unauthenticated, reason))
            }
            RequestError::Failed(source) => CallError::Transport { url: url(), source },
        })?;
        if is_error(&reply) {
            return Err(CallError::Refused(serde_json::from_slice(&reply.payload)?));
        }
        Ok(reply)
    }
}

/// The answer that the control plane would have given, had the server passed the request on.
fn denied(subject: &str, role: Option<String>) -> ErrorBody {
    let who = role.as_ref().map_or_else(|| "the user".to_owned(), |role| format!("role `{role}`"));
    let subject: Result<RequestSubject, _> = subject.parse();
    let body = match subject {
        Ok(RequestSubject { user: _, request }) => {
            let permission = request.permission.as_str();
            let text = format!("{who} lacks the permission `{permission}`");
            ErrorBody::new(ErrorCode::PermissionDenied, text).with_detail("permission", permission)
        }
        Err(error) => ErrorBody::new(ErrorCode::PermissionDenied, format!("{who} may not use it: {error}")),
    };
    match role {
        Some(role) => body.with_detail("role", role),
        None => body,
    }
}

/// Returns whether a reply is an error, and its payload an error body.
pub(crate) fn is_error(reply: &Message) -> bool {
    [SERVICE_ERROR, SERVICE_ERROR_CODE].iter().any(|name| reply.headers.get(name).is_some())
}
