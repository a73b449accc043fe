//! Begins a new epoch behind a restored backup: an event at a position, and floors for VNIs and addresses of the mesh, above all
//! that may ever have been given. What the stream has of the earlier epoch behind the backup is given up; the relay makes the stream anew.

use std::net::Ipv4Addr;

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::event::Event;
use otherix_schemas::id::{CorrelationId, EventId};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{UserId, Vni, VniRange};

use crate::journal::{Entry, JournalError, Loaded, SqliteJournal};
use crate::relay::Survey;

/// Positions above the last one seen that may have been acknowledged without having reached the stream.
const MARGIN: u64 = 1000;

/// The stream has a hole as long as the positions that are given up, which takes a microsecond or ten each to make.
const FURTHEST: u64 = 10_000_000;

/// The last of the 24-bit VNIs (RFC 7348).
const VNI_MAX: u64 = (1 << 24) - 1;

/// What there was to be seen of the earlier epoch.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The streams, the clients' mirror too.
    pub streams: Vec<Survey>,
    /// Where the journal's last epoch begins, if it is not the first.
    pub last_epoch: Option<Position>,
    /// What an operator knows: no position above this was ever given.
    pub above: Option<Position>,
}

/// What would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The epoch that would begin.
    pub epoch: Epoch,
    /// Its first position.
    pub first: Position,
    /// The last event that is kept.
    pub kept: Position,
    /// Events of the stream, from this one on, that would be given up.
    pub given_up: Option<(Position, Position)>,
    /// VNIs up to this one would not be given again.
    pub highest_vni: Option<Vni>,
    /// The highest address of the mesh that is known to have been given.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// So many more may have been given: none of them would be given again.
    pub mesh_addresses_left_out: u64,
}

/// Why no epoch is begun.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no reason for one.
    #[error("the stream has nothing that the journal lacks: no new epoch is needed")]
    NotNeeded,
    /// Nobody knows what was given.
    #[error("there is no stream: nothing here says which positions were given since the backup was made")]
    NothingSeen,
    /// The hole would be too long.
    #[error("position {asked} is more than {FURTHEST} above the journal's last, which is {head}")]
    TooFar {
        /// What was asked for.
        asked: Position,
        /// Where the journal ends.
        head: Position,
    },
    /// No epoch is left.
    #[error("there is no epoch after {0}")]
    LastEpoch(Epoch),
    /// The event has no JSON form.
    #[error("the event has no JSON form")]
    Json(#[from] serde_json::Error),
    /// The database.
    #[error("cannot store the new epoch")]
    Journal(#[from] JournalError),
}

impl RestoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotNeeded => Some("with --above POSITION one is begun all the same"),
            Self::NothingSeen => Some(
                "give --above POSITION, a position that was certainly not reached: nodes and clients have seen them (`meta.position` \
                 of an answer, `sequence` of an event). Every position may have been a VNI or a node's address: as many are left out",
            ),
            Self::TooFar { .. } | Self::LastEpoch(_) | Self::Json(_) | Self::Journal(_) => None,
        }
    }
}

/// Says what would be done; none if it was done already.
///
/// # Errors
/// When there is no reason for a new epoch, or not enough is known for one.
pub fn plan(loaded: &Loaded, seen: &Seen) -> Result<Option<Plan>, RestoreError> {
    let head = loaded.state.position();
    let lost = seen.streams.iter().filter_map(|survey| survey.lost).min();
    let reached = seen.streams.iter().map(|survey| survey.last).max().unwrap_or_default().max(head);
    if lost.is_none() && seen.above.is_none_or(|above| above < head) {
        return match (seen.last_epoch, seen.streams.is_empty()) {
            (Some(begin), _) if begin == head => Ok(None),
            (_, true) => Err(RestoreError::NothingSeen),
            (_, false) => Err(RestoreError::NotNeeded),
        };
    }
    let highest = seen.above.map_or_else(|| Position::new(reached.get() + MARGIN), |above| above.max(reached));
    if highest.get() - head.get() > FURTHEST {
        return Err(RestoreError::TooFar { asked: highest, head });
    }
    let epoch = loaded.epoch.get().checked_add(1).map(Epoch::new).ok_or(RestoreError::LastEpoch(loaded.epoch))?;
    let unseen = highest.get() - reached.get();
    let vni = seen.streams.iter().filter_map(|survey| survey.highest_vni).max().max(loaded.state.highest_vni());
    let addresses = seen.streams.iter().filter_map(|survey| survey.highest_mesh_address);
    let left_out = seen.streams.iter().map(|survey| survey.mesh_addresses_left_out);
    Ok(Some(Plan {
        epoch,
        first: highest.next(),
        kept: head,
        given_up: lost.map(|first| (first, reached)),
        highest_vni: above_all(vni, unseen),
        highest_mesh_address: addresses.max().max(loaded.state.mesh().highest()),
        mesh_addresses_left_out: left_out.max().unwrap_or_default().saturating_add(unseen),
    }))
}

/// The highest VNI that can have been given if so many more events were than have been seen: each gives one at most.
fn above_all(seen: Option<Vni>, unseen: u64) -> Option<Vni> {
    let first = VniRange::DEFAULT.after(None).map_or(1, Vni::get);
    let highest = u64::from(seen.map_or(first - 1, Vni::get)).saturating_add(unseen).min(VNI_MAX);
    u32::try_from(highest).ok().and_then(|vni| Vni::try_from(vni).ok()).max(seen)
}

/// Begins the epoch that was planned.
///
/// # Errors
/// When it cannot be stored; nothing has changed then, or all has.
pub async fn carry_out(
    journal: &mut SqliteJournal,
    loaded: &Loaded,
    plan: &Plan,
    actor: UserId,
    draw: (Timestamp, EventId, CorrelationId),
) -> Result<(), RestoreError> {
    let (now, id, correlation_id) = draw;
    let cluster = crate::journal::Journal::identity(journal).cluster;
    let event = Event::Cluster(ClusterEvent::Restored(ClusterRestored {
        cluster_id: cluster,
        kept: plan.kept,
        highest_position: Position::new(plan.first.get() - 1),
        highest_vni: plan.highest_vni,
        highest_mesh_address: plan.highest_mesh_address,
        mesh_addresses_left_out: plan.mesh_addresses_left_out,
    }));
    let header = Header {
        cluster,
        id,
        position: plan.first,
        decision_prev: loaded.state.decision_head(),
        epoch: plan.epoch,
        stream_version: loaded.state.next_version(event.stream_id()),
        time: loaded.state.time().map_or(now, |last| last.max(now)),
        actor,
        correlation_id,
        causation_id: None,
        traceparent: None,
    };
    let envelope = EventEnvelope { header, event };
    let entry = Entry::new(&envelope, envelope.encode()?.into(), loaded.digest);
    Ok(journal.begin_epoch(plan.kept, &entry, plan.epoch).await?)
}
