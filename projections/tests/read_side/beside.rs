//! A rebuild while commands and queries go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_projections::READ_MODELS;
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::history;
use otherix_projections::read_models;
use otherix_projections::service::Inputs;
use otherix_runtime::SystemRuntime;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::network::{ListNetworks, NetworkView};
use otherix_schemas::node::{ListNodes, NodeView};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::projection::{
    ProjectionState, ProjectionStatus, ProjectionsView, RebuildProjections, RebuildState, RebuildView,
};
use otherix_schemas::request::{Answer, RequestType};
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for;
use serde_json::json;
use tokio::task::JoinSet;

use super::history::call;
use super::support::{DEADLINE, JournalEvents, WriteSide, all_rows, join, rebuilt_rows, sqlite3};

/// The read side of a control plane without its connections.
struct Served {
    inputs: Inputs,
    tasks: JoinSet<()>,
}

impl Served {
    fn start(write: &WriteSide, folder: &std::path::Path) -> Self {
        Self::start_with(write, folder, Arc::new(JournalEvents(Arc::clone(&write.journal))))
    }

    fn start_with(write: &WriteSide, folder: &std::path::Path, events: Arc<dyn EventReader>) -> Self {
        let (runtime, cluster, head) = (SystemRuntime::shared(), write.cluster(), write.head());
        let path = folder.join("read-models.db");
        let (follower, models) =
            read_models::open_with(&path, cluster, head, Arc::clone(&runtime), READ_MODELS).unwrap();
        let (history_follower, history) = history::open(&folder.join("history.db"), cluster, head, runtime).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run(write.head_receiver(), Arc::clone(&events)));
        tasks.spawn(history_follower.run(write.head_receiver(), Arc::clone(&events)));
        Self {
            inputs: Inputs {
                models,
                history,
                head: write.head_receiver(),
                events,
                stream: Arc::new(|| Position::ZERO),
            },
            tasks,
        }
    }

    async fn ask<R: RequestType>(&self) -> Result<Answer<R::Answer>, ErrorBody> {
        let body = if R::NAME.ends_with("list") { json!({ "limit": 200 }) } else { json!({}) };
        let answer = self.inputs.answer(call::<R>("ann", body, None)).await?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    async fn rebuild(&self) -> RebuildView {
        let _begun = self.ask::<RebuildProjections>().await.unwrap();
        wait_for(DEADLINE * 3, "the rebuild", async || self.last().await.state != RebuildState::Running).await;
        self.last().await
    }

    async fn last(&self) -> RebuildView {
        self.status().await.rebuild.unwrap()
    }

    async fn status(&self) -> ProjectionsView {
        self.ask::<ProjectionStatus>().await.unwrap().data
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

#[tokio::test]
async fn rebuilt_read_models_take_the_place_of_those_in_use() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    write.execute(join(1)).await;
    for number in 0..150 {
        let id = write.create(&format!("net-{number}")).await;
        write.report(1, id, write.head(), Outcome::Ready).await;
    }
    let served = Served::start(&write, folder.path());
    assert_eq!(served.ask::<ListNetworks>().await.unwrap().data.len(), 150);
    assert_eq!(served.status().await.rebuild, None);
    // A rebuild shows in that the alteration is gone.
    sqlite3(&path, "UPDATE nodes SET name = 'altered'");
    let name = async || -> String {
        let nodes: Vec<NodeView> = served.ask::<ListNodes>().await.unwrap().data;
        nodes[0].name.to_string()
    };
    assert_eq!(name().await, "altered");
    let stop = tokio::sync::watch::Sender::new(false);
    let commands = async {
        let mut count = 0;
        while !*stop.borrow() {
            write.create(&format!("more-{count}")).await;
            count += 1;
        }
        count
    };
    let queries = async {
        let (mut last, mut count) = (Position::ZERO, 0);
        while !*stop.borrow() {
            let acknowledged = write.head();
            let answer: Answer<Vec<NetworkView>> = served.ask::<ListNetworks>().await.unwrap();
            assert!(answer.meta.position >= acknowledged.max(last), "{:?} after {last}", answer.meta);
            (last, count) = (answer.meta.position, count + 1);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        count
    };
    let rebuild = async {
        let done = served.rebuild().await;
        let after = write.head();
        wait_for(DEADLINE, "a command after it", async || write.head() > after).await;
        stop.send_replace(true);
        done
    };
    let (written, asked, done) = tokio::join!(commands, queries, rebuild);
    assert!(written > 5 && asked > 5, "{written} commands, {asked} queries");
    assert_eq!((done.state, done.error), (RebuildState::Done, None));
    assert!(done.position.get() >= 301);
    assert_eq!(name().await, "node-1");
    let networks = served.ask::<ListNetworks>().await.unwrap();
    assert_eq!(networks.meta.position, write.head());
    assert_eq!(all_rows(&path), rebuilt_rows(&write).await);
    assert!(!path.with_extension("db.new").exists());
    // Once more, and what follows is applied to the new file.
    assert_eq!(served.rebuild().await.state, RebuildState::Done);
    write.create("last").await;
    assert_eq!(served.ask::<ListNetworks>().await.unwrap().meta.position, write.head());
    assert_eq!(all_rows(&path), rebuilt_rows(&write).await);
    let status = served.status().await;
    assert!(
        status.projections.iter().all(|view| view.state == ProjectionState::Following && view.last_error.is_none())
    );
    let names: Vec<&str> = status.projections.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names, ["network", "node", "vm", "user", "history"]);
    served.stop().await;
}

#[tokio::test]
async fn a_rebuild_that_fails_leaves_the_old_ones_in_use() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    write.execute(join(1)).await;
    write.create("net-a").await;
    let served = Served::start(&write, folder.path());
    assert_eq!(served.ask::<ListNetworks>().await.unwrap().data.len(), 1);
    // No file can be made of that name.
    std::fs::create_dir_all(path.with_extension("db.new").join("in the way")).unwrap();
    let failed = served.rebuild().await;
    assert_eq!(failed.state, RebuildState::Failed);
    assert!(failed.error.unwrap().contains("read-models.db.new"));
    write.create("net-b").await;
    assert_eq!(served.ask::<ListNetworks>().await.unwrap().data.len(), 2);
    std::fs::remove_dir_all(path.with_extension("db.new")).unwrap();
    assert_eq!(served.rebuild().await.state, RebuildState::Done);
    assert_eq!(all_rows(&path), rebuilt_rows(&write).await);
    // A read model that cannot apply an event tells so, and that it is over.
    sqlite3(&path, "CREATE TRIGGER broken BEFORE INSERT ON networks BEGIN SELECT RAISE(ABORT, 'broken'); END");
    let before = write.head();
    write.create("net-c").await;
    wait_for(DEADLINE, "the read model to stop", async || {
        served.status().await.projections[0].state == ProjectionState::Stopped
    })
    .await;
    let network = served.status().await.projections.remove(0);
    assert_eq!((network.position, network.lag), (before, write.head().get() - before.get()));
    let error = network.last_error.unwrap();
    assert_eq!(error.position, before);
    assert!(error.message.contains(&format!("at position {}", before.get() + 1)), "{}", error.message);
    assert_eq!(served.rebuild().await.state, RebuildState::Done);
    let network = served.status().await.projections.remove(0);
    assert_eq!((network.state, network.position), (ProjectionState::Following, write.head()));
    assert_eq!(network.last_error.map(|error| error.message), Some(error.message));
    served.stop().await;
}

