//! Verifies an export with nothing but a public key. Every event is hashed again; stored hashes only help to name the
//! first one that is wrong, and are verified themselves.

use std::io;
use std::path::PathBuf;

use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_tlog::{Hash, KeyName, Policy, RightEdge, SignatureKind, TreeHead, VerifiedTiles, VerifierKey};

use super::folder::{ExportFolder, FolderTiles, Lines};
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

/// A checkpoint that somebody has kept.
pub(super) struct Kept {
    name: String,
    pub(super) epoch: u32,
    pub(super) head: TreeHead,
    is_continued: bool,
}

/// Verifies a checkpoint with a key.
pub(super) fn head_of(checkpoint: &[u8], key: &VerifierKey) -> Result<TreeHead, String> {
    let policy = Policy::of_log(key.clone()).map_err(|error| error.to_string())?;
    let verified = policy.verify(checkpoint).map_err(|error| Causes(&error).to_string())?;
    Ok(*verified.checkpoint().head())
}

/// Verifies a checkpoint of the same cluster and key, of any epoch.
pub(super) fn kept(name: &str, checkpoint: &[u8], key: &VerifierKey, origin: &Origin) -> Result<Kept, Fault> {
    let fault = |text: String| Fault::somewhere(format!("the checkpoint `{name}` cannot be used: {text}"));
    let first_line = checkpoint.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let of: KeyName = String::from_utf8_lossy(first_line).parse().map_err(|_| fault("it has no origin".to_owned()))?;
    let its = Origin::parse(&of)?;
    if (&its.domain, &its.cluster) != (&origin.domain, &origin.cluster) {
        return Err(fault(format!("it is one of `{of}`")));
    }
    let key = VerifierKey::new(of, SignatureKind::Note, key.as_bytes()).map_err(|error| fault(error.to_string()))?;
    let head = head_of(checkpoint, &key).map_err(fault)?;
    Ok(Kept { name: name.to_owned(), epoch: its.epoch, head, is_continued: false })
}

/// The tiles of an export, as long as they are the tree's.
struct Leaves {
    tiles: Option<VerifiedTiles<FolderTiles>>,
    /// Why they cannot be used.
    damage: Option<String>,
    /// The hashes of one tile.
    loaded: Option<(u64, Vec<Hash>)>,
}

impl Leaves {
    fn open(head: &TreeHead, tiles: FolderTiles) -> Self {
        match VerifiedTiles::open(head, tiles) {
            Ok(tiles) => Self { tiles: Some(tiles), damage: None, loaded: None },
            Err(error) => Self { tiles: None, damage: Some(Causes(&error).to_string()), loaded: None },
        }
    }

    /// The hash of a leaf in the tree that was signed; `None` if that cannot be told.
    fn get(&mut self, index: u64) -> Option<Hash> {
        let (tile, offset) = (index / 256, usize::try_from(index % 256).ok()?);
        if self.loaded.as_ref().is_none_or(|(loaded, _)| *loaded != tile) {
            match self.tiles.as_mut()?.hashes(0, tile) {
                Ok(hashes) => self.loaded = Some((tile, hashes.to_vec())),
                Err(error) => {
                    self.damage.get_or_insert_with(|| Causes(&error).to_string());
                    return None;
                }
            }
        }
        self.loaded.as_ref()?.1.get(offset).copied()
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

/// Verifies an export.
pub(super) fn verify(folder: &ExportFolder, known: &Known) -> Result<Report, VerifyError> {
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
        None => verification.all(folder.events()?),
        Some((from, to)) if !known.is_part => Err(Fault::somewhere(format!(
            "the export is said to have the positions {from} to {to} alone: that takes --part"
        ))
        .into()),
        Some((from, to)) if from == 0 || from > to => {
            Err(Fault::somewhere(format!("the export has no positions: `{from} {to}`")).into())
        }
        Some(range) => verification.part(folder, range),
    }
}

impl Verification<'_> {
    /// Compares the event with the leaf that was signed.
    fn compare(&mut self, index: u64, body: &[u8], position: Position) -> Result<Hash, Fault> {
        let leaf = Hash::of_leaf(body);
        match self.leaves.get(index) {
            Some(signed) if signed != leaf => {
                Err(Fault::at(position, "the event is not the one that was signed, byte for byte"))
            }
            Some(_) | None => Ok(leaf),
        }
    }

    /// Compares kept checkpoints of as many events as there are so far.
    fn compare_kept(&mut self) -> Result<(), Fault> {
        let (epoch, size) = (self.origin.epoch, self.edge.size());
        for kept in self.kept.iter_mut().filter(|kept| kept.head.size() == size && kept.epoch == epoch) {
            if self.edge.root() != *kept.head.root() {
                let name = &kept.name;
                let text = format!("the log was written anew: its first {size} events are others than in `{name}`");
                return Err(Fault::somewhere(text));
            }
            kept.is_continued = true;
        }
        Ok(())
    }

