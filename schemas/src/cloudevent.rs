//! The representation of an event: a CloudEvents 1.0 JSON document in structured mode. Its bytes are what the event
//! store and the stream hold.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{Event, StoredError};
use crate::id::{ClusterId, CorrelationId, EventId, IdError};
use crate::json_schema::schema_id;
use crate::position::{Epoch, Position, PositionError};
use crate::timestamp::Timestamp;
use crate::user::Caller;
use crate::value::{UserId, UserIdError};

/// The content type of an event's bytes.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// An event with its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventEnvelope {
    pub header: Header,
    pub event: Event,
}

/// Where an event belongs, and what caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub cluster: ClusterId,
    /// The event's id, also its `Nats-Msg-Id`.
    pub id: EventId,
    /// The event's number in the event store, and its sequence on the stream.
    pub position: Position,
    /// The position of the previous decision; 0 for the first.
    pub decision_prev: Position,
    pub epoch: Epoch,
    /// The event's number within its aggregate, from 1.
    pub stream_version: u32,
    /// When it was decided; not before the time of the previous event.
    pub time: Timestamp,
    /// Who made the request, as attested by the NATS server.
    pub actor: Actor,
    /// The request that the event results from.
    pub correlation_id: CorrelationId,
    /// The event that caused this one: for an outcome the decision that it is about, for further events of a
    /// command its first one.
    pub causation_id: Option<EventId>,
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// A user, a node, or a part of the control plane, that caused an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub id: UserId,
    /// Its name at the time; `None` for the control plane itself, and in events of earlier versions.
    pub name: Option<String>,
}

impl FromStr for Actor {
    type Err = UserIdError;

    /// Parses the id of an actor without a name.
    fn from_str(id: &str) -> Result<Self, UserIdError> {
        Ok(Self { id: id.parse()?, name: None })
    }
}

impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        Self { id: caller.id.clone(), name: Some(caller.name.clone()) }
    }
}

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a CloudEvent of otherix")]
    Json(#[from] serde_json::Error),
    #[error("attribute `{attribute}` has the unexpected value `{value}`")]
    Attribute { attribute: &'static str, value: String },
    #[error("malformed id")]
    Id(#[from] IdError),
    #[error("malformed position")]
    Position(#[from] PositionError),
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// An event of otherix as a CloudEvents 1.0 document in structured mode. Positions are strings, because CloudEvents
/// integers have 32 bits.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Event")]
pub(crate) struct CloudEventDocument<Data> {
    #[schemars(extend("const" = "1.0"))]
    specversion: String,
    /// The event's id, also its `Nats-Msg-Id` (UUID version 7).
    id: EventId,
    /// `/otherix/` and the cluster's id.
    #[schemars(regex(pattern = r"^/otherix/[0-9a-f-]{36}$"))]
    source: String,
    /// `dev.otherix.<aggregate>.<event>.v<version>`.
    #[schemars(regex(pattern = r"^dev\.otherix\.[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*\.v[0-9]+$"))]
    r#type: String,
    /// The aggregate that the event belongs to: its type and id.
    #[schemars(regex(pattern = r"^[a-z]+(-[a-z]+)*/[0-9a-f-]{36}$"))]
    subject: String,
    /// When it was decided; not before the time of the previous event.
    time: Timestamp,
    #[schemars(extend("const" = "application/json"))]
    datacontenttype: String,
    /// The `$id` of the data's JSON Schema.
    #[schemars(regex(pattern = r"^urn:otherix:schema:[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*\.v[0-9]+$"))]
    dataschema: String,
    /// The event's position: 20 digits, so that text order is numerical order. Also its sequence on the stream.
    #[schemars(regex(pattern = r"^[0-9]{20}$"))]
    sequence: String,
    /// The position of the previous decision, 20 digits; zeros for the first. A consumer of decisions that last saw an
    /// earlier one has missed events.
    #[schemars(regex(pattern = r"^[0-9]{20}$"))]
    decisionprev: String,
    epoch: Epoch,
    /// The event's number within its aggregate.
    #[schemars(range(min = 1))]
    streamversion: u32,
    /// The user or node that made the request, as attested by the NATS server; `system` is the control plane.
    actor: UserId,
    /// The actor's name at the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    actorname: Option<String>,
    /// Shared by all events that result from one request.
    correlationid: CorrelationId,
    /// The event that caused this one: for an outcome the decision that it is about, for further events of a
    /// command its first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<EventId>,
    /// The W3C trace context of the request, or of the one that led to the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    data: Data,
}

impl EventEnvelope {
    /// The event's bytes.
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
        let declaration = self.event.declaration();
        serde_json::to_vec(&CloudEventDocument {
            specversion: "1.0".to_owned(),
            id,
            source: format!("/otherix/{cluster}"),
            r#type: declaration.type_name.to_owned(),
            subject: self.event.stream_id().to_string(),
            time,
            datacontenttype: "application/json".to_owned(),
            dataschema: schema_id(declaration.schema_name()),
            sequence: position.to_sequence(),
            decisionprev: decision_prev.to_sequence(),
            epoch,
            streamversion: stream_version,
            actor: actor.id,
            actorname: actor.name,
            correlationid: correlation_id,
            causationid: causation_id,
            traceparent,
            data: self.event.stored_data(),
        })
    }

    /// Decodes an event.
    ///
    /// # Errors
    /// If the bytes are not an event of otherix, or its type is unknown to this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_with_type(bytes).map(|(envelope, _)| envelope)
    }

    /// Decodes an event, and returns the CloudEvent's `type`, too: it may be that of an older stored shape.
    ///
    /// # Errors
    /// As [`EventEnvelope::decode`].
    pub fn decode_with_type(bytes: &[u8]) -> Result<(Self, String), DecodeError> {
        let document: CloudEventDocument<Map<String, Value>> = serde_json::from_slice(bytes)?;
        let unexpected = |attribute, value: &str| DecodeError::Attribute { attribute, value: value.to_owned() };
        if document.specversion != "1.0" {
            return Err(unexpected("specversion", &document.specversion));
        }
        let cluster =
            document.source.strip_prefix("/otherix/").ok_or_else(|| unexpected("source", &document.source))?;
        let header = Header {
            cluster: cluster.parse()?,
            id: document.id,
            position: Position::from_sequence(&document.sequence)?,
            decision_prev: Position::from_sequence(&document.decisionprev)?,
            epoch: document.epoch,
            stream_version: document.streamversion,
            time: document.time,
            actor: Actor { id: document.actor, name: document.actorname },
            correlation_id: document.correlationid,
            causation_id: document.causationid,
            traceparent: document.traceparent,
        };
        let event = Event::from_stored(&document.r#type, Value::Object(document.data))?;
        if document.subject != event.stream_id().to_string() {
            return Err(unexpected("subject", &document.subject));
        }
        Ok((Self { header, event }, document.r#type))
    }
}
