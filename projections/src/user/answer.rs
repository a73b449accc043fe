//! Requests about users.

use bytes::Bytes;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::request::RequestType;
use otherix_schemas::user::{FindUser, GetUser, ListUsers, QUERIES as REQUESTS, UserById};
use otherix_schemas::value::UserName;
use otherix_transport::service::Call;

use super::{NAME, query};
use crate::read_models::ReadSnapshot;
use crate::service::{Queries, found, listed, name, not_served, plain_page};

/// The prefix of the list's cursors: the list and a version.
const CURSOR: &str = "user1.";

pub(crate) static QUERIES: Queries = Queries { requests: REQUESTS, reads: &[NAME], is_historic: false, answer };

fn answer(snapshot: &ReadSnapshot<'_>, call: &Call) -> Result<Bytes, ErrorBody> {
    let ReadSnapshot { db, now, .. } = *snapshot;
    match call.request.name {
        GetUser::NAME => {
            let UserById { id } = call.json()?;
            found(query::by_id(db, now, id), snapshot, || format!("there is no user `{id}`"))
        }
        FindUser::NAME => {
            let name: UserName = name(call)?;
            found(query::by_name(db, now, &name), snapshot, || format!("there is no user `{name}`"))
        }
        ListUsers::NAME => {
            let page = plain_page(call.json()?, CURSOR)?;
            listed(query::list(db, now, page), snapshot, CURSOR)
        }
        _ => Err(not_served(call)),
    }
}
