//! The query service: answers account for every write that was acknowledged before the question came.
//!
//! Cancel-safety: dropping [`serve`] stops taking requests; those under way are answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::network::NetworkKind;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, ListNetworks, Meta, NetworkById, NetworkByName, PAGE_DEFAULT, PAGE_MAX};
use otherix_schemas::rules;
use otherix_schemas::subject::Request;
use otherix_schemas::value::NetworkName;
use otherix_schemas::view::NetworkView;
use otherix_schemas::violations::Violations;
use otherix_transport::Connection;
use otherix_transport::service::{self, Call, ServeError};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::projection::Models;
use crate::query::{self, Page, QueryError};

/// The questions.
const REQUESTS: [Request; 3] = [Request::NetworkGet, Request::NetworkFind, Request::NetworkList];

/// How long an answer may wait, unless the asker wants it as it is, for the read models to account for what was acknowledged.
const LAG: Duration = Duration::from_secs(2);

/// What a cursor begins with: its version.
const CURSOR: &str = "v1.";

/// Serves queries until the connection is closed. `head` is how far the journal is durable.
///
/// # Errors
/// When NATS refuses the service.
pub async fn serve(connection: &Connection, models: Models, head: watch::Receiver<Position>) -> Result<(), ServeError> {
    let service = service::start(connection, "otherix-queries", "answers questions about what is").await?;
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
    service::serve(&service, &REQUESTS, handler).await
}

async fn handle(models: &Models, head: Position, call: Call) -> Result<Bytes, ErrorBody> {
    if !call.stale && !models.reach(head, LAG).await {
        return Err(lagging(models, head));
    }
    let position = models.applied();
    match call.request {
        Request::NetworkGet => {
            let NetworkById { id } = call.json()?;
            let view = query::by_id(models.pool(), id).await.map_err(failed)?;
            found(view, position, || format!("there is no network `{id}`"))
        }
        Request::NetworkFind => {
            let NetworkByName { name } = call.json()?;
            let name = NetworkName::parse(&name).map_err(|error| Violations::one("name", error))?;
            let view = query::by_name(models.pool(), &name).await.map_err(failed)?;
            found(view, position, || format!("there is no network `{name}`"))
        }
        Request::NetworkList => {
            let page = page(call.json()?)?;
            let networks = query::list(models.pool(), page).await.map_err(failed)?;
            let next_cursor = networks.next.map(|position| format!("{CURSOR}{position}"));
            encode(&Answer { data: networks.views, meta: Meta { position, next_cursor } })
        }
        Request::NetworkCreate | Request::NetworkDelete | Request::NodeJoin | Request::NodeReport => {
            Err(ErrorBody::new(ErrorCode::NotFound, format!("`{}` is no query", call.request.as_str())))
        }
    }
}

fn lagging(models: &Models, head: Position) -> ErrorBody {
    let applied = models.applied();
    let lag = head.get().saturating_sub(applied.get());
    let trouble = models.trouble().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
    let text = format!("the read models lag {lag} events behind the journal{trouble}");
    ErrorBody::new(ErrorCode::Unavailable, text).with_detail("lag", lag)
}

fn page(request: Map<String, Value>) -> Result<Page, ErrorBody> {
    let (ListNetworks { kind, limit, cursor }, mut violations) = rules::list_from_json(request);
    let v = &mut violations;
    let kind = kind.as_ref().and_then(|text| v.check("type", text.parse::<NetworkKind>()));
    let limit = match limit {
        None => u32::try_from(PAGE_DEFAULT).ok(),
        Some(limit) => {
            let fits = u32::try_from(limit).ok().filter(|limit| (1..=PAGE_MAX).contains(&u64::from(*limit)));
            v.check("limit", fits.ok_or_else(|| format!("must be 1 to {PAGE_MAX}, not {limit}")))
        }
    };
    let after = match cursor {
        None => Some(Position::ZERO),
        Some(text) => v.check("cursor", position(&text).ok_or("must be a cursor that a list ended with")),
    };
    match (limit, after) {
        (Some(limit), Some(after)) if violations.is_empty() => Ok(Page { kind, limit, after }),
        _ => Err(violations.into()),
    }
}

fn position(cursor: &str) -> Option<Position> {
    let digits = cursor.strip_prefix(CURSOR)?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // SQLite's integers are signed.
    let number = digits.parse().ok().filter(|number| i64::try_from(*number).is_ok());
    plain.then_some(number?).map(Position::new)
}

fn found(view: Option<NetworkView>, position: Position, missing: impl FnOnce() -> String) -> Result<Bytes, ErrorBody> {
    let data = view.ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, missing()))?;
    encode(&Answer { data, meta: Meta::at(position) })
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

    fn list(kind: Option<&str>, limit: Option<i64>, cursor: Option<&str>) -> Result<Page, Vec<String>> {
        asked(json!({"type": kind, "limit": limit, "cursor": cursor}))
    }

    fn asked(request: Value) -> Result<Page, Vec<String>> {
        let Value::Object(request) = request else { panic!("no object") };
        page(request).map_err(|error| error.error.details["fields"].as_object().unwrap().keys().cloned().collect())
    }

    #[test]
    fn a_page_is_as_asked_for_or_refused_with_all_its_faults() {
        let default = list(None, None, None).unwrap();
        assert_eq!((default.limit, default.after, default.kind), (20, Position::ZERO, None));
        let second = list(Some("overlay"), Some(200), Some("v1.17")).unwrap();
        assert_eq!((second.limit, second.after), (200, Position::new(17)));
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
