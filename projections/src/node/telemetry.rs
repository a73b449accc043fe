//! What the last heartbeat told of each node's mesh peers. It is neither an event nor in a table: it is kept in memory,
//! lost with the process, and told again by the next heartbeats.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use otherix_schemas::id::NodeId;
use otherix_schemas::node::{ESTABLISHED_WITHIN, MESH_PEERS_MAX, MeshPeerStatus, MeshPeerView, NodeView};
use otherix_schemas::timestamp::Timestamp;

/// What is known of each node. Clones share their content.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Arc<RwLock<HashMap<NodeId, Arc<[MeshPeerStatus]>>>>);

impl Telemetry {
    /// Replaces what is known of a node; one with more than [`MESH_PEERS_MAX`] peers is ignored. A handshake is dated
    /// no later than `now`: otherwise the peers of a node whose clock is ahead would count as connected long after they
    /// are gone.
    pub fn record(&self, node: NodeId, mut peers: Vec<MeshPeerStatus>, now: Option<Timestamp>) {
        if peers.len() > MESH_PEERS_MAX {
            return;
        }
        if let Some(now) = now {
            for peer in &mut peers {
                peer.last_handshake_at = peer.last_handshake_at.map(|at| at.min(now));
            }
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if peers.is_empty() {
            all.remove(&node);
        } else {
            all.insert(node, peers.into());
        }
    }

    /// Forgets a node that was removed.
    pub(crate) fn remove(&self, node: NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Fills in the state of each peer that the node reported; other peers are left as they are.
    pub fn fill_in(&self, view: &mut NodeView, now: Option<Timestamp>) {
        let Some(peers) = view.mesh.as_mut().and_then(|mesh| mesh.peers.as_mut()) else { return };
        let report = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&view.id).cloned();
        let report: HashMap<NodeId, MeshPeerStatus> =
            report.iter().flat_map(|peers| peers.iter()).map(|status| (status.node_id, *status)).collect();
        for peer in peers {
            if let Some(status) = report.get(&peer.node_id) {
                fill(peer, *status, now);
            }
        }
    }
}

fn fill(peer: &mut MeshPeerView, status: MeshPeerStatus, now: Option<Timestamp>) {
    let MeshPeerStatus { node_id: _, last_handshake_at, rx_bytes, tx_bytes } = status;
    let age = last_handshake_at.zip(now).map(|(at, now)| u128::try_from(now.unix_micros() - at.unix_micros()));
    // A handshake in the future, after this machine's clock was set back, counts as one of now.
    peer.established = age.is_some_and(|age| age.unwrap_or(0) < ESTABLISHED_WITHIN.as_micros());
    peer.last_handshake_at = last_handshake_at;
    (peer.rx_bytes, peer.tx_bytes) = (rx_bytes, tx_bytes);
}

#[cfg(test)]
mod tests {
    use otherix_schemas::node::{NetworkCounts, NodeMesh};
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(number))
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(1_700_000_000_000_000 + second * 1_000_000).unwrap()
    }

    fn status(number: u128, at: Option<i64>) -> MeshPeerStatus {
        MeshPeerStatus { node_id: id(number), last_handshake_at: at.map(second), rx_bytes: 7, tx_bytes: 9 }
    }

    /// Node 1, whose peers are nodes 2 and 3.
    fn view() -> NodeView {
        let peer = |number| MeshPeerView {
            node_id: id(number),
            node_name: format!("node-{number}").parse().unwrap(),
            address: [10, 42, 0, u8::try_from(number).unwrap()].into(),
            endpoint: "192.0.2.1:51820".parse().unwrap(),
            established: false,
            last_handshake_at: None,
            rx_bytes: 0,
            tx_bytes: 0,
        };
        NodeView {
            id: id(1),
            name: "node-1".parse().unwrap(),
            reachable: true,
            reachable_since: second(0),
            joined_at: second(0),
            arch: None,
            description: None,
            labels: otherix_schemas::value::Labels::default(),
            cordoned: false,
            capacity: None,
            allocated: None,
            vms: 0,
            nics: 0,
            network_counts: NetworkCounts::default(),
            networks: None,
            mesh: Some(NodeMesh {
                address: [10, 42, 0, 1].into(),
                public_key: [1; 32].try_into().unwrap(),
                endpoint: "192.0.2.1:51820".parse().unwrap(),
                peers: Some(vec![peer(2), peer(3)]),
            }),
            conditions: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Of each peer: whether it is established, and when the last handshake was.
    fn shown(peers: &Telemetry, at: i64) -> Vec<(bool, Option<Timestamp>)> {
        let mut view = view();
        peers.fill_in(&mut view, Some(second(at)));
        view.mesh.unwrap().peers.unwrap().iter().map(|peer| (peer.established, peer.last_handshake_at)).collect()
    }

    #[test]
    fn established_for_three_minutes_after_handshake() {
        let peers = Telemetry::default();
        assert_eq!(shown(&peers, 0), [(false, None); 2], "no report yet");
        peers.record(id(1), vec![status(2, Some(0)), status(9, Some(0))], Some(second(1)));
        for (at, established) in [(1, true), (179, true), (180, false), (100_000, false)] {
            assert_eq!(shown(&peers, at), [(established, Some(second(0))), (false, None)], "{at} s");
        }
        let mut view = view();
        peers.fill_in(&mut view, None);
        let peer = view.mesh.unwrap().peers.unwrap().remove(0);
        assert_eq!((peer.established, peer.rx_bytes, peer.tx_bytes), (false, 7, 9), "without a clock");
        peers.record(id(1), vec![status(2, None), status(3, Some(5))], Some(second(6)));
        assert_eq!(shown(&peers, 7), [(false, None), (true, Some(second(5)))], "the last report counts");
        peers.record(id(2), vec![status(3, Some(0))], Some(second(6)));
        peers.record(id(1), Vec::new(), Some(second(8)));
        assert_eq!(shown(&peers, 8), [(false, None); 2]);
    }

    #[test]
    fn handshake_is_not_dated_in_the_future() {
        let peers = Telemetry::default();
        peers.record(id(1), vec![status(2, Some(3600))], Some(second(10)));
        assert_eq!(shown(&peers, 10)[0], (true, Some(second(10))));
        assert_eq!(shown(&peers, 190)[0], (false, Some(second(10))));
        assert_eq!(shown(&peers, 5)[0], (true, Some(second(10))), "our own clock was set back");
    }

    #[test]
    fn ignores_too_long_report() {
        let peers = Telemetry::default();
        peers.record(id(1), vec![status(2, Some(0)); MESH_PEERS_MAX], None);
        peers.record(id(1), vec![status(2, Some(1)); MESH_PEERS_MAX + 1], None);
        assert_eq!(shown(&peers, 2)[0], (true, Some(second(0))));
    }
}
