//! Requests about VMs.

use bytes::Bytes;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::request::RequestType;
use otherix_schemas::value::VmName;
use otherix_schemas::vm::{FindVm, GetVm, ListVms, QUERIES as REQUESTS, VmById};
use otherix_transport::service::Call;

use super::{NAME, query};
use crate::read_models::ReadSnapshot;
use crate::service::{Queries, found, listed, name, not_served, plain_page};

/// The prefix of the list's cursors: the list and a version.
const CURSOR: &str = "vm1.";

pub(crate) static QUERIES: Queries = Queries { requests: REQUESTS, reads: &[NAME], is_historic: true, answer };

fn answer(snapshot: &ReadSnapshot<'_>, call: &Call) -> Result<Bytes, ErrorBody> {
    match call.request.name {
        GetVm::NAME => {
            let VmById { id } = call.json()?;
            let view = query::by_id(snapshot.db, id);
            found(view, snapshot, || format!("there is no VM `{id}`"))
        }
        FindVm::NAME => {
            let name: VmName = name(call)?;
            let view = query::by_name(snapshot.db, &name);
            found(view, snapshot, || format!("there is no VM `{name}`"))
        }
        ListVms::NAME => {
            let page = plain_page(call.json()?, CURSOR)?;
            listed(query::list(snapshot.db, page), snapshot, CURSOR)
        }
        _ => Err(not_served(call)),
    }
}
