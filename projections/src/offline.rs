//! Read models of an export: made from its events, at one position for good, and queried without a control plane
//! (docs/adr/0040). The queries, and the code that answers them, are those of the query service.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use otherix_runtime::Runtime;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::EventRange;
use otherix_schemas::id::ClusterId;
use otherix_schemas::permission::Role;
use otherix_schemas::position::Position;
use otherix_schemas::request::AT;
use otherix_schemas::subject::RequestSubject;
use otherix_schemas::user::Caller;
use otherix_schemas::value::UserId;
use otherix_transport::Connection;
use otherix_transport::service::{Call, Sender, encode_answer};
use otherix_transport::transport::{
    IncomingRequests, Message, RequestError, ServiceSpec, StreamReader, Subject, Subscription, Transport,
    TransportError,
};
use tokio::sync::watch;

use crate::READ_MODELS;
use crate::follow::EventReader;
use crate::node::telemetry::Telemetry;
use crate::read_models::ReadSnapshot;
use crate::rebuild::{RebuildError, rebuild};
use crate::service::queries_of;
use crate::store::{current_checkpoint, reading_connection, writing_connection};

/// Why read models cannot be queried.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("cannot read the read models `{}`", path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// Their tables are not those of this version.
    #[error("the read models `{}` were made by another version: make them again", path.display())]
    Version { path: PathBuf },
    /// They are not at one position: nothing that [`replay`] has made.
    #[error("the read models `{}` are not complete", path.display())]
    Incomplete { path: PathBuf },
}

/// Why read models cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error("cannot complete the read models")]
    Complete(#[from] rusqlite::Error),
}

/// Makes read models at `path` of events, which are read in their order, once each. Returns the position of the last
/// one.
///
/// # Errors
/// When the events cannot be read or applied, or the file cannot be written.
pub async fn replay(
    path: &Path,
    cluster: ClusterId,
    runtime: Arc<dyn Runtime>,
    events: &dyn EventReader,
) -> Result<Position, ReplayError> {
    let position = rebuild(path, cluster, Position::new(u64::MAX), runtime, events).await?;
    // Without a write-ahead log, which readers have to create, it can be read where nothing can be written.
    let _mode: String = writing_connection(path)?.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    Ok(position)
}

/// Read models that do not change any more.
#[derive(Clone, Debug)]
pub struct OfflineModels {
    db: Arc<Mutex<rusqlite::Connection>>,
    position: Position,
    runtime: Arc<dyn Runtime>,
    connects: watch::Receiver<u64>,
    user: UserId,
}

impl OfflineModels {
    /// Opens what [`replay`] has made. `user` is whom queries come from.
    ///
    /// # Errors
    /// If it is not the complete work of this version.
    pub fn open(path: &Path, user: UserId, runtime: Arc<dyn Runtime>) -> Result<Self, OfflineError> {
        let failed = |source| OfflineError::Database { path: path.to_owned(), source };
        let db = reading_connection(path).map_err(failed)?;
        let mut position = None;
        for projection in READ_MODELS {
            let Some(at) = current_checkpoint(&db, *projection).map_err(failed)? else {
                return Err(OfflineError::Version { path: path.to_owned() });
            };
            if *position.get_or_insert(at) != at {
                return Err(OfflineError::Incomplete { path: path.to_owned() });
            }
        }
        let (_, connects) = watch::channel(1);
        let (db, position) = (Arc::new(Mutex::new(db)), position.unwrap_or_default());
        Ok(Self { db, position, runtime, connects, user })
    }

    /// The position of the last event that was applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// A connection whose requests are answered from these read models. `url` appears in error messages.
    pub fn connection(self, url: &str) -> Connection {
        let (runtime, user) = (Arc::clone(&self.runtime), self.user.clone());
        let (_, user) = watch::channel(user);
        Connection::new(Arc::new(self), user, url, runtime)
    }

    /// Answers a request, or says that it takes a control plane.
    async fn answer(&self, message: Message) -> Result<Bytes, ErrorBody> {
        let subject: RequestSubject = message
            .subject
            .parse()
            .map_err(|_| ErrorBody::new(ErrorCode::NotFound, format!("there is no request `{}`", message.subject)))?;
        let RequestSubject { user, request } = subject;
        if message.headers.get(AT).is_some() {
            let text = format!("these read models are at position {} alone, and have no history", self.position);
            return Err(ErrorBody::new(ErrorCode::ValidationFailed, text));
        }
        let caller =
            Caller { key: user.clone(), id: user.clone(), name: user.to_string(), role: Role::Admin, expires_at: None };
        let call = Call {
            request,
            caller,
            sender: Sender { user, host: None, client: None },
            body: message.payload,
            idempotency_key: None,
            traceparent: None,
            dry_run: false,
            stale: false,
            at: None,
        };
        let Some(queries) = queries_of(&call) else {
            let text = format!("`{}` takes a control plane: read models alone do not answer it", request.name);
            return Err(ErrorBody::new(ErrorCode::ValidationFailed, text));
        };
        let (db, position, now) = (Arc::clone(&self.db), self.position, self.runtime.now().ok());
        let query = move || {
            let db = db.lock().unwrap_or_else(PoisonError::into_inner);
            // What heartbeats told is in no event.
            let telemetry = Telemetry::default();
            (queries.answer)(&ReadSnapshot { db: &db, position, telemetry: &telemetry, now }, &call)
        };
        let ended = self.runtime.run_blocking("query", query).await;
        ended.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?
    }
}

/// Requests alone are answered; there is nothing to subscribe to.
impl Transport for OfflineModels {
    fn publish(&self, _message: Message) -> BoxFuture<'_, Result<(), TransportError>> {
        ready(Err(offline())).boxed()
    }

    fn request(&self, message: Message, _timeout: Duration) -> BoxFuture<'_, Result<Message, RequestError>> {
        async move {
            let subject = message.subject.clone();
            let (headers, payload) = encode_answer(self.answer(message).await);
            Ok(Message::new(subject, payload).with_headers(headers))
        }
        .boxed()
    }

    fn subscribe(&self, _: Subject, _: Option<&str>) -> BoxFuture<'_, Result<Subscription, TransportError>> {
        ready(Err(offline())).boxed()
    }

    fn serve(&self, _: ServiceSpec) -> BoxFuture<'_, Result<IncomingRequests, TransportError>> {
        ready(Err(offline())).boxed()
    }

    fn read_stream(&self, _: EventRange) -> BoxFuture<'_, Result<Option<StreamReader>, TransportError>> {
        ready(Err(offline())).boxed()
    }

    fn connects(&self) -> watch::Receiver<u64> {
        self.connects.clone()
    }

    fn is_connected(&self) -> bool {
        true
    }
}

fn offline() -> TransportError {
    TransportError::new("read models alone only answer queries")
}