    /// An export with all events.
    fn all(mut self, mut events: Lines) -> Result<Report, VerifyError> {
        self.compare_kept()?;
        let (mut is_complete, mut unsigned, mut last) = (self.head.size() == 0, None, Position::ZERO);
        while let Some(body) = events.next()? {
            let before = (self.sequence.epoch(), self.sequence.position());
            let Place { position, time, begins_epoch } = self.sequence.next(body)?;
            if begins_epoch {
                self.epochs.push((before.0, self.edge.clone(), before.1));
            }
            if is_complete {
                let (first, count) = unsigned.unwrap_or((position, 0));
                unsigned = Some((first, count + 1));
                continue;
            }
            let leaf = self.compare(self.edge.size(), body, position)?;
            self.edge.append(leaf).map_err(|error| Fault::at(position, error.to_string()))?;
            (self.newest, last) = (Some(time), position);
            self.compare_kept()?;
            is_complete = self.edge.size() == self.head.size();
        }
        if !is_complete {
            let (next, size) = (self.sequence.position().next(), self.head.size());
            let text = format!("the event is missing: the checkpoint covers {size} events, and there are no more");
            return Err(Fault::at(next, text).into());
        }
        if self.edge.head() != self.head {
            let damage = self.leaves.damage.unwrap_or_default();
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

    /// Kept checkpoints of earlier epochs: their events are the first ones, or were given up.
    fn earlier_epochs(&mut self) -> Result<(), VerifyError> {
        let (epochs, given_up) = (std::mem::take(&mut self.epochs), &self.known.given_up);
        for kept in self.kept.iter_mut().filter(|kept| kept.epoch < self.origin.epoch) {
            let (name, size) = (&kept.name, kept.head.size());
            let Some((_, edge, position)) = epochs.iter().find(|(epoch, ..)| *epoch == kept.epoch) else {
                let text = format!("the checkpoint `{name}` is of epoch {}, which the log does not have", kept.epoch);
                return Err(Fault::somewhere(text).into());
            };
            if size <= edge.size() {
                let tiles = self.leaves.tiles.as_mut().map(|tiles| RightEdge::from_source(size, tiles));
                let is_same = matches!(tiles, Some(Ok(edge)) if edge.head() == kept.head);
                if !is_same {
                    let text = format!("the log was written anew: its first events are others than in `{name}`");
                    return Err(Fault::somewhere(text).into());
                }
                kept.is_continued = true;
                continue;
            }
            let mut is_given_up = false;
            for path in given_up {
                let (mut edge, mut lines) = (edge.clone(), Lines::open(path)?);
                while let Some(body) = lines.next()? {
                    if edge.size() == size {
                        break;
                    }
                    edge.append(Hash::of_leaf(body)).map_err(|error| Fault::somewhere(error.to_string()))?;
                }
                is_given_up |= edge.head() == kept.head;
            }
            if is_given_up {
                kept.is_continued = true;
                self.unproven.push(format!(
                    "declared loss: epoch {} gave up the events after position {position}; the given-up file has \
                     those of `{name}`",
                    kept.epoch + 1
                ));
            } else if given_up.is_empty() {
                self.unproven.push(format!(
                    "declared loss: epoch {} gave up the events after position {position}, of which `{name}` covers \
                     {}: what they were, and that those before are the same, takes --given-up with the file that \
                     `otherixd restore` wrote",
                    kept.epoch + 1,
                    size - edge.size()
                ));
            } else {
                let text = format!("the kept events with those of the given-up file are not those of `{name}`");
                return Err(Fault::somewhere(text).into());
            }
        }
        Ok(())
    }

    /// An export of some positions.
    fn part(mut self, folder: &ExportFolder, (from, to): (u64, u64)) -> Result<Report, VerifyError> {
        if let Some(damage) = self.leaves.damage.take() {
            return Err(Fault::somewhere(format!("an export of some positions takes all tiles: {damage}")).into());
        }
        if let Some(mut epochs) = folder.epochs()? {
            while let Some(body) = epochs.next()? {
                self.sequence.skip_to_epoch(body)?;
                let index = self.sequence.count();
                let position = self.sequence.next(body)?.position;
                self.compare(index, body, position)?;
            }
        }
        if from <= self.sequence.position().get() {
            return Err(Fault::somewhere("the range begins before an epoch that it is said to come after").into());
        }
        self.sequence.skip_to(Position::new(from));
        let (mut events, mut count) = (folder.events()?, 0);
        while let Some(body) = events.next()? {
            let index = self.sequence.count();
            let Place { position, time, .. } = self.sequence.next(body)?;
            if index >= self.head.size() {
                return Err(Fault::at(position, "the checkpoint does not cover the event").into());
            }
            self.compare(index, body, position)?;
            if let Some(damage) = self.leaves.damage.take() {
                return Err(Fault::at(position, format!("the event cannot be verified: {damage}")).into());
            }
            (self.newest, count) = (Some(time), count + 1);
        }
        let last = self.sequence.position();
        if last.get() < to {
            return Err(Fault::at(last.next(), format!("the event is missing: the export is to end at {to}")).into());
        }
        for kept in &mut self.kept {
            let (size, name) = (kept.head.size(), &kept.name);
            if kept.epoch != self.origin.epoch {
                let text = format!("that the log continues `{name}` of epoch {}: that takes all events", kept.epoch);
                self.unproven.push(text);
                continue;
            }
            let edge = self.leaves.tiles.as_mut().map(|tiles| RightEdge::from_source(size, tiles));
            if !matches!(edge, Some(Ok(edge)) if edge.head() == kept.head) {
                let text = format!("the log was written anew: its first {size} events are others than in `{name}`");
                return Err(Fault::somewhere(text).into());
            }
            kept.is_continued = true;
        }
        self.unproven.push(format!("the events before position {from} and after {last}, which are not in the export"));
        self.report(count, Position::new(from), last)
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
        Ok(Report { origin, events, first, last, size: head.size(), newest, continued, unproven })
    }
}
