//! What a node offers to the machines of VMs: the control plane places VMs by it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeCommand, NodeEvent};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::event::{Event, EventProvenance, StreamId, same_shape};
use crate::id::NodeId;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::violations::Violations;
use crate::vm::Machine;

/// The requests about capacities.
pub(crate) const CAPACITY_COMMANDS: &[Request] = &[Request::of::<ReportCapacity>()];

/// Longest reason in characters.
const REASON_MAX: usize = 512;

/// The largest number of a capacity: enough for any machine, and sums of it cannot overflow.
pub const CAPACITY_MAX: u64 = 1 << 40;

/// What a node offers to all machines of VMs together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeCapacity {
    /// What executes guests; null if the node runs no machines.
    pub accelerator: Option<NodeAccelerator>,
    /// Why it is that, or why the node runs no machines; at most 512 characters.
    pub reason: String,
    pub resources: Resources,
}

/// What executes guests on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeAccelerator {
    /// The processor, by the kernel's KVM.
    Kvm,
    /// QEMU's translator, which is many times slower.
    Tcg,
}

impl NodeAccelerator {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Processors, memory and disk: what a node offers, what machines take, or what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Virtual processors; at most 2^40, as the others.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in GiB. Disks whose size only their image determines are not counted.
    pub disk_gib: u64,
}

impl From<&Machine> for Resources {
    fn from(machine: &Machine) -> Self {
        Self {
            vcpus: machine.vcpus.into(),
            memory_mb: machine.memory_mb.into(),
            disk_gib: machine.disk_gib.unwrap_or_default().into(),
        }
    }
}

impl Resources {
    /// Returns the sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// Returns the difference, 0 where it would be negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// Whether there is no less of anything than there is of it in `other`.
    pub fn covers(self, other: Self) -> bool {
        self.vcpus >= other.vcpus && self.memory_mb >= other.memory_mb && self.disk_gib >= other.disk_gib
    }

    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            vcpus: of(self.vcpus, other.vcpus),
            memory_mb: of(self.memory_mb, other.memory_mb),
            disk_gib: of(self.disk_gib, other.disk_gib),
        }
    }
}

impl std::fmt::Display for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { vcpus, memory_mb, disk_gib } = self;
        let plural = if *vcpus == 1 { "" } else { "s" };
        write!(f, "{vcpus} vCPU{plural}, {memory_mb} MiB of memory, {disk_gib} GiB of disk")
    }
}

/// A node told what it offers to machines, for the first time or differently than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCapacityReported {
    pub node_id: NodeId,
    pub capacity: NodeCapacity,
}

/// A node told what it offers to machines of VMs, for the first time or differently than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeCapacityReportedV1 {
    pub node_id: NodeId,
    pub capacity: NodeCapacity,
}

same_shape!(
    NodeCapacityReported,
    NodeCapacityReportedV1 { node_id, capacity },
    |event| StreamId::Node(event.node_id),
    |event| Event::Node(NodeEvent::CapacityReported(event)),
    Outcome,
    "dev.otherix.node.capacity-reported.v1",
    "A node told what it offers to machines of VMs",
    EventProvenance {
        when: "An agent starts, and its processors, memory, disk or accelerator are not those recorded.",
        requests: &["node.report-capacity"],
        causes: &[],
    }
);

/// The body of `node.report-capacity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityReport {
    pub node_id: NodeId,
    pub capacity: NodeCapacity,
}

/// The answer to `node.report-capacity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityReceipt {
    pub node_id: NodeId,
}

/// `node.report-capacity`
#[derive(Clone, Copy, Debug)]
pub struct ReportCapacity;

impl RequestType for ReportCapacity {
    const NAME: &'static str = "node.report-capacity";
    const PERMISSION: Permission = Permission::NodeReport;
    const KIND: RequestKind = RequestKind::Command(report);
    const SUMMARY: &'static str = "Tell what a node offers to machines of VMs";
    const DESCRIPTION: &'static str = "Sent by a node at each start. VMs with machines are placed on nodes with room \
        for them. `unavailable`, with `details.retry_after_ms`, if it changes too often.";
    type Body = CapacityReport;
    type Answer = CapacityReceipt;
}

fn report(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let CapacityReport { node_id, capacity } = parse_body(body)?;
    super::command::check_sender(node_id, inputs.caller)?;
    let NodeCapacity { reason, resources: Resources { vcpus, memory_mb, disk_gib }, .. } = &capacity;
    let mut violations = Violations::default();
    for (field, number) in [("vcpus", vcpus), ("memory_mb", memory_mb), ("disk_gib", disk_gib)] {
        if *number > CAPACITY_MAX {
            violations.add(field, format!("must be at most {CAPACITY_MAX}, not {number}"));
        }
    }
    if reason.chars().count() > REASON_MAX || reason.chars().any(char::is_control) {
        violations.add("reason", format!("must be at most {REASON_MAX} characters, none of them a control character"));
    }
    if violations.is_empty() {
        return Ok(Command::Node(NodeCommand::RecordCapacity(NodeCapacityReported { node_id, capacity })));
    }
    Err(violations.into())
}
