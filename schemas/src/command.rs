//! What can be decided: a request that was understood, by somebody who may make it.

use crate::id::{NetworkId, NodeId};
use crate::network::NewNetwork;
use crate::outcome::NodeReport;
use crate::timestamp::Timestamp;
use crate::value::NodeName;

/// Something to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Define a network.
    CreateNetwork {
        /// The id it gets, drawn before.
        network_id: NetworkId,
        /// What it is to be.
        network: NewNetwork,
    },
    /// Give a network up.
    DeleteNetwork {
        /// Which.
        network_id: NetworkId,
    },
    /// Make a node part of the cluster; again for a node that is part of it already changes nothing.
    JoinNode {
        /// The node.
        node_id: NodeId,
        /// Its name.
        name: NodeName,
    },
    /// Record how networks fare on a node.
    RecordReport(NodeReport),
    /// Record which nodes fell silent, and which are heard again. The control plane itself asks for it, nobody else.
    RecordPresence {
        /// Nodes that were not heard for a while.
        silent: Vec<Silence>,
        /// Nodes that are heard.
        heard: Vec<NodeId>,
    },
}

/// A node that was not heard for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The node.
    pub node_id: NodeId,
    /// When it was last heard, if it was since the control plane started.
    pub last_heard_at: Option<Timestamp>,
}
