//! The decisions that nodes' reports are about: an outcome names the event that it results from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};
use otherix_schemas::event::{Event, Family};
use otherix_schemas::id::EventId;
use otherix_schemas::node::NodeReport;
use otherix_schemas::position::Position;
use serde::Deserialize;

use crate::store::EventStore;
use crate::writer::{Cause, DecisionOrigin};

/// Most decisions that are kept in memory: those with the highest positions, which many nodes report on.
const KEPT: usize = 1_024;

/// Most decisions that are looked up for a report: those of the other outcomes are not named.
const FOUND_MAX: usize = 8;

/// Finds the decision at a position.
pub type FindDecision = Arc<dyn Fn(Position) -> BoxFuture<'static, Option<DecisionOrigin>> + Send + Sync>;

/// Finds decisions in a store, and remembers the newest ones. A store that cannot be read has none: the outcome is
/// recorded without its cause.
pub fn decisions_of(store: Arc<impl EventStore>) -> FindDecision {
    let known = Arc::new(Mutex::new(BTreeMap::new()));
    Arc::new(move |position| {
        let (store, known) = (Arc::clone(&store), Arc::clone(&known));
        async move {
            let remembered = |known: &Mutex<BTreeMap<Position, DecisionOrigin>>| {
                known.lock().unwrap_or_else(PoisonError::into_inner).get(&position).cloned()
            };
            if let Some(origin) = remembered(&known) {
                return Some(origin);
            }
            let before = Position::new(position.get().checked_sub(1)?);
            let entry = store.read(before, 1).await.ok()?.into_iter().next()?;
            let family = Event::declaration_of(&entry.type_name).ok()?.family;
            if entry.position != position || family != Family::Decision {
                return None;
            }
            let Attributes { id, traceparent } = serde_json::from_slice(&entry.body).ok()?;
            let origin = DecisionOrigin { event: id, traceparent };
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(position, origin.clone());
            if known.len() > KEPT {
                known.pop_first();
            }
            Some(origin)
        }
        .boxed()
    })
}

/// The attributes of a decision that its outcomes repeat.
#[derive(Deserialize)]
struct Attributes {
    id: EventId,
    #[serde(default)]
    traceparent: Option<String>,
}

/// The newest decisions that a report is about. Which of them an outcome is about is known when it is recorded.
pub(super) async fn of_report(report: &NodeReport, find: &FindDecision) -> Cause {
    let generations: BTreeSet<Position> = report.results.iter().map(|result| result.generation).collect();
    let mut cause = Cause::default();
    for generation in generations.into_iter().rev().take(FOUND_MAX) {
        if let Some(origin) = find(generation).await {
            cause.decisions.insert(generation, origin);
        }
    }
    cause
}
