//! Journals that are not what the log has signed, and logs that do not know yet what nodes keep.

use std::path::Path;
use std::time::{Duration, Instant};

use otherix_commands::store::EventStore;
use otherix_commands::tlog::TileStore;
use otherix_schemas::id::NodeId;
use otherix_testkit::wait::wait_for;
use otherix_tlog::{Checkpoint, Hash, SignatureKind, SignerKey, TreeHead, VerifiedTiles};
use uuid::Uuid;

use super::log::{MemorySink, RunningLog, assert_stops, head_of_journal, log_path, note};
use super::support::{DEADLINE, JournalFolder, RunningWriter, create, join, sql};

/// Replaces the journal by a copy, of which the log knows nothing.
fn put_back(folder: &JournalFolder, copy: &Path) {
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _may_be_missing = std::fs::remove_file(folder.path().with_file_name(name));
    }
    std::fs::copy(copy, folder.path()).unwrap();
}

/// Commands while no log follows.
async fn grow_unfollowed(folder: &JournalFolder, prefix: &str, count: usize) {
    let writer = RunningWriter::start(folder.open().await).await;
    for number in 0..count {
        writer.execute(create(&format!("{prefix}-{number}"))).await.unwrap();
    }
    writer.stop().await.close().await;
}

/// A folder whose log has signed `size` events, and whose journal has others from the sixth on, `count` in all.
async fn forked(size: usize, count: usize) -> (JournalFolder, MemorySink, TreeHead) {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let path = log_path(&folder);
    let log = RunningLog::start(&folder, &path, &sink).await;
    log.grow("net", 5).await;
    log.stop().await;
    let copy = folder.path().with_file_name("copy.db");
    folder.copy(&copy);
    let log = RunningLog::start(&folder, &path, &sink).await;
    let signed = log.grow("signed", size - 5).await;
    log.stop().await;
    folder.copy(folder.path().with_file_name("signed.db"));
    put_back(&folder, &copy);
    grow_unfollowed(&folder, "other", count - 5).await;
    (folder, sink, signed)
}

fn assert_signed_tiles_are_there(path: &Path, signed: &TreeHead) {
    let tiles = TileStore::open(path).unwrap();
    let mut verified = VerifiedTiles::open(signed, &tiles).unwrap();
    for index in 0..signed.size().div_ceil(256) {
        verified.hashes(0, index).unwrap();
    }
}

#[tokio::test]
async fn tiles_that_are_made_again_of_another_journal_are_compared_with_the_stored_checkpoint() {
    let (folder, sink, _) = forked(270, 280).await;
    let path = log_path(&folder);
    sql(&path, "UPDATE tiles SET hashes = zeroblob(length(hashes))").unwrap();
    for lost in [false, true] {
        if lost {
            sink.0.lock().unwrap().clear();
        }
        let log = RunningLog::start(&folder, &path, &sink).await;
        assert_stops(log, &sink, "the first 270 events have the root").await;
    }
}

#[tokio::test]
async fn the_last_tile_is_compared_with_the_journal_if_it_is_full_too() {
    for size in [250, 256, 260] {
        let (folder, sink, signed) = forked(size, 300).await;
        let path = log_path(&folder);
        let log = RunningLog::start(&folder, &path, &sink).await;
        assert_stops(log, &sink, "is not the one that was signed").await;
        assert_signed_tiles_are_there(&path, &signed);
    }
}

#[tokio::test]
async fn a_log_that_was_ahead_of_its_journal_does_not_sign_when_that_has_caught_up() {
    let (folder, sink, signed) = forked(300, 20).await;
    let path = log_path(&folder);
    let log = RunningLog::start(&folder, &path, &sink).await;
    wait_for(DEADLINE, "the log to stop", async || log.handle.view().stopped.ok_or(())).await;
    for number in 0..300 {
        log.writer.execute(create(&format!("caught-up-{number}"))).await.unwrap();
    }
    assert_stops(log, &sink, "it has 300 events, and the journal").await;
    assert_signed_tiles_are_there(&path, &signed);
    for _ in 0..2 {
        let log = RunningLog::start(&folder, &path, &sink).await;
        assert_stops(log, &sink, "the first 300 events have the root").await;
        assert_signed_tiles_are_there(&path, &signed);
    }
    // With the journal that was signed, the log goes on.
    put_back(&folder, &folder.path().with_file_name("signed.db"));
    let log = RunningLog::start(&folder, &path, &sink).await;
    assert_eq!(log.grow("later", 1).await, head_of_journal(&log.writer.journal, 301).await);
    assert_eq!(log.handle.view().stopped, None);
    log.stop().await;
    assert_signed_tiles_are_there(&path, &signed);
}

