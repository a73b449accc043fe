//! The transparency log over a journal, from outside: what is signed is what is stored, a restart goes on, and a log
//! that knows a checkpoint that the journal does not continue signs nothing any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use otherix_commands::store::{EventStore, SqliteStore};
use otherix_commands::tlog::{
    CHECKPOINT_INTERVAL, CheckpointSink, Inputs, LogFollower, LogHandle, SinkError, TileStore,
};
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::NodeId;
use otherix_schemas::log::{ConsistencyRange, SignedLogKey, origin};
use otherix_schemas::position::{Epoch, Position};
use otherix_testkit::wait::wait_for;
use otherix_tlog::{
    Checkpoint, ConsistencyProof, Hash, Policy, RightEdge, SignatureKind, SignerKey, TreeHead, VerifiedTiles,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::relay::signer;
use super::support::{DEADLINE, JournalFolder, RunningWriter, create, sql};

/// A stream in memory, which can be lost.
#[derive(Clone, Default)]
pub(super) struct MemorySink(pub(super) Arc<Mutex<Vec<String>>>);

impl CheckpointSink for MemorySink {
    fn newest(&self, _: Epoch) -> BoxFuture<'_, Result<Option<String>, SinkError>> {
        let newest = self.0.lock().unwrap().last().cloned();
        Box::pin(async { Ok(newest) })
    }

    fn publish(&self, _: Epoch, note: String) -> BoxFuture<'_, Result<(), SinkError>> {
        self.0.lock().unwrap().push(note);
        Box::pin(async { Ok(()) })
    }
}

pub(super) struct RunningLog {
    pub(super) writer: RunningWriter<SqliteStore>,
    pub(super) handle: LogHandle,
    pub(super) key: SignerKey,
    task: JoinHandle<()>,
}

impl RunningLog {
    pub(super) async fn start(folder: &JournalFolder, path: &Path, sink: &MemorySink) -> Self {
        Self::start_settling(folder, path, sink, [Duration::ZERO; 2]).await
    }

    /// Runs the follower some time after it was made; nodes have `settle` then.
    pub(super) async fn start_settling(
        folder: &JournalFolder,
        path: &Path,
        sink: &MemorySink,
        [settle, delay]: [Duration; 2],
    ) -> Self {
        let writer = RunningWriter::start(folder.open().await).await;
        let identity = writer.journal.identity();
        let name = origin(identity.cluster, identity.epoch).parse().unwrap();
        let key = SignerKey::from_seed(name, SignatureKind::Note, &[7; 32]);
        let inputs = Inputs {
            store: Arc::clone(&writer.journal),
            durable: writer.durable.clone(),
            roster: writer.roster.clone(),
            sink: Arc::new(sink.clone()),
            path: path.to_owned(),
            key: key.clone(),
            signed_key: SignedLogKey::new(key.public_key().to_string(), &signer()),
            settle,
            interval: CHECKPOINT_INTERVAL,
            runtime: SystemRuntime::shared(),
        };
        let (follower, handle) = LogFollower::new(inputs).unwrap();
        tokio::time::sleep(delay).await;
        Self { writer, handle, key, task: tokio::spawn(follower.run()) }
    }

    fn policy(&self) -> Policy {
        Policy::of_log(self.key.public_key().clone()).unwrap()
    }

    fn head_of(&self, note: &str) -> TreeHead {
        *self.policy().verify(note.as_bytes()).unwrap().checkpoint().head()
    }

    /// Creates so many networks, and waits until a checkpoint covers them.
    pub(super) async fn grow(&self, prefix: &str, count: usize) -> TreeHead {
        for number in 0..count {
            self.writer.execute(create(&format!("{prefix}-{number}"))).await.unwrap();
        }
        let head = self.writer.durable.borrow().position;
        wait_for(DEADLINE, "a checkpoint", async || {
            let view = self.handle.view();
            if view.position == head { Ok(()) } else { Err(view) }
        })
        .await;
        self.head_of(&self.handle.checkpoint().unwrap())
    }

