//! Answers queries for events from the event store.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use otherix_runtime::LogLimit;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::event::{Event, EventPage, EventRange, Family};
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta};
use otherix_transport::service::Call;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::follow::EventReader;

/// Most bytes of events in an answer: half of what a message can hold, as a client may count the rest otherwise.
const BYTES_MAX: usize = 512 * 1024;

/// Events read from the store at once.
const BATCH: u32 = 500;

/// Most events that are read for one answer, so that a query for few of many holds up no other.
const READ_MAX: usize = 5_000;

/// The attributes of a CloudEvent that select it.
#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    sequence: &'a str,
    #[serde(borrow)]
    r#type: &'a str,
}

/// Queries of one kind of user. One at a time reads from the store: however many are made, the writer and the read
/// models, which share its connections, do not wait for them.
struct QueryQueue {
    /// When the next one may begin; locked by the one that reads.
    next: Mutex<Option<Instant>>,
    /// Queries that read or wait.
    queries: AtomicU32,
    /// Of the time that a query took, how many times as long the next one waits if it was there already. A single
    /// reader never waits, and a flood of queries leaves the processors to others.
    pause: u32,
}

impl QueryQueue {
    const fn new(pause: u32) -> Self {
        Self { next: Mutex::const_new(None), queries: AtomicU32::new(0), pause }
    }

    /// Runs `query` when it is its turn.
    async fn run<T>(&self, query: impl Future<Output = T>) -> T {
        let _counted = Counted::new(&self.queries);
        let mut next = self.next.lock().await;
        if let Some(begin) = next.take() {
            sleep_until(begin).await;
        }
        let begin = Instant::now();
        let result = query.await;
        let is_alone = self.queries.load(Ordering::Relaxed) <= 1;
        *next = (!is_alone).then(|| Instant::now() + begin.elapsed() * self.pause);
        result
    }
}

/// Counts a query until it is dropped.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Nodes that catch up do not wait for people.
static FOR_NODES: QueryQueue = QueryQueue::new(1);
static FOR_PEOPLE: QueryQueue = QueryQueue::new(4);

/// Returns a page of the events up to `head`.
pub(crate) async fn list(events: &dyn EventReader, head: Position, call: &Call) -> Result<Bytes, ErrorBody> {
    let range: EventRange = call.json()?;
    let is_node = call.caller.role == Role::Node;
    let queue = if is_node { &FOR_NODES } else { &FOR_PEOPLE };
    let is_auditor = call.caller.role.has(Permission::AuditRead);
    let query = async {
        let is_selected = |type_name: &str| match family(type_name) {
            Some(Family::Decision) => true,
            Some(Family::Outcome) => !range.decisions_only,
            Some(Family::Administration) => !range.decisions_only && is_auditor,
            // Whoever reads it must not miss it.
            None => true,
        };
        let answer = Answer { data: page(events, range.after, head, is_selected).await?, meta: Meta::at(head) };
        serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| internal(&error))
    };
    queue.run(query).await
}

async fn page(
    events: &dyn EventReader,
    after: Position,
    head: Position,
    is_selected: impl Fn(&str) -> bool,
) -> Result<EventPage, ErrorBody> {
    let mut page = EventPage { events: Vec::new(), complete_to: after };
    let (mut bytes, mut count) = (0, 0);
    while page.complete_to < head && count < READ_MAX {
        let stored = events.read(page.complete_to, BATCH).await.map_err(|error| {
            static UNREADABLE: LogLimit = LogLimit::new();
            if let Some(count) = UNREADABLE.hit() {
                tracing::error!(error = %Causes(error.as_ref()), count, "cannot read events");
            }
            ErrorBody::new(ErrorCode::Unavailable, "the journal cannot be read")
        })?;
        if stored.is_empty() {
            break;
        }
        count += stored.len();
        for event in stored {
            let Attributes { sequence, r#type } = serde_json::from_slice(&event).map_err(|error| internal(&error))?;
            let position = Position::from_sequence(sequence).map_err(|error| internal(&error))?;
            if position > head {
                return Ok(page);
            }
            if is_selected(r#type) {
                bytes += event.len() + 1;
                if bytes > BYTES_MAX && !page.events.is_empty() {
                    return Ok(page);
                }
                let text = String::from_utf8(event.into()).map_err(|error| internal(&error))?;
                page.events.push(RawValue::from_string(text).map_err(|error| internal(&error))?);
            }
            page.complete_to = position;
        }
    }
    Ok(page)
}

/// The family of events of a type; none for a type that this version does not know.
fn family(type_name: &str) -> Option<Family> {
    Event::declaration_of(type_name).ok().map(|declaration| declaration.family)
}

fn internal(error: &(dyn std::error::Error + 'static)) -> ErrorBody {
    static FAILED: LogLimit = LogLimit::new();
    if let Some(count) = FAILED.hit() {
        tracing::error!(error = %Causes(error), count, "stored events cannot be returned");
    }
    ErrorBody::new(ErrorCode::Internal, "a stored event is malformed")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn queries_that_wait_for_others_leave_time_to_others() {
        let queue = QueryQueue::new(4);
        let query = || queue.run(async { sleep(Duration::from_millis(10)).await });
        let begin = Instant::now();
        query().await;
        query().await;
        assert_eq!(begin.elapsed().as_millis(), 20, "a single reader waits");
        let begin = Instant::now();
        join(query(), query()).await;
        assert_eq!(begin.elapsed().as_millis(), 10 + 40 + 10);
        let begin = Instant::now();
        query().await;
        assert_eq!(begin.elapsed().as_millis(), 10, "nobody waited with the one before");
    }
}
