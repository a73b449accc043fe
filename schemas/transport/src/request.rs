//! Requests to the control plane. The answer is a success or the error body that the service sent; every other failure
//! means that the service was not reached.

use std::time::Duration;

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use otherix_schemas::error::ErrorBody;
use otherix_schemas::request::{Answer, IDEMPOTENCY_KEY, Request, RequestType, STALE};
use otherix_schemas::subject::RequestSubject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::Connection;
use crate::transport::{HeaderMap, Message, RequestError, TransportError};

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
        let subject = RequestSubject { user: self.user().clone(), request }.to_string();
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
        let subject = RequestSubject { user: self.user().clone(), request: Request::of::<R>() }.to_string();
        let mut headers = HeaderMap::new();
        headers.insert(STALE, "true");
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
        let mut headers = HeaderMap::new();
        if let Some(key) = idempotency_key {
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        self.send(subject, body, headers, timeout).await
    }

    async fn send<Body: Serialize + Sync>(
        &self,
        subject: String,
        body: &Body,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<Message, CallError> {
        let message = Message::new(subject, serde_json::to_vec(body)?).with_headers(headers);
        let url = || self.url().to_owned();
        let reply = self.request(message, timeout).await.map_err(|error| match error {
            RequestError::NoResponders => CallError::NoService { url: url() },
            RequestError::TimedOut => CallError::TimedOut { url: url(), timeout },
            RequestError::Failed(source) => CallError::Transport { url: url(), source },
        })?;
        let is_error =
            [NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE].iter().any(|name| reply.headers.get(*name).is_some());
        if is_error {
            return Err(CallError::Refused(serde_json::from_slice(&reply.payload)?));
        }
        Ok(reply)
    }
}
