//! Answers queries for events from the event store.

use bytes::Bytes;
use otherix_runtime::LogLimit;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::event::{Event, EventPage, EventQuery, Family};
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::position::{Position, PositionError};
use otherix_schemas::request::{Answer, Meta};
use otherix_schemas::timestamp::{Timestamp, TimestampError};
use otherix_transport::service::Call;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::follow::EventReader;
use crate::queue::QueryQueue;

/// Most bytes of events in an answer: half of what a message can hold, as a client may count the rest otherwise.
const BYTES_MAX: usize = 512 * 1024;

/// Events read from the store at once.
const BATCH: u32 = 500;

/// Most events that are read for one answer, so that a query for few of many holds up no other.
const READ_MAX: usize = 5_000;

/// Events that are looked at before others get their turn: some milliseconds at most.
const YIELD_AFTER: usize = 50;

/// The attributes of a CloudEvent that select it.
#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    sequence: &'a str,
    #[serde(borrow)]
    r#type: &'a str,
    #[serde(borrow)]
    time: &'a str,
}

/// The store does not have the event that its head is.
#[derive(Debug, thiserror::Error)]
#[error("the last event is missing")]
struct HeadMissing;

/// A stored event is not what the writer writes.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Text(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Position(#[from] PositionError),
    #[error(transparent)]
    Time(#[from] TimestampError),
}

/// Nodes that catch up do not wait for people.
static FOR_NODES: QueryQueue = QueryQueue::new(1);
static FOR_PEOPLE: QueryQueue = QueryQueue::new(4);

/// Returns a page of the events up to `head`.
pub(crate) async fn list(events: &dyn EventReader, head: Position, call: &Call) -> Result<Bytes, ErrorBody> {
    let query: EventQuery = call.json()?;
    let search = query.search()?;
    let is_node = call.caller.role == Role::Node;
    // Nodes that catch up wait for each other.
    if is_node && !(search.is_unlimited() && query.since.is_none() && query.until.is_none()) {
        let text = "a node reads all events after a position, or all decisions: it may set no other condition";
        return Err(ErrorBody::new(ErrorCode::PermissionDenied, text));
    }
    let queue = if is_node { &FOR_NODES } else { &FOR_PEOPLE };
    let is_auditor = call.caller.role.has(Permission::AuditRead);
    let is_selected = |type_name: &str, event: &str| {
        let is_of_family = match family(type_name) {
            Some(Family::Decision) => true,
            Some(Family::Outcome) => !query.decisions_only,
            Some(Family::Administration) => !query.decisions_only && is_auditor,
            // Whoever reads it must not miss it.
            None => true,
        };
        is_of_family && search.selects_type(type_name) && search.selects(event)
    };
    let page = async {
        let after = match query.since {
            Some(since) => query.after.max(last_before(events, since, head).await?),
            None => query.after,
        };
        let data = page(events, after, (head, query.until), is_selected).await?;
        let answer = Answer { data, meta: Meta::at(head) };
        serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| internal(&error))
    };
    queue.run(page).await
}

/// The first event after a position, with its own.
pub(crate) async fn event_after(
    events: &dyn EventReader,
    after: Position,
) -> Result<Option<(Position, Bytes)>, ErrorBody> {
    let Some(event) = read(events, after, 1).await?.into_iter().next() else { return Ok(None) };
    let (_, position) = attributes(&event).map_err(|error| malformed(after, &error))?;
    Ok(Some((position, event)))
}

/// The position of the last event up to `head` that was recorded before a time, zero if there is none: events are in
/// the order of their times.
pub(crate) async fn last_before(
    events: &dyn EventReader,
    time: Timestamp,
    head: Position,
) -> Result<Position, ErrorBody> {
    // All up to `before` were recorded before the time; none after `after` was.
    let (mut before, mut after) = (0, head.get());
    while before < after {
        let middle = before + (after - before) / 2;
        // The first one after the middle.
        let stored = read(events, Position::new(middle), 1).await?;
        let Some(first) = stored.first() else { return Err(internal(&HeadMissing)) };
        let is_before = attributes(first).and_then(|(attributes, position)| {
            Ok((position <= head && attributes.time.parse::<Timestamp>()? < time).then_some(position))
        });
        if let Some(position) = is_before.map_err(|error| malformed(Position::new(middle), &error))? {
            before = position.get();
        } else {
            after = middle;
        }
    }
    Ok(Position::new(before))
}

