//! Promises about an event that cannot be taken in: the read models stop before it, say why, never skip it, and go on as soon as
//! it can be.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream;
use otherix_commands::store::EventStore;
use otherix_projections::{network, read_models};
use otherix_schemas::position::Position;
use otherix_schemas::subject::{STREAM, STREAM_SUBJECTS};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for;
use tokio::sync::watch;

use super::support::{ALL, DEADLINE, NoEvents, ReadSide, WriteSide, connect, fresh_rows};

/// Longer than the pause between two attempts.
const TWO_ATTEMPTS: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn an_event_that_cannot_be_applied_stops_it_until_it_can() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.create("a").await;
    read.reach(write.head()).await;
    read.sql("INSERT INTO networks VALUES ('x', 999, 'b', 'overlay', '{}', 999, 0, NULL)");
    write.create("b").await;
    write.create("c").await;
    let trouble = wait_for(DEADLINE, "trouble", async || read.error()).await;
    assert!(trouble.contains("cannot apply the event at position 2"), "{trouble}");
    assert_eq!(read.models.reached(&[network::NAME]), Position::new(1));
    assert_eq!(
        read.sql("SELECT position FROM checkpoints WHERE name = 'network'; SELECT count(*) FROM networks"),
        "1\n2\n"
    );

    read.sql("DELETE FROM networks WHERE id = 'x'");

    read.reach(write.head()).await;
    assert_eq!(read.error(), None);
    assert_eq!(read.rows(), fresh_rows(&write).await);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_stops_it() {
    let write = WriteSide::start().await;
    for name in ["a", "b", "c"] {
        write.create(name).await;
    }
    let (server, folder) = (NatsServer::start(), tempdir().unwrap());
    let connection = connect(&server).await;
    let context = connection.jetstream();
    let subjects = STREAM_SUBJECTS.map(String::from).to_vec();
    context.create_stream(stream::Config { name: STREAM.into(), subjects, ..Default::default() }).await.unwrap();
    for entry in write.journal.read(Position::ZERO, 10).await.unwrap() {
        let body = if entry.position.get() == 2 { "{}".into() } else { entry.body };
        context.publish("otherix.evt.v1.network.created.x", body).await.unwrap().await.unwrap();
    }
    let path = folder.path().join("read-models.db");
    let head = Position::new(3);
    let (follower, models) = read_models::open(&path, write.cluster(), head).unwrap();
    let (_tell, told) = watch::channel(head);
    let following = tokio::spawn(follower.run(connection.connection(), told, Arc::new(NoEvents)));
    let trouble = wait_for(DEADLINE, "trouble", async || models.error(&ALL)).await;
    assert!(trouble.contains("cannot decode the event after position 1"), "{trouble}");
    assert_eq!(models.applied(), Position::new(1));
    // It tries again, and still does not go past it.
    assert!(!models.reach(&ALL, Position::new(2), TWO_ATTEMPTS).await);
    following.abort();
}
