//! What can be decided: a request that was understood, by somebody who may make it.

use crate::id::{NetworkId, NicId, NodeId, VmId};
use crate::network::NewNetwork;
use crate::outcome::NodeReport;
use crate::request::MeshOffer;
use crate::timestamp::Timestamp;
use crate::value::NodeName;
use crate::vm::NewVm;

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
    /// Define a VM, with its NIC if it is to be on a network.
    CreateVm {
        /// The id it gets, drawn before.
        vm_id: VmId,
        /// The NIC that it gets if it is to be on a network.
        nic: DrawnNic,
        /// What it is to be.
        vm: NewVm,
    },
    /// Give a VM up, with its NIC.
    DeleteVm {
        /// Which.
        vm_id: VmId,
    },
    /// Make a node part of the cluster. Again for a node that is part of it already changes nothing but what it offers for the
    /// mesh.
    JoinNode {
        /// The node.
        node_id: NodeId,
        /// Its name.
        name: NodeName,
        /// How it is reached through the mesh, if it is to be in it.
        mesh: Option<MeshOffer>,
    },
    /// Take a node out of the cluster, for good: its id never joins again.
    RemoveNode {
        /// Which.
        node_id: NodeId,
    },
    /// Record how networks and NICs fare on a node.
    RecordReport(NodeReport),
    /// Record which nodes fell silent, and which are heard again. The control plane itself asks for it, nobody else.
    RecordPresence {
        /// Nodes that were not heard for a while.
        silent: Vec<Silence>,
        /// Nodes that are heard.
        heard: Vec<NodeId>,
    },
}

/// What is drawn at random for a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawnNic {
    /// The id it gets.
    pub nic_id: NicId,
    /// Where the search for a free address begins: the number of a [`crate::value::MacAddress::given`] one.
    pub mac: u32,
}

/// A node that was not heard for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The node.
    pub node_id: NodeId,
    /// When it was last heard, if it was since the control plane started.
    pub last_heard_at: Option<Timestamp>,
}
