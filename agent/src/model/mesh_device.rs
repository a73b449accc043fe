//! The mesh device's name and alias, and what is known to be wrong with it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The name of the mesh device.
pub const MESH: &str = "otwg0";

/// The alias of a mesh device that otherix created. It names no cluster: a node has one mesh device, and it stays when
/// the node joins another cluster.
pub const MESH_ALIAS: &str = "otherix:mesh";

/// What prevents the mesh on this node from working. The texts are for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshFaults {
    /// Concerns the device: no node is reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Nodes that are not reachable, by their mesh address.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<Ipv4Addr, String>,
}
