//! The stream as a whole: how it is set up, whether it is a copy of the journal, and how it is made anew.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, Info, RawMessageErrorKind, Republish, StorageType};
use otherix_schemas::cloudevent::{CONTENT_TYPE, Recorded};
use otherix_schemas::position::Position;
use otherix_schemas::subject::{LIVE_PREFIX, STREAM, STREAM_SUBJECTS};

use super::{Doubt, RelayError, message, subject_of};
use crate::journal::Journal;

/// Events published before their acknowledgements are awaited, while a stream is filled.
const CHUNK: u32 = 500;

/// Why a stream with a foreign message is made anew.
const FOREIGN: &str = "it has a message that is not the journal's";

/// Whether the stream is a copy of the journal.
pub(super) enum Verdict {
    /// It is, up to this position; the rest is to be appended.
    Copy(Position),
    /// It has events that the journal lacks.
    Ahead { stream: Position, journal: Position },
    /// It has something that is not in the journal, or lacks something in the middle.
    Foreign(&'static str),
}

fn config(live: bool) -> Config {
    Config {
        name: STREAM.to_owned(),
        description: Some("every event of otherix; a copy of the journal".to_owned()),
        subjects: STREAM_SUBJECTS.iter().map(ToString::to_string).collect(),
        storage: StorageType::File,
        allow_direct: true,
        deny_delete: true,
        deny_purge: true,
        // The expected sequence makes a second copy impossible; the server need not remember ids for long.
        duplicate_window: Duration::from_secs(1),
        republish: live.then(|| Republish {
            source: ">".to_owned(),
            destination: format!("{LIVE_PREFIX}.>"),
            headers_only: false,
        }),
        ..Config::default()
    }
}

async fn info(context: &Context) -> Result<Option<Info>, Doubt> {
    match context.get_stream(STREAM).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(cause) if cause.code() == 404 => Ok(None),
            GetStreamErrorKind::JetStream(_)
            | GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::InvalidStreamName
            | GetStreamErrorKind::Request => Err(Doubt::Stream(error.into())),
        },
    }
}

/// Compares the stream with the journal; a stream that does not exist is made.
pub(super) async fn compare<J: Journal>(context: &Context, journal: &J) -> Result<Verdict, Doubt> {
    let Some(info) = info(context).await? else {
        let head = journal.head().await.map_err(RelayError::from)?;
        if head == Position::ZERO {
            context.create_stream(config(true)).await.map_err(|error| Doubt::Stream(error.into()))?;
            return Ok(Verdict::Copy(Position::ZERO));
        }
        return Ok(Verdict::Foreign("there is none"));
    };
    let last = Position::new(info.state.last_sequence);
    if last == Position::ZERO {
        return Ok(Verdict::Copy(last));
    }
    let head = journal.head().await.map_err(RelayError::from)?;
    if last > head {
        // An event is at the sequence that is its position; behind a foreign message there can be none.
        let event = is_event(context, head.next()).await?;
        return Ok(if event { Verdict::Ahead { stream: last, journal: head } } else { Verdict::Foreign(FOREIGN) });
    }
    if info.state.first_sequence != 1 || info.state.messages != last.get() {
        return Ok(Verdict::Foreign("events are missing from it"));
    }
    if same(context, journal, last).await? { Ok(Verdict::Copy(last)) } else { Ok(Verdict::Foreign(FOREIGN)) }
}

async fn message_at(context: &Context, position: Position) -> Result<Option<StreamMessage>, Doubt> {
    let stream = context.get_stream_no_info(STREAM).await.map_err(|error| Doubt::Stream(error.into()))?;
    match stream.get_raw_message(position.get()).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(Doubt::Stream(error.into())),
    }
}

/// Whether there may be an event at a position behind the journal. A message that is missing may have been one.
async fn is_event(context: &Context, position: Position) -> Result<bool, Doubt> {
    let Some(message) = message_at(context, position).await? else { return Ok(true) };
    Ok(match Recorded::decode(&message.payload) {
        Ok(recorded) => recorded.header.position == position,
        // A newer version's event says at least that it is one.
        Err(_) => message.headers.get("Content-Type").is_some_and(|kind| kind.as_str() == CONTENT_TYPE),
    })
}

/// Whether the message at a position is the journal's event there.
async fn same<J: Journal>(context: &Context, journal: &J, position: Position) -> Result<bool, Doubt> {
    let Some(message) = message_at(context, position).await? else { return Ok(false) };
    let before = Position::new(position.get() - 1);
    let entries = journal.read(before, 1).await.map_err(RelayError::from)?;
    let id = message.headers.get(async_nats::header::NATS_MESSAGE_ID).map(ToString::to_string);
    Ok(entries.first().is_some_and(|entry| entry.body == message.payload && id == Some(entry.event_id.to_string())))
}

/// Has the stream republish what it stores, if it does not yet: a rebuild may have been interrupted.
pub(super) async fn ensure_republish(context: &Context) -> Result<(), Doubt> {
    let republishes = info(context).await?.is_some_and(|info| info.config.republish.is_some());
    if !republishes {
        context.update_stream(config(true)).await.map_err(|error| Doubt::Stream(error.into()))?;
    }
    Ok(())
}

/// Deletes the stream and fills a new one from the journal. Followers have had these events: it does
/// not republish until it is full.
pub(super) async fn recreate<J: Journal>(context: &Context, journal: &J) -> Result<(), Doubt> {
    let failed = |error: async_nats::Error| Doubt::Stream(error);
    if info(context).await?.is_some() {
        context.delete_stream(STREAM).await.map_err(|error| failed(error.into()))?;
    }
    context.create_stream(config(false)).await.map_err(|error| failed(error.into()))?;
    let mut last = Position::ZERO;
    loop {
        let entries = journal.read(last, CHUNK).await.map_err(RelayError::from)?;
        let Some(end) = entries.last() else { return Ok(()) };
        last = end.position;
        let mut acks = Vec::with_capacity(entries.len());
        for entry in &entries {
            let message = message(entry)?.expected_last_sequence(entry.position.get() - 1);
            acks.push(context.send_publish(subject_of(entry)?, message).await.map_err(Doubt::Publish)?);
        }
        for ack in acks {
            ack.await.map_err(Doubt::Publish)?;
        }
    }
}
