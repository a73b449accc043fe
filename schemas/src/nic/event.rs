//! Events of NICs, and the shapes in which they are stored.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tap_name;
use crate::event::{
    DomainEvent, Event, EventDeclaration, EventProvenance, EventVisitor, Family, StoredError, StoredShape, StreamId,
};
use crate::id::{NetworkId, NicId, NodeId, VmId};
use crate::value::MacAddress;

/// Every stored shape of a NIC's events.
pub(crate) const EVENTS: &[EventDeclaration] = &[
    EventDeclaration::of::<NicAttachedV1>(),
    EventDeclaration::of::<NicAttachedV2>(),
    EventDeclaration::of::<NicBoundV1>(),
    EventDeclaration::of::<NicDetachedV1>(),
];

/// An event of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NicEvent {
    Attached(NicAttached),
    Bound(NicBound),
    Detached(NicDetached),
}

impl NicEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Attached(event) => visitor.visit(event),
            Self::Bound(event) => visitor.visit(event),
            Self::Detached(event) => visitor.visit(event),
        }
    }
}

/// A VM's NIC was created and attached to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicAttached {
    pub nic_id: NicId,
    pub vm_id: VmId,
    pub network_id: NetworkId,
    /// Unique among the cluster's NICs.
    pub mac: MacAddress,
    /// Unique among the network's NICs; present if the network assigns addresses.
    pub ip: Option<Ipv4Addr>,
}

/// A NIC's tap was assigned to a node; a later event replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicBound {
    pub nic_id: NicId,
    pub node_id: NodeId,
}

/// A NIC was detached from its network and deleted: the node removes its tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicDetached {
    pub nic_id: NicId,
    pub vm_id: VmId,
    pub network_id: NetworkId,
}

impl DomainEvent for NicAttached {
    type Stored = NicAttachedV2;

    fn stream_id(&self) -> StreamId {
        StreamId::Nic(self.nic_id)
    }

    fn to_stored(&self) -> NicAttachedV2 {
        let Self { nic_id, vm_id, network_id, mac, ip } = self.clone();
        NicAttachedV2 { nic_id, vm_id, network_id, mac, tap: tap_name(nic_id), ip }
    }

    fn into_event(self) -> Event {
        Event::Nic(NicEvent::Attached(self))
    }
}

impl DomainEvent for NicBound {
    type Stored = NicBoundV1;

    fn stream_id(&self) -> StreamId {
        StreamId::Nic(self.nic_id)
    }

    fn to_stored(&self) -> NicBoundV1 {
        let Self { nic_id, node_id } = self.clone();
        NicBoundV1 { nic_id, node_id }
    }

    fn into_event(self) -> Event {
        Event::Nic(NicEvent::Bound(self))
    }
}

impl DomainEvent for NicDetached {
    type Stored = NicDetachedV1;

    fn stream_id(&self) -> StreamId {
        StreamId::Nic(self.nic_id)
    }

    fn to_stored(&self) -> NicDetachedV1 {
        let Self { nic_id, vm_id, network_id } = self.clone();
        NicDetachedV1 { nic_id, vm_id, network_id }
    }

    fn into_event(self) -> Event {
        Event::Nic(NicEvent::Detached(self))
    }
}

/// A VM's NIC was created and attached to a network. Superseded by version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicAttachedV1 {
    pub nic_id: NicId,
    pub vm_id: VmId,
    pub network_id: NetworkId,
    /// Unique among the cluster's NICs.
    pub mac: MacAddress,
    /// The name of the NIC's tap: `ot` and the first 12 hex digits of the NIC's id.
    pub tap: String,
}

/// A VM's NIC was created and attached to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicAttachedV2 {
    pub nic_id: NicId,
    pub vm_id: VmId,
    pub network_id: NetworkId,
    /// Unique among the cluster's NICs.
    pub mac: MacAddress,
    /// The name of the NIC's tap: `ot` and the first 12 hex digits of the NIC's id.
    pub tap: String,
    /// Unique among the network's NICs, and not given to another before its tap is removed; null if the network assigns
    /// no addresses.
    pub ip: Option<Ipv4Addr>,
}

/// A NIC's tap was assigned to a node; a later event replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicBoundV1 {
    pub nic_id: NicId,
    pub node_id: NodeId,
}

/// A NIC was detached from its network and deleted: the node removes its tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicDetachedV1 {
    pub nic_id: NicId,
    pub vm_id: VmId,
    pub network_id: NetworkId,
}

impl StoredShape for NicAttachedV1 {
    const TYPE: &'static str = "dev.otherix.nic.attached.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A NIC was attached to a network";
    const PROVENANCE: EventProvenance = EventProvenance::SUPERSEDED;
    type Event = NicAttached;

    fn upcast(self) -> Result<NicAttached, StoredError> {
        let Self { nic_id, vm_id, network_id, mac, tap } = self;
        // Version 1 predates the assignment of addresses.
        NicAttachedV2 { nic_id, vm_id, network_id, mac, tap, ip: None }.upcast()
    }
}

impl StoredShape for NicAttachedV2 {
    const TYPE: &'static str = "dev.otherix.nic.attached.v2";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A NIC was attached to a network";
    const PROVENANCE: EventProvenance =
        EventProvenance { when: "A VM with a network is created.", requests: &["vm.create"], causes: &["vm.created"] };
    type Event = NicAttached;

    fn upcast(self) -> Result<NicAttached, StoredError> {
        let Self { nic_id, vm_id, network_id, mac, tap, ip } = self;
        if tap != tap_name(nic_id) {
            return Err(StoredError::TapName(nic_id));
        }
        Ok(NicAttached { nic_id, vm_id, network_id, mac, ip })
    }
}

impl StoredShape for NicBoundV1 {
    const TYPE: &'static str = "dev.otherix.nic.bound.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A NIC's tap was assigned to a node";
    const PROVENANCE: EventProvenance = EventProvenance {
        when: "A VM with a network is created or has moved to another node: the NIC is on the VM's node.",
        requests: &["vm.create", "node.report"],
        causes: &["node.reachable", "node.reconciled", "vm.created"],
    };
    type Event = NicBound;

    fn upcast(self) -> Result<NicBound, StoredError> {
        let Self { nic_id, node_id } = self;
        Ok(NicBound { nic_id, node_id })
    }
}

impl StoredShape for NicDetachedV1 {
    const TYPE: &'static str = "dev.otherix.nic.detached.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A NIC was detached from its network and deleted";
    const PROVENANCE: EventProvenance =
        EventProvenance { when: "A VM with a NIC is deleted.", requests: &["vm.delete"], causes: &[] };
    type Event = NicDetached;

    fn upcast(self) -> Result<NicDetached, StoredError> {
        let Self { nic_id, vm_id, network_id } = self;
        Ok(NicDetached { nic_id, vm_id, network_id })
    }
}