    pub(super) async fn stop(self) {
        let Self { writer, task, .. } = self;
        let journal = writer.stop().await;
        task.await.unwrap();
        journal.close().await;
    }
}

pub(super) fn log_path(folder: &JournalFolder) -> PathBuf {
    folder.path().with_file_name("log.db")
}

pub(super) async fn head_of_journal(journal: &SqliteStore, upto: u64) -> TreeHead {
    let mut edge = RightEdge::EMPTY;
    for entry in journal.read(Position::ZERO, 10_000).await.unwrap() {
        if entry.position.get() <= upto {
            edge.append(Hash::of_leaf(&entry.body)).unwrap();
        }
    }
    edge.head()
}

#[tokio::test]
async fn what_is_signed_is_the_journal_and_is_stored_before_it_is_published() {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let path = log_path(&folder);
    let log = RunningLog::start(&folder, &path, &sink).await;
    let first = log.grow("first", 300).await;
    assert_eq!(first, head_of_journal(&log.writer.journal, 300).await);
    let key = log.handle.view().key;
    assert_eq!(key, log.key.public_key().to_string());
    log.stop().await;

    let log = RunningLog::start(&folder, &path, &sink).await;
    let second = log.grow("second", 300).await;
    assert_eq!(second, head_of_journal(&log.writer.journal, 600).await);
    let range = ConsistencyRange { from: first.size(), to: second.size() };
    let hashes = log.handle.consistency(range).await.unwrap().hashes;
    let hashes = hashes.iter().map(|hash| hash.parse().unwrap()).collect();
    ConsistencyProof::new(hashes).unwrap().verify(&first, &second).unwrap();
    let beyond = ConsistencyRange { from: 1, to: second.size() + 1 };
    log.handle.consistency(beyond).await.unwrap_err();
    let published = sink.0.lock().unwrap().clone();
    let sizes: Vec<u64> = published.iter().map(|note| log.head_of(note).size()).collect();
    assert!(sizes.is_sorted() && sizes.last() == Some(&600), "{sizes:?}");
    log.stop().await;
    let tiles = TileStore::open(&path).unwrap();
    let mut verified = VerifiedTiles::open(&second, &tiles).unwrap();
    assert_eq!(verified.hashes(0, 0).unwrap().len(), 256);
    assert_eq!(tiles.checkpoint(Epoch::FIRST).unwrap(), published.last().cloned());
}

#[tokio::test]
async fn a_lost_or_damaged_database_is_made_again_and_gives_the_same_log() {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let path = log_path(&folder);
    let log = RunningLog::start(&folder, &path, &sink).await;
    let first = log.grow("net", 270).await;
    log.stop().await;
    sql(&path, "UPDATE tiles SET hashes = zeroblob(length(hashes))").unwrap();
    let log = RunningLog::start(&folder, &path, &sink).await;
    let second = log.grow("more", 1).await;
    assert_eq!((second.size(), log.handle.view().stopped), (first.size() + 1, None));
    assert_eq!(second, head_of_journal(&log.writer.journal, 271).await);
    log.stop().await;
    for name in ["log.db", "log.db-wal", "log.db-shm"] {
        let _may_be_missing = std::fs::remove_file(path.with_file_name(name));
    }
    let log = RunningLog::start(&folder, &path, &sink).await;
    assert_eq!(log.grow("again", 1).await, head_of_journal(&log.writer.journal, 272).await);
    log.stop().await;
}

