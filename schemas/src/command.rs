//! What can be decided: a request that was understood, by somebody who may make it.

use crate::id::{NetworkId, NodeId};
use crate::network::NewNetwork;
use crate::outcome::NodeReport;
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
}
