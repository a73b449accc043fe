//! The one representation of an event: a CloudEvents 1.0 JSON document, in structured mode. Its
//! bytes are what the journal stores, what the stream carries and what an audit exports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Event, StoredError};
use crate::id::{ClusterId, CorrelationId, EventId, IdError};
use crate::position::{Epoch, Position, PositionError};
use crate::timestamp::Timestamp;
use crate::value::UserId;

/// The content type of an event's bytes.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// An event with all that is known of how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventEnvelope {
    /// How it came about.
    pub header: Header,
    /// What happened.
    pub event: Event,
}

/// How an event came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster it happened in.
    pub cluster: ClusterId,
    /// The event's own id, and its `Nats-Msg-Id`.
    pub id: EventId,
    /// Its place in the journal, and its sequence in the stream.
    pub position: Position,
    /// The place of the decision before it; 0 when it is the first.
    pub decision_prev: Position,
    /// The journal's life that it belongs to.
    pub epoch: Epoch,
    /// Its number in its aggregate's history, from 1.
    pub stream_version: u32,
    /// When it was decided; never before the event ahead of it.
    pub time: Timestamp,
    /// Who asked, as the server attested.
    pub actor: UserId,
    /// The request it comes from.
    pub correlation_id: CorrelationId,
    /// The event that led to it.
    pub causation_id: Option<EventId>,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// Why bytes are no event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of a CloudEvent of ours.
    #[error("not a CloudEvent of otherix")]
    Json(#[from] serde_json::Error),
    /// An attribute does not have the value it must have.
    #[error("attribute `{attribute}` is `{value}`, which is wrong")]
    Attribute {
        /// The attribute.
        attribute: &'static str,
        /// What it is.
        value: String,
    },
    /// An id that is none.
    #[error("malformed id")]
    Id(#[from] IdError),
    /// A position that is none.
    #[error("malformed position")]
    Position(#[from] PositionError),
    /// The data.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// The document. Attributes have the names and types that CloudEvents 1.0 gives them: extension
/// names are lower case, integers have 32 bits, hence the positions as text.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document<Data> {
    specversion: String,
    id: EventId,
    source: String,
    r#type: String,
    subject: String,
    time: Timestamp,
    datacontenttype: String,
    dataschema: String,
    sequence: String,
    decisionprev: String,
    epoch: Epoch,
    streamversion: u32,
    actor: UserId,
    correlationid: CorrelationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    data: Data,
}

/// The name of the JSON Schema for a type's data.
pub(crate) fn data_schema(type_name: &str) -> String {
    format!("urn:otherix:schema:{}", type_name.trim_start_matches("dev.otherix."))
}

impl EventEnvelope {
    /// The bytes.
    ///
    /// # Errors
    /// Never for an event that was decided or decoded: all of its values have a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let Header {
            cluster,
            id,
            position,
            decision_prev,
            epoch,
            stream_version,
            time,
            actor,
            correlation_id,
            causation_id,
            traceparent,
        } = self.header.clone();
        let type_name = self.event.type_name();
        serde_json::to_vec(&Document {
            specversion: "1.0".to_owned(),
            id,
            source: format!("/otherix/{cluster}"),
            r#type: type_name.to_owned(),
            subject: self.event.stream_id().to_string(),
            time,
            datacontenttype: "application/json".to_owned(),
            dataschema: data_schema(type_name),
            sequence: position.to_sequence(),
            decisionprev: decision_prev.to_sequence(),
            epoch,
            streamversion: stream_version,
            actor,
            correlationid: correlation_id,
            causationid: causation_id,
            traceparent,
            data: self.event.stored_data(),
        })
    }

    /// Back from the bytes.
    ///
    /// # Errors
    /// When the bytes are no event of otherix, or of a type that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_with_type(bytes).map(|(envelope, _)| envelope)
    }

    /// The same with the CloudEvent's `type`, which is an older one than the event is stored under now if the bytes are old.
    ///
    /// # Errors
    /// As [`EventEnvelope::decode`].
    pub fn decode_with_type(bytes: &[u8]) -> Result<(Self, String), DecodeError> {
        let document: Document<Value> = serde_json::from_slice(bytes)?;
        let wrong = |attribute, value: &str| DecodeError::Attribute { attribute, value: value.to_owned() };
        if document.specversion != "1.0" {
            return Err(wrong("specversion", &document.specversion));
        }
        let cluster = document.source.strip_prefix("/otherix/").ok_or_else(|| wrong("source", &document.source))?;
        let header = Header {
            cluster: cluster.parse()?,
            id: document.id,
            position: Position::from_sequence(&document.sequence)?,
            decision_prev: Position::from_sequence(&document.decisionprev)?,
            epoch: document.epoch,
            stream_version: document.streamversion,
            time: document.time,
            actor: document.actor,
            correlation_id: document.correlationid,
            causation_id: document.causationid,
            traceparent: document.traceparent,
        };
        let event = Event::from_stored(&document.r#type, document.data)?;
        if document.subject != event.stream_id().to_string() {
            return Err(wrong("subject", &document.subject));
        }
        Ok((Self { header, event }, document.r#type))
    }
}
