//! The relay when the stream is not a copy of the journal: a stream that is missing, foreign or damaged is rebuilt; one
//! with events that the journal lacks is not changed.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish};
use otherix_commands::relay::RelayError;
use otherix_commands::store::EventStore;
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::JetStream;

use super::relay::{Pipeline, assert_copy, connect, one_shot_relay};
use super::support::{DEADLINE, JournalFolder, RunningWriter, create};

/// The subject of foreign messages.
const FOREIGN: &str = "otherix.evt.v1.foreign";

/// Publishes to the stream, bypassing the relay: with the headers of an event if there is an id.
pub(crate) async fn publish(connection: &JetStream, subject: &str, payload: &str, id: Option<&str>) -> u64 {
    let context = connection.context();
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert("Content-Type", "application/cloudevents+json");
        headers.insert("Nats-Msg-Id", id);
    }
    let ack = context.publish_with_headers(subject.to_owned(), headers, payload.to_owned().into()).await.unwrap();
    ack.await.unwrap().sequence
}

async fn three_events(server: &NatsServer, folder: &JournalFolder) -> (JetStream, Pipeline) {
    let connection = connect(server).await;
    let pipeline = Pipeline::start(folder, &connection).await;
    for name in ["a", "b", "c"] {
        pipeline.writer.execute(create(name)).await.unwrap();
    }
    pipeline.caught_up().await;
    (connection, pipeline)
}

async fn stop(pipeline: Pipeline) -> Arc<otherix_commands::store::SqliteStore> {
    let journal = pipeline.writer.stop().await;
    pipeline.relay.await.unwrap().unwrap();
    journal
}

#[tokio::test]
async fn rebuilds_a_deleted_stream() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    connection.context().delete_stream(STREAM).await.unwrap();

    pipeline.writer.execute(create("d")).await.unwrap();

    pipeline.caught_up().await;
    assert_eq!(assert_copy(&server, &folder).await, 4);
    assert_eq!(pipeline.relayed.borrow().rebuilds, 1);
    // Live subscribers still receive later events.
    let mut live = connection.client().subscribe("live.otherix.>").await.unwrap();
    pipeline.writer.execute(create("e")).await.unwrap();
    let message = futures::StreamExt::next(&mut live).await.unwrap();
    assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), "5");
}

#[tokio::test]
async fn rebuilds_a_stream_with_foreign_messages() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    for (foreign, name) in [(1, "d"), (3, "e")] {
        for _ in 0..foreign {
            publish(&connection, FOREIGN, "foreign", None).await;
        }
        pipeline.writer.execute(create(name)).await.unwrap();
        pipeline.caught_up().await;
    }
    assert_eq!(assert_copy(&server, &folder).await, 5);
    assert_eq!(pipeline.relayed.borrow().rebuilds, 2);
    // A foreign message after the last event, while no relay runs, is not an event that the journal lacks.
    let journal = stop(pipeline).await;
    publish(&connection, FOREIGN, "foreign", None).await;
    one_shot_relay(&folder, &journal, &connection, 5).run().await.unwrap();
    assert_eq!(assert_copy(&server, &folder).await, 5);
}

#[tokio::test]
async fn rebuilds_the_stream_of_another_journal() {
    let server = NatsServer::start();
    let (_, pipeline) = three_events(&server, &JournalFolder::new()).await;
    stop(pipeline).await;
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    for name in ["d", "e", "f", "g"] {
        writer.execute(create(name)).await.unwrap();
    }
    one_shot_relay(&folder, &writer.stop().await, &connect(&server).await, 4).run().await.unwrap();
    assert_eq!(assert_copy(&server, &folder).await, 4);
}

#[tokio::test]
async fn rebuilds_a_purged_stream() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    let journal = stop(pipeline).await;
    let context = connection.context();
    let mut config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    assert!(config.deny_purge && config.deny_delete, "it could be purged by accident");
    config.first_sequence = Some(4);
    replace(&context, &config).await;

    one_shot_relay(&folder, &journal, &connection, 3).run().await.unwrap();

    assert_eq!(assert_copy(&server, &folder).await, 3);
}

#[tokio::test]
async fn does_not_change_a_stream_ahead_of_the_journal() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let writer = RunningWriter::start(folder.open().await).await;
    for name in ["a", "b", "c"] {
        writer.execute(create(name)).await.unwrap();
    }
    writer.stop().await.close().await;
    let backup = JournalFolder::new();
    folder.copy(backup.path());
    let connection = connect(&server).await;
    let pipeline = Pipeline::start(&folder, &connection).await;
    pipeline.writer.execute(create("d")).await.unwrap();
    pipeline.caught_up().await;
    stop(pipeline).await;

    let restored = Arc::new(backup.open().await);
    assert_eq!(restored.head().await.unwrap(), Position::new(3));
    let error = one_shot_relay(&backup, &restored, &connection, 3).run().await.unwrap_err();

    let expected = (Position::new(4), Position::new(3));
    assert!(matches!(error, RelayError::Ahead { stream, journal } if (stream, journal) == expected), "{error}");
    assert_eq!(assert_copy(&server, &folder).await, 4);
    // The same if the events ahead are of a version that this one cannot read.
    let journal = RunningWriter::start(folder.open().await).await.stop().await;
    const NEWER: &str = "0198e8c4-0000-7000-8000-000000000002";
    let id = folder.sql("SELECT event_id FROM events WHERE position = 4");
    let newer = |position: u64| {
        let last = folder.sql("SELECT body FROM events WHERE position = 4");
        let event = last.trim().replace(".created.v1", ".created.v9").replace(id.trim(), NEWER);
        event.replace("00000000000000000004", &format!("{position:020}"))
    };
    publish(&connection, FOREIGN, &newer(5), Some(NEWER)).await;
    let error = one_shot_relay(&folder, &journal, &connection, 4).run().await.unwrap_err();
    assert!(matches!(error, RelayError::Ahead { .. }), "{error}");
}

