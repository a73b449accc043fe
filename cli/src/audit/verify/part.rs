//! Exports of some positions: each event is compared with its leaf in the tree that was signed.

use otherix_schemas::position::Position;
use otherix_tlog::{Hash, RightEdge};

use super::parsed::{ParsedEvent, ParsedEvents};
use super::{EventSink, Report, Verification, VerifyError};
use crate::audit::folder::ExportFolder;
use crate::audit::sequence::{Fault, Place};

impl Verification<'_> {
    /// An export of some positions.
    pub(super) fn part(
        mut self,
        folder: &ExportFolder,
        (from, to): (u64, u64),
        sink: &mut EventSink<'_>,
    ) -> Result<Report, VerifyError> {
        if let Some(damage) = self.leaves.damage.take() {
            return Err(Fault::somewhere(format!("an export of some positions takes all tiles: {damage}")).into());
        }
        if let Some(mut epochs) = folder.epochs()? {
            while let Some(body) = epochs.next()? {
                self.sequence.skip_to_epoch(body)?;
                let index = self.sequence.count();
                let position = self.sequence.next(body)?.position;
                self.compare(index, Hash::of_leaf(body), position)?;
            }
        }
        if from <= self.sequence.position().get() {
            return Err(Fault::somewhere("the range begins before an epoch that it is said to come after").into());
        }
        self.sequence.skip_to(Position::new(from));
        let (mut events, mut count) = (ParsedEvents::read(folder.events_file()?, self.sequence.source())?, 0);
        while let Some(ParsedEvent { body, leaf, claim }) = events.next()? {
            let index = self.sequence.count();
            let place = self.sequence.accept(claim)?;
            let Place { position, time, .. } = place;
            if index >= self.head.size() {
                return Err(Fault::at(position, "the checkpoint does not cover the event").into());
            }
            self.compare(index, leaf, position)?;
            if let Some(damage) = self.leaves.damage.take() {
                return Err(Fault::at(position, format!("the event cannot be verified: {damage}")).into());
            }
            sink(&place, body);
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
}
