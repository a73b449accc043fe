//! The events of an export on their way into read models: one thread verifies them while others decode and apply them.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_projections::follow::{EventReader, ReadError};
use otherix_schemas::position::Position;
use otherix_schemas::request::AsOf;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::violations::Violations;
use tokio::sync::{Mutex, mpsc};

use crate::audit::folder::ExportFolder;
use crate::audit::sequence::{Place, Sequence};
use crate::audit::verify::{Known, Report, VerifyError, verify_each};
use crate::failure::Failure;

/// Events that are passed on at once.
const BATCH: usize = 1_000;

/// Batches that wait to be applied.
pub(super) const IN_FLIGHT: usize = 16;

/// An export that was read to its end.
pub(super) struct Read {
    /// What was verified; `None` without a key.
    pub(super) report: Option<Report>,
    pub(super) selection: Selection,
}

impl Read {
    /// Reads all events, verifies them if there is a key, and sends those up to a moment. Blocks.
    pub(super) fn all(
        export: &ExportFolder,
        cluster: &str,
        known: Option<&Known>,
        to: Option<AsOf>,
        sender: mpsc::Sender<Vec<Bytes>>,
    ) -> Result<Self, VerifyError> {
        let mut selection = Selection::new(to);
        let mut batch = Vec::with_capacity(BATCH);
        let mut sink = |place: &Place, body: &[u8]| {
            if !selection.takes(place) {
                return;
            }
            batch.push(Bytes::copy_from_slice(body));
            if batch.len() == BATCH {
                // If nobody receives them, whoever should has an error to tell.
                let _received = sender.blocking_send(mem::replace(&mut batch, Vec::with_capacity(BATCH)));
            }
        };
        let report = match known {
            Some(known) => Some(verify_each(export, known, &mut sink)?),
            None => {
                let (mut sequence, mut events) = (Sequence::new(cluster), export.events()?);
                while let Some(body) = events.next()? {
                    let place = sequence.next(body)?;
                    sink(&place, body);
                }
                None
            }
        };
        let _received = sender.blocking_send(batch);
        Ok(Self { report, selection })
    }
}

/// The events up to a moment.
pub(super) struct Selection {
    to: Option<AsOf>,
    /// The last one taken.
    last: Option<(Position, Timestamp)>,
    count: u64,
    /// The first event of the export, and its last one.
    first: Option<Timestamp>,
    end: Position,
}

impl Selection {
    fn new(to: Option<AsOf>) -> Self {
        Self { to, last: None, count: 0, first: None, end: Position::ZERO }
    }

    /// Whether the next event is one of them.
    fn takes(&mut self, place: &Place) -> bool {
        let Place { position, time, .. } = *place;
        self.first.get_or_insert(time);
        self.end = position;
        let takes = match self.to {
            None => true,
            Some(AsOf::Position(to)) => position <= to,
            Some(AsOf::Time(to)) => time <= to,
        };
        if takes {
            self.last = Some((position, time));
            self.count += 1;
        }
        takes
    }

    /// The position and time of the last event, and how many there are.
    pub(super) fn end(self) -> Result<(Position, Timestamp, u64), Failure> {
        let Self { to, last, count, first, end } = self;
        let refused = |text: String| Err(Violations::one("to", text).into());
        match (to, last) {
            (Some(AsOf::Position(to)), _) if to > end => {
                refused(format!("position {to} is not in the export, whose last event is at {end}"))
            }
            (Some(AsOf::Position(to)), Some((position, _))) if position < to => refused(format!(
                "there is no event at position {to}, which the beginning of an epoch has skipped: the one before is at \
                 {position}"
            )),
            (_, Some((position, time))) => Ok((position, time, count)),
            (Some(AsOf::Position(to)), None) => {
                refused(format!("position {to} is before the first event, which is at 1"))
            }
            (_, None) => refused(match first {
                Some(time) => format!("the first event of the export was recorded later, at {time}"),
                None => "the export has no events".to_owned(),
            }),
        }
    }
}

/// Events as they are received.
pub(super) struct ReceivedEvents(Mutex<Received>);

struct Received {
    receiver: mpsc::Receiver<Vec<Bytes>>,
    waiting: VecDeque<Bytes>,
}

impl ReceivedEvents {
    pub(super) fn new(receiver: mpsc::Receiver<Vec<Bytes>>) -> Self {
        Self(Mutex::new(Received { receiver, waiting: VecDeque::new() }))
    }
}

impl EventReader for ReceivedEvents {
    /// The next events: they can be read in their order only, once each.
    fn read(&self, _after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move {
            let limit = usize::try_from(limit)?;
            let Received { receiver, waiting } = &mut *self.0.lock().await;
            while waiting.len() < limit {
                let Some(batch) = receiver.recv().await else { break };
                waiting.extend(batch);
            }
            Ok(waiting.drain(..limit.min(waiting.len())).collect())
        })
    }
}
