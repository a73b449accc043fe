//! The reasons why a command is rejected, which the caller can resolve.

use otherix_schemas::error::{ErrorBody, ErrorCode, LAST_REPORT, REMOVED_NODE};
use otherix_schemas::id::{NetworkId, NodeId, VmId};
use otherix_schemas::node::{REPORT_NUMBER_MAX, ReportNumber};
use otherix_schemas::value::{BridgeName, Ipv4Subnet, MtuError, NetworkName, NodeName, VmName};
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::Arch;
use serde_json::json;

/// A command is rejected because of the current state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("network `{name}` exists already, as `{other}`")]
    NameTaken { name: NetworkName, other: NetworkId },
    #[error("bridge `{bridge}` belongs to network `{other}`: only unmanaged networks may share a bridge")]
    BridgeTaken { bridge: BridgeName, other: NetworkName },
    #[error("subnet `{subnet}` overlaps `{taken}` of network `{other}`, which has NAT egress too")]
    SubnetOverlaps { subnet: Ipv4Subnet, other: NetworkName, taken: Ipv4Subnet },
    #[error("the VNI range is used up: the control plane needs a range with higher VNIs")]
    VnisUsedUp,
    #[error("the underlay's MTU is too small for an overlay")]
    UnderlayMtu(#[source] MtuError),
    #[error("there is no network `{0}`")]
    NoSuchNetwork(NetworkId),
    #[error("cannot delete network {name}: blocked by {vm_nics} vm_nics")]
    NetworkInUse { name: NetworkName, vm_nics: usize },
    #[error("VM `{name}` exists already, as `{other}`")]
    VmNameTaken { name: VmName, other: VmId },
    #[error("there is no VM `{0}`")]
    NoSuchVm(VmId),
    #[error("no node is ready: each is unreachable, or the network has failed on it")]
    NoReadyNode,
    #[error("no node that is ready runs VMs for {0}: each is of another architecture")]
    NoNodeOfArch(Arch),
    #[error("node `{node}` is {node_arch}, and runs no VMs for {arch}")]
    NodeOfOtherArch { node: NodeName, node_arch: Arch, arch: Arch },
    #[error("the NIC's random id has the tap of another: try again")]
    TapTaken,
    #[error("all addresses for NICs are in use: delete VMs that are not needed")]
    MacsUsedUp,
    #[error("there is no node `{0}`")]
    NoSuchNode(NodeId),
    #[error("cannot delete node {name}: blocked by {vms} vms")]
    NodeInUse { name: NodeName, vms: usize },
    #[error(
        "node `{node}`, which was `{name}`, was removed from the cluster for good: a machine comes back as a new node, \
         with an empty state folder"
    )]
    NodeRemoved { node: NodeId, name: NodeName },
    #[error("node `{node}` revokes reported statuses too often: retry in {retry_after_ms} ms")]
    TooManyChanges { node: NodeId, retry_after_ms: u64 },
    #[error(
        "node `{node}` reports with {number}: after {}, at most incarnation {} and sequence {REPORT_NUMBER_MAX} are \
         accepted. Update its otherix-agent, or correct `incarnation` in `node.json` of its state folder",
        last.map_or_else(|| "no report".to_owned(), |last| last.to_string()), ReportNumber::incarnation_max(*last)
    )]
    ReportOutOfRange { node: NodeId, number: ReportNumber, last: Option<ReportNumber> },
    #[error("node `{node}` has joined as `{name}`, and a node keeps its name")]
    NodeHasName { node: NodeId, name: NodeName },
    #[error("another node is called `{0}`")]
    NodeNameTaken(NodeName),
    #[error("node `{0}` has this public key, or had it once: each node needs a key of its own")]
    MeshKeyTaken(String),
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
            | Rejection::NoNodeOfArch(_)
            | Rejection::NodeOfOtherArch { .. }
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
            Rejection::ReportOutOfRange { last, .. } => {
                let violations = Violations::one("incarnation", rejection);
                return Self::from(violations).with_detail(LAST_REPORT, json!(last));
            }
            Rejection::TooManyChanges { retry_after_ms, .. } => {
                return Self::new(ErrorCode::Unavailable, rejection.to_string())
                    .with_detail("retry_after_ms", *retry_after_ms);
            }
        };
        Self::new(code, rejection.to_string())
    }
}
