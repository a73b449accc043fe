//! Reads events page by page from the control plane's journal, with the request `event.list`. No JetStream consumer is
//! needed, whose number is limited for all clients together.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{StreamExt, iter, try_unfold};
use futures::{Stream, TryStreamExt};
use otherix_schemas::error::ErrorBody;
use otherix_schemas::event::{EventPage, EventQuery, EventRange, ListEvents};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Request};
use otherix_schemas::subject::{self, RequestSubject};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Client;
use crate::request::is_error;
use crate::transport::{Message, StreamMessage, StreamReader, TransportError};

/// How long a page may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Pause before the end is looked at again.
const POLL: Duration = Duration::from_millis(100);

/// Reads the events of a range. `None` if there are none.
pub(super) async fn read(client: Client, range: EventRange) -> Result<Option<StreamReader>, TransportError> {
    let EventRange { after, decisions_only } = range;
    let reader = PageReader { client, decisions_only };
    let Some(first) = reader.next_page(after).await? else { return Ok(None) };
    let next = first.complete_to;
    let pages = try_unfold((reader, next), async |(reader, after)| {
        loop {
            if let Some(page) = reader.next_page(after).await? {
                let next = page.complete_to;
                return Ok::<_, TransportError>(Some((page, (reader, next))));
            }
            tokio::time::sleep(POLL).await;
        }
    });
    let pages = iter([Ok(first)]).chain(pages).map_ok(|page: Page| iter(page.messages).map(Ok)).try_flatten();
    Ok(Some(boxed(pages)))
}

fn boxed(messages: impl Stream<Item = Result<StreamMessage, TransportError>> + Send + 'static) -> StreamReader {
    messages.boxed()
}

struct PageReader {
    client: Client,
    decisions_only: bool,
}

/// A page with at least one event.
struct Page {
    messages: Vec<StreamMessage>,
    complete_to: Position,
}

/// The attributes of a CloudEvent that give its position and its subject on the stream.
#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    sequence: &'a str,
    #[serde(borrow, default)]
    r#type: &'a str,
    #[serde(borrow, default)]
    subject: &'a str,
}

impl PageReader {
    /// Returns the next page that has events; `None` if there are no more.
    async fn next_page(&self, after: Position) -> Result<Option<Page>, TransportError> {
        let mut after = after;
        loop {
            let Answer { data, meta } = self.request(after).await?;
            let EventPage { events, complete_to, is_complete: _ } = data;
            if !events.is_empty() {
                let pending = meta.position.get().saturating_sub(complete_to.get());
                let messages = messages(events, pending)?;
                return Ok(Some(Page { messages, complete_to }));
            }
            if complete_to >= meta.position || complete_to <= after {
                return Ok(None);
            }
            after = complete_to;
        }
    }

    async fn request(&self, after: Position) -> Result<Answer<EventPage>, TransportError> {
        let subject = RequestSubject { user: self.client.user(), request: Request::of::<ListEvents>() }.to_string();
        let query = EventQuery::from(EventRange { after, decisions_only: self.decisions_only });
        let body = serde_json::to_vec(&query).map_err(TransportError::new)?;
        let reply = self.client.request(Message::new(subject, body), TIMEOUT).await.map_err(TransportError::new)?;
        if is_error(&reply) {
            let error: ErrorBody = serde_json::from_slice(&reply.payload).map_err(TransportError::new)?;
            return Err(TransportError::new(error));
        }
        serde_json::from_slice(&reply.payload).map_err(TransportError::new)
    }
}

/// Returns a page's events as messages. `pending` is how many positions follow the page.
fn messages(events: Vec<Box<RawValue>>, pending: u64) -> Result<Vec<StreamMessage>, TransportError> {
    let count = events.len() as u64;
    let message = |(number, event): (u64, Box<RawValue>)| {
        let text: Box<str> = event.into();
        let Attributes { sequence, r#type, subject } = serde_json::from_str(&text).map_err(TransportError::new)?;
        let sequence = Position::from_sequence(sequence).map_err(TransportError::new)?;
        // An event of a type unknown to this version is returned too: whoever decodes it handles the error.
        let subject = subject::stored_event(r#type, subject).unwrap_or_default();
        let message = Message::new(subject, Bytes::from(text.into_string()));
        Ok(StreamMessage { message, sequence, pending: pending + count - number })
    };
    (1..).zip(events).map(message).collect()
}
