//! The query service: an answer contains every write that was acknowledged before the request arrived.
//!
//! Cancel-safety: dropping [`Service::run`] stops taking requests; those under way are answered.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_runtime::LogLimit;
use otherix_schemas::cluster::GetClusterStatus;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::event::ListEvents;
use otherix_schemas::position::Position;
use otherix_schemas::request::{
    Answer, ByName, Meta, PAGE_DEFAULT, PAGE_MAX, PageRequest, Request, RequestKind, ServiceKind,
};
use otherix_schemas::user::Callers;
use otherix_schemas::violations::Violations;
use otherix_transport::service::{ANSWER_MAX, Call, Connections, RequestServer, ServeError};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::follow::EventReader;
use crate::history::{History, is_interrupted};
use crate::query::{Listed, Page, QueryError};
use crate::read_models::{ReadModels, ReadSnapshot, ReadSnapshotError};
use crate::{cluster, events, network, node, schemas, status, user, vm};

/// The queries of all read models.
static SERVED: [&Queries; 4] = [&network::QUERIES, &vm::QUERIES, &node::QUERIES, &user::QUERIES];

/// How long a request waits for the read models to contain what was acknowledged, unless it accepts a stale answer.
pub(crate) const LAG: Duration = Duration::from_secs(2);

/// Requests that are answered from the same read models.
pub(crate) struct Queries {
    pub(crate) requests: &'static [Request],
    /// The names of the read models whose tables are read.
    pub(crate) reads: &'static [&'static str],
    /// Whether the history has all of these read models.
    pub(crate) is_historic: bool,
    /// Runs in a blocking task.
    pub(crate) answer: fn(&ReadSnapshot<'_>, &Call) -> Result<Bytes, ErrorBody>,
}

/// The service with its subscriptions. Requests wait until it is run.
pub struct Service {
    requests: RequestServer,
    inputs: Inputs,
}

/// What queries are answered from.
pub struct Inputs {
    pub models: ReadModels,
    pub history: History,
    /// The last durable position of the event store.
    pub head: watch::Receiver<Position>,
    pub events: Arc<dyn EventReader>,
    /// The last event that the stream has acknowledged.
    pub stream: StreamPosition,
}

/// Tells the last event that the stream has acknowledged.
pub type StreamPosition = Arc<dyn Fn() -> Position + Send + Sync>;

impl Service {
    /// Subscribes. Once NATS has processed that ([`otherix_transport::Connection::settled`]), no request is lost.
    ///
    /// # Errors
    /// When NATS refuses the service.
    pub async fn start(
        connections: &Connections,
        inputs: Inputs,
        callers: watch::Receiver<Callers>,
    ) -> Result<Self, ServeError> {
        let requests = RequestServer::start(connections, ServiceKind::Queries, callers).await?;
        Ok(Self { requests, inputs })
    }

    /// Answers requests until the connection is closed.
    pub async fn run(self) {
        let Self { requests, inputs } = self;
        let inputs = Arc::new(inputs);
        let handler = move |call: Call| {
            let inputs = Arc::clone(&inputs);
            async move { inputs.answer(call).await }
        };
        // Queries change nothing: whoever may not make one has attempted nothing.
        requests.serve(handler, |_denied| {}).await;
    }
}

impl Inputs {
    /// Answers a query.
    ///
    /// # Errors
    /// What the caller is told instead of an answer.
    pub async fn answer(&self, call: Call) -> Result<Bytes, ErrorBody> {
        let Self { models, history, head, events, stream } = self;
        // As of the request's arrival.
        let head = *head.borrow();
        if let RequestKind::Maintenance = call.request.kind {
            status::answer(models, history, head, &call)
        } else if let Some(at) = call.at {
            let queries = queries_of(&call).filter(|queries| queries.is_historic);
            let queries = queries.ok_or_else(|| no_history(&call))?;
            history.answer(events.as_ref(), (at, head), call, queries.answer).await
        } else if call.request == Request::of::<GetClusterStatus>() {
            cluster::answer(models, history, (head, stream()), &call).await
        } else if call.request == Request::of::<ListEvents>() {
            events::list(events.as_ref(), head, &call).await
        } else if otherix_schemas::schema::QUERIES.contains(&call.request) {
            schemas::answer(head, &call)
        } else {
            handle(models, head, call).await
        }
    }
}

