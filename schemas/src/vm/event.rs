//! Events of VMs, and the shapes in which they are stored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Arch;
use crate::event::{
    DomainEvent, Event, EventDeclaration, EventProvenance, EventVisitor, Family, StoredError, StoredShape, StreamId,
};
use crate::id::{NodeId, VmId};
use crate::value::{ImageUrl, UserId, VmName};

/// Every stored shape of a VM's events.
pub(crate) const EVENTS: &[EventDeclaration] = &[
    EventDeclaration::of::<VmCreatedV1>(),
    EventDeclaration::of::<VmCreatedV2>(),
    EventDeclaration::of::<VmDeletedV1>(),
];

/// An event of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    Created(VmCreated),
    Deleted(VmDeleted),
}

impl VmEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Created(event) => visitor.visit(event),
            Self::Deleted(event) => visitor.visit(event),
        }
    }
}

/// A VM was created, and placed on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmCreated {
    pub vm_id: VmId,
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    pub node_id: NodeId,
    /// The user that owns it, as in the `actor` of events; `None` for VMs of earlier versions.
    pub owner: Option<UserId>,
}

/// A VM was deleted, after its NIC was detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmDeleted {
    pub vm_id: VmId,
    /// Repeated for consumers that see only this event.
    pub name: VmName,
}

impl DomainEvent for VmCreated {
    type Stored = VmCreatedV2;

    fn stream_id(&self) -> StreamId {
        StreamId::Vm(self.vm_id)
    }

    fn to_stored(&self) -> VmCreatedV2 {
        let Self { vm_id, name, image_url, arch, node_id, owner } = self.clone();
        VmCreatedV2 { vm_id, name, image_url, arch, node_id, owner }
    }

    fn into_event(self) -> Event {
        Event::Vm(VmEvent::Created(self))
    }
}

impl DomainEvent for VmDeleted {
    type Stored = VmDeletedV1;

    fn stream_id(&self) -> StreamId {
        StreamId::Vm(self.vm_id)
    }

    fn to_stored(&self) -> VmDeletedV1 {
        let Self { vm_id, name } = self.clone();
        VmDeletedV1 { vm_id, name }
    }

    fn into_event(self) -> Event {
        Event::Vm(VmEvent::Deleted(self))
    }
}

/// A VM was created, and placed on a node. Superseded by version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCreatedV1 {
    pub vm_id: VmId,
    /// Unique among the cluster's VMs, without regard to case.
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    /// The node that it is placed on.
    pub node_id: NodeId,
}

/// A VM was created, and placed on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCreatedV2 {
    pub vm_id: VmId,
    /// Unique among the cluster's VMs, without regard to case.
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    /// The node that it is placed on.
    pub node_id: NodeId,
    /// The user that owns it, as in the `actor` of events; null if none is known.
    pub owner: Option<UserId>,
}

/// A VM was deleted, after its NIC was detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDeletedV1 {
    pub vm_id: VmId,
    pub name: VmName,
}

impl StoredShape for VmCreatedV1 {
    const TYPE: &'static str = "dev.otherix.vm.created.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A VM was created, and placed on a node";
    const PROVENANCE: EventProvenance = EventProvenance::SUPERSEDED;
    type Event = VmCreated;

    fn upcast(self) -> Result<VmCreated, StoredError> {
        let Self { vm_id, name, image_url, arch, node_id } = self;
        // Version 1 predates users.
        Ok(VmCreated { vm_id, name, image_url, arch, node_id, owner: None })
    }
}

impl StoredShape for VmCreatedV2 {
    const TYPE: &'static str = "dev.otherix.vm.created.v2";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A VM was created, and placed on a node";
    const PROVENANCE: EventProvenance =
        EventProvenance { when: "A VM is created.", requests: &["vm.create"], causes: &[] };
    type Event = VmCreated;

    fn upcast(self) -> Result<VmCreated, StoredError> {
        let Self { vm_id, name, image_url, arch, node_id, owner } = self;
        Ok(VmCreated { vm_id, name, image_url, arch, node_id, owner })
    }
}

impl StoredShape for VmDeletedV1 {
    const TYPE: &'static str = "dev.otherix.vm.deleted.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A VM was deleted";
    const PROVENANCE: EventProvenance =
        EventProvenance { when: "A VM is deleted.", requests: &["vm.delete"], causes: &["nic.detached"] };
    type Event = VmDeleted;

    fn upcast(self) -> Result<VmDeleted, StoredError> {
        let Self { vm_id, name } = self;
        Ok(VmDeleted { vm_id, name })
    }
}
