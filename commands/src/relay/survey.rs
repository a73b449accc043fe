//! Compares a stream with the journal, message by message: up to where it is the journal's copy, what is wrong first, and
//! whether it has events that the journal lacks. Never changes anything.
//!
//! Cancel-safety: nothing is kept anywhere; a consumer that is left behind ends by itself.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{self, OrderedConfig};
use async_nats::jetstream::{Context, Message};
use futures::StreamExt;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::network::NetworkEvent;
use otherix_schemas::nic::NicEvent;
use otherix_schemas::node::NodeEvent;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::subject::{self, STREAM};
use otherix_schemas::value::Vni;
use otherix_schemas::vm::VmEvent;
use serde::Deserialize;

use crate::store::{Entry, EventStore, StoreError};

/// Events read from the journal at once.
const PAGE: u32 = 1000;

/// How long the server may take for the next message.
const SILENCE: Duration = Duration::from_secs(5);

/// What there is to say of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The stream's last sequence.
    pub last: Position,
    /// Where it is not what the journal is, first.
    pub differs: Option<Difference>,
    /// The first event of this epoch (or a later one) that the journal lacks.
    pub lost: Option<Position>,
    /// The highest VNI that an event gives which is not the journal's.
    pub highest_vni: Option<Vni>,
    /// The highest address of the mesh that such an event gives.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// So many more may have been given, as such events say.
    pub mesh_addresses_left_out: u64,
}

/// That a stream is not what the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub position: Position,
    /// What is wrong there.
    pub what: &'static str,
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The stream cannot be read.
    #[error("cannot read the stream")]
    Stream(#[source] async_nats::Error),
    /// The server stopped sending.
    #[error("the server did not send the stream's next message within {} s", SILENCE.as_secs())]
    Silent,
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Store(#[from] StoreError),
}

fn failed(error: impl Into<async_nats::Error>) -> SurveyError {
    SurveyError::Stream(error.into())
}

/// A message of the stream.
#[derive(Clone, Debug)]
pub struct StreamMessage {
    /// Its sequence.
    pub position: Position,
    /// The message.
    pub message: Message,
}

/// Reads the stream from a position on, up to the end that it has now.
pub struct StreamReader {
    messages: Option<Box<pull::Ordered>>,
    /// The stream's last sequence.
    pub last: Position,
}

impl StreamReader {
    /// Begins.
    ///
    /// # Errors
    /// When the stream cannot be read, or there is none.
    pub async fn open(context: &Context, first: Position) -> Result<Self, SurveyError> {
        let stream = context.get_stream(STREAM).await.map_err(failed)?;
        let last = Position::new(stream.cached_info().state.last_sequence);
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: first.get().max(1) };
        let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(failed)?;
        let messages = match consumer.cached_info().num_pending {
            0 => None,
            _ => Some(Box::new(consumer.messages().await.map_err(failed)?)),
        };
        Ok(Self { messages, last })
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn next(&mut self) -> Result<Option<StreamMessage>, SurveyError> {
        let Some(messages) = &mut self.messages else { return Ok(None) };
        let next = tokio::time::timeout(SILENCE, messages.next()).await.map_err(|_| SurveyError::Silent)?;
        let Some(message) = next else { return Ok(None) };
        let message = message.map_err(failed)?;
        let info = message.info().map_err(SurveyError::Stream)?;
        let position = Position::new(info.stream_sequence);
        if info.pending == 0 || position >= self.last {
            self.messages = None;
        }
        Ok(Some(StreamMessage { position, message }))
    }
}

/// What a message says that it is, whatever its version.
#[derive(Deserialize)]
struct Claim {
    source: String,
    sequence: String,
    epoch: Epoch,
    id: EventId,
}

impl StreamMessage {
    /// The id under which it was published.
    pub fn message_id(&self) -> Option<&str> {
        self.message.headers.as_ref()?.get(NATS_MESSAGE_ID).map(|id| id.as_str())
    }

    /// Whether it says of itself that it is the cluster's event at this position, in this epoch or a later one.
    pub fn claims(&self, cluster: ClusterId, epoch: Epoch) -> bool {
        self.claims_one_of(Some(cluster), epoch)
    }

    /// The same for any cluster, if none is given.
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

    /// Whether it is the message that carries this event.
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

/// The journal's events one by one, as the stream's messages come to be compared with them.
struct Entries<'a, S> {
    store: &'a S,
    read: Position,
    page: VecDeque<Entry>,
    ended: bool,
}

impl<S: EventStore> Entries<'_, S> {
    /// The next event that is not beyond `limit`.
    async fn up_to(&mut self, limit: Position) -> Result<Option<Entry>, StoreError> {
        if self.page.is_empty() && !self.ended {
            self.page = self.store.read(self.read, PAGE).await?.into();
            self.ended = self.page.is_empty();
            self.read = self.page.back().map_or(self.read, |entry| entry.position);
        }
        Ok(self.page.pop_front_if(|entry| entry.position <= limit))
    }
}

