//! Events of VMs, and the shapes in which they are stored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Arch, Instruction, Machine, VmLabelled, VmLabelledV1, VmMoveCancelled, VmMoveCancelledV1, VmMoveStarted,
    VmMoveStartedV1, VmMoved, VmMovedV1,
};
use crate::event::{
    DomainEvent, Event, EventDeclaration, EventProvenance, EventVisitor, Family, StoredError, StoredShape, StreamId,
    same_shape,
};
use crate::id::{NodeId, VmId};
use crate::value::{ImageUrl, UserId, VmName};

/// Every stored shape of a VM's events.
pub(crate) const EVENTS: &[EventDeclaration] = &[
    EventDeclaration::of::<VmCreatedV1>(),
    EventDeclaration::of::<VmCreatedV2>(),
    EventDeclaration::of::<VmCreatedV3>(),
    EventDeclaration::of::<VmInstructedV1>(),
    EventDeclaration::of::<VmMoveStartedV1>(),
    EventDeclaration::of::<VmMovedV1>(),
    EventDeclaration::of::<VmMoveCancelledV1>(),
    EventDeclaration::of::<VmConsoleOpenedV1>(),
    EventDeclaration::of::<VmLabelledV1>(),
    EventDeclaration::of::<VmDeletedV1>(),
];

/// An event of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    Created(VmCreated),
    Instructed(VmInstructed),
    MoveStarted(VmMoveStarted),
    Moved(VmMoved),
    MoveCancelled(VmMoveCancelled),
    ConsoleOpened(VmConsoleOpened),
    Labelled(VmLabelled),
    Deleted(VmDeleted),
}

impl VmEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Created(event) => visitor.visit(event),
            Self::Instructed(event) => visitor.visit(event),
            Self::MoveStarted(event) => visitor.visit(event),
            Self::Moved(event) => visitor.visit(event),
            Self::MoveCancelled(event) => visitor.visit(event),
            Self::ConsoleOpened(event) => visitor.visit(event),
            Self::Labelled(event) => visitor.visit(event),
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
    /// What its node runs; `None` if nothing, as for VMs of earlier versions.
    pub machine: Option<Machine>,
}

/// A VM with a machine was told to start or stop, or another of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmInstructed {
    pub vm_id: VmId,
    pub instruction: Instruction,
    /// How long the guest may take to shut down, in seconds; present if the instruction is to shut down.
    pub timeout_s: Option<u32>,
}

/// A user may type at the console of a VM from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConsoleOpened {
    pub vm_id: VmId,
    pub session: Uuid,
}

/// A VM was deleted, after its NIC was detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmDeleted {
    pub vm_id: VmId,
    /// Repeated for consumers that see only this event.
    pub name: VmName,
}

impl DomainEvent for VmCreated {
    type Stored = VmCreatedV3;

    fn stream_id(&self) -> StreamId {
        StreamId::Vm(self.vm_id)
    }

    fn to_stored(&self) -> VmCreatedV3 {
        let Self { vm_id, name, image_url, arch, node_id, owner, machine } = self.clone();
        VmCreatedV3 { vm_id, name, image_url, arch, node_id, owner, machine }
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

/// A VM was created, and placed on a node. Superseded by version 3.
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

/// A VM was created, and placed on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCreatedV3 {
    pub vm_id: VmId,
    /// Unique among the cluster's VMs, without regard to case.
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    /// The node that it is placed on.
    pub node_id: NodeId,
    /// The user that owns it, as in the `actor` of events; null if none is known.
    pub owner: Option<UserId>,
    /// What its node runs, from now on; null if the VM is a NIC for a machine that somebody else runs.
    pub machine: Option<Machine>,
}

/// A VM with a machine was told to start or stop, or another of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmInstructedV1 {
    pub vm_id: VmId,
    pub instruction: Instruction,
    /// How long the guest may take to shut down, in seconds, before its machine is turned off: 0 to 3,600 for `stop`
    /// and `reboot`; null for the others.
    pub timeout_s: Option<u32>,
}

/// The user that is the `actor` may type at the console of a VM from now on, until the session ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmConsoleOpenedV1 {
    pub vm_id: VmId,
    /// Of no use to others: a session is its user's.
    pub session: Uuid,
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
        Ok(VmCreated { vm_id, name, image_url, arch, node_id, owner: None, machine: None })
    }
}

impl StoredShape for VmCreatedV2 {
    const TYPE: &'static str = "dev.otherix.vm.created.v2";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A VM was created, and placed on a node";
    const PROVENANCE: EventProvenance = EventProvenance::SUPERSEDED;
    type Event = VmCreated;

    fn upcast(self) -> Result<VmCreated, StoredError> {
        let Self { vm_id, name, image_url, arch, node_id, owner } = self;
        // Version 2 predates machines.
        Ok(VmCreated { vm_id, name, image_url, arch, node_id, owner, machine: None })
    }
}

impl StoredShape for VmCreatedV3 {
    const TYPE: &'static str = "dev.otherix.vm.created.v3";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A VM was created, and placed on a node";
    const PROVENANCE: EventProvenance =
        EventProvenance { when: "A VM is created.", requests: &["vm.create", "vm.apply"], causes: &[] };
    type Event = VmCreated;

    fn upcast(self) -> Result<VmCreated, StoredError> {
        let Self { vm_id, name, image_url, arch, node_id, owner, machine } = self;
        Ok(VmCreated { vm_id, name, image_url, arch, node_id, owner, machine })
    }
}

same_shape!(
    VmInstructed,
    VmInstructedV1 { vm_id, instruction, timeout_s },
    |event| StreamId::Vm(event.vm_id),
    |event| Event::Vm(VmEvent::Instructed(event)),
    Decision,
    "dev.otherix.vm.instructed.v1",
    "A VM was told to start or stop",
    EventProvenance {
        when: "A VM is started, stopped, rebooted, reset, paused or resumed by a request.",
        requests: &["vm.start", "vm.stop", "vm.reboot", "vm.reset", "vm.pause", "vm.resume"],
        causes: &[]
    }
);

same_shape!(
    VmConsoleOpened,
    VmConsoleOpenedV1 { vm_id, session },
    |event| StreamId::Vm(event.vm_id),
    |event| Event::Vm(VmEvent::ConsoleOpened(event)),
    Administration,
    "dev.otherix.vm.console-opened.v1",
    "A user may type at the console of a VM",
    EventProvenance {
        when: "A user begins to type at the console of a VM, and its node has given it the input.",
        requests: &["vm.open-console"],
        causes: &[]
    }
);

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
