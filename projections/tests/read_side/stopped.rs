//! An event that cannot be applied or read: the read models stop before it, report why, never skip it, and continue as
//! soon as it can be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::{network, read_models};
use otherix_runtime::SystemRuntime;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for;
use tokio::sync::watch;

use super::support::{ALL, DEADLINE, JournalEvents, ReadSide, WriteSide, rebuilt_rows};

/// Longer than the pause between two attempts.
const TWO_ATTEMPTS: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn a_read_model_stops_before_an_event_until_it_can_be_applied() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.create("a").await;
    read.reach(write.head()).await;
    read.sql("INSERT INTO networks VALUES ('x', 2, 'b', 'overlay', '{}', '{}', 999, 0, 0, NULL)");
    write.create("b").await;
    write.create("c").await;
    let error = wait_for(DEADLINE, "an error", async || read.error()).await;
    assert!(error.contains("cannot apply the event at position 2"), "{error}");
    assert_eq!(read.models.reached(&[network::NAME]), Position::new(1));
    assert_eq!(
        read.sql("SELECT position FROM checkpoints WHERE name = 'network'; SELECT count(*) FROM networks"),
        "1\n2\n"
    );

    read.sql("DELETE FROM networks WHERE id = 'x'");

    read.reach(write.head()).await;
    assert_eq!(read.error(), None);
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

/// An event store whose second event is damaged.
struct SecondDamaged(JournalEvents);

impl EventReader for SecondDamaged {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move {
            let mut events = self.0.read(after, limit).await?;
            if let Some(second) = 1_usize.checked_sub(usize::try_from(after.get())?).and_then(|at| events.get_mut(at)) {
                *second = Bytes::from_static(b"{}");
            }
            Ok(events)
        })
    }
}

#[tokio::test]
async fn read_models_stop_before_an_event_that_cannot_be_read() {
    let write = WriteSide::start().await;
    for name in ["a", "b", "c"] {
        write.create(name).await;
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("read-models.db");
    let head = Position::new(3);
    let (follower, models) = read_models::open(&path, write.cluster(), head, SystemRuntime::shared()).unwrap();
    let (_sender, receiver) = watch::channel(head);
    let events = Arc::new(SecondDamaged(JournalEvents(Arc::clone(&write.journal))));
    let task = tokio::spawn(follower.run(receiver, events));
    let error = wait_for(DEADLINE, "an error", async || models.error(&ALL)).await;
    assert!(error.contains("cannot read the event after position 1"), "{error}");
    assert_eq!(models.applied(), Position::new(1));
    // Further attempts do not skip it.
    assert!(!models.reach(&ALL, Position::new(2), TWO_ATTEMPTS).await);
    task.abort();
}
