//! Events. A decision on a command yields [`Event`]s, and all state is a fold of them. The module of a resource
//! declares its events and the frozen shapes in which they are stored ([`StoredShape`]).

mod provenance;
mod query;
mod same_shape;
mod search;
mod stored;

use std::net::Ipv4Addr;

use serde_json::Value;

pub use self::provenance::EventProvenance;
pub use self::query::{EventPage, EventRange, ListEvents, QUERIES};
pub(crate) use self::same_shape::same_shape;
pub use self::search::{EventQuery, EventSearch, EventType, EventTypeError, NAMES_MAX};
pub use self::stored::{EventDeclaration, StoredData, StoredError, StoredShape};
use crate::cluster::ClusterEvent;
use crate::enrollment::EnrollmentEvent;
use crate::id::{ClusterId, JoinTokenId, NetworkId, NicId, NodeId, UserUuid, VmId};
use crate::network::NetworkEvent;
use crate::nic::NicEvent;
use crate::node::NodeEvent;
use crate::user::UserEvent;
use crate::value::Vni;
use crate::vm::VmEvent;
use crate::{cluster, enrollment, network, nic, node, user, vm};

/// A recorded fact about one of the resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Network(NetworkEvent),
    Vm(VmEvent),
    Nic(NicEvent),
    Node(NodeEvent),
    User(UserEvent),
    Enrollment(EnrollmentEvent),
    Cluster(ClusterEvent),
}

/// An event of one type. Converts into an [`Event`].
pub trait DomainEvent: Sized {
    /// The shape in which it is stored now.
    type Stored: StoredShape<Event = Self>;

    /// The aggregate that it belongs to.
    fn stream_id(&self) -> StreamId;

    fn to_stored(&self) -> Self::Stored;

    /// The values that it assigns from ranges whose values are never reused.
    fn assigned(&self) -> Assigned {
        Assigned::default()
    }

    fn into_event(self) -> Event;
}

/// The highest values that an event may have assigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    pub vni: Option<Vni>,
    pub mesh_address: Option<Ipv4Addr>,
    /// Number of mesh addresses that are skipped because they may have been assigned.
    pub mesh_addresses_left_out: u64,
}

impl<E: DomainEvent> From<E> for Event {
    fn from(event: E) -> Self {
        event.into_event()
    }
}

/// An operation on an event whose type is known only at run time; [`Event::accept`] calls it with the concrete type.
pub(crate) trait EventVisitor {
    type Output;

    fn visit<E: DomainEvent>(self, event: &E) -> Self::Output;
}

/// Which consumers an event is for. Nodes follow decisions only: otherwise the outcomes of N nodes would be sent to N
/// nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Determines what nodes must do.
    Decision,
    /// Reports the result on a node.
    Outcome,
    /// Concerns who may make requests, or what they did that auditors are to know, and nothing that nodes do.
    Administration,
}

impl Family {
    /// The token in subjects.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Decision => "evt",
            Self::Outcome => "out",
            Self::Administration => "adm",
        }
    }
}

/// An aggregate: the resource that an event belongs to and is numbered within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamId {
    Network(NetworkId),
    Vm(VmId),
    Nic(NicId),
    Node(NodeId),
    User(UserUuid),
    JoinToken(JoinTokenId),
    /// The keys of a node.
    NodeKey(NodeId),
    Cluster(ClusterId),
}

impl StreamId {
    /// The type of the aggregate, as in subjects and event types.
    pub fn aggregate(self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Vm(_) => "vm",
            Self::Nic(_) => "nic",
            Self::Node(_) => "node",
            Self::User(_) => "user",
            Self::JoinToken(_) => "join-token",
            Self::NodeKey(_) => "node-key",
            Self::Cluster(_) => "cluster",
        }
    }

    /// The id of the aggregate, as in subjects.
    pub fn aggregate_id(self) -> String {
        match self {
            Self::Network(id) => id.to_string(),
            Self::Vm(id) => id.to_string(),
            Self::Nic(id) => id.to_string(),
            Self::Node(id) | Self::NodeKey(id) => id.to_string(),
            Self::User(id) => id.to_string(),
            Self::JoinToken(id) => id.to_string(),
            Self::Cluster(id) => id.to_string(),
        }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.aggregate(), self.aggregate_id())
    }
}

impl Event {
    /// The declarations of all stored shapes, superseded ones included.
    pub fn declarations() -> impl Iterator<Item = &'static EventDeclaration> {
        let of_resources = [network::EVENTS, vm::EVENTS, nic::EVENTS, node::EVENTS, user::EVENTS];
        of_resources.into_iter().chain([enrollment::EVENTS, cluster::EVENTS]).flatten()
    }

    /// The declaration of the shape in which the event is stored now.
    pub fn declaration(&self) -> EventDeclaration {
        struct Declaration;
        impl EventVisitor for Declaration {
            type Output = EventDeclaration;
            fn visit<E: DomainEvent>(self, _: &E) -> EventDeclaration {
                EventDeclaration::of::<E::Stored>()
            }
        }
        self.accept(Declaration)
    }

    /// Reads an event from its stored form: the CloudEvent's `type` and `data`. Older shapes are upcast.
    ///
    /// # Errors
    /// If the type is unknown to this version, the data is not of its shape, or is inconsistent.
    pub fn from_stored(type_name: &str, data: Value) -> Result<Self, StoredError> {
        Self::declaration_of(type_name)?.read(data)
    }

    /// The declaration of the stored shape with this `type`.
    ///
    /// # Errors
    /// If the type is unknown to this version.
    pub fn declaration_of(type_name: &str) -> Result<&'static EventDeclaration, StoredError> {
        Self::declarations()
            .find(|declaration| declaration.type_name == type_name)
            .ok_or_else(|| StoredError::UnknownType(type_name.to_owned()))
    }

    /// The event's data as it is stored, for serialisation.
    pub fn stored_data(&self) -> StoredData<'_> {
        StoredData(self)
    }

    /// The aggregate that the event belongs to; the CloudEvent's `subject`.
    pub fn stream_id(&self) -> StreamId {
        struct Stream;
        impl EventVisitor for Stream {
            type Output = StreamId;
            fn visit<E: DomainEvent>(self, event: &E) -> StreamId {
                event.stream_id()
            }
        }
        self.accept(Stream)
    }

    /// The values that the event assigns from ranges whose values are never reused.
    pub fn assigned(&self) -> Assigned {
        struct Assignments;
        impl EventVisitor for Assignments {
            type Output = Assigned;
            fn visit<E: DomainEvent>(self, event: &E) -> Assigned {
                event.assigned()
            }
        }
        self.accept(Assignments)
    }

    /// The CloudEvent's `type`.
    pub fn type_name(&self) -> &'static str {
        self.declaration().type_name
    }

    pub fn family(&self) -> Family {
        self.declaration().family
    }

    fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Network(event) => event.accept(visitor),
            Self::Vm(event) => event.accept(visitor),
            Self::Nic(event) => event.accept(visitor),
            Self::Node(event) => event.accept(visitor),
            Self::User(event) => event.accept(visitor),
            Self::Enrollment(event) => event.accept(visitor),
            Self::Cluster(event) => event.accept(visitor),
        }
    }
}
