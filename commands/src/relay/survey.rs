//! Compares a stream with the event store, message by message: the first difference, and whether the stream has events
//! that the store lacks. Never changes anything. A stream with limits may lack its oldest events.
//!
//! Cancel-safety: no state is kept; the ephemeral consumer of a dropped survey expires.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{self, OrderedConfig};
use async_nats::{Client, Message};
use futures::StreamExt;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::event::{Assigned, Event};
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::subject::{self, EVENTS_DOMAIN, STREAM};
use otherix_schemas::value::Vni;
use serde::Deserialize;

use super::definition::StreamLimits;
use super::direct::DirectReader;
use crate::store::{Entry, EventStore, StoreError};

/// Events read from the event store at once.
const PAGE: u32 = 1000;

/// Time-out of the next message.
const SILENCE: Duration = Duration::from_secs(5);

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The stream's last sequence.
    pub last: Position,
    /// The first position that the stream was compared from: it has limits, and may lack the events before.
    pub first: Option<Position>,
    /// Number of positions after the event store's head whose events a stream with limits has deleted: nobody can tell
    /// what they have assigned.
    pub deleted: u64,
    /// The first difference from the event store.
    pub differs: Option<Difference>,
    /// The first event of this epoch (or a later one) that the event store lacks.
    pub lost: Option<Position>,
    /// The highest VNI assigned by an event that is not in the event store.
    pub highest_vni: Option<Vni>,
    /// The highest mesh address assigned by such an event.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// Number of further mesh addresses that may have been assigned, according to such events.
    pub mesh_addresses_left_out: u64,
}

/// A difference between stream and event store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    pub position: Position,
    pub what: &'static str,
}

/// The comparison failed.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    #[error("cannot read the stream")]
    Stream(#[source] async_nats::Error),
    #[error("the server did not send the stream's next message within {} s", SILENCE.as_secs())]
    Silent,
    #[error("cannot read the journal")]
    Store(#[from] StoreError),
}

fn failed(error: impl Into<async_nats::Error>) -> SurveyError {
    SurveyError::Stream(error.into())
}

/// A message of the stream.
#[derive(Clone, Debug)]
pub struct StreamMessage {
    pub position: Position,
    pub message: Message,
}

/// Reads the stream from a position up to the last sequence at the time of opening.
pub struct StreamReader {
    messages: Messages,
    /// The stream's last sequence.
    pub last: Position,
    /// Whether the stream may delete its oldest events, also while it is read.
    is_limited: bool,
    context: Context,
}

/// Where the messages come from.
enum Messages {
    /// There are no more.
    None,
    /// A consumer.
    Consumer(Box<pull::Ordered>),
    /// Direct gets.
    Direct(Box<DirectReader>),
}

impl StreamReader {
    /// Opens the stream with the rights of people: without a consumer.
    ///
    /// # Errors
    /// If the stream cannot be read, or does not exist.
    pub async fn open_as_client(client: &Client, first: Position) -> Result<Self, SurveyError> {
        let context = async_nats::jetstream::with_domain(client.clone(), EVENTS_DOMAIN);
        let stream = context.get_stream(STREAM).await.map_err(failed)?;
        let info = stream.cached_info();
        let last = Position::new(info.state.last_sequence);
        let reader = DirectReader::open(client, first.get(), last.get(), SILENCE).await?;
        let is_limited = StreamLimits::of(&info.config).is_limited();
        Ok(Self { messages: Messages::Direct(Box::new(reader)), last, is_limited, context })
    }

    /// Opens the stream at its first message from `first` on.
    ///
    /// # Errors
    /// If the stream cannot be read, or does not exist.
    pub async fn open(context: &Context, first: Position) -> Result<Self, SurveyError> {
        let stream = context.get_stream(STREAM).await.map_err(failed)?;
        let info = stream.cached_info();
        let (last, is_limited) = (Position::new(info.state.last_sequence), StreamLimits::of(&info.config).is_limited());
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: first.get().max(1) };
        let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(failed)?;
        let messages = match consumer.cached_info().num_pending {
            0 => Messages::None,
            _ => Messages::Consumer(Box::new(consumer.messages().await.map_err(failed)?)),
        };
        Ok(Self { messages, last, is_limited, context: context.clone() })
    }

    /// Returns the next message; none at the end.
    ///
    /// # Errors
    /// If it cannot be read, or the server does not send it in time.
    pub async fn next(&mut self) -> Result<Option<StreamMessage>, SurveyError> {
        let messages = match &mut self.messages {
            Messages::None => return Ok(None),
            Messages::Direct(reader) => {
                let next = reader.next().await?;
                return Ok(next.map(|(sequence, message)| StreamMessage { position: Position::new(sequence), message }));
            }
            Messages::Consumer(messages) => messages,
        };
        let next = tokio::time::timeout(SILENCE, messages.next()).await.map_err(|_| SurveyError::Silent)?;
        let Some(message) = next else { return Ok(None) };
        let message = message.map_err(failed)?;
        let info = message.info().map_err(SurveyError::Stream)?;
        let position = Position::new(info.stream_sequence);
        if info.pending == 0 || position >= self.last {
            self.messages = Messages::None;
        }
        Ok(Some(StreamMessage { position, message: message.message }))
    }
}

