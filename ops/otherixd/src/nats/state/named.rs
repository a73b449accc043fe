//! The resources that events name.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

/// Most ids that are returned.
const IDS_MAX: usize = 64;

/// The ids in the data of these events, in whatever fields. What is no JSON has none.
pub(super) fn named(events: &[Bytes]) -> BTreeSet<Uuid> {
    let mut ids = BTreeSet::new();
    for event in events {
        let Ok(event) = serde_json::from_slice::<Value>(event) else { continue };
        if let Some(data) = event.get("data") {
            collect(data, &mut ids);
        }
    }
    ids
}

fn collect(value: &Value, ids: &mut BTreeSet<Uuid>) {
    match value {
        Value::String(text) if ids.len() < IDS_MAX => ids.extend(text.parse::<Uuid>()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, ids)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, ids)),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_found_in_all_fields() {
        let [one, two, other] = [1, 2, 3].map(Uuid::from_u128);
        let event = json!({ "id": other, "data": { "network_id": one, "results": [{ "id": two, "n": 7 }, "text"] } });
        let events = [Bytes::from(event.to_string()), Bytes::from_static(b"x")];
        assert_eq!(named(&events), BTreeSet::from([one, two]));
        let many: Vec<_> = (0..1_000).map(Uuid::from_u128).collect();
        assert_eq!(named(&[Bytes::from(json!({ "data": many }).to_string())]).len(), IDS_MAX);
    }
}
