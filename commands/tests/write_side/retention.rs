//! A stream with limits: it deletes its oldest events, and is a copy of the journal all the same, from some event on.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::State;
use otherix_commands::recovery::restore::{self, Evidence};
use otherix_commands::relay::{RelayError, StreamLimits, StreamSettings, Survey, survey};
use otherix_commands::store::replay;
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::wait::wait_for;

use super::recovery::{close, copy};
use super::relay::{Pipeline, assert_copy, connect, one_shot_relay_with};
use super::relay_repair::publish;
use super::support::{DEADLINE, JournalFolder, create};

/// So that events are deleted while a test waits.
const BY_AGE: StreamSettings =
    StreamSettings { replicas: None, limits: StreamLimits { max_age: Duration::from_millis(1_500), max_bytes: None } };

/// Some forty events.
const BY_SIZE: StreamSettings =
    StreamSettings { replicas: None, limits: StreamLimits { max_age: Duration::ZERO, max_bytes: Some(64 * 1024) } };

async fn state(context: &Context) -> State {
    context.get_stream(STREAM).await.unwrap().cached_info().state.clone()
}

/// Waits until the stream begins after this position.
async fn deleted(context: &Context, position: u64) {
    wait_for(DEADLINE, "events to be deleted", async || match state(context).await.first_sequence {
        first if first > position => Ok(()),
        first => Err(first),
    })
    .await;
}

/// Waits until the stream was made again, once, and then found to be a copy for the time with this number.
async fn rebuilt(pipeline: &Pipeline, settled: u64) {
    wait_for(DEADLINE, "a rebuild", async || {
        let now = *pipeline.relayed.borrow();
        if now.rebuilds == 1 && now.settled >= settled { Ok(()) } else { Err(now) }
    })
    .await;
}

async fn execute(pipeline: &Pipeline, names: impl Iterator<Item = String>) {
    for name in names {
        pipeline.writer.execute(create(&name)).await.unwrap();
    }
    pipeline.caught_up().await;
}

#[tokio::test]
async fn events_that_are_too_old_are_deleted_and_the_stream_goes_on() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let context = connection.context();
    let pipeline = Pipeline::start_with(&folder, &connection, BY_AGE).await;
    execute(&pipeline, (0..5).map(|n| format!("old-{n}"))).await;
    deleted(&context, 5).await;
    assert_eq!((state(&context).await.messages, state(&context).await.last_sequence), (0, 5));

    // An empty stream is no lost one, neither for the relay that runs nor for the next one.
    execute(&pipeline, std::iter::once("new-0".to_owned())).await;
    assert_eq!(state(&context).await.last_sequence, 6, "sequence and position differ");
    let settled = pipeline.relayed.borrow().settled;
    deleted(&context, 6).await;
    wait_for(DEADLINE, "an inspection", async || pipeline.relayed.borrow().position == Position::new(6)).await;
    assert_eq!((pipeline.relayed.borrow().rebuilds, pipeline.relayed.borrow().settled), (0, settled));
    close(pipeline).await;
    let pipeline = Pipeline::start_with(&folder, &connection, BY_AGE).await;
    execute(&pipeline, ["new-1".to_owned(), "new-2".to_owned()].into_iter()).await;
    assert_eq!((pipeline.relayed.borrow().rebuilds, state(&context).await.last_sequence), (0, 8));

    // Nor does a rebuild store again what is too old.
    context.delete_stream(STREAM).await.unwrap();
    rebuilt(&pipeline, 2).await;
    execute(&pipeline, std::iter::once("new-3".to_owned())).await;
    let state = state(&context).await;
    assert!(state.first_sequence > 5 && state.last_sequence == 9, "{state:?}");
    close(pipeline).await;
    assert_eq!(folder.sql("SELECT count(*) FROM events"), "9\n", "the journal keeps all");
}

#[tokio::test]
async fn a_stream_that_is_too_large_is_a_copy_of_the_newest_events() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let context = connection.context();
    let pipeline = Pipeline::start_with(&folder, &connection, BY_SIZE).await;
    execute(&pipeline, (0..120).map(|n| format!("net-{n}"))).await;
    deleted(&context, 10).await;
    let first = state(&context).await.first_sequence;
    let compared = survey(&context, pipeline.writer.journal.as_ref()).await.unwrap();
    let expected = Survey { last: Position::new(120), first: Some(Position::new(first)), ..Survey::default() };
    assert_eq!(compared, expected);

    // A message of somebody else is found, and the stream rebuilt.
    publish(&connection, "otherix.evt.v1.foreign", "foreign", None).await;
    rebuilt(&pipeline, 2).await;
    let compared = survey(&context, pipeline.writer.journal.as_ref()).await.unwrap();
    assert_eq!((compared.differs, compared.last), (None, Position::new(120)));
    close(pipeline).await;

    // Without limits, it becomes complete.
    let pipeline = Pipeline::start_with(&folder, &connection, StreamSettings::default()).await;
    rebuilt(&pipeline, 1).await;
    assert_eq!(assert_copy(&server, &folder).await, 120);
    close(pipeline).await;
}

#[tokio::test]
async fn a_limit_that_is_set_later_deletes_and_rebuilds_nothing() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let context = connection.context();
    let pipeline = Pipeline::start(&folder, &connection).await;
    execute(&pipeline, (0..120).map(|n| format!("net-{n}"))).await;
    close(pipeline).await;
    let created = context.get_stream(STREAM).await.unwrap().cached_info().created;

    let pipeline = Pipeline::start_with(&folder, &connection, BY_SIZE).await;
    execute(&pipeline, std::iter::once("last".to_owned())).await;

    deleted(&context, 10).await;
    assert_eq!((pipeline.relayed.borrow().rebuilds, state(&context).await.last_sequence), (0, 121));
    assert_eq!(context.get_stream(STREAM).await.unwrap().cached_info().created, created);
    close(pipeline).await;
}

#[tokio::test]
async fn a_stream_that_was_ahead_of_a_backup_is_not_taken_for_its_copy_when_it_is_empty() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let context = connection.context();
    let pipeline = Pipeline::start_with(&folder, &connection, BY_AGE).await;
    execute(&pipeline, (0..3).map(|n| format!("kept-{n}"))).await;
    close(pipeline).await;
    let backup = copy(&folder);
    let pipeline = Pipeline::start_with(&folder, &connection, BY_AGE).await;
    execute(&pipeline, (0..2).map(|n| format!("lost-{n}"))).await;
    close(pipeline).await;
    deleted(&context, 5).await;

    let journal = std::sync::Arc::new(backup.open().await);
    let ended = one_shot_relay_with(&backup, &journal, &connection, (3, BY_AGE)).run().await;
    let is_ahead = |stream: &Position, journal: &Position| (stream.get(), journal.get()) == (5, 3);
    assert!(matches!(&ended, Err(RelayError::Ahead { stream, journal }) if is_ahead(stream, journal)), "{ended:?}");

    // What the deleted events have assigned is not assigned again: 1000 events that were never seen, and two.
    // A mirror that was just created has no event, and so has lost none.
    let streams = vec![survey(&context, journal.as_ref()).await.unwrap(), Survey::default()];
    assert_eq!((streams[0].deleted, streams[0].lost), (2, Some(Position::new(4))));
    let loaded = replay(journal.as_ref()).await.unwrap();
    let plan = restore::plan(&loaded, &Evidence { streams, ..Evidence::default() }).unwrap().unwrap();
    let vni = loaded.state.highest_vni().unwrap().get();
    assert_eq!((plan.first.get(), plan.highest_vni.map(|vni| vni.get())), (1_006, Some(vni + 1_002)));
}