async fn page(
    events: &dyn EventReader,
    after: Position,
    (head, until): (Position, Option<Timestamp>),
    is_selected: impl Fn(&str, &str) -> bool,
) -> Result<EventPage, ErrorBody> {
    let mut page = EventPage { complete_to: after, ..EventPage::default() };
    let (mut bytes, mut count) = (0, 0);
    while page.complete_to < head && count < READ_MAX {
        let stored = read(events, page.complete_to, batch(bytes, page.events.len())).await?;
        if stored.is_empty() {
            break;
        }
        for event in stored {
            count += 1;
            if count % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
            let (position, type_name, time, text) = match parts(&event) {
                Ok(parts) => parts,
                // The page has what is before it; the next one begins with it, and fails.
                Err(_) if !page.events.is_empty() => return Ok(page),
                Err(error) => return Err(malformed(page.complete_to, &error)),
            };
            if position > head {
                return Ok(page);
            }
            if until.is_some_and(|until| time >= until) {
                page.is_complete = true;
                return Ok(page);
            }
            if is_selected(type_name, text) {
                bytes += event.len() + 1;
                if bytes > BYTES_MAX && !page.events.is_empty() {
                    return Ok(page);
                }
                let event = RawValue::from_string(text.to_owned());
                page.events.push(event.map_err(|error| malformed(page.complete_to, &error.into()))?);
            }
            page.complete_to = position;
        }
    }
    Ok(page)
}

/// How many events are read next into a page with so many events of so many bytes: about those that it can hold.
fn batch(bytes: usize, events: usize) -> u32 {
    let left = BYTES_MAX.saturating_sub(bytes) * events / bytes.max(1);
    if events == 0 { BATCH } else { u32::try_from(left + 1).unwrap_or(BATCH).min(BATCH) }
}

async fn read(events: &dyn EventReader, after: Position, limit: u32) -> Result<Vec<Bytes>, ErrorBody> {
    events.read(after, limit).await.map_err(|error| {
        static UNREADABLE: LogLimit = LogLimit::new();
        if let Some(count) = UNREADABLE.hit() {
            tracing::error!(error = %Causes(error.as_ref()), count, "cannot read events");
        }
        ErrorBody::new(ErrorCode::Unavailable, "the journal cannot be read")
    })
}

fn attributes(event: &[u8]) -> Result<(Attributes<'_>, Position), Malformed> {
    let attributes: Attributes<'_> = serde_json::from_slice(event)?;
    let position = Position::from_sequence(attributes.sequence)?;
    Ok((attributes, position))
}