/// The journal, of which the events after a position cannot be read by what begins again.
struct Broken {
    journal: JournalEvents,
    at: AtomicU64,
}

impl EventReader for Broken {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move {
            if after.get() == self.at.load(Ordering::SeqCst) {
                return Err("the disk is broken".into());
            }
            self.journal.read(after, limit).await
        })
    }
}

#[tokio::test]
async fn a_rebuild_that_fails_leaves_no_file() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    write.create("net-1").await;
    let journal = JournalEvents(Arc::clone(&write.journal));
    let broken = Arc::new(Broken { journal, at: AtomicU64::new(u64::MAX) });
    let served = Served::start_with(&write, folder.path(), Arc::clone(&broken) as _);
    assert!(served.inputs.history.reach(write.head(), DEADLINE).await);
    assert_eq!(served.ask::<ListNetworks>().await.unwrap().data.len(), 1);
    // At the beginning, and when all events are applied.
    for at in [0, write.head().get()] {
        broken.at.store(at, Ordering::SeqCst);
        let failed = served.rebuild().await;
        assert_eq!(failed.state, RebuildState::Failed);
        assert!(failed.error.unwrap().contains("the disk is broken"));
        let left = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains(".new")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    broken.at.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(served.rebuild().await.state, RebuildState::Done);
    assert_eq!(served.ask::<ListNetworks>().await.unwrap().data.len(), 1);
    assert!(path.exists());
    served.stop().await;
}