/// Returns the position at which the stream begins now.
async fn first_position(context: &Context) -> Result<Position, SurveyError> {
    let stream = context.get_stream(STREAM).await.map_err(failed)?;
    Ok(Position::new(stream.cached_info().state.first_sequence))
}

/// What a message claims to be, whatever its version.
#[derive(Deserialize)]
struct Claim {
    source: String,
    sequence: String,
    epoch: Epoch,
    id: EventId,
}

impl StreamMessage {
    /// Returns the id with which it was published.
    pub fn message_id(&self) -> Option<&str> {
        self.message.headers.as_ref()?.get(NATS_MESSAGE_ID).map(|id| id.as_str())
    }

    /// Returns whether it claims to be the cluster's event at its position, of this epoch or a later one.
    pub fn claims(&self, cluster: ClusterId, epoch: Epoch) -> bool {
        self.claims_one_of(Some(cluster), epoch)
    }

    /// Likewise for any cluster, if none is given.
    fn claims_one_of(&self, cluster: Option<ClusterId>, epoch: Epoch) -> bool {
        self.claim().is_some_and(|claim| {
            cluster.is_none_or(|cluster| claim.source == format!("/otherix/{cluster}"))
                && claim.sequence == self.position.to_sequence()
                && claim.epoch >= epoch
                && self.message_id() == Some(&claim.id.to_string())
        })
    }

    fn claim(&self) -> Option<Claim> {
        serde_json::from_slice(&self.message.payload).ok()
    }

    /// Returns whether it is the message of this event.
    pub fn carries(&self, entry: &Entry) -> bool {
        self.position == entry.position
            && self.message.payload == entry.body
            && self.message_id() == Some(&entry.event_id.to_string())
            && EventEnvelope::decode(&entry.body)
                .is_ok_and(|envelope| *self.message.subject == *subject::event(&envelope.event))
    }

    fn event(&self) -> Option<Event> {
        Some(EventEnvelope::decode(&self.message.payload).ok()?.event)
    }
}

/// The store's events one by one, to be compared with the stream's messages.
struct Entries<'a, S> {
    store: &'a S,
    read: Position,
    page: VecDeque<Entry>,
    ended: bool,
}

impl<S: EventStore> Entries<'_, S> {
    /// Returns the next event unless it is after `limit`.
    async fn up_to(&mut self, limit: Position) -> Result<Option<Entry>, StoreError> {
        if self.page.is_empty() && !self.ended {
            self.page = self.store.read(self.read, PAGE).await?.into();
            self.ended = self.page.is_empty();
            self.read = self.page.back().map_or(self.read, |entry| entry.position);
        }
        Ok(self.page.pop_front_if(|entry| entry.position <= limit))
    }
}

