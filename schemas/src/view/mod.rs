//! What readers are shown of networks, VMs and nodes.

mod network;
mod node;
mod vm;

pub use network::{EgressView, Lifetime, NetworkStatus, NetworkView, NodeStatus, SilentNode};
pub use node::{MeshPeerView, NetworkCounts, NetworkOnNode, NodeMesh, NodeView, RemovedNodeView};
pub use vm::{NicView, VmView, waiting_for_node};
