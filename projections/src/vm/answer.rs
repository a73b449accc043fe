//! Requests about VMs.

use bytes::Bytes;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::request::Request;
use otherix_schemas::value::VmName;
use otherix_schemas::vm::VmById;
use otherix_transport::service::Call;

use super::{NAME, query};
use crate::read_models::Snapshot;
use crate::service::{Queries, found, listed, name, not_served, plain_page};

/// What a cursor of the list begins with: which list it is of, and its version.
const CURSOR: &str = "vm1.";

pub(crate) static QUERIES: Queries =
    Queries { requests: &[Request::VmGet, Request::VmFind, Request::VmList], reads: &[NAME], answer };

#[expect(clippy::wildcard_enum_match_arm, reason = "the requests above")]
fn answer(snapshot: &Snapshot<'_>, call: &Call) -> Result<Bytes, ErrorBody> {
    match call.request {
        Request::VmGet => {
            let VmById { id } = call.json()?;
            let view = query::by_id(snapshot.db, id);
            found(view, snapshot, || format!("there is no VM `{id}`"))
        }
        Request::VmFind => {
            let name: VmName = name(call)?;
            let view = query::by_name(snapshot.db, &name);
            found(view, snapshot, || format!("there is no VM `{name}`"))
        }
        Request::VmList => {
            let page = plain_page(call.json()?, CURSOR)?;
            listed(query::list(snapshot.db, page), snapshot, CURSOR)
        }
        _ => Err(not_served(call)),
    }
}
