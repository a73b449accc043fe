//! Begins a new epoch after a restored backup: an event at a position, with limits for VNIs and mesh addresses, above
//! all that may ever have been assigned. Events of the earlier epoch that only the stream has are given up; the relay
//! rebuilds the stream.

use std::net::Ipv4Addr;

use otherix_runtime::Runtime;
use otherix_schemas::cloudevent::{Actor, EventEnvelope, Header};
use otherix_schemas::cluster::ClusterRestored;
use otherix_schemas::event::Event;
use otherix_schemas::id::{CorrelationId, EventId};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::TimestampError;
use otherix_schemas::value::{Vni, VniRange};

use crate::relay::Survey;
use crate::store::{Entry, EventStore, Replayed, StoreError};

/// Positions above the last one seen that may have been acknowledged without having reached the stream.
const MARGIN: u64 = 1000;

/// The longest gap, in positions. Filling a stream takes 1 to 10 microseconds for each of them.
const GAP_MAX: u64 = 10_000_000;

/// The last of the 24-bit VNIs (RFC 7348).
const VNI_MAX: u64 = (1 << 24) - 1;

/// What is known of the earlier epoch.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Surveys of the streams, the clients' mirror included.
    pub streams: Vec<Survey>,
    /// Where the store's last epoch begins, if it is not the first.
    pub last_epoch: Option<Position>,
    /// From the operator: no higher position was ever assigned.
    pub above: Option<Position>,
}

/// What would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// The epoch that would begin.
    pub epoch: Epoch,
    /// Its first position.
    pub first: Position,
    /// The last event that is kept.
    pub kept: Position,
    /// The first and last event of the stream that would be given up.
    pub given_up: Option<(Position, Position)>,
    /// No VNI up to this one would be assigned again.
    pub highest_vni: Option<Vni>,
    /// The highest mesh address known to have been assigned.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// Number of mesh addresses after that one that may have been assigned, too, and would be skipped.
    pub mesh_addresses_left_out: u64,
}

/// No epoch was begun.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the stream has no event that the journal lacks: a new epoch is not needed")]
    NotNeeded,
    #[error("there is no stream, so it is unknown which positions were assigned since the backup")]
    NoEvidence,
    #[error("position {requested} is more than {GAP_MAX} above the journal's last position {head}")]
    TooFar { requested: Position, head: Position },
    #[error("there is no epoch after {0}")]
    LastEpoch(Epoch),
    #[error("cannot encode the event")]
    Json(#[from] serde_json::Error),
    #[error("the machine's clock cannot be used")]
    Clock(#[from] TimestampError),
    #[error("cannot store the new epoch")]
    Store(#[from] StoreError),
}

impl RestoreError {
    /// Returns what an operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotNeeded => Some("with --above POSITION a new epoch begins all the same"),
            Self::NoEvidence => Some(
                "give --above POSITION with a position that was certainly not exceeded; nodes and clients have seen \
                 positions (`meta.position` of an answer, `sequence` of an event). As many VNIs and mesh addresses are \
                 skipped, because each event may have assigned one",
            ),
            Self::TooFar { .. } | Self::LastEpoch(_) | Self::Json(_) | Self::Clock(_) | Self::Store(_) => None,
        }
    }
}

/// Plans a new epoch. Returns none if it has begun already.
///
/// # Errors
/// If a new epoch is not needed, or not enough is known.
pub fn plan(replayed: &Replayed, evidence: &Evidence) -> Result<Option<RestorePlan>, RestoreError> {
    let head = replayed.state.position();
    let lost = evidence.streams.iter().filter_map(|survey| survey.lost).min();
    let reached = evidence.streams.iter().map(|survey| survey.last).max().unwrap_or_default().max(head);
    if lost.is_none() && evidence.above.is_none_or(|above| above < head) {
        return match (evidence.last_epoch, evidence.streams.is_empty()) {
            (Some(begin), _) if begin == head => Ok(None),
            (_, true) => Err(RestoreError::NoEvidence),
            (_, false) => Err(RestoreError::NotNeeded),
        };
    }
    let highest = evidence.above.map_or_else(|| Position::new(reached.get() + MARGIN), |above| above.max(reached));
    if highest.get() - head.get() > GAP_MAX {
        return Err(RestoreError::TooFar { requested: highest, head });
    }
    let epoch = replayed.epoch.get().checked_add(1).map(Epoch::new).ok_or(RestoreError::LastEpoch(replayed.epoch))?;
    // What a stream with limits has deleted may have assigned something, too. A stream that ends earlier does not tell
    // how much that was: a mirror that is made again is empty.
    let complete = evidence.streams.iter().filter(|survey| survey.last == reached);
    let deleted = complete.map(|survey| survey.deleted).min().unwrap_or_default();
    let unseen = (highest.get() - reached.get()).saturating_add(deleted);
    let vni = evidence.streams.iter().filter_map(|survey| survey.highest_vni).max().max(replayed.state.highest_vni());
    let addresses = evidence.streams.iter().filter_map(|survey| survey.highest_mesh_address);
    let left_out = evidence.streams.iter().map(|survey| survey.mesh_addresses_left_out);
    Ok(Some(RestorePlan {
        epoch,
        first: highest.next(),
        kept: head,
        given_up: lost.map(|first| (first, reached)),
        highest_vni: highest_possible(vni, unseen),
        highest_mesh_address: addresses.max().max(replayed.state.mesh().highest()),
        mesh_addresses_left_out: left_out.max().unwrap_or_default().saturating_add(unseen),
    }))
}

/// Returns the highest VNI that can have been assigned if there were so many more events: each assigns one at most.
fn highest_possible(seen: Option<Vni>, unseen: u64) -> Option<Vni> {
    let first = VniRange::DEFAULT.after(None).map_or(1, Vni::get);
    let highest = u64::from(seen.map_or(first - 1, Vni::get)).saturating_add(unseen).min(VNI_MAX);
    u32::try_from(highest).ok().and_then(|vni| Vni::try_from(vni).ok()).max(seen)
}

/// Begins the planned epoch, on behalf of `actor`.
///
/// # Errors
/// If it cannot be stored. Then nothing has changed, or all of it has.
pub async fn execute<S: EventStore>(
    store: &mut S,
    replayed: &Replayed,
    plan: &RestorePlan,
    actor: Actor,
    runtime: &dyn Runtime,
) -> Result<(), RestoreError> {
    let (now, cluster) = (runtime.now()?, store.identity().cluster);
    let event = Event::from(ClusterRestored {
        cluster_id: cluster,
        kept: plan.kept,
        highest_position: Position::new(plan.first.get() - 1),
        highest_vni: plan.highest_vni,
        highest_mesh_address: plan.highest_mesh_address,
        mesh_addresses_left_out: plan.mesh_addresses_left_out,
    });
    let header = Header {
        cluster,
        id: EventId::new(runtime.uuid_v7()),
        position: plan.first,
        decision_prev: replayed.state.decision_head(),
        epoch: plan.epoch,
        stream_version: replayed.state.next_version(event.stream_id()),
        time: replayed.state.time().map_or(now, |last| last.max(now)),
        actor,
        correlation_id: CorrelationId::new(runtime.uuid_v7()),
        causation_id: None,
        traceparent: None,
    };
    let envelope = EventEnvelope { header, event };
    let entry = Entry::new(&envelope, envelope.encode()?.into(), replayed.digest);
    Ok(store.begin_epoch(plan.kept, &entry, plan.epoch).await?)
}
