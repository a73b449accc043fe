//! A node as queries return it.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeCapacity, NodeConditionView, Resources};
use crate::id::{NetworkId, NodeId};
use crate::outcome::OutcomeStatus;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{Description, Labels, MeshEndpoint, MeshPublicKey, NetworkName, NodeName};
use crate::vm::Arch;

/// A node, and the status of the networks on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    pub id: NodeId,
    pub name: NodeName,
    /// Whether the control plane received a heartbeat within the last 15 s.
    pub reachable: bool,
    /// When `reachable` last changed.
    pub reachable_since: Timestamp,
    pub joined_at: Timestamp,
    /// The architecture of the VMs that the node can run; absent if it has not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// What it is for; absent if nobody has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Absent if there are none.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// No VMs are placed on it, for maintenance; absent if they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
    /// What it offers to machines of VMs; absent if it has not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<NodeCapacity>,
    /// What the machines of its VMs take of it, whether they run or not; absent if it has not told what it offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Resources>,
    /// Number of VMs on the node.
    pub vms: u64,
    /// Number of NICs whose taps are on the node.
    pub nics: u64,
    /// Number of networks by their status on the node.
    pub network_counts: NetworkCounts,
    /// Each network that the node has reported on, by name; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NodeNetworkStatus>>,
    /// Null for a node outside the mesh.
    pub mesh: Option<NodeMesh>,
    /// What is wrong with the node as a whole, by kind; absent if nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<NodeConditionView>,
    /// The same as sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A node that was removed from the cluster: the answer to its removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedNodeView {
    /// Can never join again.
    pub id: NodeId,
    /// Available for another node.
    pub name: NodeName,
    pub deleted_at: Timestamp,
}

/// A node's membership in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeMesh {
    /// The node's mesh address, never assigned to another node.
    pub address: Ipv4Addr,
    pub public_key: MeshPublicKey,
    /// Where the node receives WireGuard's UDP packets.
    pub endpoint: MeshEndpoint,
    /// The other nodes of the mesh, by name, with the status from this node's last heartbeat; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<MeshPeerView>>,
}

/// A peer of a node in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshPeerView {
    /// The peer.
    pub node_id: NodeId,
    pub node_name: NodeName,
    /// The peer's mesh address.
    pub address: Ipv4Addr,
    /// Where the peer receives WireGuard's UDP packets.
    pub endpoint: MeshEndpoint,
    /// Whether the last handshake is less than 180 s old.
    pub established: bool,
    /// When the last handshake was completed; null if there was none, or the node has not reported on this peer.
    pub last_handshake_at: Option<Timestamp>,
    /// Bytes received from the peer.
    pub rx_bytes: u64,
    /// Bytes sent to the peer.
    pub tx_bytes: u64,
}

/// Number of networks by their status on a node, without deleted ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkCounts {
    pub ready: u64,
    /// Waiting, or not yet reported on in the current generation.
    pub pending: u64,
    pub failed: u64,
}

/// The status of one network on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeNetworkStatus {
    pub network_id: NetworkId,
    pub network_name: NetworkName,
    pub status: OutcomeStatus,
    /// What the node waits for (`pending`), or why it failed (`failed`); null otherwise.
    pub error: Option<String>,
    /// Conditions on the node that impair the network and that otherix does not change.
    pub warnings: Vec<String>,
    /// The generation that the node reported on.
    pub observed_generation: Position,
    /// When the report was recorded.
    pub reconciled_at: Timestamp,
}
