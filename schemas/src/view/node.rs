//! What readers are shown of a node.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, NodeId};
use crate::outcome::OutcomeStatus;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{Endpoint, NetworkName, NodeName, PublicKey};

/// A node, and how networks fare on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// The id.
    pub id: NodeId,
    /// The name.
    pub name: NodeName,
    /// Whether it is heard of.
    pub reachable: bool,
    /// When it became reachable or unreachable.
    pub reachable_since: Timestamp,
    /// When it joined.
    pub joined_at: Timestamp,
    /// The VMs that are on it.
    pub vms: u64,
    /// The NICs whose taps are on it.
    pub nics: u64,
    /// How many networks there are of each status.
    pub network_counts: NetworkCounts,
    /// Each network that it has reported on, by name; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkOnNode>>,
    /// Its place in the mesh, if it has one.
    pub mesh: Option<NodeMesh>,
}

/// A node that was removed from the cluster: its removal's answer, and the last that is seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedNodeView {
    /// The id, which never joins again.
    pub id: NodeId,
    /// The name, which is free again.
    pub name: NodeName,
    /// When it was removed.
    pub deleted_at: Timestamp,
}

/// A node's place in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeMesh {
    /// Its address there, which no other node ever has.
    pub address: Ipv4Addr,
    /// Its public key.
    pub public_key: PublicKey,
    /// Where it takes WireGuard's packets.
    pub endpoint: Endpoint,
    /// Each other node of the mesh, by name, with what this one's device last said of it; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<MeshPeerView>>,
}

/// A peer of a node in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshPeerView {
    /// The peer.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: NodeName,
    /// Its address in the mesh.
    pub address: Ipv4Addr,
    /// Where it takes WireGuard's packets.
    pub endpoint: Endpoint,
    /// Whether the last handshake is younger than 180 s.
    pub established: bool,
    /// When the last handshake was completed; absent if none was, or the node has said nothing of this peer.
    pub last_handshake_at: Option<Timestamp>,
    /// Bytes that the node has received from it.
    pub rx_bytes: u64,
    /// Bytes that the node has sent to it.
    pub tx_bytes: u64,
}

/// Networks by their status on a node, deleted ones left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkCounts {
    /// All of it is there.
    pub ready: u64,
    /// Waiting for something, or not reported on in this generation.
    pub pending: u64,
    /// It could not be made or kept.
    pub failed: u64,
}

/// How one network fares on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkOnNode {
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    pub network_name: NetworkName,
    /// How it fares.
    pub status: OutcomeStatus,
    /// What it waits for, or what is wrong.
    pub error: Option<String>,
    /// What works against it without being ours to change.
    pub warnings: Vec<String>,
    /// The generation that the node speaks of.
    pub observed_generation: Position,
    /// When the node's word was recorded.
    pub reconciled_at: Timestamp,
}
