//! How events are stored. A stored shape is frozen: once released it never changes, but is superseded by a newer one,
//! into whose event it is upcast. Each shape has a golden sample in `schemas/golden/`.

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{DomainEvent, Event, EventProvenance, EventVisitor, Family};
use crate::id::{NetworkId, NicId};
use crate::json_schema;

/// The frozen JSON form of one version of an event type. Its doc comment is the description in the JSON Schema.
pub trait StoredShape: Serialize + DeserializeOwned + JsonSchema {
    /// The CloudEvent's `type`: `dev.otherix.<aggregate>.<event>.v<version>`.
    const TYPE: &'static str;

    /// Which consumers the event is for.
    const FAMILY: Family;

    /// What happened, on one line.
    const SUMMARY: &'static str;

    /// Why it is recorded; [`EventProvenance::SUPERSEDED`] if a newer shape is.
    const PROVENANCE: EventProvenance;

    /// The event that the shape is read as.
    type Event: DomainEvent;

    /// Converts the shape into the current event.
    ///
    /// # Errors
    /// If its fields contradict each other.
    fn upcast(self) -> Result<Self::Event, StoredError>;
}

/// Why stored data is not an event.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// May be from a newer version.
    #[error("event type `{0}` is not known to this version")]
    UnknownType(String),
    #[error("data of event type `{type_name}` is malformed")]
    Shape {
        type_name: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// A network whose fields contradict each other.
    #[error("network `{0}` is inconsistent")]
    InconsistentNetwork(NetworkId),
    /// A tap name that does not follow from the NIC's id.
    #[error("NIC `{0}` has a tap of another name")]
    TapName(NicId),
}

/// The declaration of a stored shape, from which its subject, JSON Schema and AsyncAPI message follow.
#[derive(Clone, Copy, Debug)]
pub struct EventDeclaration {
    /// The CloudEvent's `type`.
    pub type_name: &'static str,
    pub family: Family,
    /// What happened, on one line.
    pub summary: &'static str,
    /// Why it is recorded.
    pub provenance: EventProvenance,
    read: fn(Value) -> Result<Event, StoredError>,
    schema: fn(&str) -> Schema,
}

impl EventDeclaration {
    pub(crate) const fn of<S: StoredShape>() -> Self {
        Self {
            type_name: S::TYPE,
            family: S::FAMILY,
            summary: S::SUMMARY,
            provenance: S::PROVENANCE,
            read: read::<S>,
            schema: json_schema::schema::<S>,
        }
    }

    /// `<aggregate>.<event>.v<version>`: the name of the data's JSON Schema.
    pub fn schema_name(&self) -> &'static str {
        self.type_name.trim_start_matches(TYPE_PREFIX)
    }

    /// The type of the aggregate: its token in subjects.
    pub fn aggregate(&self) -> &'static str {
        self.schema_name().split('.').next().unwrap_or_default()
    }

    /// What happened, in the past tense: the event's token in subjects.
    pub fn event_name(&self) -> &'static str {
        self.schema_name().split('.').nth(1).unwrap_or_default()
    }

    /// `<aggregate>.<event>`: the name without the version.
    pub fn name(&self) -> &'static str {
        self.schema_name().rsplit_once('.').map_or("", |(name, _)| name)
    }

    /// The version of the shape, from 1.
    pub fn version(&self) -> u32 {
        let digits = self.schema_name().rsplit_once(".v").map_or("", |(_, digits)| digits);
        digits.parse().unwrap_or_default()
    }

    /// The JSON Schema of the data.
    pub fn schema(&self) -> Schema {
        (self.schema)(self.schema_name())
    }

    pub(super) fn read(&self, data: Value) -> Result<Event, StoredError> {
        (self.read)(data)
    }
}

/// What every event type begins with.
pub(super) const TYPE_PREFIX: &str = "dev.otherix.";

fn read<S: StoredShape>(data: Value) -> Result<Event, StoredError> {
    let shape: S = serde_json::from_value(data).map_err(|source| StoredError::Shape { type_name: S::TYPE, source })?;
    shape.upcast().map(DomainEvent::into_event)
}

/// An event's data, serialised in the shape in which it is stored now.
#[derive(Clone, Copy, Debug)]
pub struct StoredData<'a>(pub(super) &'a Event);

impl Serialize for StoredData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Data<S>(S);
        impl<S: Serializer> EventVisitor for Data<S> {
            type Output = Result<S::Ok, S::Error>;
            fn visit<E: DomainEvent>(self, event: &E) -> Self::Output {
                event.to_stored().serialize(self.0)
            }
        }
        self.0.accept(Data(serializer))
    }
}
