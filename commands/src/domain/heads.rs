//! Where the next event of a decision stands, while several are numbered before any is taken in.

use std::collections::BTreeMap;

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::event::{Family, StreamId};
use otherix_schemas::position::Position;

use super::State;

/// The ends of the journal and of the aggregates that a decision adds to.
#[derive(Clone, Debug)]
pub struct Heads {
    /// The last event.
    pub position: Position,
    /// The last decision.
    pub decision_head: Position,
    versions: BTreeMap<StreamId, u32>,
}

impl State {
    /// The ends as they are now.
    pub fn heads(&self) -> Heads {
        Heads { position: self.position(), decision_head: self.decision_head(), versions: BTreeMap::new() }
    }
}

impl Heads {
    /// The number that the next event of an aggregate gets.
    pub fn next_version(&self, state: &State, stream: StreamId) -> u32 {
        self.versions.get(&stream).map_or_else(|| state.next_version(stream), |last| last + 1)
    }

    /// Goes past an event.
    pub fn pass(&mut self, envelope: &EventEnvelope) {
        let header = &envelope.header;
        self.position = header.position;
        match envelope.event.family() {
            Family::Decision => self.decision_head = header.position,
            Family::Outcome => {}
        }
        self.versions.insert(envelope.event.stream_id(), header.stream_version);
    }
}
