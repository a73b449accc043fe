//! Promises of the relay about a stream that is not the journal's copy: one that is gone, foreign or broken is made
//! anew; one that has events which the journal lacks is left alone.

use std::fs;
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
use otherix_transport::Nats;

use super::relay::{Line, assert_copy, carry, connect};
use super::support::{DEADLINE, Place, Running, create};

/// Where strangers publish.
const FOREIGN: &str = "otherix.evt.v1.foreign";

/// Publishes past the relay, under an id, or as a stranger would.
pub(crate) async fn publish(connection: &Nats, subject: &str, payload: &str, id: Option<&str>) -> u64 {
    let context = connection.jetstream();
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert("Content-Type", "application/cloudevents+json");
        headers.insert("Nats-Msg-Id", id);
    }
    let ack = context.publish_with_headers(subject.to_owned(), headers, payload.to_owned().into()).await.unwrap();
    ack.await.unwrap().sequence
}

async fn three_events(server: &NatsServer, place: &Place) -> (Nats, Line) {
    let connection = connect(server).await;
    let line = Line::start(place, &connection).await;
    for name in ["a", "b", "c"] {
        line.lab.execute(create(name)).await.unwrap();
    }
    line.carried().await;
    (connection, line)
}

async fn stop(line: Line) -> Arc<otherix_commands::store::SqliteStore> {
    let journal = line.lab.stop().await;
    line.relay.await.unwrap().unwrap();
    journal
}

#[tokio::test]
async fn rebuilds_a_deleted_stream() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    connection.jetstream().delete_stream(STREAM).await.unwrap();

    line.lab.execute(create("d")).await.unwrap();

    line.carried().await;
    assert_eq!(assert_copy(&server, &place).await, 4);
    assert_eq!(line.relayed.borrow().rebuilds, 1);
    // And it lives: followers are told of what comes next.
    let mut live = connection.client().subscribe("live.otherix.>").await.unwrap();
    line.lab.execute(create("e")).await.unwrap();
    let message = futures::StreamExt::next(&mut live).await.unwrap();
    assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), "5");
}

#[tokio::test]
async fn rebuilds_a_stream_with_foreign_messages() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    for (foreign, name) in [(1, "d"), (3, "e")] {
        for _ in 0..foreign {
            publish(&connection, FOREIGN, "foreign", None).await;
        }
        line.lab.execute(create(name)).await.unwrap();
        line.carried().await;
    }
    assert_eq!(assert_copy(&server, &place).await, 5);
    assert_eq!(line.relayed.borrow().rebuilds, 2);
    // Behind the end, while no relay runs: nobody has lost an event.
    let journal = stop(line).await;
    publish(&connection, FOREIGN, "foreign", None).await;
    carry(&place, &journal, &connection, 5).run().await.unwrap();
    assert_eq!(assert_copy(&server, &place).await, 5);
}

#[tokio::test]
async fn rebuilds_the_stream_of_another_journal() {
    let server = NatsServer::start();
    let (_, line) = three_events(&server, &Place::new()).await;
    stop(line).await;
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    for name in ["d", "e", "f", "g"] {
        lab.execute(create(name)).await.unwrap();
    }
    carry(&place, &lab.stop().await, &connect(&server).await, 4).run().await.unwrap();
    assert_eq!(assert_copy(&server, &place).await, 4);
}

#[tokio::test]
async fn rebuilds_a_purged_stream() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    let journal = stop(line).await;
    let context = connection.jetstream();
    let mut config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    assert!(config.deny_purge && config.deny_delete, "nobody empties it by accident");
    config.first_sequence = Some(4);
    replace(&context, &config).await;

    carry(&place, &journal, &connection, 3).run().await.unwrap();

    assert_eq!(assert_copy(&server, &place).await, 3);
}

#[tokio::test]
async fn does_not_change_a_stream_ahead_of_the_journal() {
    let (server, place) = (NatsServer::start(), Place::new());
    let lab = Running::start(place.open().await).await;
    for name in ["a", "b", "c"] {
        lab.execute(create(name)).await.unwrap();
    }
    lab.stop().await.close().await;
    let backup = Place::new();
    fs::copy(place.path(), backup.path()).unwrap();
    let connection = connect(&server).await;
    let line = Line::start(&place, &connection).await;
    line.lab.execute(create("d")).await.unwrap();
    line.carried().await;
    stop(line).await;

    let restored = Arc::new(backup.open().await);
    assert_eq!(restored.head().await.unwrap(), Position::new(3));
    let error = carry(&backup, &restored, &connection, 3).run().await.unwrap_err();

    let expected = (Position::new(4), Position::new(3));
    assert!(matches!(error, RelayError::Ahead { stream, journal } if (stream, journal) == expected), "{error}");
    assert_eq!(assert_copy(&server, &place).await, 4);
    // The same if the events ahead are of a version that this one cannot read.
    let journal = Running::start(place.open().await).await.stop().await;
    const NEWER: &str = "0198e8c4-0000-7000-8000-000000000002";
    let id = place.sql("SELECT event_id FROM events WHERE position = 4");
    let newer = |position: u64| {
        let last = place.sql("SELECT body FROM events WHERE position = 4");
        let event = last.trim().replace(".created.v1", ".created.v9").replace(id.trim(), NEWER);
        event.replace("00000000000000000004", &format!("{position:020}"))
    };
    publish(&connection, FOREIGN, &newer(5), Some(NEWER)).await;
    let error = carry(&place, &journal, &connection, 4).run().await.unwrap_err();
    assert!(matches!(error, RelayError::Ahead { .. }), "{error}");
}

