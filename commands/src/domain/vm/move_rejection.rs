//! The reasons why a VM is not moved, or why it cannot be told anything while it moves.

use otherix_schemas::value::{NetworkName, NodeName, VmName};

/// A command about a VM is rejected because it moves, or cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveRejection {
    #[error(
        "VM `{vm}` moves{}: wait until it has moved, or run `otherix vm move {vm} --cancel`",
        node.as_ref().map_or_else(String::new, |node| format!(" to node `{node}`"))
    )]
    Moves { vm: VmName, node: Option<NodeName> },
    #[error(
        "VM `{vm}` does not move{}",
        node.as_ref().map_or_else(String::new, |node| format!(": it is on node `{node}`"))
    )]
    DoesNotMove { vm: VmName, node: Option<NodeName> },
    #[error(
        "node `{node}` has yet to remove an earlier copy of VM `{vm}`: start its agent and wait, or remove the node \
         from the cluster"
    )]
    CopyLeft { vm: VmName, node: NodeName },
    #[error(
        "VM `{0}` is paused, and what is in its memory would be lost: run `otherix vm resume {0}`, or stop it first"
    )]
    Paused(VmName),
    #[error("VM `{vm}` cannot move: its node `{node}`, which has its disk, is unreachable")]
    SourceUnreachable { vm: VmName, node: NodeName },
    #[error(
        "node `{0}` is not part of the mesh, through which disks are copied: start its agent without `--mesh none`, \
         and see `otherix node get {0}`"
    )]
    NotInMesh(NodeName),
    #[error("node `{0}` is unreachable: choose another")]
    Unreachable(NodeName),
    #[error("the VM is on node `{0}` already")]
    IsThere(NodeName),
    #[error("network `{network}` has failed on node `{node}`: see `otherix network get {network}`")]
    NetworkFailed { network: NetworkName, node: NodeName },
    #[error(
        "there is no other node to move it to: each is unreachable, cordoned or not part of the mesh, or the network \
         has failed on it"
    )]
    NoOtherNode,
}
