//! The rate in events per second at which the read models are rebuilt, as after an update or by `otherixd rebuild`.
//!
//! The events are in memory in their stored form: decoding is measured, reading the journal is not.

mod events;
pub(crate) mod past;

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::rebuild;
use otherix_runtime::SystemRuntime;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::position::Position;
use otherix_testkit::TempDir;

use self::events::CLUSTER;
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Rebuilds that are measured.
const REBUILDS: u32 = 3;

/// Target, in events per second.
const TARGET: f64 = 50_000.0;

/// Rebuilds the read models from `count` events, and returns a line of figures: the median of three.
pub(crate) async fn run(count: u32) -> Result<String, BenchError> {
    report_progress(&format!("bench: creating {count} events"));
    let events = InMemory(events::history(count)?);
    let begin = Instant::now();
    for bytes in &events.0 {
        EventEnvelope::decode(bytes)?;
    }
    let decoded = per_second(count, begin);
    let mut rates = Vec::new();
    for rebuild in 1..=REBUILDS {
        report_progress(&format!("bench: rebuild {rebuild} of {REBUILDS} from {count} events"));
        // On a disk; `/tmp` may be in memory.
        let folder = TempDir::with_prefix_in("otherix-bench-", Path::new("/var/tmp"))?;
        let begin = Instant::now();
        let head = Position::new(count.into());
        let position =
            rebuild::rebuild(&folder.path().join("read-models.db"), CLUSTER, head, SystemRuntime::shared(), &events)
                .await?;
        if position != head {
            return Err(format!("the read models are at {position} instead of {head}").into());
        }
        rates.push(per_second(count, begin));
    }
    rates.sort_by(f64::total_cmp);
    let rate = rates.get(rates.len() / 2).copied().unwrap_or_default();
    let result = target_result(rate >= TARGET);
    Ok(format!(
        "read models rebuilt from {count} events: {rate:.0} events/s (target {TARGET:.0}: {result}); decoded alone: \
         {decoded:.0} events/s"
    ))
}

fn per_second(count: u32, begin: Instant) -> f64 {
    f64::from(count) / begin.elapsed().as_secs_f64()
}

/// Events at the positions from 1.
struct InMemory(Vec<Bytes>);

impl EventReader for InMemory {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        let first = usize::try_from(after.get()).unwrap_or(usize::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let events = self.0.iter().skip(first).take(limit).cloned().collect();
        Box::pin(async { Ok(events) })
    }
}
