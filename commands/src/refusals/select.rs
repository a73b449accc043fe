//! What a query for refused commands selects. Blocking.

use otherix_schemas::error::ErrorCode;
use otherix_schemas::refusal::{NamedResource, REFUSALS_MAX, RefusalQuery, RefusalView, Refusals};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::name_key;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::store::RefusalStoreError;

/// Returns refusals that a query selects; those about users and keys for an auditor only. If they are too many, the
/// callers take turns, from the latest one of each: nobody's are left out for the sake of somebody who has more.
pub(super) fn select(
    connection: &Connection,
    query: &RefusalQuery,
    is_auditor: bool,
) -> Result<Refusals, RefusalStoreError> {
    let mut sources: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    if !query.ids.is_empty() {
        let marks = vec!["?"; query.ids.len()].join(", ");
        sources.push(format!("SELECT refusal FROM concerned WHERE resource_id IN ({marks})"));
        values.extend(query.ids.iter().map(|id| Value::from(id.to_string())));
    }
    if let Some(NamedResource { resource, name }) = &query.named {
        sources.push("SELECT id FROM refusals WHERE name = ? AND resource = ?".to_owned());
        values.extend([Value::from(name_key(name.trim())), Value::from(resource.clone())]);
    }
    let mut conditions = Vec::new();
    if !sources.is_empty() {
        conditions.push(format!("id IN ({})", sources.join(" UNION ")));
    }
    if !is_auditor {
        conditions.push("request NOT LIKE 'user.%' AND request NOT LIKE 'join-token.%'".to_owned());
        conditions.push("request NOT IN ('node.enroll', 'node.rotate-key')".to_owned());
    }
    let condition = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
    let selected = format!(
        "SELECT id FROM (
             SELECT id, row_number() OVER (PARTITION BY actor ORDER BY id DESC) AS turn FROM refusals
             WHERE {condition}
         ) WHERE turn <= {limit} ORDER BY turn, id DESC LIMIT {limit}",
        limit = REFUSALS_MAX + 1
    );
    let mut statement = connection.prepare(&selected)?;
    let ids = statement.query_map(params_from_iter(values), |row| row.get(0))?;
    let mut ids = ids.collect::<Result<Vec<i64>, rusqlite::Error>>()?;
    let is_truncated = ids.len() > REFUSALS_MAX;
    ids.truncate(REFUSALS_MAX);
    ids.sort_unstable();
    let mut statement = connection.prepare_cached(
        "SELECT time, count, last_time, actor, actor_name, request, code, message FROM refusals WHERE id = ?1",
    )?;
    let mut refusals = Vec::with_capacity(ids.len());
    for id in ids {
        refusals.extend(statement.query_and_then([id], view)?.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(Refusals { refusals, is_truncated })
}

fn view(row: &Row<'_>) -> Result<RefusalView, RefusalStoreError> {
    let time = |index| -> Result<Timestamp, RefusalStoreError> {
        Timestamp::from_unix_micros(row.get(index)?).map_err(|_| RefusalStoreError::Malformed)
    };
    let text = |index| row.get::<_, String>(index);
    let code = serde_json::from_value::<ErrorCode>(text(6)?.into()).map_err(|_| RefusalStoreError::Malformed)?;
    Ok(RefusalView {
        time: time(0)?,
        count: row.get(1)?,
        last_time: time(2)?,
        actor: text(3)?.parse().map_err(|_| RefusalStoreError::Malformed)?,
        actor_name: text(4)?,
        request: text(5)?,
        code,
        message: text(7)?,
    })
}