#[tokio::test]
async fn a_forged_event_does_not_stop_the_relay() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    let journal = stop(line).await;
    let id = place.sql("SELECT event_id FROM events WHERE position = 3");
    // Our headers, no event; an event's bytes at another position; an event's bytes under no id.
    let copy = place.sql("SELECT body FROM events WHERE position = 3");
    publish(&connection, FOREIGN, "{}", Some(id.trim())).await;
    publish(&connection, FOREIGN, copy.trim(), Some(id.trim())).await;
    publish(&connection, FOREIGN, &copy.trim().replace("00000000000000000003", "00000000000000000006"), None).await;

    carry(&place, &journal, &connection, 3).run().await.unwrap();

    assert_eq!(assert_copy(&server, &place).await, 3);
}

/// Puts an empty stream in the place of the one there is. The server may still be removing the old one's folder, and
/// then refuses the new one.
async fn replace(context: &Context, config: &Config) {
    context.delete_stream(STREAM).await.unwrap();
    let made = async || context.create_stream(config.clone()).await.is_ok();
    wait_for(DEADLINE, "the stream anew", made).await;
}

#[tokio::test]
async fn detects_altered_bytes_under_the_right_ids() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    let journal = stop(line).await;
    let context = connection.jetstream();
    let config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    replace(&context, &config).await;
    for position in 1..=3 {
        let body = place.sql(&format!("SELECT body FROM events WHERE position = {position}"));
        let id = place.sql(&format!("SELECT event_id FROM events WHERE position = {position}"));
        let network = place.sql(&format!("SELECT substr(stream_id, 9) FROM events WHERE position = {position}"));
        let body = if position == 2 { body.replace("10.7.0.0", "10.9.0.0") } else { body };
        let subject = format!("otherix.evt.v1.network.created.{}", network.trim());
        publish(&connection, &subject, body.trim(), Some(id.trim())).await;
    }

    carry(&place, &journal, &connection, 3).run().await.unwrap();

    assert_eq!(assert_copy(&server, &place).await, 3);
}

#[tokio::test]
async fn does_not_change_a_diverged_stream() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    stop(line).await.close().await;
    let backup = Place::new();
    fs::copy(place.path(), backup.path()).unwrap();
    let line = Line::start(&place, &connection).await;
    line.lab.execute(create("d")).await.unwrap();
    line.carried().await;
    stop(line).await;
    let other = Running::start(backup.open().await).await;
    for name in ["x", "y"] {
        other.execute(create(name)).await.unwrap();
    }
    let other = other.stop().await;

    let error = carry(&backup, &other, &connection, 5).run().await.unwrap_err();

    assert!(matches!(error, RelayError::Diverged { position } if position.get() == 4), "{error}");
    assert_eq!(assert_copy(&server, &place).await, 4);
}

#[tokio::test]
async fn resets_changed_limits_and_restores_deleted_messages() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    let context = connection.jetstream();
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
            // What earlier versions had: every event would be heard twice.
            config.republish =
                Some(Republish { source: ">".to_owned(), destination: "live.>".to_owned(), headers_only: false });
        },
        |config| config.sealed = true,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        // The relay may just be making the stream anew for what the change before took, and the stream be another at
        // once.
        wait_for(DEADLINE, "somebody's definition", async || {
            let found = context.get_stream(STREAM).await.map_err(|error| error.to_string())?;
            let mut changed = found.cached_info().config.clone();
            change(&mut changed);
            context.update_stream(changed).await.map_err(|error| error.to_string())
        })
        .await;
        if number % 2 == 0 {
            line.lab.execute(create(&format!("net-{number}"))).await.unwrap();
        }
        // Nobody asks for anything: it is noticed all the same.
        wait_for(DEADLINE, "our definition", async || match context.get_stream(STREAM).await {
            Ok(stream) if stream.cached_info().config == ours => Ok(()),
            Ok(stream) => Err(format!("{:?}", stream.cached_info().config)),
            Err(error) => Err(error.to_string()),
        })
        .await;
        line.carried().await;
        let whole = async || {
            let state =
                context.get_stream(STREAM).await.map_err(|error| error.to_string())?.cached_info().state.clone();
            if state.messages == line.lab.durable.borrow().position.get() { Ok(()) } else { Err(format!("{state:?}")) }
        };
        wait_for(DEADLINE, "all events", whole).await;
    }
    assert_eq!(assert_copy(&server, &place).await, 5);
}

