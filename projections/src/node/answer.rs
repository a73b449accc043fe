//! Requests about nodes.

use bytes::Bytes;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::node::{FindNode, GetNode, ListNodes, NodeById, NodeView, QUERIES as REQUESTS};
use otherix_schemas::request::RequestType;
use otherix_schemas::value::NodeName;
use otherix_transport::service::Call;

use super::{NAME, query};
use crate::query::QueryError;
use crate::read_models::ReadSnapshot;
use crate::service::{Queries, found, listed, name, not_served, plain_page};

/// The prefix of the list's cursors: the list and a version.
const CURSOR: &str = "node1.";

pub(crate) static QUERIES: Queries =
    Queries { requests: REQUESTS, reads: &[NAME, crate::network::NAME, crate::vm::NAME], is_historic: true, answer };

fn answer(snapshot: &ReadSnapshot<'_>, call: &Call) -> Result<Bytes, ErrorBody> {
    match call.request.name {
        GetNode::NAME => {
            let NodeById { id } = call.json()?;
            let view = query::by_id(snapshot.db, id);
            found(with_telemetry(view, snapshot), snapshot, || format!("there is no node `{id}`"))
        }
        FindNode::NAME => {
            let name: NodeName = name(call)?;
            let view = query::by_name(snapshot.db, &name);
            found(with_telemetry(view, snapshot), snapshot, || format!("there is no node `{name}`"))
        }
        ListNodes::NAME => {
            let page = plain_page(call.json()?, CURSOR)?;
            listed(query::list(snapshot.db, page), snapshot, CURSOR)
        }
        _ => Err(not_served(call)),
    }
}

/// The node with what its last heartbeat told.
fn with_telemetry(
    view: Result<Option<NodeView>, QueryError>,
    snapshot: &ReadSnapshot<'_>,
) -> Result<Option<NodeView>, QueryError> {
    let mut view = view?;
    if let Some(view) = &mut view {
        snapshot.telemetry.fill_in(view, snapshot.now);
    }
    Ok(view)
}