/// A checkpoint of the log's own key that the journal does not continue.
pub(super) async fn assert_stops(log: RunningLog, sink: &MemorySink, expected: &str) {
    let number = log.writer.durable.borrow().position;
    log.writer.execute(create(&format!("after-{number}"))).await.unwrap();
    let stopped = wait_for(DEADLINE, "the log to stop", async || log.handle.view().stopped.ok_or(())).await;
    assert!(stopped.contains(expected), "{stopped}");
    let count = sink.0.lock().unwrap().len();
    // Commands go on, and nothing is signed for them in more than the interval of checkpoints.
    let before = log.handle.view().position;
    log.writer.execute(create(&format!("later-{number}"))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((log.handle.view().position, sink.0.lock().unwrap().len()), (before, count));
    log.stop().await;
}

pub(super) fn note(log: &RunningLog, size: u64, root: Hash) -> String {
    let head = TreeHead::new(size, root).unwrap();
    Checkpoint::new(log.key.public_key().name().clone(), head).sign(&log.key).unwrap().to_string()
}

#[tokio::test]
async fn nothing_is_signed_behind_or_against_a_checkpoint_on_the_stream() {
    for (size, expected) in [(3, "the first 3 events have the root"), (9, "it has 9 events, and the journal")] {
        let (folder, sink) = (JournalFolder::new(), MemorySink::default());
        let path = log_path(&folder);
        let log = RunningLog::start(&folder, &path, &sink).await;
        log.grow("net", 5).await;
        sink.0.lock().unwrap().push(note(&log, size, Hash::of_leaf(b"another")));
        log.stop().await;
        let log = RunningLog::start(&folder, &path, &sink).await;
        assert_stops(log, &sink, expected).await;
        // It does not sign after a restart either, even if the stream is lost.
        sink.0.lock().unwrap().clear();
        let log = RunningLog::start(&folder, &path, &sink).await;
        let stopped = wait_for(DEADLINE, "the log to stop", async || log.handle.view().stopped.ok_or(())).await;
        assert!(stopped.contains("in the log's own database"), "{stopped}");
        log.stop().await;
    }
}

#[tokio::test]
async fn nothing_is_signed_behind_or_against_what_a_node_keeps() {
    let node = NodeId::new(Uuid::from_u128(1));
    for (size, expected) in [(3, "the first 3 events have the root"), (90, "it has 90 events, and the journal")] {
        let (folder, sink) = (JournalFolder::new(), MemorySink::default());
        let log = RunningLog::start(&folder, &log_path(&folder), &sink).await;
        log.grow("net", 5).await;
        let genuine = log.handle.checkpoint().unwrap();
        assert_eq!(log.handle.heard(node, Some(genuine)), None);
        // One of another key says nothing about this log.
        let other = SignerKey::from_seed(log.key.public_key().name().clone(), SignatureKind::Note, &[8; 32]);
        let head = TreeHead::new(size, Hash::of_leaf(b"another")).unwrap();
        let forged = Checkpoint::new(other.public_key().name().clone(), head).sign(&other).unwrap().to_string();
        log.handle.heard(node, Some(forged));
        log.grow("more", 1).await;
        assert_eq!(log.handle.view().stopped, None);
        let kept = note(&log, size, Hash::of_leaf(b"another"));
        wait_for(DEADLINE, "the contradiction", async || log.handle.heard(node, Some(kept.clone())).ok_or(())).await;
        assert_stops(log, &sink, expected).await;
    }
}

#[tokio::test]
async fn a_journal_that_is_behind_its_own_checkpoint_or_altered_is_not_signed() {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let path = log_path(&folder);
    let log = RunningLog::start(&folder, &path, &sink).await;
    log.grow("net", 5).await;
    log.stop().await;
    let copy = folder.path().with_file_name("copy.db");
    folder.copy(&copy);
    let log = RunningLog::start(&folder, &path, &sink).await;
    log.grow("more", 3).await;
    log.stop().await;
    sink.0.lock().unwrap().clear();
    // The journal of an older backup, with the newer log.
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _may_be_missing = std::fs::remove_file(folder.path().with_file_name(name));
    }
    std::fs::copy(&copy, folder.path()).unwrap();
    let log = RunningLog::start(&folder, &path, &sink).await;
    // It may compare before or after the next event.
    assert_stops(log, &sink, "it has 8 events, and the journal").await;
}
