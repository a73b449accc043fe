//! Why a command is not carried out: the asker's to mend.

use otherix_schemas::error::{ErrorBody, ErrorCode, REMOVED_NODE};
use otherix_schemas::id::{NetworkId, NodeId, VmId};
use otherix_schemas::value::{BridgeName, Ipv4Subnet, MtuError, NetworkName, NodeName, VmName};

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another network has the name, whatever the case.
    #[error("network `{name}` exists already, as `{other}`")]
    NameTaken {
        /// The name.
        name: NetworkName,
        /// Who has it.
        other: NetworkId,
    },
    /// Another network has the bridge, and one of the two owns it.
    #[error("bridge `{bridge}` belongs to network `{other}`: only unmanaged networks may share a bridge")]
    BridgeTaken {
        /// The bridge.
        bridge: BridgeName,
        /// Who has it.
        other: NetworkName,
    },
    /// Another network with NAT egress has some of the addresses.
    #[error("subnet `{subnet}` overlaps `{taken}` of network `{other}`, which has NAT egress too")]
    SubnetOverlaps {
        /// The subnet.
        subnet: Ipv4Subnet,
        /// Who has it.
        other: NetworkName,
        /// What they have.
        taken: Ipv4Subnet,
    },
    /// Every VNI of the range has been given; none is given twice.
    #[error("the VNI range is used up: the control plane needs a range with higher VNIs")]
    VnisUsedUp,
    /// The underlay leaves no room for an overlay.
    #[error("the underlay's MTU leaves too little for an overlay")]
    UnderlayMtu(#[source] MtuError),
    /// There is no such network, or not any more.
    #[error("there is no network `{0}`")]
    NoSuchNetwork(NetworkId),
    /// NICs are on the network.
    #[error("cannot delete network {name}: blocked by {vm_nics} vm_nics")]
    NetworkInUse {
        /// The network.
        name: NetworkName,
        /// How many NICs.
        vm_nics: usize,
    },
    /// Another VM has the name, whatever the case.
    #[error("VM `{name}` exists already, as `{other}`")]
    VmNameTaken {
        /// The name.
        name: VmName,
        /// Who has it.
        other: VmId,
    },
    /// There is no such VM, or not any more.
    #[error("there is no VM `{0}`")]
    NoSuchVm(VmId),
    /// There is nowhere to put a VM.
    #[error("no node is ready: each is unreachable, or the network has failed on it")]
    NoReadyNode,
    /// The tap's name, which follows from a random id, is another's.
    #[error("the NIC's random id has the tap of another: try again")]
    TapTaken,
    /// Every address is some NIC's.
    #[error("all addresses for NICs are in use: delete VMs that are not needed")]
    MacsUsedUp,
    /// There is no such node.
    #[error("there is no node `{0}`")]
    NoSuchNode(NodeId),
    /// VMs are on the node.
    #[error("cannot delete node {name}: blocked by {vms} vms")]
    NodeInUse {
        /// The node.
        name: NodeName,
        /// How many VMs.
        vms: usize,
    },
    /// The node was part of the cluster once.
    #[error(
        "node `{node}`, which was `{name}`, was removed from the cluster for good: a machine comes back as a new node, with an \
         empty state folder"
    )]
    NodeRemoved {
        /// The node.
        node: NodeId,
        /// What it was called.
        name: NodeName,
    },
    /// The node takes back what it said of networks again and again.
    #[error("node `{node}` changes its mind too often: it is to try again in {retry_after_ms} ms")]
    TooManyChanges {
        /// The node.
        node: NodeId,
        /// When its next report may be taken.
        retry_after_ms: u64,
    },
    /// The node is part of the cluster under another name.
    #[error("node `{node}` has joined as `{name}`, and a node keeps its name")]
    NodeHasName {
        /// The node.
        node: NodeId,
        /// What it is called.
        name: NodeName,
    },
    /// Another node has the name, whatever the case.
    #[error("another node is called `{0}`")]
    NodeNameTaken(NodeName),
    /// Another node has the public key, or had it once.
    #[error("node `{0}` has this public key, or had it once: each node needs a key of its own")]
    MeshKeyTaken(String),
    /// Every address of the mesh has been given; none is given twice.
    #[error("the mesh's supernet `{0}` is used up: the control plane needs one with higher addresses")]
    MeshUsedUp(Ipv4Subnet),
}

impl From<&Rejection> for ErrorBody {
    fn from(rejection: &Rejection) -> Self {
        let code = match rejection {
            Rejection::NameTaken { .. }
            | Rejection::BridgeTaken { .. }
            | Rejection::SubnetOverlaps { .. }
            | Rejection::VnisUsedUp
            | Rejection::UnderlayMtu(_)
            | Rejection::VmNameTaken { .. }
            | Rejection::NoReadyNode
            | Rejection::MacsUsedUp
            | Rejection::NodeHasName { .. }
            | Rejection::NodeNameTaken(_)
            | Rejection::MeshKeyTaken(_)
            | Rejection::MeshUsedUp(_) => ErrorCode::Conflict,
            Rejection::NoSuchNetwork(_) | Rejection::NoSuchNode(_) | Rejection::NoSuchVm(_) => ErrorCode::NotFound,
            Rejection::TapTaken => ErrorCode::Unavailable,
            Rejection::NetworkInUse { vm_nics, .. } => {
                return Self::new(ErrorCode::Conflict, rejection.to_string()).with_detail("vm_nics", *vm_nics);
            }
            Rejection::NodeInUse { vms, .. } => {
                return Self::new(ErrorCode::Conflict, rejection.to_string()).with_detail("vms", *vms);
            }
            Rejection::NodeRemoved { node, .. } => {
                return Self::new(ErrorCode::Conflict, rejection.to_string())
                    .with_detail(REMOVED_NODE, node.to_string());
            }
            Rejection::TooManyChanges { retry_after_ms, .. } => {
                return Self::new(ErrorCode::Unavailable, rejection.to_string())
                    .with_detail("retry_after_ms", *retry_after_ms);
            }
        };
        Self::new(code, rejection.to_string())
    }
}
