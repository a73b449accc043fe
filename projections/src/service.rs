//! The query service: answers account for every write that was acknowledged before the question came.
//!
//! Cancel-safety: dropping [`Service::run`] stops taking requests; those under way are answered.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::network::{NetworkById, NetworkKind, NetworkPageRequest};
use otherix_schemas::node::{NodeById, NodeView};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, ByName, Meta, PAGE_DEFAULT, PAGE_MAX, PageRequest, Request};
use otherix_schemas::value::{NetworkName, NodeName, VmName};
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmById;
use otherix_transport::Connection;
use otherix_transport::service::{Call, Requests, ServeError};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::mesh;
use crate::projection::Models;
use crate::query::{self, Listed, NetworkPage, Page, QueryError};

/// The questions.
const REQUESTS: [Request; 9] = [
    Request::NetworkGet,
    Request::NetworkFind,
    Request::NetworkList,
    Request::VmGet,
    Request::VmFind,
    Request::VmList,
    Request::NodeGet,
    Request::NodeFind,
    Request::NodeList,
];

/// How long an answer may wait, unless the asker wants it as it is, for the read models to account for what was acknowledged.
const LAG: Duration = Duration::from_secs(2);

/// What a cursor of each list begins with: which list it is of, and the cursor's version.
const NETWORKS: &str = "v1.";
const VMS: &str = "vm1.";
const NODES: &str = "node1.";

/// The service, set up: what comes to it waits until it is run.
pub struct Service {
    requests: Requests,
    models: Models,
    head: watch::Receiver<Position>,
}

impl Service {
    /// Sets the service up. `head` is how far the journal is durable. Once NATS has taken that in ([`Connection::settled`]), no
    /// question goes unheard.
    ///
    /// # Errors
    /// When NATS refuses the service.
    pub async fn start(
        connection: &Connection,
        models: Models,
        head: watch::Receiver<Position>,
    ) -> Result<Self, ServeError> {
        let what = "answers questions about what is";
        let requests = Requests::start(connection, "otherix-queries", what, &REQUESTS).await?;
        Ok(Self { requests, models, head })
    }

    /// Answers questions until the connection is closed.
    pub async fn run(self) {
        let Self { requests, models, head } = self;
        let shared = Arc::new((models, head));
        let handler = move |call: Call| {
            let shared = Arc::clone(&shared);
            async move {
                let (models, head) = shared.as_ref();
                // As of the question's arrival.
                let head = *head.borrow();
                handle(models, head, call).await
            }
        };
        requests.serve(handler).await;
    }
}

async fn handle(models: &Models, head: Position, call: Call) -> Result<Bytes, ErrorBody> {
    if !call.stale && !models.reach(head, LAG).await {
        return Err(lagging(models, head));
    }
    let position = models.applied();
    let pool = models.pool();
    match call.request {
        Request::NetworkGet => {
            let NetworkById { id } = call.json()?;
            found(query::network_by_id(pool, id).await, position, || format!("there is no network `{id}`"))
        }
        Request::NetworkFind => {
            let name: NetworkName = name(&call)?;
            found(query::network_by_name(pool, &name).await, position, || format!("there is no network `{name}`"))
        }
        Request::NetworkList => listed(query::networks(pool, network_page(call.json()?)?).await, position, NETWORKS),
        Request::VmGet => {
            let VmById { id } = call.json()?;
            found(query::vm_by_id(pool, id).await, position, || format!("there is no VM `{id}`"))
        }
        Request::VmFind => {
            let name: VmName = name(&call)?;
            found(query::vm_by_name(pool, &name).await, position, || format!("there is no VM `{name}`"))
        }
        Request::VmList => listed(query::vms(pool, things_page(call.json()?, VMS)?).await, position, VMS),
        Request::NodeGet => {
            let NodeById { id } = call.json()?;
            found(node(models, query::node_by_id(pool, id).await), position, || format!("there is no node `{id}`"))
        }
        Request::NodeFind => {
            let name: NodeName = name(&call)?;
            found(node(models, query::node_by_name(pool, &name).await), position, || {
                format!("there is no node `{name}`")
            })
        }
        Request::NodeList => listed(query::nodes(pool, things_page(call.json()?, NODES)?).await, position, NODES),
        Request::NetworkCreate
        | Request::NetworkDelete
        | Request::VmCreate
        | Request::VmDelete
        | Request::NodeDelete
        | Request::NodeJoin
        | Request::NodeReport => {
            Err(ErrorBody::new(ErrorCode::NotFound, format!("`{}` is no query", call.request.as_str())))
        }
    }
}

/// The node, with what it last said of its peers.
fn node(models: &Models, view: Result<Option<NodeView>, QueryError>) -> Result<Option<NodeView>, QueryError> {
    let mut view = view?;
    if let Some(view) = &mut view {
        models.peers().tell(view, mesh::now());
    }
    Ok(view)
}

/// The name that is asked for.
fn name<Name: FromStr<Err: std::fmt::Display>>(call: &Call) -> Result<Name, ErrorBody> {
    let ByName { name } = call.json()?;
    name.parse().map_err(|error: Name::Err| Violations::one("name", error).into())
}

