//! Requests about networks.

use bytes::Bytes;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::network::{
    FindNetwork, GetNetwork, ListNetworks, NetworkById, NetworkKind, NetworkPageRequest, QUERIES as REQUESTS,
};
use otherix_schemas::request::{PageRequest, RequestType};
use otherix_schemas::value::NetworkName;
use otherix_transport::service::Call;
use serde_json::{Map, Value};

use super::NAME;
use super::query::{self, NetworkPage};
use crate::read_models::ReadSnapshot;
use crate::service::{Queries, found, listed, name, not_served, page};

/// The prefix of the list's cursors: a version. Unlike in later lists, it does not name the list.
const CURSOR: &str = "v1.";

pub(crate) static QUERIES: Queries = Queries { requests: REQUESTS, reads: &[NAME], is_historic: true, answer };

fn answer(snapshot: &ReadSnapshot<'_>, call: &Call) -> Result<Bytes, ErrorBody> {
    match call.request.name {
        GetNetwork::NAME => {
            let NetworkById { id } = call.json()?;
            found(query::by_id(snapshot.db, id), snapshot, || format!("there is no network `{id}`"))
        }
        FindNetwork::NAME => {
            let name: NetworkName = name(call)?;
            found(query::by_name(snapshot.db, &name), snapshot, || format!("there is no network `{name}`"))
        }
        ListNetworks::NAME => {
            let part = network_page(call.json()?)?;
            listed(query::list(snapshot.db, part), snapshot, CURSOR)
        }
        _ => Err(not_served(call)),
    }
}

fn network_page(request: Map<String, Value>) -> Result<NetworkPage, ErrorBody> {
    let (NetworkPageRequest { kind, limit, cursor }, mut violations) = NetworkPageRequest::from_json(request);
    let kind = kind.as_ref().and_then(|text| violations.check("type", text.parse::<NetworkKind>()));
    let page = page(PageRequest { limit, cursor }, CURSOR, violations)?;
    Ok(NetworkPage { kind, page })
}

#[cfg(test)]
mod tests {
    use otherix_schemas::position::Position;
    use serde_json::json;

    use super::*;

    /// The page, or the violated fields.
    fn list(request: Value) -> Result<NetworkPage, Vec<String>> {
        let Value::Object(request) = request else { panic!("no object") };
        let fields = |error: ErrorBody| error.error.details["fields"].as_object().unwrap().keys().cloned().collect();
        network_page(request).map_err(fields)
    }

    #[test]
    fn page_is_as_requested_or_refused_with_all_violations() {
        let default = list(json!({"type": null, "limit": null, "cursor": null})).unwrap();
        assert_eq!((default.page.limit, default.page.after, default.kind), (20, Position::ZERO, None));
        let second = list(json!({"type": "overlay", "limit": 200, "cursor": "v1.17"})).unwrap();
        assert_eq!((second.page.limit, second.page.after), (200, Position::new(17)));
        for limit in [0, -1, 201, i64::MAX] {
            assert_eq!(list(json!({"limit": limit})).unwrap_err(), ["limit"]);
        }
        let malformed =
            ["", "17", "v1.", "v1.+1", "v1.x", "v2.1", "v1.99999999999999999999", "v1.9223372036854775808", "vm1.9"];
        for cursor in malformed {
            assert_eq!(list(json!({"cursor": cursor})).unwrap_err(), ["cursor"], "{cursor}");
        }
        let wrong = json!({"type": "ring", "limit": 0, "cursor": "x"});
        assert_eq!(list(wrong).unwrap_err(), ["cursor", "limit", "type"]);
        let wrong = json!({"type": 1, "limit": "20", "cursor": [], "colour": "red"});
        assert_eq!(list(wrong).unwrap_err(), ["colour", "cursor", "limit", "type"]);
    }
}
