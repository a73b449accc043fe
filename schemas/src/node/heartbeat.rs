//! Heartbeats: how a node shows that it is reachable, and the limits by which that is judged.

use core::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decision_chain::{DecisionKey, KeyRotation, Nonce, SignedHead};
use crate::id::NodeId;
use crate::log::SignedLogKey;
use crate::position::Position;
use crate::timestamp::Timestamp;

/// The interval between a node's heartbeats.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Time without a heartbeat after which a node is unreachable: three intervals.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(3 * HEARTBEAT_INTERVAL.as_secs());

/// The most mesh peers that are kept of one node; the peers of a heartbeat with more are ignored. A heartbeat is one
/// message of at most 1 MiB, and a peer takes up to 160 bytes: a node with more than about 6,500 peers must omit some.
pub const MESH_PEERS_MAX: usize = 10_000;

/// The maximum age of the last handshake for two mesh peers to count as connected: with traffic, WireGuard performs a
/// handshake every 120 s, and it discards a key after 180 s (section 6 of the WireGuard paper).
pub const ESTABLISHED_WITHIN: Duration = Duration::from_secs(180);

/// A node's heartbeat, sent every 5 s. A node is unreachable after 15 s without one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The position of the last decision that the node has applied.
    pub position: Position,
    /// The incarnation of the agent: two agents with one node's id are told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// What the signature in the answer has to cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// What the control plane has signed that contradicts what it has signed before, while the node changes nothing for
    /// that reason; at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
    /// The newest checkpoint of the transparency log that the node keeps, a signed note; at most 4,096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// What shows that the log was not only appended to; at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_contradiction: Option<String>,
    /// What showed that the agent was started with an older copy of its state, for an hour; at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_back: Option<String>,
    /// The last decision in the ledger with which the agent was started; 0 if it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_with: Option<Position>,
    /// The last decision in the ledger on the node's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<Position>,
    /// What requests to the node must be signed with; absent if its agent takes none, as those of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Nonce>,
    /// The peers of the node's mesh device, at most 10,000. Kept in memory until the next heartbeat; never an event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mesh: Vec<MeshPeerStatus>,
}

/// The status of one peer of a node's mesh device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeshPeerStatus {
    /// The peer.
    pub node_id: NodeId,
    /// When the last handshake with the peer was completed, by the reporting node's clock; null if there was none since
    /// the device was created.
    pub last_handshake_at: Option<Timestamp>,
    /// Bytes received from the peer.
    pub rx_bytes: u64,
    /// Bytes sent to the peer.
    pub tx_bytes: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatAnswer {
    /// The position of the last decision. A node whose own position is lower has missed events.
    pub decision_head: Position,
    /// Present if another agent sends heartbeats with the node's id too: its incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_agent: Option<u64>,
    /// Present if the agent was started with an older copy of its state: what shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_back: Option<String>,
    /// The head of the chain of decisions, signed with the heartbeat's nonce. Absent from control planes that do not
    /// sign decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_head: Option<SignedHead>,
    /// The key that it is signed with. A node relies on the first one that it is told, and on its successors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_key: Option<DecisionKey>,
    /// The rotations of the decision key, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_rotations: Vec<KeyRotation>,
    /// The newest checkpoint of the transparency log, a signed note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The key that it is signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_key: Option<SignedLogKey>,
    /// Present if the log is not what the node has kept of it: how it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_contradiction: Option<String>,
}
