//! Answers queries about the past: which position is meant, and how many are answered.

use std::time::Duration;

use bytes::Bytes;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::position::Position;
use otherix_schemas::request::AsOf;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::violations::Violations;
use otherix_transport::service::Call;
use tokio::time::timeout;

use super::History;
use crate::events::{event_after, last_before};
use crate::follow::EventReader;
use crate::queue::QueryQueue;
use crate::read_models::{ReadSnapshot, ReadSnapshotError};
use crate::service::failed;

/// How long a query waits for the history to contain the position, and then for those before it.
const WAIT: Duration = Duration::from_millis(400);

/// How long a query may take. With what it waits, it must be less than the 2.5 s that the command-line program waits.
const LIMIT: Duration = Duration::from_millis(1500);

/// Queries about the past are answered one at a time, with a pause as long as the query between two that wait: most of
/// the processors is left to others, however many are made.
static QUEUE: QueryQueue = QueryQueue::new(1);

impl History {
    /// Answers a query from the read models as they were at `at`.
    pub(crate) async fn answer(
        &self,
        events: &dyn EventReader,
        (at, head): (AsOf, Position),
        call: Call,
        answer: fn(&ReadSnapshot<'_>, &Call) -> Result<Bytes, ErrorBody>,
    ) -> Result<Bytes, ErrorBody> {
        let caller = call.caller.id.to_string();
        let Some(_counted) = self.shared.callers.admit(&caller) else {
            return Err(busy("you are already asking for the state at other times"));
        };
        let position = match at {
            AsOf::Position(position) => existing(events, position, head).await?,
            AsOf::Time(time) => self.at_time(events, time, head).await?,
        };
        if !self.reach(position, WAIT).await {
            return Err(self.behind(position));
        }
        // Nobody waits for a query that itself waits for the history.
        let turn = timeout(WAIT, QUEUE.turn()).await;
        let _turn = turn.map_err(|_| busy("others are asking for the state at other times"))?;
        match self.snapshot(position, LIMIT, move |snapshot| answer(snapshot, &call)).await {
            Ok(answer) => {
                if answer.as_ref().is_err_and(|error| error.error.code == ErrorCode::Internal) {
                    self.shared.readers.suspected.notify_one();
                }
                answer
            }
            Err(ReadSnapshotError::Rebuilding) => Err(self.behind(position)),
            Err(ReadSnapshotError::Query(error)) => {
                self.shared.readers.suspected.notify_one();
                Err(failed(&error))
            }
            Err(ReadSnapshotError::Task(error)) => Err(ErrorBody::new(ErrorCode::Internal, error.to_string())),
        }
    }

    /// The last event at or before a time.
    async fn at_time(&self, events: &dyn EventReader, time: Timestamp, head: Position) -> Result<Position, ErrorBody> {
        // The clock may have been set back since the last event.
        if let Ok(now) = self.runtime.now()
            && time > now
            && last_time(events, head).await?.is_none_or(|last| time > last)
        {
            return Err(refused(format!("{time} is in the future: for the control plane it is {now}")));
        }
        let after = Timestamp::from_unix_micros(time.unix_micros().saturating_add(1));
        let after = after.map_err(|error| refused(error.to_string()))?;
        let position = last_before(events, after, head).await?;
        if position == Position::ZERO {
            let first = event_after(events, Position::ZERO).await?.map(|(_, event)| event);
            let first = first.and_then(|event| EventEnvelope::decode(&event).ok());
            let first = first.map(|event| format!(": it was recorded at {}", event.header.time)).unwrap_or_default();
            return Err(refused(format!("{time} is before the first event{first}")));
        }
        Ok(position)
    }

    fn behind(&self, position: Position) -> ErrorBody {
        let progress = self.progress();
        let error = progress.error.map(|error| format!(" ({error})")).unwrap_or_default();
        let text = format!("the history is at position {}, not yet at {position}{error}", progress.position);
        ErrorBody::new(ErrorCode::Unavailable, text).with_detail("position", progress.position.get())
    }
}

/// The time of the last event.
async fn last_time(events: &dyn EventReader, head: Position) -> Result<Option<Timestamp>, ErrorBody> {
    let before = Position::new(head.get().saturating_sub(1));
    let last = event_after(events, before).await?.map(|(_, event)| event);
    Ok(last.and_then(|event| EventEnvelope::decode(&event).ok()).map(|event| event.header.time))
}

/// The position, if there is an event at it.
async fn existing(events: &dyn EventReader, position: Position, head: Position) -> Result<Position, ErrorBody> {
    if position > head {
        return Err(refused(format!("position {position} is in the future: the last event is at {head}")));
    }
    if position == Position::ZERO {
        return Err(refused("position 0 is before the first event, which is at 1".to_owned()));
    }
    let before = Position::new(position.get() - 1);
    match event_after(events, before).await? {
        Some((found, _)) if found == position => Ok(position),
        Some((found, event)) => Err(refused(gap(position, found, &event))),
        None => Err(refused(format!("there is no event at position {position}"))),
    }
}

/// Why there is no event at a position: those between the last one that an epoch has kept and its first are skipped.
fn gap(position: Position, next: Position, event: &[u8]) -> String {
    let decoded = EventEnvelope::decode(event).ok().map(|event| event.event);
    let kept = if let Some(Event::Cluster(ClusterEvent::Restored(ClusterRestored { kept, .. }))) = decoded {
        Some(kept)
    } else {
        None
    };
    let before = kept.map(|kept| format!("the one before is at {kept}, ")).unwrap_or_default();
    format!(
        "there is no event at position {position}, which the beginning of an epoch has skipped: {before}the next one \
         at {next}"
    )
}

fn refused(text: String) -> ErrorBody {
    let mut violations = Violations::default();
    violations.add("at", text);
    violations.into()
}

fn busy(reason: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, format!("{reason}: one such query is answered at a time; try again"))
}
