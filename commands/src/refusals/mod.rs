//! Commands that were refused (docs/adr/0041): kept in a database beside the journal for those who look for what was
//! attempted. They are not events: nothing depends on them, and whoever floods the control plane loses its own only. No
//! command waits for them.
//!
//! Cancel-safety: [`RefusalRecorder::run`] may be dropped at any await; what it was given and has not stored is lost.

mod select;
mod store;
#[cfg(test)]
mod tests;
mod waiting;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use otherix_runtime::{LogLimit, Runtime};
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::permission::Permission;
use otherix_schemas::refusal::{RefusalQuery, Refusals};
use otherix_schemas::request::{Request, RequestKind};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::Caller;
use otherix_schemas::value::name_key;
use otherix_schemas::vm::OpenConsole;
use otherix_transport::service::Denied;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

pub use self::store::RefusalStoreError;
use self::store::{Limits, RefusalStore};
use self::waiting::Waiting;

/// Queries that may wait; more wait for their turn to.
const QUERIES_MAX: usize = 64;

/// Longest stored message, in bytes.
const MESSAGE_MAX: usize = 1024;

/// Ids of a command that are kept.
const NAMES_MAX: usize = 16;

/// A command that was refused.
#[derive(Clone, Debug)]
struct Refusal {
    time: Timestamp,
    actor: String,
    actor_name: String,
    request: &'static str,
    /// The ids that its body has.
    ids: Vec<Uuid>,
    /// The key of the name that its body has.
    name: Option<String>,
    code: ErrorCode,
    message: String,
}

/// A query, and where its answer goes.
#[derive(Debug)]
struct Query {
    query: RefusalQuery,
    is_auditor: bool,
    answer: oneshot::Sender<Result<Refusals, RefusalStoreError>>,
}

/// What a [`RefusalLog`] hands to its recorder.
#[derive(Debug, Default)]
struct Handed {
    waiting: Mutex<Waiting>,
    /// Told of each refusal.
    added: Notify,
}

impl Handed {
    fn push(&self, refusal: Refusal) -> bool {
        let is_dropped = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(refusal);
        self.added.notify_one();
        is_dropped
    }

    fn take(&self) -> Vec<Refusal> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take().into()
    }
}

/// The refused commands. Clones share them.
#[derive(Clone, Debug)]
pub struct RefusalLog {
    /// `None`: none are kept.
    recorder: Option<(Arc<Handed>, mpsc::Sender<Query>)>,
}

/// Stores what a [`RefusalLog`] is given.
pub struct RefusalRecorder {
    store: Arc<RefusalStore>,
    handed: Arc<Handed>,
    queries: mpsc::Receiver<Query>,
    runtime: Arc<dyn Runtime>,
}

/// Whether a refusal of this kind tells of an attempt. Others are repeated until they are answered.
fn is_attempt(code: ErrorCode) -> bool {
    match code {
        ErrorCode::ValidationFailed
        | ErrorCode::PermissionDenied
        | ErrorCode::NotFound
        | ErrorCode::Conflict
        | ErrorCode::IdempotencyKeyMismatch => true,
        ErrorCode::Unauthenticated | ErrorCode::Unavailable | ErrorCode::Internal => false,
    }
}

/// The ids in the fields of a body, and the key of its `name`.
fn named(body: &[u8]) -> (Vec<Uuid>, Option<String>) {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return (Vec::new(), None) };
    let ids = fields.iter().filter(|(field, _)| field.as_str() == "id" || field.ends_with("_id"));
    let ids = ids.filter_map(|(_, value)| value.as_str()?.parse().ok()).take(NAMES_MAX).collect();
    let name = fields.get("name").and_then(Value::as_str).filter(|name| name.len() <= MESSAGE_MAX);
    (ids, name.map(|name| name_key(name.trim())))
}

/// The text up to [`MESSAGE_MAX`].
fn shortened(text: &str) -> String {
    text.get(..text.floor_char_boundary(MESSAGE_MAX)).unwrap_or_default().to_owned()
}

