//! Events for the tests, from the golden samples.

use otherix_runtime::Runtime;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::EventId;
use otherix_schemas::position::Position;
use otherix_schemas::subject;

const DECISION: &str = include_str!("../../../golden/network.created.v1.managed.json");
const OUTCOME: &str = include_str!("../../../golden/node.reconciled.v2.json");

/// An event as it is published.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) id: EventId,
    pub(crate) position: Position,
    pub(crate) is_decision: bool,
    pub(crate) subject: String,
    pub(crate) body: Vec<u8>,
}

/// Returns the first `count` events of a journal: decisions and outcomes at random.
pub(crate) fn events(count: u64, runtime: &dyn Runtime) -> Vec<Sample> {
    let mut decision_prev = Position::ZERO;
    let mut events = Vec::new();
    for position in (1..=count).map(Position::new) {
        let is_decision = runtime.random_u64().is_multiple_of(2);
        let sample = if is_decision { DECISION } else { OUTCOME };
        let mut envelope = EventEnvelope::decode(sample.as_bytes()).unwrap();
        envelope.header.id = EventId::new(runtime.uuid_v7());
        envelope.header.position = position;
        envelope.header.decision_prev = decision_prev;
        if is_decision {
            decision_prev = position;
        }
        let (subject, body) = (subject::event(&envelope.event), envelope.encode().unwrap());
        events.push(Sample { id: envelope.header.id, position, is_decision, subject, body });
    }
    events
}
