//! One request and its answer. An answer is a success or the error body that the service sent;
//! everything else is a failure to reach the service.

use std::time::Duration;

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap, Message, Request as NatsRequest, RequestErrorKind};
use otherix_schemas::error::ErrorBody;
use otherix_schemas::request::{Answer, IDEMPOTENCY_KEY, Request, RequestType, STALE};
use otherix_schemas::subject::RequestSubject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::Connection;

/// How a request is made.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// Makes a command safe to repeat.
    pub idempotency_key: Option<String>,
}

/// Why a request has no success.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service refused it, or failed.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// Nobody serves such requests: the control plane is down.
    #[error("no control plane answers at `{url}`")]
    NoService {
        /// Where.
        url: String,
    },
    /// No answer came in time; whether the request was carried out is not known.
    #[error("no answer from `{url}` within {} ms", timeout.as_millis())]
    TimedOut {
        /// Where.
        url: String,
        /// How long.
        timeout: Duration,
    },
    /// NATS did not carry the request.
    #[error("cannot send the request to `{url}`")]
    Nats {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: async_nats::RequestError,
    },
    /// The request or the answer is not of the agreed shape.
    #[error("the answer is malformed")]
    Malformed(#[from] serde_json::Error),
}

impl Connection {
    /// Makes a request of the control plane.
    ///
    /// # Errors
    /// If the service refuses the request, fails, or cannot be reached.
    pub async fn call<R: RequestType>(
        &self,
        body: &R::Body,
        options: CallOptions,
    ) -> Result<Answer<R::Answer>, CallError> {
        self.call_untyped(Request::of::<R>(), body, options).await
    }

    /// Makes a request that is known only at run time, or whose body need not be valid.
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

    /// Makes a query that is answered with what is known at once, be it behind what was acknowledged.
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

    /// Sends `body` to `subject` and gives the answer, unless it is an error.
    ///
    /// # Errors
    /// When the service refuses, fails or is not reached.
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
        let mut request = NatsRequest::new().payload(serde_json::to_vec(body)?.into()).timeout(Some(timeout));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let url = || self.url().to_owned();
        let message = self.client().send_request(subject, request).await.map_err(|source| match source.kind() {
            RequestErrorKind::NoResponders => CallError::NoService { url: url() },
            RequestErrorKind::TimedOut => CallError::TimedOut { url: url(), timeout },
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::Other => {
                CallError::Nats { url: url(), source }
            }
        })?;
        let failed = message.headers.as_ref().is_some_and(|headers| {
            headers.get(NATS_SERVICE_ERROR).is_some() || headers.get(NATS_SERVICE_ERROR_CODE).is_some()
        });
        if failed {
            return Err(CallError::Refused(serde_json::from_slice(&message.payload)?));
        }
        Ok(message)
    }
}
