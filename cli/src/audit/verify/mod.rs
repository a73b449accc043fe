//! Verifies an export with nothing but a public key. Every event is hashed again; stored hashes only help to name the
//! first one that is wrong, and are verified themselves.

mod kept;
mod leaves;
mod parsed;
mod part;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_tlog::{Hash, KeyName, RightEdge, TreeHead, VerifierKey};

use self::kept::Kept;
pub(super) use self::kept::{head_of, kept};
use self::leaves::Leaves;
use self::parsed::{ParsedEvent, ParsedEvents};
use super::compare::Compared;
use super::folder::ExportFolder;
use super::sequence::{Fault, Place, Sequence};

/// What is known from elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) key: VerifierKey,
    /// Checkpoints that somebody has kept: what they are called, and their bytes.
    pub(super) older: Vec<(String, Vec<u8>)>,
    /// The least number of events.
    pub(super) min_size: Option<u64>,
    /// The newest event must not be older than this.
    pub(super) newest_since: Option<Timestamp>,
    /// Files with events that new epochs gave up.
    pub(super) given_up: Vec<PathBuf>,
    /// The export may be one of some positions. It says so itself, and so may one of which the rest was removed.
    pub(super) is_part: bool,
}

impl Known {
    /// Nothing but the key.
    pub(super) fn key_alone(key: VerifierKey) -> Self {
        Self { key, older: Vec::new(), min_size: None, newest_since: None, given_up: Vec::new(), is_part: false }
    }
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) origin: String,
    /// The number of events that were verified.
    pub(super) events: u64,
    pub(super) first: Position,
    pub(super) last: Position,
    /// The number of events that the checkpoint covers.
    pub(super) size: u64,
    /// The time of the last of them.
    pub(super) newest: Option<Timestamp>,
    /// Names of kept checkpoints whose events are the first ones.
    pub(super) continued: Vec<String>,
    pub(super) unproven: Vec<String>,
    /// What of the running control plane was compared with the events.
    pub(super) compared: Option<Compared>,
}

/// Why an export could not be verified.
#[derive(Debug)]
pub(super) enum VerifyError {
    /// It is wrong.
    Fault(Fault),
    Read(io::Error),
}

impl From<Fault> for VerifyError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for VerifyError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// The parts of a log's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) domain: String,
    pub(super) cluster: String,
    pub(super) epoch: u32,
}

impl Origin {
    pub(super) fn parse(name: &KeyName) -> Result<Self, Fault> {
        let mut parts = name.as_str().rsplitn(3, '/');
        let epoch = parts.next().filter(|epoch| !epoch.starts_with('0')).and_then(|epoch| epoch.parse().ok());
        match (epoch, parts.next(), parts.next()) {
            (Some(epoch), Some(cluster), Some(domain)) => {
                Ok(Self { domain: domain.to_owned(), cluster: cluster.to_owned(), epoch })
            }
            _ => Err(Fault::somewhere(format!("`{name}` is not the name of a log of otherix"))),
        }
    }
}

/// An export that is being verified.
struct Verification<'a> {
    known: &'a Known,
    origin: Origin,
    head: TreeHead,
    leaves: Leaves,
    kept: Vec<Kept>,
    sequence: Sequence,
    /// The tree of the events so far; of an export of some positions, the one that was signed counts.
    edge: RightEdge,
    /// The tree that each earlier epoch kept, and the position up to which.
    epochs: Vec<(u32, RightEdge, Position)>,
    newest: Option<Timestamp>,
    unproven: Vec<String>,
}

/// Takes each event in its order, when it and those before it agree with what was signed. Whether all of them do is
/// known only at the end.
pub(super) type EventSink<'a> = dyn FnMut(&Place, &[u8]) + 'a;

/// Verifies an export.
pub(super) fn verify(folder: &ExportFolder, known: &Known) -> Result<Report, VerifyError> {
    verify_each(folder, known, &mut |_, _| {})
}

/// Verifies an export, and passes on its events that the checkpoint covers.
pub(super) fn verify_each(
    folder: &ExportFolder,
    known: &Known,
    sink: &mut EventSink<'_>,
) -> Result<Report, VerifyError> {
    let origin = Origin::parse(known.key.name())?;
    let fault = |text| Fault::somewhere(format!("the checkpoint is not to be believed: {text}"));
    let head = head_of(&folder.checkpoint()?, &known.key).map_err(fault)?;
    let older = known.older.iter();
    let kept = older.map(|(name, note)| kept(name, note, &known.key, &origin)).collect::<Result<Vec<_>, _>>()?;
    if let Some(min) = known.min_size.filter(|min| head.size() < *min) {
        return Err(Fault::somewhere(format!("the log has {} events, and must have {min}", head.size())).into());
    }
    for Kept { name, epoch, head: older, .. } in &kept {
        let text = if *epoch > origin.epoch {
            format!("the export is of epoch {}, and the checkpoint `{name}` of epoch {epoch}", origin.epoch)
        } else if *epoch == origin.epoch && older.size() > head.size() {
            format!("the log was cut off: it has {} events, and had {} in `{name}`", head.size(), older.size())
        } else {
            continue;
        };
        return Err(Fault::somewhere(text).into());
    }
    let verification = Verification {
        known,
        head,
        leaves: Leaves::open(&head, folder.tiles()),
        kept,
        sequence: Sequence::new(&origin.cluster),
        edge: RightEdge::EMPTY,
        epochs: Vec::new(),
        newest: None,
        unproven: Vec::new(),
        origin,
    };
    match folder.range()? {
        None => verification.all(folder.events_file()?, sink),
        Some((from, to)) if !known.is_part => Err(Fault::somewhere(format!(
            "the export is said to have the positions {from} to {to} alone: that takes --part"
        ))
        .into()),
        Some((from, to)) if from == 0 || from > to => {
            Err(Fault::somewhere(format!("the export has no positions: `{from} {to}`")).into())
        }
        Some(range) => verification.part(folder, range, sink),
    }
}

