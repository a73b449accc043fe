//! What an operator may configure for a cluster, with defaults, and what identifies its event store.

use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Epoch;
use otherix_schemas::value::{Ipv4Subnet, Mtu, VniRange};

/// What decisions depend on besides the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The mesh supernet, which node addresses are assigned from. No NAT subnet may overlap it. Default 10.42.0.0/16.
    pub mesh: Ipv4Subnet,
    /// The VNIs that overlays are assigned from. Default 1000 to 16777215.
    pub vnis: VniRange,
    /// The MTU of the underlay in bytes. Default 1500.
    pub underlay_mtu: Mtu,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self { mesh: Ipv4Subnet::DEFAULT_MESH, vnis: VniRange::DEFAULT, underlay_mtu: Mtu::DEFAULT }
    }
}

/// Which cluster's event store it is, and its current epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    pub cluster: ClusterId,
    pub epoch: Epoch,
}