pub(crate) fn queries_of(call: &Call) -> Option<&'static Queries> {
    SERVED.into_iter().find(|queries| queries.requests.contains(&call.request))
}

fn no_history(call: &Call) -> ErrorBody {
    let text = format!("`{}` has no history: only networks, VMs and nodes have", call.request.name);
    Violations::one("at", text).into()
}

async fn handle(models: &ReadModels, head: Position, call: Call) -> Result<Bytes, ErrorBody> {
    let Some(Queries { requests: _, reads, is_historic: _, answer }) = queries_of(&call) else {
        return Err(ErrorBody::new(ErrorCode::NotFound, format!("`{}` is not a query", call.request.name)));
    };
    if !call.stale && !models.reach(reads, head, LAG).await {
        return Err(lagging(models, reads, head));
    }
    let answer = models.snapshot(reads, move |snapshot| answer(snapshot, &call)).await;
    let answer = answer.unwrap_or_else(|error| Err(not_read(models, (reads, head), error)));
    if answer.as_ref().is_err_and(|error| error.error.code == ErrorCode::Internal) {
        models.suspect_damage();
    }
    answer
}

/// The answer if the read models could not be read.
pub(crate) fn not_read(models: &ReadModels, (reads, head): (&[&str], Position), error: ReadSnapshotError) -> ErrorBody {
    match error {
        ReadSnapshotError::Rebuilding => lagging(models, reads, head),
        ReadSnapshotError::Query(error) => failed(&error),
        ReadSnapshotError::Task(error) => ErrorBody::new(ErrorCode::Internal, error.to_string()),
    }
}

fn lagging(models: &ReadModels, reads: &[&str], head: Position) -> ErrorBody {
    let lag = head.get().saturating_sub(models.reached(reads).get());
    let error = models.error(reads).map(|error| format!(" ({error})")).unwrap_or_default();
    let text = format!("the read models lag {lag} events behind the journal{error}");
    ErrorBody::new(ErrorCode::Unavailable, text).with_detail("lag", lag)
}

/// The name in the request's body.
pub(crate) fn name<Name: FromStr<Err: std::fmt::Display>>(call: &Call) -> Result<Name, ErrorBody> {
    let ByName { name } = call.json()?;
    name.parse().map_err(|error: Name::Err| Violations::one("name", error).into())
}

/// The requested page of a list that has no filters. `prefix` is what the list's cursors begin with.
pub(crate) fn plain_page(request: Map<String, Value>, prefix: &str) -> Result<Page, ErrorBody> {
    let (list, violations) = PageRequest::from_json(request);
    page(list, prefix, violations)
}

/// The requested page, unless there are violations already or it violates rules itself.
pub(crate) fn page(list: PageRequest, prefix: &str, mut violations: Violations) -> Result<Page, ErrorBody> {
    let v = &mut violations;
    let PageRequest { limit, cursor } = list;
    let limit = match limit {
        None => u32::try_from(PAGE_DEFAULT).ok(),
        Some(limit) => {
            let fits = u32::try_from(limit).ok().filter(|limit| (1..=PAGE_MAX).contains(&u64::from(*limit)));
            v.check("limit", fits.ok_or_else(|| format!("must be 1 to {PAGE_MAX}, not {limit}")))
        }
    };
    let after = match cursor {
        None => Some(Position::ZERO),
        Some(text) => {
            v.check("cursor", position(&text, prefix).ok_or("must be the cursor of an earlier page of this list"))
        }
    };
    match (limit, after) {
        (Some(limit), Some(after)) if violations.is_empty() => Ok(Page { limit, after }),
        _ => Err(violations.into()),
    }
}

fn position(cursor: &str, prefix: &str) -> Option<Position> {
    let digits = cursor.strip_prefix(prefix)?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // SQLite's integers are signed.
    let number = digits.parse().ok().filter(|number| i64::try_from(*number).is_ok());
    plain.then_some(number?).map(Position::new)
}

