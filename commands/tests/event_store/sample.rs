//! Consecutive events and idempotency records.

use bytes::Bytes;
use otherix_commands::domain::State;
use otherix_commands::store::{Batch, Digest, Entry, IdempotencyRecord};
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::cluster::ClusterRestored;
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, CorrelationId, EventId, NetworkId, NodeId};
use otherix_schemas::network::{Egress, NetworkCreated, NetworkSpec, OverlaySpec};
use otherix_schemas::node::NodeJoined;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{Mtu, Vni};
use uuid::Uuid;

/// Generates valid events, each of which follows the one before.
pub(crate) struct Events {
    cluster: ClusterId,
    epoch: Epoch,
    pub(crate) state: State,
    pub(crate) digest: Digest,
}

pub(crate) fn time(second: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000 + second * 1_000_000).unwrap()
}

impl Events {
    pub(crate) fn new(cluster: ClusterId) -> Self {
        Self { cluster, epoch: Epoch::FIRST, state: State::default(), digest: Digest::GENESIS }
    }

    fn next_at(&mut self, position: Position, event: Event) -> Entry {
        let header = Header {
            cluster: self.cluster,
            id: EventId::new(Uuid::now_v7()),
            position,
            decision_prev: self.state.decision_head(),
            epoch: self.epoch,
            stream_version: self.state.next_version(event.stream_id()),
            time: time(i64::try_from(position.get()).unwrap()),
            actor: "admin".parse().unwrap(),
            correlation_id: CorrelationId::new(Uuid::now_v7()),
            causation_id: None,
            traceparent: None,
        };
        let envelope = EventEnvelope { header, event };
        let entry = Entry::new(&envelope, envelope.encode().unwrap().into(), self.digest);
        self.state.evolve(&envelope);
        self.digest = entry.digest;
        entry
    }

    /// Returns the next event: a node's join first, then new networks.
    pub(crate) fn next(&mut self) -> Entry {
        let position = self.state.position().next();
        let number = position.get();
        let event: Event = if number == 1 {
            NodeJoined { node_id: NodeId::new(Uuid::now_v7()), name: "node-1".parse().unwrap() }.into()
        } else {
            let vni = Vni::try_from(u32::try_from(number).unwrap()).unwrap();
            let (subnet, mtu) = ("10.7.0.0/24".parse().unwrap(), Mtu::DEFAULT);
            let (name, spec) = (
                format!("net-{number}"),
                NetworkSpec::Overlay(OverlaySpec {
                    vni,
                    subnet,
                    egress: Egress::None,
                    mtu,
                    dhcp: None,
                    allow_spoofing: false,
                }),
            );
            let network_id = NetworkId::new(Uuid::now_v7());
            NetworkCreated { network_id, name: name.parse().unwrap(), spec }.into()
        };
        self.next_at(position, event)
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Entry> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Returns the event that begins the next epoch after a gap of `gap` positions.
    pub(crate) fn next_epoch(&mut self, gap: u64) -> Entry {
        self.epoch = Epoch::new(self.epoch.get() + 1);
        let kept = self.state.position();
        let highest_position = Position::new(kept.get() + gap);
        let event = ClusterRestored {
            cluster_id: self.cluster,
            kept,
            highest_position,
            highest_vni: None,
            highest_mesh_address: None,
            mesh_addresses_left_out: 0,
        };
        self.next_at(highest_position.next(), event.into())
    }
}

pub(crate) fn batch(entries: Vec<Entry>) -> Batch {
    Batch { entries, ..Batch::default() }
}

/// A record whose answer names event 1.
pub(crate) fn record(key: &str, second: i64) -> IdempotencyRecord {
    let reply = Bytes::from(format!(r#"{{"data":"{key}","meta":{{"position":1}}}}"#));
    let fingerprint = Digest::of(&[key.as_bytes()]);
    IdempotencyRecord { user: "admin".parse().unwrap(), key: key.to_owned(), fingerprint, reply, at: time(second) }
}
