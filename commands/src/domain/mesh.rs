//! Who has which place in the mesh: an address for each node, and a key that is its own.
//!
//! An address is never given twice, nor is a key anybody's but the first's who had it: packets that are still under way to a node
//! that is gone, or that somebody kept, must not come out at another.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use otherix_schemas::cluster::ClusterRestored;
use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{MeshOffer, MeshPeer, NodeChanged, NodeEvent};
use otherix_schemas::value::MeshPublicKey;

use super::{Rejection, State};
use crate::config::ClusterConfig;

/// What has been given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    /// The highest address that is known to have been given.
    highest: Option<Ipv4Addr>,
    /// So many behind it may have been given besides.
    left_out: u64,
    /// Every key that a node ever had.
    keys: HashMap<MeshPublicKey, NodeId>,
}

impl Mesh {
    /// The highest address that is known to have been given.
    pub fn highest(&self) -> Option<Ipv4Addr> {
        self.highest
    }

    /// Who has a key, or had it once.
    pub fn owner(&self, key: MeshPublicKey) -> Option<NodeId> {
        self.keys.get(&key).copied()
    }

    pub(super) fn take_in(&mut self, event: &NodeChanged) {
        let NodeChanged { node_id, mesh: MeshPeer { address, public_key, endpoint: _ } } = *event;
        if self.highest < Some(address) {
            self.highest = Some(address);
            self.left_out = 0;
        }
        self.keys.entry(public_key).or_insert(node_id);
    }

    pub(super) fn restore(&mut self, event: &ClusterRestored) {
        self.highest = self.highest.max(event.highest_mesh_address);
        self.left_out = self.left_out.saturating_add(event.mesh_addresses_left_out);
    }
}

/// What changes when a node offers this. A node keeps its address whatever else changes.
pub(super) fn offered(
    state: &State,
    config: &ClusterConfig,
    node_id: NodeId,
    offer: MeshOffer,
) -> Result<Option<Event>, Rejection> {
    let MeshOffer { public_key, endpoint } = offer;
    if let Some(owner) = state.mesh.owner(public_key).filter(|owner| *owner != node_id) {
        let name = state.nodes.get(&owner).map(|node| &node.name).or_else(|| state.roster().removed.get(&owner));
        return Err(Rejection::MeshKeyTaken(name.map_or_else(|| owner.to_string(), ToString::to_string)));
    }
    let before = state.nodes.get(&node_id).and_then(|node| node.mesh);
    let address = match before {
        Some(before) => before.address,
        None => {
            let Mesh { highest, left_out, keys: _ } = state.mesh;
            config.mesh.host_after(highest, left_out).ok_or(Rejection::MeshUsedUp(config.mesh))?
        }
    };
    let mesh = MeshPeer { address, public_key, endpoint };
    Ok((before != Some(mesh)).then_some(Event::Node(NodeEvent::Changed(NodeChanged { node_id, mesh }))))
}