fn lagging(models: &Models, head: Position) -> ErrorBody {
    let applied = models.applied();
    let lag = head.get().saturating_sub(applied.get());
    let trouble = models.trouble().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
    let text = format!("the read models lag {lag} events behind the journal{trouble}");
    ErrorBody::new(ErrorCode::Unavailable, text).with_detail("lag", lag)
}

fn network_page(request: Map<String, Value>) -> Result<NetworkPage, ErrorBody> {
    let (NetworkPageRequest { kind, limit, cursor }, mut violations) = NetworkPageRequest::from_json(request);
    let kind = kind.as_ref().and_then(|text| violations.check("type", text.parse::<NetworkKind>()));
    let page = page(PageRequest { limit, cursor }, NETWORKS, violations)?;
    Ok(NetworkPage { kind, page })
}

fn things_page(request: Map<String, Value>, prefix: &str) -> Result<Page, ErrorBody> {
    let (list, violations) = PageRequest::from_json(request);
    page(list, prefix, violations)
}

/// The page that is asked for, unless there are violations or it breaks rules itself.
fn page(list: PageRequest, prefix: &str, mut violations: Violations) -> Result<Page, ErrorBody> {
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
        Some(text) => v.check("cursor", position(&text, prefix).ok_or("must be a cursor that such a list ended with")),
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

fn found<View: Serialize>(
    view: Result<Option<View>, QueryError>,
    position: Position,
    missing: impl FnOnce() -> String,
) -> Result<Bytes, ErrorBody> {
    let data = view.map_err(failed)?.ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, missing()))?;
    encode(&Answer { data, meta: Meta::at(position) })
}

fn listed<View: Serialize>(
    listed: Result<Listed<View>, QueryError>,
    position: Position,
    prefix: &str,
) -> Result<Bytes, ErrorBody> {
    let Listed { views, next } = listed.map_err(failed)?;
    let next_cursor = next.map(|position| format!("{prefix}{position}"));
    encode(&Answer { data: views, meta: Meta { position, next_cursor } })
}

fn encode<T: Serialize>(answer: &T) -> Result<Bytes, ErrorBody> {
    serde_json::to_vec(answer)
        .map(Bytes::from)
        .map_err(|error| ErrorBody::new(ErrorCode::Internal, format!("the answer has no JSON form: {error}")))
}

fn failed(error: QueryError) -> ErrorBody {
    tracing::error!(error = %Causes(&error), "a query failed");
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(kind: Option<&str>, limit: Option<i64>, cursor: Option<&str>) -> Result<NetworkPage, Vec<String>> {
        asked(json!({"type": kind, "limit": limit, "cursor": cursor}))
    }

    fn asked(request: Value) -> Result<NetworkPage, Vec<String>> {
        let Value::Object(request) = request else { panic!("no object") };
        network_page(request).map_err(fields)
    }

    fn fields(error: ErrorBody) -> Vec<String> {
        error.error.details["fields"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn a_list_takes_only_its_own_cursors_and_fields() {
        let asked = |request: Value, prefix| {
            let Value::Object(request) = request else { panic!("no object") };
            things_page(request, prefix).map_err(fields)
        };
        let page = asked(json!({"limit": 3, "cursor": "vm1.9"}), VMS).unwrap();
        assert_eq!((page.limit, page.after), (3, Position::new(9)));
        for (cursor, prefix) in [("v1.9", VMS), ("node1.9", VMS), ("vm1.9", NODES), ("vm1.", VMS)] {
            assert_eq!(asked(json!({"cursor": cursor}), prefix).unwrap_err(), ["cursor"], "{cursor}");
        }
        assert_eq!(asked(json!({"type": "bridge", "limit": 0}), VMS).unwrap_err(), ["limit", "type"]);
        assert_eq!(list(None, None, Some("vm1.9")).unwrap_err(), ["cursor"]);
    }

    #[test]
    fn a_page_is_as_asked_for_or_refused_with_all_its_faults() {
        let default = list(None, None, None).unwrap();
        assert_eq!((default.page.limit, default.page.after, default.kind), (20, Position::ZERO, None));
        let second = list(Some("overlay"), Some(200), Some("v1.17")).unwrap();
        assert_eq!((second.page.limit, second.page.after), (200, Position::new(17)));
        for limit in [0, -1, 201, i64::MAX] {
            assert_eq!(list(None, Some(limit), None).unwrap_err(), ["limit"]);
        }
        for cursor in ["", "17", "v1.", "v1.+1", "v1.x", "v2.1", "v1.99999999999999999999", "v1.9223372036854775808"] {
            assert_eq!(list(None, None, Some(cursor)).unwrap_err(), ["cursor"], "{cursor}");
        }
        assert_eq!(list(Some("ring"), Some(0), Some("x")).unwrap_err(), ["cursor", "limit", "type"]);
        let nonsense = json!({"type": 1, "limit": "20", "cursor": [], "colour": "red"});
        assert_eq!(asked(nonsense).unwrap_err(), ["colour", "cursor", "limit", "type"]);
    }
}