#[tokio::test]
async fn detects_a_foreign_message_while_idle() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    publish(&connection, FOREIGN, "foreign", None).await;
    wait_for(DEADLINE, "a new stream", async || line.relayed.borrow().rebuilds == 1).await;
    assert_eq!(assert_copy(&server, &place).await, 3);
}

#[tokio::test]
async fn live_subscribers_receive_no_event_twice() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    let mut live = connection.client().subscribe("live.>").await.unwrap();
    let context = connection.jetstream();
    for name in ["d", "e"] {
        let before = line.relayed.borrow().settled;
        context.delete_stream(STREAM).await.unwrap();
        if name == "e" {
            // Also what is decided while there is no stream is heard.
            wait_for(DEADLINE, "a new stream", async || line.relayed.borrow().settled > before).await;
        }
        line.lab.execute(create(name)).await.unwrap();
        let message = tokio::time::timeout(DEADLINE, futures::StreamExt::next(&mut live)).await.unwrap().unwrap();
        let position = line.lab.durable.borrow().position;
        assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), position.to_string());
        // Before there is a stream again.
        line.carried().await;
    }
    assert_eq!(assert_copy(&server, &place).await, 5);
}

/// Makes durable consumers, acknowledges some of what they get; later says what they get then.
const DURABLES: &str = include_str!("durables.py");

#[tokio::test]
async fn durable_consumers_are_restored_at_their_positions() {
    let (server, place) = (NatsServer::start(), Place::new());
    let connection = connect(&server).await;
    let line = Line::start(&place, &connection).await;
    for n in 0..20 {
        line.lab.execute(create(&format!("net-{n}"))).await.unwrap();
    }
    line.carried().await;
    let configurations = nats_py(DURABLES, &[&server.url(), "begin"]).await;
    // Foreign messages behind the end: whoever acknowledged them has not had the events that come there.
    publish(&connection, FOREIGN, "foreign", None).await;
    nats_py(DURABLES, &[&server.url(), "acknowledge"]).await;
    line.lab.execute(create("behind")).await.unwrap();
    wait_for(DEADLINE, "a new stream", async || line.relayed.borrow().rebuilds > 0).await;
    line.carried().await;
    assert_eq!(assert_copy(&server, &place).await, 21);
    assert_eq!(nats_py(DURABLES, &[&server.url(), "end"]).await, configurations);
}

#[tokio::test]
async fn continues_after_nats_was_killed_during_a_rebuild() {
    const EVENTS: u64 = 6_000;
    let (mut server, place) = (NatsServer::start(), Place::new());
    let connection = connect(&server).await;
    let lab = Running::start(place.open().await).await;
    futures::future::join_all((0..EVENTS).map(async |n| lab.execute(create(&format!("net-{n}"))).await.unwrap())).await;
    let journal = lab.stop().await;
    carry(&place, &journal, &connection, EVENTS).run().await.unwrap();
    nats_py(DURABLES, &[&server.url(), "begin"]).await;
    let mut live = connection.client().subscribe("live.>").await.unwrap();
    publish(&connection, FOREIGN, "foreign", None).await;
    let relay = carry(&place, &journal, &connection, EVENTS);
    let relayed = relay.relayed();
    let relay = tokio::spawn(relay.run());
    let mut context = connection.jetstream();
    context.set_timeout(Duration::from_millis(300));
    // A server that is killed forgets what was acknowledged in the last two seconds; this is about what we forget.
    let noted = place.path().with_file_name("relay/consumers-control.json");
    wait_for(DEADLINE, "the note", async || noted.exists()).await;
    for part in 0..4 {
        let filled = async || match context.get_stream(STREAM).await {
            Ok(stream) => stream.cached_info().state.last_sequence >= part * EVENTS / 5,
            Err(_) => part == 0,
        };
        wait_for(DEADLINE, "some of it", filled).await;
        server.kill9();
        server.restart();
    }
    relay.await.unwrap().unwrap();
    assert_eq!(assert_copy(&server, &place).await, EVENTS);
    assert!(relayed.borrow().rebuilds >= 1);
    nats_py(DURABLES, &[&server.url(), "end"]).await;
    let foreign = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut live)).flatten();
    assert!(foreign.is_none_or(|message| message.payload == "foreign"), "followers heard old events");
}