impl RefusalLog {
    /// Keeps none.
    pub fn none() -> Self {
        Self { recorder: None }
    }

    /// Opens the database at `path`, or creates it, and returns what stores refusals in it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, runtime: Arc<dyn Runtime>) -> Result<(Self, RefusalRecorder), RefusalStoreError> {
        let store = Arc::new(RefusalStore::open(path, Limits::default())?);
        let (sender, queries) = mpsc::channel(QUERIES_MAX);
        let handed = Arc::<Handed>::default();
        Ok((
            Self { recorder: Some((Arc::clone(&handed), sender)) },
            RefusalRecorder { store, handed, queries, runtime },
        ))
    }

    /// Records that a command was refused, unless that says nothing about a resource. Never waits.
    pub fn record(&self, denied: Denied<'_>, time: Timestamp) {
        let Denied { request, caller, body, refusal } = denied;
        let Some((handed, _)) = &self.recorder else { return };
        let code = refusal.error.code;
        let changes = matches!(request.kind, RequestKind::Command(_)) || request == Request::of::<OpenConsole>();
        if !changes || !is_attempt(code) {
            return;
        }
        let (ids, name) = named(body);
        if ids.is_empty() && name.is_none() {
            return;
        }
        let message = shortened(&refusal.error.message);
        let (actor, actor_name) = (caller.id.to_string(), caller.name.clone());
        let refusal = Refusal { time, actor, actor_name, request: request.name, ids, name, code, message };
        if handed.push(refusal) {
            static DROPPED: LogLimit = LogLimit::new();
            if let Some(count) = DROPPED.hit() {
                tracing::warn!(count, "more commands are refused than can be recorded");
            }
        }
    }

    /// Returns what was recorded for `caller` to see.
    ///
    /// # Errors
    /// `validation_failed` if the query is out of bounds, `unavailable` if there is no database or it fails.
    pub async fn list(&self, query: RefusalQuery, caller: &Caller) -> Result<Refusals, ErrorBody> {
        query.check()?;
        let unavailable = || ErrorBody::new(ErrorCode::Unavailable, "refused commands cannot be read");
        let (_, queries) = self.recorder.as_ref().ok_or_else(unavailable)?;
        let is_auditor = caller.role.has(Permission::AuditRead);
        let (answer, found) = oneshot::channel();
        queries.send(Query { query, is_auditor, answer }).await.map_err(|_| unavailable())?;
        found.await.map_err(|_| unavailable())?.map_err(|error| {
            log(&error);
            unavailable()
        })
    }
}

impl RefusalRecorder {
    /// Stores refusals, and answers queries, until nobody can send any.
    pub async fn run(mut self) {
        loop {
            let (query, is_last) = tokio::select! {
                query = self.queries.recv() => (query, true),
                () = self.handed.added.notified() => (None, false),
            };
            let is_last = is_last && query.is_none();
            // A query sees what was recorded before it, and perhaps more.
            let (store, refusals) = (Arc::clone(&self.store), self.handed.take());
            let work = move || carry_out(&store, &refusals, query);
            // Ends without a result when the process does.
            let _ended = self.runtime.run_blocking("record refusals", work).await;
            if is_last {
                return;
            }
        }
    }
}

fn carry_out(store: &RefusalStore, refusals: &[Refusal], query: Option<Query>) {
    if let Err(error) = store.record(refusals) {
        log(&error);
    }
    if let Some(Query { query, is_auditor, answer }) = query {
        // Whoever asked may be gone.
        let _unless_dropped = answer.send(store.list(&query, is_auditor));
    }
}

fn log(error: &RefusalStoreError) {
    static FAILED: LogLimit = LogLimit::new();
    if let Some(count) = FAILED.hit() {
        tracing::error!(error = %Causes(error), count, "the database of refused commands fails");
    }
}
