//! The mesh addresses and public keys of nodes.
//!
//! Neither is ever assigned to a second node: packets to a removed node that are still in transit, or were recorded,
//! must not reach another.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use otherix_schemas::cluster::ClusterRestored;
use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{MeshOffer, MeshPeer, NodeChanged};
use otherix_schemas::value::MeshPublicKey;
use serde::{Deserialize, Serialize};

use crate::config::ClusterConfig;
use crate::domain::{Rejection, State};

/// The addresses and keys that were assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    /// The highest address known to have been assigned.
    highest: Option<Ipv4Addr>,
    /// Number of addresses after it that may have been assigned, too.
    left_out: u64,
    /// Every key that a node ever had.
    owners: BTreeMap<MeshPublicKey, NodeId>,
}

impl Mesh {
    /// Returns the highest address known to have been assigned.
    pub fn highest(&self) -> Option<Ipv4Addr> {
        self.highest
    }

    /// Returns the node that has, or once had, a key.
    pub fn owner(&self, key: MeshPublicKey) -> Option<NodeId> {
        self.owners.get(&key).copied()
    }

    pub(super) fn apply(&mut self, event: &NodeChanged) {
        let NodeChanged { node_id, mesh: MeshPeer { address, public_key, endpoint: _ } } = *event;
        if self.highest < Some(address) {
            self.highest = Some(address);
            self.left_out = 0;
        }
        self.owners.entry(public_key).or_insert(node_id);
    }

    pub(in crate::domain) fn restore(&mut self, event: &ClusterRestored) {
        self.highest = self.highest.max(event.highest_mesh_address);
        self.left_out = self.left_out.saturating_add(event.mesh_addresses_left_out);
    }
}

/// Returns the event that a node's offer leads to, if it changes anything. A node keeps its address.
pub(super) fn accept(
    state: &State,
    config: &ClusterConfig,
    node_id: NodeId,
    offer: MeshOffer,
) -> Result<Option<Event>, Rejection> {
    let MeshOffer { public_key, endpoint } = offer;
    if let Some(owner) = state.mesh().owner(public_key).filter(|owner| *owner != node_id) {
        let name = state.nodes().get(&owner).map(|node| &node.name).or_else(|| state.roster().removed.get(&owner));
        return Err(Rejection::MeshKeyTaken(name.map_or_else(|| owner.to_string(), ToString::to_string)));
    }
    let before = state.nodes().get(&node_id).and_then(|node| node.mesh);
    let address = match before {
        Some(before) => before.address,
        None => {
            let Mesh { highest, left_out, owners: _ } = state.mesh();
            config.mesh.host_after(*highest, *left_out).ok_or(Rejection::MeshUsedUp(config.mesh))?
        }
    };
    let mesh = MeshPeer { address, public_key, endpoint };
    Ok((before != Some(mesh)).then(|| NodeChanged { node_id, mesh }.into()))
}
