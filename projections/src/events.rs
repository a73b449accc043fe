//! Answers queries for events from the event store.

use bytes::Bytes;
use otherix_runtime::LogLimit;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::event::{Event, EventPage, EventRange, Family};
use otherix_schemas::permission::Role;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta};
use otherix_transport::service::Call;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

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

/// Each permits one query to read from the store. However many are made, the writer and the read models, which share
/// its connections, do not wait for them, and nodes that catch up do not wait for people.
static READING_FOR_NODES: Semaphore = Semaphore::const_new(1);
static READING_FOR_PEOPLE: Semaphore = Semaphore::const_new(1);

/// Returns a page of the events up to `head`.
pub(crate) async fn list(events: &dyn EventReader, head: Position, call: &Call) -> Result<Bytes, ErrorBody> {
    let range: EventRange = call.json()?;
    let page = {
        let is_node = Role::of(&call.user) == Some(Role::Node);
        let reading = if is_node { &READING_FOR_NODES } else { &READING_FOR_PEOPLE };
        // It is never closed.
        let _permit = reading.acquire().await.ok();
        page(events, range, head).await?
    };
    let answer = Answer { data: page, meta: Meta::at(head) };
    serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| internal(&error))
}

async fn page(events: &dyn EventReader, range: EventRange, head: Position) -> Result<EventPage, ErrorBody> {
    let EventRange { after, decisions_only } = range;
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
            if !decisions_only || is_decision(r#type) {
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

/// An event of an unknown type is returned: whoever reads it must not miss it.
fn is_decision(type_name: &str) -> bool {
    Event::declaration_of(type_name).map_or(true, |declaration| declaration.family == Family::Decision)
}

fn internal(error: &(dyn std::error::Error + 'static)) -> ErrorBody {
    static FAILED: LogLimit = LogLimit::new();
    if let Some(count) = FAILED.hit() {
        tracing::error!(error = %Causes(error), count, "stored events cannot be returned");
    }
    ErrorBody::new(ErrorCode::Internal, "a stored event is malformed")
}
