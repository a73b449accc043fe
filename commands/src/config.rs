//! What a cluster is, and what an operator may set for it, with the defaults of the contract.

use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Epoch;
use otherix_schemas::value::{Ipv4Subnet, Mtu, VniRange};

/// What decisions depend on beyond the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Where nodes get their addresses in the mesh; no NAT subnet may lie in it. Default 10.42.0.0/16.
    pub mesh: Ipv4Subnet,
    /// The VNIs that overlays get. Default 1000 to 16777215.
    pub vnis: VniRange,
    /// The MTU of the network between the nodes, in bytes. Default 1500.
    pub underlay_mtu: Mtu,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self { mesh: Ipv4Subnet::DEFAULT_MESH, vnis: VniRange::DEFAULT, underlay_mtu: Mtu::DEFAULT }
    }
}

/// Which cluster a journal, and so the state, belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The journal's life.
    pub epoch: Epoch,
}
