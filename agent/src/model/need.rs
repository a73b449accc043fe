//! What the node itself must be able to reach.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The addresses that the node must be able to reach, with the most important reason for each.
pub type Needs = BTreeMap<Ipv4Addr, Need>;

/// Why the node must be able to reach an address; the most important reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// A NATS server.
    ControlPlane,
    /// Another node's endpoint in the mesh.
    MeshPeer,
    /// A DNS server.
    Resolver,
}

impl Need {
    /// Adds an address that is needed for this reason. The node's own addresses are not needed.
    pub fn add(self, needs: &mut Needs, address: Ipv4Addr) {
        if address.is_loopback() || address.is_unspecified() {
            return;
        }
        let need = needs.entry(address).or_insert(self);
        *need = (*need).min(self);
    }
}

/// What the node needs the address for, as the end of a sentence.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "to reach the control plane",
            Self::MeshPeer => "to reach another node of the mesh",
            Self::Resolver => "to resolve names",
        })
    }
}