#[tokio::test]
async fn a_forged_event_does_not_stop_the_relay() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    let journal = stop(pipeline).await;
    let id = folder.sql("SELECT event_id FROM events WHERE position = 3");
    // An event's headers without an event; an event's bytes at another position; an event's bytes without an id.
    let copy = folder.sql("SELECT body FROM events WHERE position = 3");
    publish(&connection, FOREIGN, "{}", Some(id.trim())).await;
    publish(&connection, FOREIGN, copy.trim(), Some(id.trim())).await;
    publish(&connection, FOREIGN, &copy.trim().replace("00000000000000000003", "00000000000000000006"), None).await;

    one_shot_relay(&folder, &journal, &connection, 3).run().await.unwrap();

    assert_eq!(assert_copy(&server, &folder).await, 3);
}

/// Replaces the stream by an empty one. The server refuses the new one while it is removing the old one's folder.
async fn replace(context: &Context, config: &Config) {
    context.delete_stream(STREAM).await.unwrap();
    let is_created = async || context.create_stream(config.clone()).await.is_ok();
    wait_for(DEADLINE, "the new stream", is_created).await;
}

#[tokio::test]
async fn detects_altered_bytes_under_the_right_ids() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    let journal = stop(pipeline).await;
    let context = connection.context();
    let config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    replace(&context, &config).await;
    for position in 1..=3 {
        let body = folder.sql(&format!("SELECT body FROM events WHERE position = {position}"));
        let id = folder.sql(&format!("SELECT event_id FROM events WHERE position = {position}"));
        let network = folder.sql(&format!("SELECT substr(stream_id, 9) FROM events WHERE position = {position}"));
        let body = if position == 2 { body.replace("10.7.0.0", "10.9.0.0") } else { body };
        let subject = format!("otherix.evt.v1.network.created.{}", network.trim());
        publish(&connection, &subject, body.trim(), Some(id.trim())).await;
    }

    one_shot_relay(&folder, &journal, &connection, 3).run().await.unwrap();

    assert_eq!(assert_copy(&server, &folder).await, 3);
}

#[tokio::test]
async fn does_not_change_a_diverged_stream() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    stop(pipeline).await.close().await;
    let backup = JournalFolder::new();
    folder.copy(backup.path());
    let pipeline = Pipeline::start(&folder, &connection).await;
    pipeline.writer.execute(create("d")).await.unwrap();
    pipeline.caught_up().await;
    stop(pipeline).await;
    let other = RunningWriter::start(backup.open().await).await;
    for name in ["x", "y"] {
        other.execute(create(name)).await.unwrap();
    }
    let other = other.stop().await;

    let error = one_shot_relay(&backup, &other, &connection, 5).run().await.unwrap_err();

    assert!(matches!(error, RelayError::Diverged { position } if position.get() == 4), "{error}");
    assert_eq!(assert_copy(&server, &folder).await, 4);
}

#[tokio::test]
async fn resets_changed_limits_and_restores_deleted_messages() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    let context = connection.context();
    let ours = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    let changes: [fn(&mut Config); 4] = [
        |config| {
            config.max_messages = 2;
        },
        |config| {
            config.max_age = Duration::from_millis(200);
            config.duplicate_window = Duration::from_millis(100);
            config.discard = DiscardPolicy::New;
        },
        |config| {
            // As in earlier versions: live subscribers would receive every event twice.
            config.republish =
                Some(Republish { source: ">".to_owned(), destination: "live.>".to_owned(), headers_only: false });
        },
        |config| config.sealed = true,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        // The relay may still be rebuilding the stream after the previous change, which may replace it meanwhile.
        wait_for(DEADLINE, "the changed definition", async || {
            let found = context.get_stream(STREAM).await.map_err(|error| error.to_string())?;
            let mut changed = found.cached_info().config.clone();
            change(&mut changed);
            context.update_stream(changed).await.map_err(|error| error.to_string())
        })
        .await;
        if number % 2 == 0 {
            pipeline.writer.execute(create(&format!("net-{number}"))).await.unwrap();
        }
        // The relay detects the change even if no command is executed.
        wait_for(DEADLINE, "the required definition", async || match context.get_stream(STREAM).await {
            Ok(stream) if stream.cached_info().config == ours => Ok(()),
            Ok(stream) => Err(format!("{:?}", stream.cached_info().config)),
            Err(error) => Err(error.to_string()),
        })
        .await;
        pipeline.caught_up().await;
        let whole = async || {
            let state =
                context.get_stream(STREAM).await.map_err(|error| error.to_string())?.cached_info().state.clone();
            if state.messages == pipeline.writer.durable.borrow().position.get() {
                Ok(())
            } else {
                Err(format!("{state:?}"))
            }
        };
        wait_for(DEADLINE, "all events", whole).await;
    }
    assert_eq!(assert_copy(&server, &folder).await, 5);
}

