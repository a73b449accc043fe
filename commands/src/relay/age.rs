//! Which events are older than the stream keeps them.

use std::time::Duration;

use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use serde::Deserialize;

use crate::store::{Entry, EventStore, StoreError};

/// The attribute of an event that is read.
#[derive(Deserialize)]
struct Attributes {
    time: Timestamp,
}

/// Returns the position of the last event that is older than `max_age`; 0 if there is none, or no such limit, or the
/// time is not known. The times of events never decrease.
pub(super) async fn before<S: EventStore>(
    store: &S,
    max_age: Duration,
    now: Option<Timestamp>,
) -> Result<Position, StoreError> {
    let age = i64::try_from(max_age.as_micros()).ok().filter(|age| *age > 0);
    let Some(oldest) = now.zip(age).map(|(now, age)| now.unix_micros().saturating_sub(age)) else {
        return Ok(Position::ZERO);
    };
    let is_older = |entry: &Entry| {
        serde_json::from_slice::<Attributes>(&entry.body).is_ok_and(|event| event.time.unix_micros() < oldest)
    };
    // All events up to `before` are older; none after `after` is.
    let (mut before, mut after) = (0, store.head().await?.get());
    while before < after {
        let middle = before + (after - before) / 2;
        // The first one after the middle: there may be a gap.
        let entry = store.read(Position::new(middle), 1).await?.into_iter().next();
        match entry.filter(|entry| entry.position.get() <= after && is_older(entry)) {
            Some(entry) => before = entry.position.get(),
            None => after = middle,
        }
    }
    Ok(Position::new(before))
}
