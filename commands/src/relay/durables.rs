//! The durable consumers of a stream that has to be rebuilt. They are saved before the stream is deleted and created
//! again afterwards, so that no consumer loses an event, or receives one again below its acknowledgement floor.
//!
//! Consumers are read and written as the server's JSON, so that no setting is lost.
//!
//! Cancel-safety: both functions may be dropped at any await and called again.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::response::Response;
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use serde_json::{Value, json};

use super::notes::{NoteError, Notes, SavedConsumer};

/// A consumer that is being restored is paused until this time, which also distinguishes it from one that another
/// client has paused.
const PAUSED: &str = "2199-12-31T00:00:00Z";

/// After this time the server has stored a consumer's position; it does so within two seconds.
const SETTLED: Duration = Duration::from_secs(10);

/// Consumers cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum DurablesError {
    #[error("cannot manage the durable consumers of `{STREAM}`")]
    Nats(#[source] async_nats::Error),
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl From<async_nats::Error> for DurablesError {
    fn from(error: async_nats::Error) -> Self {
        Self::Nats(error)
    }
}

/// Saves the durable consumers of the stream in `context`. From `differs` on the stream has other messages than the
/// event store, so acknowledgements from there on do not count.
///
/// # Errors
/// If the server or the disk fails; the stream must not be deleted then.
pub async fn save(
    context: &Context,
    notes: &Notes,
    account: &str,
    differs: Option<Position>,
) -> Result<(), DurablesError> {
    // Those that an interrupted attempt has not restored yet.
    let mut consumers = notes.consumers(account)?;
    for mut found in list(context).await? {
        if let Some(saved) = consumers.iter_mut().find(|saved| name(saved) == name(&found)) {
            found.floor = found.floor.max(saved.floor);
            *saved = found;
        } else {
            consumers.push(found);
        }
    }
    if let Some(differs) = differs {
        for consumer in &mut consumers {
            consumer.floor = consumer.floor.min(differs.get().saturating_sub(1));
        }
    }
    Ok(notes.set_consumers(account, &consumers)?)
}

/// Restores the saved consumers on the stream in `context`. It has to be called again from time to time: the server
/// stores a consumer's position with a delay, and the saved copy is deleted only after that.
///
/// # Errors
/// If the server or the disk fails; it can be tried again.
pub async fn restore(context: &Context, notes: &Notes, account: &str) -> Result<(), DurablesError> {
    let consumers = notes.consumers(account)?;
    if consumers.is_empty() {
        return Ok(());
    }
    let again = notes.restored(account);
    let mut moved = again.is_none();
    for consumer in &consumers {
        moved |= restore_one(context, consumer, again.is_some()).await?;
    }
    if moved {
        tracing::info!(account, consumers = consumers.len(), "durable consumers are restored at their positions");
        notes.set_restored(account)?;
    } else if again.is_some_and(|age| age >= SETTLED) {
        notes.set_consumers(account, &[])?;
    }
    Ok(())
}

/// Whether saved consumers are still to be restored, so that not all consumers of the stream exist.
///
/// # Errors
/// If the disk fails.
pub fn are_to_be_restored(notes: &Notes, account: &str) -> Result<bool, NoteError> {
    Ok(notes.restored(account).is_none() && !notes.consumers(account)?.is_empty())
}

/// Forgets a consumer that was saved and is restored, because it is about to be deleted: another one of its name must
/// not get its position.
///
/// # Errors
/// If the disk fails.
pub fn forget(notes: &Notes, account: &str, consumer: &str) -> Result<(), NoteError> {
    notes.forget_consumer(account, |saved| name(saved) == consumer)
}

fn name(consumer: &SavedConsumer) -> &str {
    consumer.config.get("durable_name").and_then(Value::as_str).unwrap_or_default()
}

async fn list(context: &Context) -> Result<Vec<SavedConsumer>, async_nats::Error> {
    let mut consumers = Vec::new();
    let mut offset = 0;
    loop {
        let page = api(context, &format!("CONSUMER.LIST.{STREAM}"), &json!({"offset": offset})).await?;
        let infos = page.get("consumers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        offset += infos.len();
        consumers.extend(infos.iter().filter_map(durable));
        let total = page.get("total").and_then(Value::as_u64).unwrap_or_default();
        if infos.is_empty() || offset as u64 >= total {
            return Ok(consumers);
        }
    }
}

fn durable(info: &Value) -> Option<SavedConsumer> {
    let mut config = info.get("config")?.clone();
    config.get("durable_name")?.as_str()?;
    if config.get("pause_until").and_then(Value::as_str) == Some(PAUSED) {
        config.as_object_mut()?.remove("pause_until");
    }
    Some(SavedConsumer { config, floor: floor(info) })
}

fn floor(info: &Value) -> u64 {
    info.pointer("/ack_floor/stream_seq").and_then(Value::as_u64).unwrap_or_default()
}

/// Creates or moves a consumer if necessary. Returns whether it did. One that was restored before (`again`) and no
/// longer exists was deleted by its owner.
async fn restore_one(context: &Context, consumer: &SavedConsumer, again: bool) -> Result<bool, async_nats::Error> {
    let name = name(consumer);
    match api(context, &format!("CONSUMER.INFO.{STREAM}.{name}"), &json!({})).await {
        Err(error) if again && not_found(&error) => return Ok(false),
        Err(error) if not_found(&error) => {
            let mut paused = consumer.config.clone();
            paused.as_object_mut().map(|config| config.insert("pause_until".to_owned(), PAUSED.into()));
            create(context, name, &paused).await?;
        }
        Err(error) => return Err(error),
        // Its owner created it again, or an interrupted attempt did.
        Ok(info) if floor(&info) >= consumer.floor => {
            resume(context, consumer, &info).await?;
            return Ok(false);
        }
        Ok(_) => {}
    }
    let next = consumer.floor + 1;
    let reset = api(context, &format!("CONSUMER.RESET.{STREAM}.{name}"), &json!({"seq": next})).await;
    match reset {
        Ok(_) => {
            let info = api(context, &format!("CONSUMER.INFO.{STREAM}.{name}"), &json!({})).await?;
            resume(context, consumer, &info).await?;
        }
        // A server before 2.14, or a consumer that does not deliver from the beginning: it is created to start there.
        Err(error) => {
            tracing::debug!(%error, consumer = name, "the consumer cannot be moved and is created again");
            api(context, &format!("CONSUMER.DELETE.{STREAM}.{name}"), &json!({})).await?;
            let mut config = consumer.config.clone();
            if let Some(config) = config.as_object_mut() {
                config.remove("opt_start_time");
                config.insert("deliver_policy".to_owned(), "by_start_sequence".into());
                config.insert("opt_start_seq".to_owned(), next.into());
            }
            create(context, name, &config).await?;
        }
    }
    Ok(true)
}

async fn create(context: &Context, name: &str, config: &Value) -> Result<(), async_nats::Error> {
    let request = json!({"stream_name": STREAM, "config": config, "action": "create"});
    api(context, &format!("CONSUMER.CREATE.{STREAM}.{name}"), &request).await?;
    Ok(())
}

/// Ends the pause set while it was restored.
async fn resume(context: &Context, consumer: &SavedConsumer, info: &Value) -> Result<(), async_nats::Error> {
    if info.pointer("/config/pause_until").and_then(Value::as_str) == Some(PAUSED) {
        let until = consumer.config.get("pause_until").cloned();
        let request = until.map_or_else(|| json!({}), |until| json!({"pause_until": until}));
        api(context, &format!("CONSUMER.PAUSE.{STREAM}.{}", name(consumer)), &request).await?;
    }
    Ok(())
}

async fn api(context: &Context, subject: &str, request: &Value) -> Result<Value, async_nats::Error> {
    match context.request(subject.to_owned(), request).await? {
        Response::Ok(answer) => Ok(answer),
        Response::Err { error } => Err(error.into()),
    }
}

fn not_found(error: &async_nats::Error) -> bool {
    let error = error.downcast_ref::<async_nats::jetstream::Error>();
    error.is_some_and(|error| error.error_code() == async_nats::jetstream::ErrorCode::CONSUMER_NOT_FOUND)
}
