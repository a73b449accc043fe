//! Events of the cluster, and the shapes in which they are stored.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Assigned, DomainEvent, Event, EventDeclaration, EventProvenance, EventVisitor, Family, StoredError, StoredShape,
    StreamId,
};
use crate::id::ClusterId;
use crate::position::Position;
use crate::value::Vni;

/// Every stored shape of a cluster's events.
pub(crate) const EVENTS: &[EventDeclaration] =
    &[EventDeclaration::of::<ClusterRestoredV1>(), EventDeclaration::of::<ClusterRestoredV2>()];

/// An event of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    Restored(ClusterRestored),
}

impl ClusterEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Restored(event) => visitor.visit(event),
        }
    }
}

/// A new epoch began: the event store was restored from a backup, and the events after `kept` were given up. A consumer
/// that applied events after `kept` must discard its state and start from the first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRestored {
    pub cluster_id: ClusterId,
    /// The last event of the previous epoch that remains valid.
    pub kept: Position,
    /// The highest position that the previous epoch may have used; none up to it is assigned again.
    pub highest_position: Position,
    /// The highest VNI that may have been assigned; none up to it is assigned again. `None`: none was.
    pub highest_vni: Option<Vni>,
    /// The highest mesh address known to have been assigned; `None`: none is known.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// Number of mesh addresses after that one that may have been assigned, too, and are skipped.
    pub mesh_addresses_left_out: u64,
}

impl DomainEvent for ClusterRestored {
    type Stored = ClusterRestoredV2;

    fn stream_id(&self) -> StreamId {
        StreamId::Cluster(self.cluster_id)
    }

    fn to_stored(&self) -> ClusterRestoredV2 {
        let Self { cluster_id, kept, highest_position, highest_vni, highest_mesh_address, mesh_addresses_left_out } =
            self.clone();
        ClusterRestoredV2 {
            cluster_id,
            kept,
            highest_position,
            highest_vni,
            highest_mesh_address,
            mesh_addresses_left_out,
        }
    }

    fn assigned(&self) -> Assigned {
        let Self { highest_vni: vni, highest_mesh_address: mesh_address, mesh_addresses_left_out, .. } = *self;
        Assigned { vni, mesh_address, mesh_addresses_left_out }
    }

    fn into_event(self) -> Event {
        Event::Cluster(ClusterEvent::Restored(self))
    }
}

/// A new epoch began: the event store was restored from a backup, and the events after `kept` were given up. A consumer
/// that applied events after `kept` must discard its state and start from the first event. Superseded by version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRestoredV1 {
    pub cluster_id: ClusterId,
    /// The last event of the previous epoch that remains valid.
    pub kept: Position,
    /// The highest position that the previous epoch may have used.
    pub highest_position: Position,
    /// The highest VNI that the previous epoch may have assigned; null if it assigned none.
    pub highest_vni: Option<Vni>,
}

/// A new epoch began: the event store was restored from a backup, and the events after `kept` were given up. A consumer
/// that applied events after `kept` must discard its state and start from the first event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRestoredV2 {
    pub cluster_id: ClusterId,
    /// The last event of the previous epoch that remains valid.
    pub kept: Position,
    /// The highest position that the previous epoch may have used.
    pub highest_position: Position,
    /// The highest VNI that the previous epoch may have assigned; null if it assigned none.
    pub highest_vni: Option<Vni>,
    /// The highest mesh address that the previous epoch is known to have assigned; null if none is known.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// Number of mesh addresses after that one that it may have assigned, too, and that are skipped.
    pub mesh_addresses_left_out: u64,
}

impl StoredShape for ClusterRestoredV1 {
    const TYPE: &'static str = "dev.otherix.cluster.restored.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A new epoch began after a restore from a backup";
    const PROVENANCE: EventProvenance = EventProvenance::SUPERSEDED;
    type Event = ClusterRestored;

    fn upcast(self) -> Result<ClusterRestored, StoredError> {
        let Self { cluster_id, kept, highest_position, highest_vni } = self;
        // Version 1 predates the mesh.
        let (highest_mesh_address, mesh_addresses_left_out) = (None, 0);
        Ok(ClusterRestored {
            cluster_id,
            kept,
            highest_position,
            highest_vni,
            highest_mesh_address,
            mesh_addresses_left_out,
        })
    }
}

impl StoredShape for ClusterRestoredV2 {
    const TYPE: &'static str = "dev.otherix.cluster.restored.v2";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A new epoch began after a restore from a backup";
    const PROVENANCE: EventProvenance =
        EventProvenance { when: "`otherixd restore --new-epoch` begins a new epoch.", requests: &[], causes: &[] };
    type Event = ClusterRestored;

    fn upcast(self) -> Result<ClusterRestored, StoredError> {
        let Self { cluster_id, kept, highest_position, highest_vni, highest_mesh_address, mesh_addresses_left_out } =
            self;
        Ok(ClusterRestored {
            cluster_id,
            kept,
            highest_position,
            highest_vni,
            highest_mesh_address,
            mesh_addresses_left_out,
        })
    }
}
