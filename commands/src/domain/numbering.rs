//! Assigns positions and stream versions to the events of a decision before any of them is applied.

use std::collections::BTreeMap;

use otherix_schemas::event::{Event, Family, StreamId};
use otherix_schemas::position::Position;

use super::State;

/// The heads of the store and of the aggregates after the events numbered so far.
#[derive(Clone, Debug)]
pub struct Numbering {
    position: Position,
    decision_head: Position,
    versions: BTreeMap<StreamId, u32>,
}

/// The numbers that an event's header contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventNumbers {
    pub position: Position,
    /// The position of the decision before it.
    pub decision_prev: Position,
    pub stream_version: u32,
}

impl State {
    /// Starts to number events that follow the last one.
    pub fn numbering(&self) -> Numbering {
        Numbering { position: self.position(), decision_head: self.decision_head(), versions: BTreeMap::new() }
    }
}

impl Numbering {
    /// Returns the numbers of the next event. `state` is the one that the numbering was started on.
    pub fn number(&mut self, state: &State, event: &Event) -> EventNumbers {
        let stream = event.stream_id();
        let version = self.versions.entry(stream).and_modify(|last| *last += 1);
        let stream_version = *version.or_insert_with(|| state.next_version(stream));
        self.position = self.position.next();
        let decision_prev = self.decision_head;
        match event.family() {
            Family::Decision => self.decision_head = self.position,
            Family::Outcome | Family::Administration => {}
        }
        EventNumbers { position: self.position, decision_prev, stream_version }
    }
}
