//! Proves which events a new epoch gives up: those that are kept, followed by those given up, must have the root that
//! a checkpoint of the earlier epoch was signed with.

use std::collections::BTreeMap;

use otherix_schemas::position::Position;
use otherix_tlog::{Hash, RightEdge, TreeHead};

use crate::store::{EventStore, StoreError};

/// Events read from the event store at once.
const PAGE: u32 = 1000;

/// An event that is given up, as a leaf of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUpEvent {
    pub position: Position,
    pub leaf: Hash,
}

/// What a checkpoint says about kept and given-up events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUpProof {
    /// These events are exactly those that it covers.
    Proven {
        /// Events that are kept, from the first on.
        kept: u64,
        /// Events that are given up, from the first on.
        given_up: u64,
    },
    /// It covers events that are neither kept nor known to be given up: nobody has them, or some in between are
    /// missing.
    Incomplete {
        /// Events from the first on without a gap.
        found: u64,
    },
    /// The events have another root: kept or given-up ones were changed after it was signed.
    Contradicted {
        /// Their root.
        root: Hash,
    },
}

/// Compares each checkpoint, whose signature the caller has verified, with the events of the store up to its head,
/// which are kept, and those given up, in order of position. Returns one answer for each checkpoint.
///
/// # Errors
/// If the store cannot be read.
pub async fn prove<S: EventStore>(
    store: &S,
    given_up: &[GivenUpEvent],
    checkpoints: &[TreeHead],
) -> Result<Vec<GivenUpProof>, StoreError> {
    let mut roots: BTreeMap<u64, Hash> = checkpoints.iter().map(|head| (head.size(), Hash::EMPTY_ROOT)).collect();
    let (mut edge, mut head) = (RightEdge::EMPTY, Position::ZERO);
    let mut append = |leaf: Hash| {
        // A tree is never full: positions have 63 bits.
        let _result = edge.append(leaf);
        if let Some(root) = roots.get_mut(&edge.size()) {
            *root = edge.root();
        }
        edge.size()
    };
    let mut kept = 0;
    loop {
        let page = store.read(head, PAGE).await?;
        let Some(last) = page.last() else { break };
        head = last.position;
        for entry in &page {
            kept = append(Hash::of_leaf(&entry.body));
        }
    }
    let mut found = kept;
    for event in given_up {
        // A stream with limits, or a damaged one, may lack some.
        if event.position != head.next() {
            break;
        }
        head = event.position;
        found = append(event.leaf);
    }
    let prove = |checkpoint: &TreeHead| {
        let (size, root) = (checkpoint.size(), roots.get(&checkpoint.size()).copied().unwrap_or(Hash::EMPTY_ROOT));
        if size > found {
            GivenUpProof::Incomplete { found }
        } else if root != *checkpoint.root() {
            GivenUpProof::Contradicted { root }
        } else {
            GivenUpProof::Proven { kept: kept.min(size), given_up: size.saturating_sub(kept) }
        }
    };
    Ok(checkpoints.iter().map(prove).collect())
}
