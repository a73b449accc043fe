//! The name and alias of the mesh device, and its faults.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The name of the mesh device.
pub const MESH: &str = "otwg0";

/// The alias of a mesh device that otherix created. It contains no cluster: a node has one mesh device, which stays
/// when the node joins another cluster.
pub const MESH_ALIAS: &str = "otherix:mesh";

/// What prevents the mesh on this node from working, as texts that become part of outcomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshFaults {
    /// A fault of the device: no node is reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Nodes that are not reachable, by their mesh address.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<Ipv4Addr, String>,
}