fn other_event(position: Position) -> Fault {
    Fault::at(position, "the event is not the one that was signed, byte for byte")
}

impl Verification<'_> {
    /// Compares the event with the leaf that was signed.
    fn compare(&mut self, index: u64, leaf: Hash, position: Position) -> Result<(), Fault> {
        match self.leaves.get(index) {
            Some(signed) if signed != leaf => Err(other_event(position)),
            Some(_) | None => Ok(()),
        }
    }

    /// An export with all events.
    fn all(mut self, events: File, sink: &mut EventSink<'_>) -> Result<Report, VerifyError> {
        self.compare_kept()?;
        let (mut is_complete, mut unsigned, mut last) = (self.head.size() == 0, None, Position::ZERO);
        let mut events = ParsedEvents::read(events, self.sequence.source())?;
        while let Some(ParsedEvent { body, leaf, claim }) = events.next()? {
            let before = (self.sequence.epoch(), self.sequence.position());
            let place = self.sequence.accept(claim)?;
            let Place { position, time, begins_epoch } = place;
            if begins_epoch {
                self.epochs.push((before.0, self.edge.clone(), before.1));
            }
            if is_complete {
                let (first, count) = unsigned.unwrap_or((position, 0));
                unsigned = Some((first, count + 1));
                continue;
            }
            if self.leaves.is_other(self.edge.size(), leaf) {
                return Err(other_event(position).into());
            }
            self.edge.append(leaf).map_err(|error| Fault::at(position, error.to_string()))?;
            (self.newest, last) = (Some(time), position);
            self.compare_kept()?;
            sink(&place, body);
            is_complete = self.edge.size() == self.head.size();
        }
        if !is_complete {
            let (next, size) = (self.sequence.position().next(), self.head.size());
            let text = format!("the event is missing: the checkpoint covers {size} events, and there are no more");
            return Err(Fault::at(next, text).into());
        }
        if self.edge.head() != self.head {
            let damage = self.leaves.first_damage(self.head.size()).unwrap_or_default();
            let text = format!("the events are not those that were signed; which one cannot be told, as {damage}");
            return Err(Fault::somewhere(text).into());
        }
        if let Some(damage) = self.leaves.damage.take() {
            let text = format!("the events are those that were signed, but a tile of the export is damaged: {damage}");
            return Err(Fault::somewhere(text).into());
        }
        if let Some((first, count)) = unsigned {
            let end = self.sequence.position();
            self.unproven.push(format!(
                "unsigned tail: {count} events from position {first} to {end} came after the checkpoint"
            ));
        }
        self.earlier_epochs()?;
        let events = self.head.size();
        self.report(events, Position::new(1), last)
    }

    fn report(self, events: u64, first: Position, last: Position) -> Result<Report, VerifyError> {
        let Self { known, origin, head, kept, sequence, newest, mut unproven, .. } = self;
        if unproven.iter().all(|line| !line.starts_with("the events before")) && sequence.epoch() != origin.epoch {
            let text = format!("the log is that of epoch {}, which none of its events begins", origin.epoch);
            return Err(Fault::somewhere(text).into());
        }
        if let Some(since) = known.newest_since
            && newest.is_none_or(|newest| newest < since)
        {
            let newest = newest.map_or_else(|| "none".to_owned(), |newest| newest.to_string());
            return Err(Fault::at(last, format!("the newest event is too old: {newest}")).into());
        }
        let largest = kept.iter().filter(|kept| kept.is_continued).map(|kept| kept.head.size().min(head.size())).max();
        match largest {
            None => unproven.push(
                "that whoever has the key has not written the log anew, or cut it off: that takes --checkpoint with \
                 one that somebody has kept"
                    .to_owned(),
            ),
            Some(size) if size < head.size() => unproven.push(format!(
                "that whoever has the key has not written anew, or cut off, what came after the first {size} events: \
                 that takes a newer checkpoint that somebody has kept"
            )),
            Some(_) => {}
        }
        if known.min_size.is_none() && known.newest_since.is_none() {
            unproven.push("that there are no later events: that takes --min-size or --max-age".to_owned());
        }
        unproven.push("the times of events: they are those of the control plane's clock".to_owned());
        let continued = kept.into_iter().filter(|kept| kept.is_continued).map(|kept| kept.name).collect();
        let origin = known.key.name().to_string();
        Ok(Report { origin, events, first, last, size: head.size(), newest, continued, unproven, compared: None })
    }
}