/// Compares all of the stream in `context` with the store.
///
/// # Errors
/// When one of them cannot be read.
pub async fn survey<S: EventStore>(context: &Context, store: &S) -> Result<Survey, SurveyError> {
    // An empty journal may be a new one in place of one that was lost: any cluster's events may be its own.
    let empty = store.head().await? == Position::ZERO;
    let cluster = (!empty).then_some(store.identity().cluster);
    let mut reader = StreamReader::open(context, Position::new(1)).await?;
    let mut entries = Entries { store, read: Position::ZERO, page: VecDeque::new(), ended: false };
    let mut survey = Survey { last: reader.last, ..Survey::default() };
    while let Some(found) = reader.next().await? {
        let mut here = None;
        while let Some(entry) = entries.up_to(found.position).await? {
            if entry.position == found.position {
                here = Some(entry);
                break;
            }
            survey.differs(entry.position, "an event is missing");
        }
        survey.compare(found.claims_one_of(cluster, store.identity().epoch), &found, here.as_ref());
    }
    // Events that were removed from the stream's end.
    if let Some(entry) = entries.up_to(survey.last).await? {
        survey.differs(entry.position, "an event is missing");
    }
    Ok(survey)
}

impl Survey {
    fn differs(&mut self, position: Position, what: &'static str) {
        self.differs = self.differs.or(Some(Difference { position, what }));
    }

    /// Takes note of what an event gives that must not be given again.
    fn given(&mut self, event: &Event) {
        let (vni, address, left_out) = match event {
            Event::Network(NetworkEvent::Created(created)) => (created.spec.vni(), None, 0),
            Event::Node(NodeEvent::Changed(changed)) => (None, Some(changed.mesh.address), 0),
            Event::Cluster(ClusterEvent::Restored(restored)) => {
                (restored.highest_vni, restored.highest_mesh_address, restored.mesh_addresses_left_out)
            }
            Event::Network(NetworkEvent::Deleted(_))
            | Event::Vm(VmEvent::Created(_))
            | Event::Vm(VmEvent::Deleted(_))
            | Event::Nic(NicEvent::Attached(_))
            | Event::Nic(NicEvent::Bound(_))
            | Event::Nic(NicEvent::Detached(_))
            | Event::Node(NodeEvent::Joined(_))
            | Event::Node(NodeEvent::Unreachable(_))
            | Event::Node(NodeEvent::Reachable(_))
            | Event::Node(NodeEvent::Removed(_))
            | Event::Node(NodeEvent::Reconciled(_)) => return,
        };
        self.highest_vni = self.highest_vni.max(vni);
        self.highest_mesh_address = self.highest_mesh_address.max(address);
        self.mesh_addresses_left_out = self.mesh_addresses_left_out.saturating_add(left_out);
    }

    fn compare(&mut self, claims: bool, found: &StreamMessage, here: Option<&Entry>) {
        if here.is_some_and(|entry| found.carries(entry)) {
            return;
        }
        if let Some(event) = found.event() {
            self.given(&event);
        }
        // A damaged copy of the journal's own event is none that the journal lacks.
        let own = here.is_some_and(|entry| found.message_id() == Some(&entry.event_id.to_string()));
        self.differs(
            found.position,
            match (here, claims) {
                (Some(_), _) => "there is another message than the journal's event",
                (None, true) => "there is an event that the journal lacks",
                (None, false) => "there is a message that is no event of the journal",
            },
        );
        if claims && !own {
            self.lost = self.lost.or(Some(found.position));
        }
    }
}
