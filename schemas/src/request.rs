//! The bodies of requests and answers. A request for a new network is a [`crate::network::NetworkDraft`], for a new VM a
//! [`crate::vm::VmDraft`], a node's report a [`crate::outcome::NodeReport`].

use core::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, NetworkId, NodeId, VmId};
use crate::position::{Epoch, Position};
use crate::timestamp::Timestamp;
use crate::value::{Endpoint, NodeName, PublicKey};

/// Makes a command safe to repeat: the same key and body give the first success again for 24 hours.
pub const IDEMPOTENCY_KEY: &str = "Otherix-Idempotency-Key";

/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 128;

/// Asks a query for what is known at once, be it behind what was acknowledged; `meta.position` says how far it goes. Any value.
pub const STALE: &str = "Otherix-Stale";

/// W3C trace context of a request.
pub const TRACEPARENT: &str = "traceparent";

/// Most things on one page.
pub const PAGE_MAX: u64 = 200;

/// Things on one page when nobody says otherwise.
pub const PAGE_DEFAULT: u64 = 20;

/// How often a node gives a sign of life.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// How long a node may be silent before it counts as unreachable: three signs of life missed.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(3 * HEARTBEAT_INTERVAL.as_secs());

/// Most peers of one node's mesh device that are kept: a heartbeat with more says nothing of them. A heartbeat is one message of at
/// most 1 MiB, and a peer takes up to 160 bytes of it: somebody with more than some 6,500 peers must leave some out.
pub const MESH_PEERS_MAX: usize = 10_000;

/// How young the last handshake with a peer must be for the two to count as connected: WireGuard makes a new one every 120 s
/// while there is traffic, and gives up a key after 180 s.
pub const ESTABLISHED_WITHIN: Duration = Duration::from_secs(180);

/// Names one network by its id: to get or to delete it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkById {
    /// The id.
    pub id: NetworkId,
}

/// Names one VM by its id: to get or to delete it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmById {
    /// The id.
    pub id: VmId,
}

/// Names one node by its id: to get or to remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeById {
    /// The id.
    pub id: NodeId,
}

/// Names one network, VM or node by its name, whatever the case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    /// The name.
    pub name: String,
}

/// Asks for a page of networks in the order of their creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListNetworks {
    /// Only this kind.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// At most so many, 1 to 200; 20 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// From where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Asks for a page of VMs in the order of their creation, or of nodes in the order of their joining.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPage {
    /// At most so many, 1 to 200; 20 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// From where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A node's wish to be part of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinNode {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// How it is reached through the mesh; absent for a node that is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<MeshOffer>,
}

/// How a node offers to be reached through the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshOffer {
    /// Its public key, whose private half never leaves it; no other node of the cluster has or ever had it.
    pub public_key: PublicKey,
    /// Where it takes WireGuard's packets.
    pub endpoint: Endpoint,
}

/// What a node needs to know of the cluster it has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// The cluster; part of the alias of every device of ours.
    pub cluster: ClusterId,
    /// The journal's life.
    pub epoch: Epoch,
    /// The last decision there was: a node that has not folded it yet does not know what it must not remove.
    pub decision_head: Position,
}

/// A node's sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The last decision that the node has folded.
    pub position: Position,
    /// What the node's mesh device says of its peers, at most [`MESH_PEERS_MAX`]. It is kept until the next heartbeat, and is no
    /// event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mesh: Vec<PeerStatus>,
}

/// What a node's mesh device says of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// The peer.
    pub node_id: NodeId,
    /// When the last handshake with it was completed, by the node's clock; absent if none was since the device was made.
    pub last_handshake_at: Option<Timestamp>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatReply {
    /// The last decision there is: a node that is behind it has missed something.
    pub decision_head: Position,
}

/// A success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer<Data> {
    /// What was asked for.
    pub data: Data,
    /// What the answer rests on.
    pub meta: Meta,
}

/// What an answer rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Meta {
    /// The position up to which the answer accounts for what happened.
    pub position: Position,
    /// Where the next page begins; absent when this is the last, and for answers that are no page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl Meta {
    /// For an answer that is no page.
    pub fn at(position: Position) -> Self {
        Self { position, next_cursor: None }
    }
}
