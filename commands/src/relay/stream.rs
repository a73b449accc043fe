//! The stream as a whole: whether it is a copy of the event store, and how it is rebuilt.

use std::ops::Range;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind, State};
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;

use super::definition::{self, GAP_SUBJECT, Phase, StreamLimits, StreamSettings};
use super::notes::Notes;
use super::survey::{Survey, survey};
use super::{Burst, CONTROL, RelayError, RelayInterruption, Waiting, check, durables, publish, subject_of};
use crate::store::{EventStore, Gap};

/// Events published before their acknowledgements are awaited, while a stream is filled.
const CHUNK: u32 = 500;

/// Whether the stream is a copy of the store.
#[derive(Debug)]
pub(super) enum StreamCondition {
    /// A copy up to this position; later events are to be appended.
    Copy(Position),
    /// A copy up to this position that is being filled.
    Filling(Position),
    /// It has messages that are not in the event store, lacks some, or cannot be used. `differs` is the first
    /// difference.
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

/// Returns whether a stream has as many messages as an event store with these gaps up to the stream's last sequence.
/// With limits, it may begin at any event.
pub(super) fn is_whole(info: &Info, gaps: &[Gap], limits: StreamLimits) -> bool {
    let State { first_sequence: first, last_sequence: last, messages, .. } = info.state;
    if last == 0 || (limits.is_limited() && messages == 0 && first == last + 1) {
        return true;
    }
    let is_within = |gap: &&Gap| gap.next.get() <= last && gap.next.get() > first;
    let missing: u64 = gaps.iter().filter(is_within).map(Gap::positions).sum();
    let natural = gaps.iter().find(|gap| gap.kept == Position::ZERO).map_or(1, |gap| gap.next.get());
    let may_begin_here = first == natural || (limits.is_limited() && first > natural);
    may_begin_here && Some(messages) == (last + 1).checked_sub(first + missing)
}

/// Returns whether a stream has the required definition.
pub(super) fn is_as_defined(info: &Info, limits: StreamLimits) -> bool {
    definition::wanted(info.config.clone(), Phase::of(&info.config), limits) == info.config
}

/// Compares the stream with the event store. It is created if there is no event yet; a changed definition is reset.
pub(super) async fn compare<S: EventStore>(
    context: &Context,
    store: &S,
    notes: &Notes,
    settings: StreamSettings,
) -> Result<StreamCondition, RelayInterruption> {
    let head = store.head().await.map_err(RelayError::from)?;
    let Some(info) = info(context).await? else {
        if head != Position::ZERO {
            return Ok(StreamCondition::Foreign { why: "it does not exist", differs: None });
        }
        context.create_stream(definition::new(Phase::InUse, settings, Position::ZERO)).await.map_err(failed)?;
        return Ok(StreamCondition::Copy(Position::ZERO));
    };
    let (phase, limits) = (Phase::of(&info.config), settings.limits);
    // Before its content is compared: a changed limit may be deleting messages.
    let defined = is_as_defined(&info, limits) || reset_definition(context, &info, phase, limits).await?;
    let last = Position::new(info.state.last_sequence);
    let gaps = store.gaps().await.map_err(RelayError::from)?;
    let created = info.created.to_string();
    let known = notes.verified().as_deref() == Some(&created) && last <= head && is_whole(&info, &gaps, limits);
    // Nothing may be left of a stream with limits.
    let is_last = known && (info.state.messages == 0 || is_last(context, store, last).await?);
    if !is_last {
        let survey = survey(context, store).await.map_err(RelayInterruption::Survey)?;
        if let Some(foreign) = judge(&survey, head)? {
            return Ok(foreign);
        }
        notes.set_verified(&created);
    }
    Ok(match phase {
        _ if !defined => StreamCondition::Foreign { why: "its definition cannot be reset", differs: None },
        Phase::Filling => StreamCondition::Filling(last),
        // A gap can only be left while the stream is being filled.
        Phase::InUse if gaps.iter().any(|gap| gap.next > last) => {
            StreamCondition::Foreign { why: "a new epoch has begun", differs: None }
        }
        Phase::InUse => StreamCondition::Copy(last),
    })
}

fn judge(survey: &Survey, head: Position) -> Result<Option<StreamCondition>, RelayError> {
    match (survey.lost, survey.differs) {
        (Some(lost), _) if lost > head => Err(RelayError::Ahead { stream: survey.last, journal: head }),
        (Some(position), _) => Err(RelayError::Diverged { position }),
        (None, Some(differs)) => {
            Ok(Some(StreamCondition::Foreign { why: differs.what, differs: Some(differs.position) }))
        }
        (None, None) => Ok(None),
    }
}

/// Resets a changed definition. Returns whether that is possible.
async fn reset_definition(
    context: &Context,
    info: &Info,
    phase: Phase,
    limits: StreamLimits,
) -> Result<bool, RelayInterruption> {
    tracing::warn!("the definition of stream `{STREAM}` is another one and is reset");
    let Err(error) = context.update_stream(definition::wanted(info.config.clone(), phase, limits)).await else {
        return Ok(true);
    };
    if let CreateStreamErrorKind::JetStream(cause) = error.kind()
        && (cause.code() < 500 || cause.error_code().0 == IMMUTABLE)
    {
        return Ok(false);
    }
    Err(failed(error))
}

/// `JSStreamInvalidConfigF`: the change is not possible, although the code is 500 like that of a server fault.
const IMMUTABLE: u64 = 10052;

/// Returns whether the stream's last message is the event at that position.
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

/// Deletes the stream, if there is one, and creates a new one, to be filled with the events after a position. If no
/// number of replicas is given, it has as many as the one before.
pub(super) async fn recreate(
    context: &Context,
    notes: &Notes,
    differs: Option<Position>,
    settings: StreamSettings,
    after: Position,
) -> Result<(), RelayInterruption> {
    let present = info(context).await?;
    let replicas = settings.replicas.or(present.as_ref().map(|info| info.config.num_replicas));
    let settings = StreamSettings { replicas, ..settings };
    if present.is_some() {
        durables::save(context, notes, CONTROL, differs).await.map_err(RelayInterruption::Durables)?;
        context.delete_stream(STREAM).await.map_err(failed)?;
    }
    context.create_stream(definition::new(Phase::Filling, settings, after)).await.map_err(failed)?;
    Ok(())
}

/// Fills a new stream with the events after the range's start up to its end, restores the durable consumers, and takes
/// the stream into use. Returns the position of its last event.
pub(super) async fn fill<S: EventStore>(
    context: &Context,
    store: &S,
    (notes, limits): (&Notes, StreamLimits),
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
        let mut burst = Vec::with_capacity(entries.len());
        for entry in entries {
            if last.next() < entry.position {
                gap = true;
                append(context, std::mem::take(&mut burst)).await?;
                leave_gap(context, last, entry.position).await?;
            }
            last = entry.position;
            check(&entry)?;
            burst.push((subject_of(&entry)?, entry));
        }
        append(context, burst).await?;
    }
    if gap {
        let stream = context.get_stream_no_info(STREAM).await.map_err(failed)?;
        stream.purge().filter(GAP_SUBJECT).await.map_err(failed)?;
    }
    durables::restore(context, notes, CONTROL).await.map_err(RelayInterruption::Durables)?;
    let filled = info(context).await?.ok_or(RelayInterruption::Changed)?;
    context.update_stream(definition::wanted(filled.config, Phase::InUse, limits)).await.map_err(failed)?;
    Ok(last)
}

/// Appends events to the stream, and waits until they are stored.
async fn append(context: &Context, events: Vec<Waiting>) -> Result<(), RelayInterruption> {
    if let Some(Burst { ack, .. }) = publish(context, events.into_iter()).await? {
        ack.await.map_err(RelayInterruption::Publish)?;
    }
    Ok(())
}

/// Uses up the sequences between two epochs with messages that are purged later.
async fn leave_gap(context: &Context, last: Position, next: Position) -> Result<(), RelayInterruption> {
    let mut acks = Vec::new();
    for sequence in last.next().get()..next.get() {
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