/// The answer with a resource, or `not_found`.
pub(crate) fn found<View: Serialize>(
    view: Result<Option<View>, QueryError>,
    snapshot: &ReadSnapshot<'_>,
    missing: impl FnOnce() -> String,
) -> Result<Bytes, ErrorBody> {
    let data = view.map_err(|error| failed(&error))?.ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, missing()))?;
    encode(&Answer { data, meta: Meta::at(snapshot.position) })
}

/// The answer with a page of a list: fewer than requested if they do not fit into a message.
pub(crate) fn listed<View: Serialize>(
    listed: Result<Listed<View>, QueryError>,
    snapshot: &ReadSnapshot<'_>,
    prefix: &str,
) -> Result<Bytes, ErrorBody> {
    encode_page(listed.map_err(|error| failed(&error))?, snapshot.position, prefix)
}

fn encode_page<View: Serialize>(
    mut listed: Listed<View>,
    position: Position,
    prefix: &str,
) -> Result<Bytes, ErrorBody> {
    loop {
        let next_cursor = listed.next().map(|position| format!("{prefix}{position}"));
        let meta = Meta { position, next_cursor };
        let answer = encode(&Answer { data: &listed.views, meta })?;
        if answer.len() <= ANSWER_MAX || !listed.halve() {
            return Ok(answer);
        }
    }
}

/// The answer to a request that is routed to the wrong queries.
pub(crate) fn not_served(call: &Call) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, format!("`{}` is not answered here", call.request.name))
}

pub(crate) fn encode<T: Serialize>(answer: &T) -> Result<Bytes, ErrorBody> {
    serde_json::to_vec(answer)
        .map(Bytes::from)
        .map_err(|error| ErrorBody::new(ErrorCode::Internal, format!("the answer has no JSON form: {error}")))
}

pub(crate) fn failed(error: &QueryError) -> ErrorBody {
    if is_interrupted(error) {
        return ErrorBody::new(ErrorCode::Unavailable, "the query took too long: select less, with `limit`");
    }
    static FAILED: LogLimit = LogLimit::new();
    if let Some(count) = FAILED.hit() {
        tracing::error!(error = %Causes(error), count, "queries failed");
    }
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The violated fields.
    fn refused(request: Value, prefix: &str) -> Vec<String> {
        let Value::Object(request) = request else { panic!("no object") };
        let error = plain_page(request, prefix).unwrap_err();
        error.error.details["fields"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn a_page_that_does_not_fit_is_continued_by_the_next() {
        let views: Vec<String> = (0..200).map(|_| "x".repeat(12_000)).collect();
        let positions = (1..=200).map(Position::new).collect();
        let page = encode_page(Listed { views, positions, has_more: false }, Position::new(500), "net1.").unwrap();
        assert!(page.len() <= ANSWER_MAX);
        let page: Answer<Vec<String>> = serde_json::from_slice(&page).unwrap();
        assert_eq!((page.data.len(), page.meta.next_cursor.as_deref()), (50, Some("net1.50")));
        let whole = Listed { views: vec!["x"; 2], positions: vec![Position::new(1); 2], has_more: false };
        let page = encode_page(whole, Position::new(500), "net1.").unwrap();
        let page: Answer<Vec<String>> = serde_json::from_slice(&page).unwrap();
        assert_eq!((page.data.len(), page.meta.next_cursor), (2, None));
    }

    #[test]
    fn list_accepts_only_its_own_cursors_and_fields() {
        let Value::Object(request) = json!({"limit": 3, "cursor": "vm1.9"}) else { panic!("no object") };
        let page = plain_page(request, "vm1.").unwrap();
        assert_eq!((page.limit, page.after), (3, Position::new(9)));
        for (cursor, prefix) in [("v1.9", "vm1."), ("node1.9", "vm1."), ("vm1.9", "node1."), ("vm1.", "vm1.")] {
            assert_eq!(refused(json!({"cursor": cursor}), prefix), ["cursor"], "{cursor}");
        }
        assert_eq!(refused(json!({"type": "bridge", "limit": 0}), "vm1."), ["limit", "type"]);
    }

    #[test]
    fn every_query_is_served_once() {
        let served: Vec<Request> = SERVED.iter().flat_map(|queries| queries.requests).copied().collect();
        assert!(served.iter().enumerate().all(|(index, request)| !served[..index].contains(request)));
        assert_eq!(served.len(), 12);
    }
}