#[tokio::test]
async fn detects_a_foreign_message_while_idle() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    publish(&connection, FOREIGN, "foreign", None).await;
    wait_for(DEADLINE, "a new stream", async || pipeline.relayed.borrow().rebuilds == 1).await;
    assert_eq!(assert_copy(&server, &folder).await, 3);
}

#[tokio::test]
async fn live_subscribers_receive_no_event_twice() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let (connection, pipeline) = three_events(&server, &folder).await;
    let mut live = connection.client().subscribe("live.>").await.unwrap();
    let context = connection.context();
    for name in ["d", "e"] {
        let before = pipeline.relayed.borrow().settled;
        context.delete_stream(STREAM).await.unwrap();
        if name == "e" {
            // For `d`, the command is executed while there is no stream.
            wait_for(DEADLINE, "a new stream", async || pipeline.relayed.borrow().settled > before).await;
        }
        pipeline.writer.execute(create(name)).await.unwrap();
        let message = tokio::time::timeout(DEADLINE, futures::StreamExt::next(&mut live)).await.unwrap().unwrap();
        let position = pipeline.writer.durable.borrow().position;
        assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), position.to_string());
        // Live subscribers receive the event before the stream has it.
        pipeline.caught_up().await;
    }
    assert_eq!(assert_copy(&server, &folder).await, 5);
}

/// Creates durable consumers and acknowledges some messages; later checks what they receive.
const DURABLES: &str = include_str!("durables.py");

#[tokio::test]
async fn durable_consumers_are_restored_at_their_positions() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let pipeline = Pipeline::start(&folder, &connection).await;
    for n in 0..20 {
        pipeline.writer.execute(create(&format!("net-{n}"))).await.unwrap();
    }
    pipeline.caught_up().await;
    let configurations = nats_py(DURABLES, &[&server.url(), "begin", "0"]).await;
    // A consumer that acknowledged a foreign message has not received the event that takes its sequence. The relay
    // would notice the message within a second, perhaps before it is acknowledged.
    stop(pipeline).await.close().await;
    publish(&connection, FOREIGN, "foreign", None).await;
    nats_py(DURABLES, &[&server.url(), "acknowledge", "0"]).await;
    let pipeline = Pipeline::start(&folder, &connection).await;
    wait_for(DEADLINE, "a new stream", async || pipeline.relayed.borrow().rebuilds > 0).await;
    pipeline.writer.execute(create("later")).await.unwrap();
    pipeline.caught_up().await;
    assert_eq!(assert_copy(&server, &folder).await, 21);
    assert_eq!(nats_py(DURABLES, &[&server.url(), "end", "0"]).await, configurations);
}

#[tokio::test]
async fn continues_after_nats_was_killed_during_a_rebuild() {
    const EVENTS: u64 = 6_000;
    let (mut server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let writer = RunningWriter::start(folder.open().await).await;
    futures::future::join_all((0..EVENTS).map(async |n| writer.execute(create(&format!("net-{n}"))).await.unwrap()))
        .await;
    let journal = writer.stop().await;
    one_shot_relay(&folder, &journal, &connection, EVENTS).run().await.unwrap();
    nats_py(DURABLES, &[&server.url(), "begin", "0"]).await;
    let mut live = connection.client().subscribe("live.>").await.unwrap();
    publish(&connection, FOREIGN, "foreign", None).await;
    let relay = one_shot_relay(&folder, &journal, &connection, EVENTS);
    let relayed = relay.relayed();
    let relay = tokio::spawn(relay.run());
    let mut context = connection.context();
    context.set_timeout(Duration::from_millis(300));
    // A killed server loses acknowledgements of the last two seconds; the note must exist before it is killed.
    let note = folder.path().with_file_name("relay/consumers-control.json");
    wait_for(DEADLINE, "the note", async || note.exists()).await;
    for part in 0..4 {
        let filled = async || match context.get_stream(STREAM).await {
            Ok(stream) => stream.cached_info().state.last_sequence >= part * EVENTS / 5,
            Err(_) => part == 0,
        };
        wait_for(DEADLINE, "a part of the stream", filled).await;
        server.kill9();
        server.restart();
    }
    relay.await.unwrap().unwrap();
    assert_eq!(assert_copy(&server, &folder).await, EVENTS);
    assert!(relayed.borrow().rebuilds >= 1);
    nats_py(DURABLES, &[&server.url(), "end", "0"]).await;
    let foreign = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut live)).flatten();
    assert!(foreign.is_none_or(|message| message.payload == "foreign"), "live subscribers received old events");
}