/// The position, type and time of an event, and its text.
fn parts(event: &[u8]) -> Result<(Position, &str, Timestamp, &str), Malformed> {
    let (Attributes { r#type, time, .. }, position) = attributes(event)?;
    Ok((position, r#type, time.parse()?, std::str::from_utf8(event)?))
}

/// The family of events of a type; none for a type that this version does not know.
fn family(type_name: &str) -> Option<Family> {
    Event::declaration_of(type_name).ok().map(|declaration| declaration.family)
}

fn malformed(after: Position, error: &Malformed) -> ErrorBody {
    let mut body = internal(error);
    body.error.message = format!(
        "the stored event after position {after} is malformed: the journal was altered; restore it from a backup"
    );
    body
}

fn internal(error: &(dyn std::error::Error + 'static)) -> ErrorBody {
    static FAILED: LogLimit = LogLimit::new();
    if let Some(count) = FAILED.hit() {
        tracing::error!(error = %Causes(error), count, "stored events cannot be returned");
    }
    ErrorBody::new(ErrorCode::Internal, "stored events cannot be returned")
}

#[cfg(test)]
mod tests {
    use futures::future::{BoxFuture, FutureExt};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::follow::ReadError;

    /// Events with these positions and times, in microseconds. One with a negative time is malformed.
    struct Stored(Vec<(u64, i64)>);

    impl EventReader for Stored {
        fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
            let later = self.0.iter().filter(move |(position, _)| *position > after.get());
            let event = |(position, micros): &(u64, i64)| {
                let time = Timestamp::from_unix_micros((*micros).max(0)).unwrap().to_string();
                let time = if *micros < 0 { "yesterday".to_owned() } else { time };
                let sequence = Position::new(*position).to_sequence();
                let event = json!({ "sequence": sequence, "type": "dev.otherix.network.created.v1", "time": time });
                Bytes::from(event.to_string())
            };
            let events = later.take(limit as usize).map(event).collect();
            async { Ok(events) }.boxed()
        }
    }

    proptest! {
        /// Positions may have gaps, times may be equal, and events after the head are none yet.
        #[test]
        fn the_last_event_before_a_time_is_found(
            steps in prop::collection::vec((1u64..4, 0i64..3), 0..40),
            (time, later) in (0i64..60, 0usize..3),
        ) {
            let mut last = (0, 0);
            let next = |(gap, pause): &(u64, i64)| {
                last = (last.0 + gap, last.1 + pause);
                last
            };
            let events: Vec<(u64, i64)> = steps.iter().map(next).collect();
            let visible = &events[..events.len().saturating_sub(later)];
            let head = Position::new(visible.last().map_or(0, |(position, _)| *position));
            let expected = visible.iter().rfind(|(_, micros)| *micros < time).map_or(0, |(position, _)| *position);
            let time = Timestamp::from_unix_micros(time).unwrap();
            let found = last_before(&Stored(events.clone()), time, head).now_or_never().unwrap().unwrap();
            prop_assert_eq!(found, Position::new(expected));
        }
    }

    #[tokio::test]
    async fn a_page_ends_before_a_time_and_says_so() {
        let stored = Stored(vec![(1, 10), (2, 20), (5, 20), (6, 30)]);
        let to = |head, micros: Option<i64>| {
            (Position::new(head), micros.map(|micros| Timestamp::from_unix_micros(micros).unwrap()))
        };
        for (limit, complete_to, is_complete, count) in [
            (to(6, None), 6, false, 4),
            (to(5, None), 5, false, 3),
            (to(6, Some(31)), 6, false, 4),
            (to(6, Some(30)), 5, true, 3),
            (to(6, Some(20)), 1, true, 1),
            (to(6, Some(10)), 0, true, 0),
        ] {
            let page = page(&stored, Position::ZERO, limit, |_, _| true).await.unwrap();
            let found = (page.complete_to.get(), page.is_complete, page.events.len());
            assert_eq!(found, (complete_to, is_complete, count), "{limit:?}");
        }
        // What is before a malformed event is returned, and what is after it.
        let altered = Stored(vec![(1, 10), (2, 20), (4, -1), (5, 30)]);
        let before = page(&altered, Position::ZERO, to(5, None), |_, _| true).await.unwrap();
        assert_eq!((before.complete_to.get(), before.events.len()), (2, 2));
        let error = page(&altered, before.complete_to, to(5, None), |_, _| true).await.unwrap_err().error;
        assert!(error.message.contains("after position 2 is malformed"), "{error:?}");
        let after = page(&altered, Position::new(4), to(5, None), |_, _| true).await.unwrap();
        assert_eq!(after.events.len(), 1);
        let none = page(&stored, Position::ZERO, to(6, None), |_, _| false).await.unwrap();
        assert_eq!((none.complete_to.get(), none.events.len()), (6, 0), "the next page begins after it");
    }
}
