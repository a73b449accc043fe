//! Where a consumer begins. The times at which the server has stored messages are not those of the events: they are
//! later if the stream was made anew.

use otherix_commands::store::EventStore;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::consumer::ConsumerStart;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;

use super::ConsumersError;

/// The position of the first event to deliver, which may be that of the next one after `head`, or in a gap before it.
pub(super) async fn first<J: EventStore>(
    journal: &J,
    start: ConsumerStart,
    head: Position,
) -> Result<Position, ConsumersError> {
    match start {
        ConsumerStart::All => Ok(Position::new(1)),
        ConsumerStart::New => Ok(head.next()),
        ConsumerStart::Position(position) => Ok(position),
        ConsumerStart::Time(time) => first_since(journal, time, head).await,
    }
}

/// Finds the first event that was recorded at `time` or later. The times of events never decrease.
async fn first_since<J: EventStore>(journal: &J, time: Timestamp, head: Position) -> Result<Position, ConsumersError> {
    // All events up to `before` are earlier, and those from `from` on are not.
    let (mut before, mut from) = (0, head.get() + 1);
    while before + 1 < from {
        let middle = before + (from - before) / 2;
        // There may be a gap after `middle - 1`.
        let entry = journal.read(Position::new(middle - 1), 1).await?.into_iter().next();
        match entry.filter(|entry| entry.position.get() < from) {
            Some(entry) if EventEnvelope::decode(&entry.body)?.header.time < time => before = entry.position.get(),
            Some(_) | None => from = middle,
        }
    }
    Ok(Position::new(from))
}
