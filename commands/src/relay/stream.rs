//! The stream as a whole: whether it is a copy of the journal, and how it is made anew.

use std::ops::Range;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind};
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;

use super::definition::{self, GAP_SUBJECT, Phase};
use super::notes::Notes;
use super::survey::{Survey, survey};
use super::{CONTROL, RelayError, RelayInterruption, durables, message, subject_of};
use crate::store::{Entry, EventStore, Gap};

/// Events published before their acknowledgements are awaited, while a stream is filled.
const CHUNK: u32 = 500;

/// Whether the stream is a copy of the store.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is, up to this position; the rest is to be appended.
    Copy(Position),
    /// It is so far, and is still to be filled.
    Filling(Position),
    /// It has something that is not in the journal, lacks something in the middle, or cannot be used. Where it is wrong
    /// first, if it is.
    Foreign { why: &'static str, differs: Option<Position> },
}

pub(super) async fn info(context: &Context) -> Result<Option<Info>, RelayInterruption> {
    match context.get_stream(STREAM).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause) if cause.code() == 404 => Ok(None),
            GetStreamErrorKind::JetStream(_)
            | GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::InvalidStreamName
            | GetStreamErrorKind::Request => Err(failed(error)),
        },
    }
}

pub(super) fn failed(error: impl Into<async_nats::Error>) -> RelayInterruption {
    RelayInterruption::Stream(error.into())
}

/// Whether a stream looks like the copy of a journal with these gaps up to the stream's end.
pub(super) fn is_whole(info: &Info, gaps: &[Gap]) -> bool {
    let last = info.state.last_sequence;
    let within = gaps.iter().filter(|gap| gap.next.get() <= last);
    let missing: u64 = within.map(Gap::positions).sum();
    let first = gaps.iter().find(|gap| gap.kept == Position::ZERO).map_or(1, |gap| gap.next.get());
    last == 0 || (info.state.first_sequence == first && info.state.messages == last - missing)
}

/// Whether a stream is defined as it should be.
pub(super) fn is_as_defined(info: &Info) -> bool {
    definition::wanted(info.config.clone(), Phase::of(&info.config)) == info.config
}

/// Compares the stream with the journal; one that does not exist while there is no event is made, one whose definition was
/// changed is put right.
pub(super) async fn compare<S: EventStore>(
    context: &Context,
    store: &S,
    notes: &Notes,
) -> Result<Verdict, RelayInterruption> {
    let head = store.head().await.map_err(RelayError::from)?;
    let Some(info) = info(context).await? else {
        if head != Position::ZERO {
            return Ok(Verdict::Foreign { why: "there is none", differs: None });
        }
        context.create_stream(definition::new(Phase::InUse)).await.map_err(failed)?;
        return Ok(Verdict::Copy(Position::ZERO));
    };
    let phase = Phase::of(&info.config);
    // Before its content is judged: a limit may be at work.
    let defined = is_as_defined(&info) || put_right(context, &info, phase).await?;
    let last = Position::new(info.state.last_sequence);
    let gaps = store.gaps().await.map_err(RelayError::from)?;
    let created = info.created.to_string();
    let known = notes.verified().as_deref() == Some(&created) && last <= head && is_whole(&info, &gaps);
    if !(known && is_last(context, store, last).await?) {
        let survey = survey(context, store).await.map_err(RelayInterruption::Survey)?;
        if let Some(foreign) = judge(&survey, head)? {
            return Ok(foreign);
        }
        notes.set_verified(&created);
    }
    Ok(match phase {
        _ if !defined => Verdict::Foreign { why: "it was changed in a way that cannot be undone", differs: None },
        Phase::Filling => Verdict::Filling(last),
        // The gap can only be made while the stream is filled.
        Phase::InUse if gaps.iter().any(|gap| gap.next > last) => {
            Verdict::Foreign { why: "a new epoch has begun", differs: None }
        }
        Phase::InUse => Verdict::Copy(last),
    })
}

fn judge(survey: &Survey, head: Position) -> Result<Option<Verdict>, RelayError> {
    match (survey.lost, survey.differs) {
        (Some(lost), _) if lost > head => Err(RelayError::Ahead { stream: survey.last, journal: head }),
        (Some(position), _) => Err(RelayError::Diverged { position }),
        (None, Some(differs)) => Ok(Some(Verdict::Foreign { why: differs.what, differs: Some(differs.position) })),
        (None, None) => Ok(None),
    }
}