/// Compares the whole stream in `context` with the store.
///
/// # Errors
/// If one of them cannot be read.
pub async fn survey<S: EventStore>(context: &Context, store: &S) -> Result<Survey, SurveyError> {
    compare(StreamReader::open(context, Position::new(1)).await?, store).await
}

/// Likewise for the stream as people read it.
///
/// # Errors
/// If one of them cannot be read.
pub async fn survey_as_client<S: EventStore>(client: &Client, store: &S) -> Result<Survey, SurveyError> {
    compare(StreamReader::open_as_client(client, Position::new(1)).await?, store).await
}

async fn compare<S: EventStore>(mut reader: StreamReader, store: &S) -> Result<Survey, SurveyError> {
    // An empty store may replace one that was lost: events of any cluster may be its own.
    let head = store.head().await?;
    let cluster = (head != Position::ZERO).then_some(store.identity().cluster);
    let first = if reader.is_limited { Some(first_position(&reader.context).await?) } else { None };
    let read = first.map_or(Position::ZERO, |first| Position::new(first.get().saturating_sub(1)));
    let mut entries = Entries { store, read, page: VecDeque::new(), ended: false };
    let mut survey = Survey { last: reader.last, first, ..Survey::default() };
    let mut missing = Missing::default();
    let mut later = 0;
    while let Some(found) = reader.next().await? {
        let mut here = None;
        while let Some(entry) = entries.up_to(found.position).await? {
            if entry.position == found.position {
                here = Some(entry);
                break;
            }
            missing.add(entry.position);
        }
        later += u64::from(found.position > head);
        survey.compare(found.claims_one_of(cluster, store.identity().epoch), &found, here.as_ref());
    }
    // The stream may lack events before its last sequence.
    if let Some(entry) = entries.up_to(survey.last).await? {
        missing.add(entry.position);
        missing.add(survey.last);
    }
    if let Some((first, last)) = missing.0 {
        // Events are deleted in order: if the stream does not begin later by now, one is missing in its midst.
        let is_deleted = reader.is_limited && last < first_position(&reader.context).await?;
        if !is_deleted && survey.differs.is_none_or(|differs| first < differs.position) {
            survey.differs = Some(Difference { position: first, what: "an event is missing" });
        }
    }
    survey.deleted =
        if reader.is_limited { survey.last.get().saturating_sub(head.get()).saturating_sub(later) } else { 0 };
    if survey.deleted > 0 {
        survey.lost = Some(head.next());
    }
    Ok(survey)
}

/// The first and the last event that the stream lacks.
#[derive(Default)]
struct Missing(Option<(Position, Position)>);

impl Missing {
    fn add(&mut self, position: Position) {
        let first = self.0.map_or(position, |(first, _)| first);
        self.0 = Some((first, position));
    }
}

impl Survey {
    fn differs(&mut self, position: Position, what: &'static str) {
        self.differs = self.differs.or(Some(Difference { position, what }));
    }

    /// Records what an event assigns, which must not be assigned again.
    fn record_assigned(&mut self, event: &Event) {
        let Assigned { vni, mesh_address, mesh_addresses_left_out } = event.assigned();
        self.highest_vni = self.highest_vni.max(vni);
        self.highest_mesh_address = self.highest_mesh_address.max(mesh_address);
        self.mesh_addresses_left_out = self.mesh_addresses_left_out.saturating_add(mesh_addresses_left_out);
    }

    fn compare(&mut self, claims: bool, found: &StreamMessage, here: Option<&Entry>) {
        if here.is_some_and(|entry| found.carries(entry)) {
            return;
        }
        if let Some(event) = found.event() {
            self.record_assigned(&event);
        }
        // A damaged copy of an event is not one that the store lacks.
        let own = here.is_some_and(|entry| found.message_id() == Some(&entry.event_id.to_string()));
        self.differs(
            found.position,
            match (here, claims) {
                (Some(_), _) => "the message is not the journal's event",
                (None, true) => "the journal lacks the event",
                (None, false) => "the message is not an event of the journal",
            },
        );
        if claims && !own {
            self.lost = self.lost.or(Some(found.position));
        }
    }
}
