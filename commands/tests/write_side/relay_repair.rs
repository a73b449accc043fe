//! Promises of the relay about a stream that is not the journal's copy: one that is gone, foreign or broken is made anew; one
//! that has events which the journal lacks is left alone.

use std::fs;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream;
use otherix_commands::journal::Journal;
use otherix_commands::relay::RelayError;
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_testkit::nats::NatsServer;
use otherix_transport::Connection;

use super::relay::{Line, assert_copy, carry, connect};
use super::support::{Place, Running, create};

async fn publish(connection: &Connection, payload: &'static str, content_type: Option<&str>) -> u64 {
    let context = jetstream::new(connection.client().clone());
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        headers.insert("Content-Type", content_type);
    }
    let ack = context.publish_with_headers("otherix.evt.v1.foreign", headers, payload.into()).await.unwrap();
    ack.await.unwrap().sequence
}

async fn three_events(server: &NatsServer, place: &Place) -> (Connection, Line) {
    let connection = connect(server).await;
    let line = Line::start(place.open().await, &connection).await;
    for name in ["a", "b", "c"] {
        line.lab.ask(create(name)).await.unwrap();
    }
    line.carried().await;
    (connection, line)
}

async fn stop(line: Line) -> Arc<otherix_commands::journal::SqliteJournal> {
    let journal = line.lab.stop().await;
    line.relay.await.unwrap().unwrap();
    journal
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_filled_again() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    jetstream::new(connection.client().clone()).delete_stream(STREAM).await.unwrap();

    line.lab.ask(create("d")).await.unwrap();

    line.carried().await;
    assert_eq!(assert_copy(&server, &place).await, 4);
    assert_eq!(line.relayed.borrow().rebuilds, 1);
    // And it lives: what comes next is republished.
    let mut live = connection.client().subscribe("live.otherix.>").await.unwrap();
    line.lab.ask(create("e")).await.unwrap();
    let message = futures::StreamExt::next(&mut live).await.unwrap();
    assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), "5");
}

#[tokio::test]
async fn foreign_messages_in_the_stream_do_not_stay() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    for (foreign, name) in [(1, "d"), (3, "e")] {
        for _ in 0..foreign {
            publish(&connection, "foreign", None).await;
        }
        line.lab.ask(create(name)).await.unwrap();
        line.carried().await;
    }
    assert_eq!(assert_copy(&server, &place).await, 5);
    assert_eq!(line.relayed.borrow().rebuilds, 2);
    // Behind the end, while no relay runs: nobody has lost an event.
    let journal = stop(line).await;
    publish(&connection, "foreign", None).await;
    carry(&journal, &connection, 5).run().await.unwrap();
    assert_eq!(assert_copy(&server, &place).await, 5);
}

#[tokio::test]
async fn a_stream_of_another_journal_is_made_anew() {
    let server = NatsServer::start();
    let (_, line) = three_events(&server, &Place::new()).await;
    stop(line).await;
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    for name in ["d", "e", "f", "g"] {
        lab.ask(create(name)).await.unwrap();
    }
    carry(&lab.stop().await, &connect(&server).await, 4).run().await.unwrap();
    assert_eq!(assert_copy(&server, &place).await, 4);
}

#[tokio::test]
async fn a_stream_that_was_emptied_is_filled_again() {
    let (server, place) = (NatsServer::start(), Place::new());
    let (connection, line) = three_events(&server, &place).await;
    let journal = stop(line).await;
    let context = jetstream::new(connection.client().clone());
    let mut config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    assert!(config.deny_purge && config.deny_delete, "nobody empties it by accident");
    context.delete_stream(STREAM).await.unwrap();
    config.first_sequence = Some(4);
    context.create_stream(config).await.unwrap();

    carry(&journal, &connection, 3).run().await.unwrap();

    assert_eq!(assert_copy(&server, &place).await, 3);
}

#[tokio::test]
async fn a_stream_that_is_ahead_of_the_journal_is_left_alone() {
    let (server, place) = (NatsServer::start(), Place::new());
    let lab = Running::start(place.open().await).await;
    for name in ["a", "b", "c"] {
        lab.ask(create(name)).await.unwrap();
    }
    lab.stop().await.close().await;
    let backup = Place::new();
    fs::copy(place.path(), backup.path()).unwrap();
    let connection = connect(&server).await;
    let line = Line::start(place.open().await, &connection).await;
    line.lab.ask(create("d")).await.unwrap();
    line.carried().await;
    stop(line).await;

    let restored = Arc::new(backup.open().await);
    assert_eq!(restored.head().await.unwrap(), Position::new(3));
    let error = carry(&restored, &connection, 3).run().await.unwrap_err();

    let expected = (Position::new(4), Position::new(3));
    assert!(matches!(error, RelayError::Ahead { stream, journal } if (stream, journal) == expected), "{error}");
    assert_eq!(assert_copy(&server, &place).await, 4);
    // The same if the events ahead are of a version that this one cannot read.
    let lab = Running::start(place.open().await).await.stop().await;
    publish(&connection, "{}", Some("application/cloudevents+json")).await;
    let error = carry(&lab, &connection, 4).run().await.unwrap_err();
    assert!(matches!(error, RelayError::Ahead { .. }), "{error}");
}
