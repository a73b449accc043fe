//! The state that decisions are made on: a function of the events alone.

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::event::{Event, Family, StreamId};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::Vni;
use serde::{Deserialize, Serialize};

use super::codec::optional_micros;
use super::{Networks, Nics, Nodes, Users, Vms};

/// The cluster's resources at a position. What is serialised of it is a state snapshot, whose format changes with it:
/// see `store::snapshot::FORMAT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    position: Position,
    decision_head: Position,
    #[serde(with = "optional_micros")]
    time: Option<Timestamp>,
    /// How many epochs began after the first.
    pub(super) restorations: u32,
    pub(super) networks: Networks,
    pub(super) nodes: Nodes,
    pub(super) vms: Vms,
    pub(super) nics: Nics,
    pub(super) users: Users,
}

impl State {
    /// Returns the position of the last event applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the position of the last decision applied.
    pub fn decision_head(&self) -> Position {
        self.decision_head
    }

    /// Returns the time of the last event.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// Returns the highest VNI that may ever have been assigned.
    pub fn highest_vni(&self) -> Option<Vni> {
        self.networks.highest_vni
    }

    /// Returns the stream version of an aggregate's next event.
    pub fn next_version(&self, stream: StreamId) -> u32 {
        let last = match stream {
            StreamId::Network(id) => self.networks.get(id).map_or(0, |network| network.version),
            StreamId::Vm(id) => self.vms().get(&id).map_or(0, |vm| vm.version),
            StreamId::Nic(id) => self.nics.get(id).map_or(0, |nic| nic.version),
            StreamId::Node(id) => self.nodes().get(&id).map_or(0, |node| node.version),
            StreamId::User(id) => self.callers().users().get(&id).map_or(0, |user| user.version),
            StreamId::JoinToken(id) => self.enrollments().tokens().get(&id).map_or(0, |token| token.version),
            StreamId::NodeKey(id) => self.enrollments().nodes().get(&id).map_or(0, |keys| keys.version),
            StreamId::Cluster(_) => self.restorations,
        };
        last + 1
    }

    /// Applies an event. Total: an event that is recorded cannot be refused.
    pub fn evolve(&mut self, envelope: &EventEnvelope) {
        let EventEnvelope { header, event } = envelope;
        self.position = header.position;
        self.time = Some(header.time);
        match event.family() {
            Family::Decision => self.decision_head = header.position,
            Family::Outcome | Family::Administration => {}
        }
        match event {
            Event::Network(event) => self.evolve_network(header, event),
            Event::Vm(event) => self.evolve_vm(header, event),
            Event::Nic(event) => self.evolve_nic(header, event),
            Event::Node(event) => {
                self.users.evolve(envelope);
                self.evolve_node(header, event);
            }
            Event::User(event) => self.evolve_user(envelope, event),
            Event::Enrollment(_) => self.users.evolve(envelope),
            Event::Cluster(event) => self.evolve_cluster(header, event),
        }
    }
}
