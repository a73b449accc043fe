//! What readers are shown of a VM.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, NicId, NodeId, VmId};
use crate::outcome::OutcomeStatus;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{ImageUrl, MacAddress, NetworkName, NodeName, VmName};
use crate::vm::Arch;

/// A VM with how it fares. What it does not have is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmView {
    /// The id.
    pub id: VmId,
    /// The name.
    pub name: VmName,
    /// Where its disk image is.
    pub image_url: ImageUrl,
    /// What it runs on.
    pub arch: Arch,
    /// The node that it is on.
    pub node_id: NodeId,
    /// That node's name.
    pub node_name: NodeName,
    /// Whether that node is heard of.
    pub node_reachable: bool,
    /// Its NIC.
    pub nic: Option<NicView>,
    /// How it fares: as its NIC does; `ready` without one. `pending` until the node has reported, `removed` once it is deleted and
    /// nothing of it is left on the node.
    pub status: OutcomeStatus,
    /// What it waits for, or what is wrong.
    pub error: Option<String>,
    /// What works against it on its node without being ours to change.
    pub warnings: Vec<String>,
    /// The position of the last decision about the VM.
    pub generation: Position,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last decided about.
    pub updated_at: Timestamp,
    /// When it was deleted; a deleted VM stays readable until its node has removed what it had of it.
    pub deleted_at: Option<Timestamp>,
}

/// A VM's NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NicView {
    /// The id.
    pub id: NicId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// That network's name.
    pub network_name: NetworkName,
    /// The bridge that its tap is a port of.
    pub bridge_name: String,
    /// Its hardware address.
    pub mac: MacAddress,
    /// The tap's name on the node.
    pub tap: String,
    /// The position of the last decision about the NIC.
    pub generation: Position,
    /// The generation that the node speaks of; absent until it has reported.
    pub observed_generation: Option<Position>,
    /// When the node's word was recorded.
    pub reconciled_at: Option<Timestamp>,
}

/// What a VM waits for whose node has not reported on the last decision about its NIC.
pub fn waiting_for_node(vm: &VmView, tap: &str) -> String {
    let VmView { node_name, node_reachable, deleted_at, .. } = vm;
    let what = if deleted_at.is_some() { "remove" } else { "make" };
    let unreachable = if *node_reachable { "" } else { ", which is unreachable," };
    format!("waiting for node `{node_name}`{unreachable} to {what} tap `{tap}`")
}