/// Sets back what somebody has changed; says whether that was possible.
async fn put_right(context: &Context, info: &Info, phase: Phase) -> Result<bool, RelayInterruption> {
    tracing::warn!("the definition of stream `{STREAM}` was changed, and is set back");
    let Err(error) = context.update_stream(definition::wanted(info.config.clone(), phase)).await else {
        return Ok(true);
    };
    if let CreateStreamErrorKind::JetStream(cause) = error.kind()
        && (cause.code() < 500 || cause.error_code().0 == IMMUTABLE)
    {
        return Ok(false);
    }
    Err(failed(error))
}

/// `JSStreamInvalidConfigF`: the server refuses the change for good; a 500 like a server in trouble.
const IMMUTABLE: u64 = 10052;

/// Whether the message at the stream's end is the journal's event there.
async fn is_last<S: EventStore>(context: &Context, store: &S, last: Position) -> Result<bool, RelayInterruption> {
    if last == Position::ZERO {
        return Ok(true);
    }
    let Some(message) = message_at(context, last).await? else { return Ok(false) };
    let entries = store.read(Position::new(last.get() - 1), 1).await.map_err(RelayError::from)?;
    let Some(entry) = entries.first().filter(|entry| entry.position == last) else { return Ok(false) };
    let id = message.headers.get(async_nats::header::NATS_MESSAGE_ID).map(ToString::to_string);
    Ok(entry.body == message.payload && id == Some(entry.event_id.to_string()))
}

async fn message_at(context: &Context, position: Position) -> Result<Option<StreamMessage>, RelayInterruption> {
    let stream = context.get_stream_no_info(STREAM).await.map_err(failed)?;
    match stream.get_raw_message(position.get()).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Deletes the stream, if there is one, and makes a new one that is to be filled.
pub(super) async fn recreate(
    context: &Context,
    notes: &Notes,
    differs: Option<Position>,
) -> Result<(), RelayInterruption> {
    if info(context).await?.is_some() {
        durables::save(context, notes, CONTROL, differs).await.map_err(RelayInterruption::Durables)?;
        context.delete_stream(STREAM).await.map_err(failed)?;
    }
    context.create_stream(definition::new(Phase::Filling)).await.map_err(failed)?;
    Ok(())
}

/// Fills a new stream with what the journal has behind the range's start up to its end, has the durable consumers of the old
/// one go on, and takes it into use. Says up to where it is filled.
pub(super) async fn fill<S: EventStore>(
    context: &Context,
    store: &S,
    notes: &Notes,
    range: Range<Position>,
) -> Result<Position, RelayInterruption> {
    let mut last = range.start;
    let mut gap = false;
    loop {
        let mut entries = store.read(last, CHUNK).await.map_err(RelayError::from)?;
        entries.retain(|entry| entry.position <= range.end);
        if entries.is_empty() {
            break;
        }
        let mut acks = Vec::with_capacity(entries.len());
        for entry in &entries {
            if last.next() < entry.position {
                gap = true;
                leave_gap(context, last, entry).await?;
            }
            last = entry.position;
            let message = message(entry).expected_last_sequence(entry.position.get() - 1);
            acks.push(context.send_publish(subject_of(entry)?, message).await.map_err(RelayInterruption::Publish)?);
        }
        for ack in acks {
            ack.await.map_err(RelayInterruption::Publish)?;
        }
    }
    if gap {
        let stream = context.get_stream_no_info(STREAM).await.map_err(failed)?;
        stream.purge().filter(GAP_SUBJECT).await.map_err(failed)?;
    }
    durables::restore(context, notes, CONTROL).await.map_err(RelayInterruption::Durables)?;
    context.update_stream(definition::new(Phase::InUse)).await.map_err(failed)?;
    Ok(last)
}

/// Uses up the sequences between two epochs.
async fn leave_gap(context: &Context, last: Position, next: &Entry) -> Result<(), RelayInterruption> {
    let mut acks = Vec::new();
    for sequence in last.next().get()..next.position.get() {
        let message = async_nats::jetstream::message::PublishMessage::build().expected_last_sequence(sequence - 1);
        acks.push(context.send_publish(GAP_SUBJECT, message).await.map_err(RelayInterruption::Publish)?);
        if acks.len() >= CHUNK as usize {
            for ack in acks.drain(..) {
                ack.await.map_err(RelayInterruption::Publish)?;
            }
        }
    }
    for ack in acks {
        ack.await.map_err(RelayInterruption::Publish)?;
    }
    Ok(())
}
