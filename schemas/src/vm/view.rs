//! A VM as queries return it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Arch, MachinePhase, Power, PullPolicy, VmMoveView};
use crate::id::{NodeId, VmId};
use crate::nic::NicView;
use crate::outcome::OutcomeStatus;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{Description, ImageDigest, ImageUrl, Labels, NodeName, UserId, VmName};

/// A VM and its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmView {
    pub id: VmId,
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    /// The user that created it; absent if none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<VmOwner>,
    /// What it is for; absent if nobody has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Absent if there are none.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The node that it is placed on.
    pub node_id: NodeId,
    pub node_name: NodeName,
    /// Whether that node is reachable.
    pub node_reachable: bool,
    /// Null if it is on no network.
    pub nic: Option<NicView>,
    /// What its node runs and how that is; null if nothing.
    pub machine: Option<MachineView>,
    /// Where it moves to; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<VmMoveView>,
    /// The status of its NIC and its machine: `ready` if the NIC is and the machine does what it is to do, `failed` if
    /// one of them is or the node is of another architecture. `pending` until the node has reported, and while it
    /// moves; `removed` once it is deleted and the node has removed its tap and its machine.
    pub status: OutcomeStatus,
    /// What it waits for (`pending`), or why it failed (`failed`); null otherwise.
    pub error: Option<String>,
    /// Conditions on its node that impair it and that otherix does not change.
    pub warnings: Vec<String>,
    /// The position of the last decision about the VM.
    pub generation: Position,
    pub created_at: Timestamp,
    /// The time of the last decision about the VM.
    pub updated_at: Timestamp,
    /// When it was deleted. A deleted VM can be queried until its node has removed its tap.
    pub deleted_at: Option<Timestamp>,
}

/// The machine of a VM and its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineView {
    pub vcpus: u16,
    /// In MiB.
    pub memory_mb: u32,
    /// In GiB; null for the size of the image.
    pub disk_gib: Option<u32>,
    pub image_sha256: Option<ImageDigest>,
    pub pull_policy: PullPolicy,
    /// Whether cloud-init is given a seed. What is in it, the event of the creation has.
    pub has_cloud_init: bool,
    /// Whether it is to run.
    pub power: Power,
    /// What it does: `pending` until its node has reported on the last decision about it.
    pub phase: MachinePhase,
    /// Since when it runs, by its node's clock; null if it does not.
    pub started_at: Option<Timestamp>,
    /// The last line that the guest wrote to its console before it ended; null while it runs.
    pub last_line: Option<String>,
    /// The position of the last decision about it.
    pub generation: Position,
}

/// The error of a VM whose node has not reported on the last decision about its machine.
pub fn waiting_for_machine(vm: &VmView, power: Power) -> String {
    let VmView { node_name, node_reachable, deleted_at, .. } = vm;
    let verb = match (deleted_at, power) {
        (Some(_), _) => "remove",
        (None, Power::Running) => "run",
        (None, Power::Paused) => "pause",
        (None, Power::Stopped) => "stop",
    };
    let unreachable = if *node_reachable { "" } else { ", which is unreachable," };
    format!("waiting for node `{node_name}`{unreachable} to {verb} the VM")
}

/// A user that owns VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmOwner {
    /// As in the `actor` of events.
    pub id: UserId,
    /// The user's name when the VM was created, if it is known.
    pub name: Option<String>,
}

/// The error of a VM whose node has not reported on the last decision about its NIC.
pub fn waiting_for_node(vm: &VmView, tap: &str) -> String {
    let VmView { node_name, node_reachable, deleted_at, .. } = vm;
    let verb = if deleted_at.is_some() { "remove" } else { "create" };
    let unreachable = if *node_reachable { "" } else { ", which is unreachable," };
    format!("waiting for node `{node_name}`{unreachable} to {verb} tap `{tap}`")
}

/// The error of a VM whose node is of another architecture.
pub fn cannot_run(arch: Arch, node: &NodeName, node_arch: Arch) -> String {
    format!(
        "it cannot run on node `{node}`: the VM is for {arch}, and the node is {node_arch}; delete it and create it on \
         a node of its architecture"
    )
}
