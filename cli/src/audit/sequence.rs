//! The order of events: which position comes next, and which leaf of the tree an event is.

use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use otherix_tlog::tile::ENTRY_MAX;
use serde::Deserialize;

use super::attributes::Attributes;
use super::canonical;

#[derive(Deserialize)]
struct Restored {
    data: RestoredData,
}

#[derive(Deserialize)]
struct RestoredData {
    kept: Position,
}

/// The type of the event with which an epoch begins, without its version.
pub(super) const RESTORED: &str = "dev.otherix.cluster.restored.";

/// What is wrong, and with which event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The first position that is wrong; `None` if that cannot be told.
    pub(super) position: Option<Position>,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn at(position: Position, text: impl Into<String>) -> Self {
        Self { position: Some(position), text: text.into() }
    }

    pub(super) fn somewhere(text: impl Into<String>) -> Self {
        Self { position: None, text: text.into() }
    }
}

/// Where an event belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: Position,
    pub(super) time: Timestamp,
    /// It begins an epoch.
    pub(super) begins_epoch: bool,
}

/// What an event says of its own place. Whether it is in it, depends on those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    position: Position,
    epoch: u32,
    /// `None` if it is malformed.
    time: Option<Timestamp>,
    /// The last position that the epoch before kept, if the event begins one.
    kept: Option<Position>,
}

/// Why it is no event of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(String);

impl Claim {
    /// What an event says that should have this source.
    pub(super) fn of(body: &[u8], expected_source: &str) -> Result<Self, Malformed> {
        let text =
            std::str::from_utf8(body).map_err(|_| Malformed("it is not an event: it is not UTF-8".to_owned()))?;
        let Attributes { source, sequence, type_name, time, epoch } = match canonical::attributes(text) {
            Some(attributes) => attributes,
            None => serde_json::from_str(text).map_err(|error| Malformed(format!("it is not an event: {error}")))?,
        };
        if body.len() > ENTRY_MAX {
            let text = format!("the event has {} bytes, and at most {ENTRY_MAX} are possible", body.len());
            return Err(Malformed(text));
        }
        if source != expected_source {
            return Err(Malformed(format!("the event is one of `{source}`, not of `{expected_source}`")));
        }
        let position = Position::from_sequence(sequence).map_err(|error| Malformed(error.to_string()))?;
        let kept = if type_name.starts_with(RESTORED) {
            let restored: Restored = serde_json::from_str(text).map_err(|error| Malformed(error.to_string()))?;
            Some(restored.data.kept)
        } else {
            None
        };
        Ok(Self { position, epoch, time: time.parse().ok(), kept })
    }
}

/// The order of the events of a cluster, checked one after the other.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    source: String,
    position: Position,
    count: u64,
    epoch: u32,
    time: Option<Timestamp>,
}

impl Sequence {
    /// Before the first event of a cluster.
    pub(super) fn new(cluster: &str) -> Self {
        let source = format!("/otherix/{cluster}");
        Self { source, position: Position::ZERO, count: 0, epoch: Epoch::FIRST.get(), time: None }
    }

    /// The last position.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The number of events.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Continues before the event at `position`, if no epoch begins in between.
    pub(super) fn skip_to(&mut self, position: Position) {
        let skipped = (position.get() - 1).saturating_sub(self.position.get());
        self.position = Position::new(self.position.get() + skipped);
        self.count += skipped;
    }

    /// Continues before the event with which an epoch begins.
    pub(super) fn skip_to_epoch(&mut self, body: &[u8]) -> Result<(), Fault> {
        let restored: Restored = serde_json::from_slice(body)
            .map_err(|error| Fault::somewhere(format!("what begins an epoch is no such event: {error}")))?;
        self.skip_to(restored.data.kept.next());
        Ok(())
    }

    /// The source of the events.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Checks that this is the next event.
    pub(super) fn next(&mut self, body: &[u8]) -> Result<Place, Fault> {
        self.accept(Claim::of(body, &self.source))
    }

    /// Checks that the next event is the one that says this.
    pub(super) fn accept(&mut self, claim: Result<Claim, Malformed>) -> Result<Place, Fault> {
        let expected = self.position.next();
        let fault = |text: String| Fault::at(expected, text);
        let Claim { position, epoch, time, kept } = claim.map_err(|Malformed(text)| fault(text))?;
        match kept {
            Some(kept) if kept == self.position && position > self.position => {}
            Some(kept) => return Err(fault(format!("an epoch begins here that kept the events up to {kept}"))),
            None if position == expected => {}
            None if position > expected => {
                return Err(fault(format!("the event is missing, and no epoch began: the next is at {position}")));
            }
            None => return Err(fault(format!("in its place is the event at position {position}"))),
        }
        let begins_epoch = kept.is_some();
        let expected_epoch = self.epoch + u32::from(begins_epoch);
        if epoch != expected_epoch {
            return Err(Fault::at(position, format!("the event is of epoch {epoch}, not of epoch {expected_epoch}")));
        }
        let Some(time) = time else { return Err(Fault::at(position, "its time is malformed")) };
        if self.time.is_some_and(|before| time < before) {
            return Err(Fault::at(position, "its time is before that of the event before it"));
        }
        (self.position, self.epoch, self.time) = (position, epoch, Some(time));
        self.count += 1;
        Ok(Place { position, time, begins_epoch })
    }
}