#[tokio::test]
async fn nothing_is_signed_before_nodes_could_tell_what_they_keep() {
    let (settle, delay) = (Duration::from_secs(4), Duration::from_secs(4));
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let path = log_path(&folder);
    // The time begins with the run, and a journal without nodes says nothing about who keeps checkpoints.
    let log = RunningLog::start_settling(&folder, &path, &sink, [settle, delay]).await;
    let started = Instant::now();
    log.grow("net", 5).await;
    assert!(started.elapsed() >= settle, "signed after {:?}", started.elapsed());
    log.writer.execute(join("node-1")).await.unwrap();
    log.grow("more", 1).await;
    log.stop().await;
    // All members have told.
    let log = RunningLog::start_settling(&folder, &path, &sink, [Duration::from_secs(3600), Duration::ZERO]).await;
    let members: Vec<NodeId> = log.writer.roster.borrow().members.keys().copied().collect();
    assert_eq!(members.len(), 1);
    log.handle.heard(members[0], None);
    log.grow("again", 1).await;
    log.stop().await;
}

#[tokio::test]
async fn nothing_is_signed_against_what_a_node_keeps_that_the_journal_does_not_have() {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let log = RunningLog::start(&folder, &log_path(&folder), &sink).await;
    log.grow("net", 5).await;
    let other = SignerKey::from_seed(log.key.public_key().name().clone(), SignatureKind::Note, &[8; 32]);
    let head = TreeHead::new(90, Hash::of_leaf(b"another")).unwrap();
    let forged = Checkpoint::new(other.public_key().name().clone(), head).sign(&other).unwrap().to_string();
    log.handle.heard_of_unknown_node(forged);
    log.handle.heard_of_unknown_node(log.handle.checkpoint().unwrap());
    log.grow("more", 1).await;
    assert_eq!(log.handle.view().stopped, None);
    log.handle.heard_of_unknown_node(note(&log, 90, Hash::of_leaf(b"another")));
    assert_stops(log, &sink, "in a heartbeat of a node that the journal does not have").await;
}

#[tokio::test]
async fn the_view_has_no_notes_that_the_log_has_not_signed() {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let log = RunningLog::start(&folder, &log_path(&folder), &sink).await;
    log.grow("net", 5).await;
    let nodes: Vec<NodeId> = (1..4).map(|number| NodeId::new(Uuid::from_u128(number))).collect();
    log.handle.heard(nodes[0], Some("junk ".repeat(800)));
    log.handle.heard(nodes[1], log.handle.checkpoint());
    log.handle.heard(nodes[2], Some(note(&log, 3, Hash::of_leaf(b"another"))));
    let view = log.handle.view();
    let mut listed: Vec<NodeId> = view.witnesses.iter().flat_map(|witnesses| witnesses.node_ids.clone()).collect();
    listed.sort();
    assert_eq!((listed.as_slice(), view.witnesses_omitted), (&nodes[1..], 0));
    log.stop().await;
}

#[tokio::test]
async fn the_view_lists_many_nodes_and_counts_those_that_do_not_fit() {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    let log = RunningLog::start(&folder, &log_path(&folder), &sink).await;
    log.grow("net", 5).await;
    let node = |number: u32| NodeId::new(Uuid::from_u128(u128::from(number)));
    let same = log.handle.checkpoint();
    (0..10_000).for_each(|number| drop(log.handle.heard(node(number), same.clone())));
    let of_all = |log: &RunningLog| {
        let view = log.handle.view();
        let told: usize = view.witnesses.iter().map(|witnesses| witnesses.node_ids.len()).sum();
        (told, view.witnesses_omitted, serde_json::to_vec(&view).unwrap().len())
    };
    let (told, omitted, bytes) = of_all(&log);
    assert_eq!((told, omitted), (10_000, 0));
    assert!(bytes < 700 * 1024, "{bytes}");
    // Each with a checkpoint of its own, as no real nodes have.
    for number in 10_000..13_000 {
        log.handle.heard(node(number), Some(note(&log, u64::from(number), Hash::of_leaf(b"another"))));
    }
    let (told, omitted, bytes) = of_all(&log);
    assert_eq!(u32::try_from(told).unwrap() + omitted, 13_000);
    assert!(told > 10_000 && omitted > 1_000 && bytes < 900 * 1024, "{told} {omitted} {bytes}");
    log.stop().await;
}

#[tokio::test]
async fn an_event_that_is_longer_than_an_entry_of_a_bundle_is_hashed() {
    let (folder, sink) = (JournalFolder::new(), MemorySink::default());
    grow_unfollowed(&folder, "net", 3).await;
    // An earlier version recorded a long report as one event.
    let script = "import sqlite3, sys, hashlib
db = sqlite3.connect(sys.argv[1])
rows = db.execute('SELECT position, body, digest FROM events ORDER BY position').fetchall()
position, body, _ = rows[-1]
body = bytes(body) + b' ' * 70000
before = bytes(rows[-2][2])
db.execute('DROP TRIGGER events_are_never_changed')
db.execute('UPDATE events SET body = ?, digest = ? WHERE position = ?',
           (body, hashlib.sha256(before + body).digest(), position))
db.commit()";
    let status = std::process::Command::new("python3").arg("-c").arg(script).arg(folder.path()).status().unwrap();
    assert!(status.success());
    let log = RunningLog::start(&folder, &log_path(&folder), &sink).await;
    assert_eq!(log.grow("more", 1).await, head_of_journal(&log.writer.journal, 4).await);
    assert_eq!(log.handle.view().stopped, None);
    log.stop().await;
}
