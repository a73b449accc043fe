//! The transparency log of a running control plane: what is published is what is stored and what the journal has, a
//! SIGKILL at any moment leaves a log that goes on, and commands do not depend on it.

use std::time::Duration;

use otherix_schemas::log::{CHECKPOINT_STREAM, ConsistencyRange, GetLog, LogConsistency, LogView, NoConditions};
use otherix_schemas::log::{ProveLogConsistency, checkpoint_subject};
use otherix_schemas::position::Epoch;
use otherix_schemas::request::Request;
use otherix_testkit::wait::wait_for;
use otherix_tlog::{ConsistencyProof, Hash, Policy, RightEdge, TreeHead};
use otherix_transport::Nats;

use super::daemon::{DEADLINE, OtherixdProcess, call, create, overlay, tool};
use super::recovery::{restore_backup, stopped_with_backup};

/// A control plane without nodes signs 15 s after its start.
const SIGNED_WITHIN: Duration = Duration::from_secs(15 + DEADLINE.as_secs());

pub(crate) async fn log(connection: &Nats) -> LogView {
    call(connection, Request::of::<GetLog>(), &NoConditions {}, None).await.unwrap().data
}

pub(crate) fn head_of(view: &LogView) -> TreeHead {
    let policy = Policy::of_log(view.key.parse().unwrap()).unwrap();
    *policy.verify(view.checkpoint.as_ref().unwrap().as_bytes()).unwrap().checkpoint().head()
}

/// Waits until a checkpoint covers all events.
pub(crate) async fn signed(daemon: &OtherixdProcess, admin: &Nats) -> LogView {
    wait_for(SIGNED_WITHIN, "a checkpoint of all events", async || {
        let view = log(admin).await;
        if view.position.get() == bodies(daemon).len() as u64 { Ok(view) } else { Err(view) }
    })
    .await
}

/// The events in the journal, not by the code under test.
pub(crate) fn bodies(daemon: &OtherixdProcess) -> Vec<String> {
    let journal = daemon.state().join("journal.db");
    let sql = "SELECT body FROM events ORDER BY position";
    let output = std::process::Command::new("sqlite3").args(["-readonly"]).arg(journal).arg(sql).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

pub(crate) fn tree_of(bodies: &[String]) -> TreeHead {
    let mut edge = RightEdge::EMPTY;
    edge.append_all(bodies.iter().map(|body| Hash::of_leaf(body.as_bytes()))).unwrap();
    edge.head()
}

#[tokio::test]
async fn checkpoints_are_those_of_the_journal_and_survive_kills() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let mut heads: Vec<TreeHead> = Vec::new();
    for round in 0..4_u64 {
        for number in 0..20 {
            create(&admin, &overlay(&format!("net-{round}-{number}"))).await;
        }
        if round % 2 == 0 {
            heads.push(head_of(&signed(&daemon, &admin).await));
        } else {
            tokio::time::sleep(Duration::from_millis(150 * round)).await;
            heads.push(head_of(&log(&admin).await));
        }
        daemon.kill();
        daemon.start_again().await;
    }
    create(&admin, &overlay("last")).await;
    let view = signed(&daemon, &admin).await;
    let newest = head_of(&view);
    assert_eq!((newest, view.stopped.as_deref()), (tree_of(&bodies(&daemon)), None));
    for older in heads {
        let range = ConsistencyRange { from: older.size(), to: newest.size() };
        let proof: LogConsistency =
            call(&admin, Request::of::<ProveLogConsistency>(), &range, None).await.unwrap().data;
        let hashes = proof.hashes.iter().map(|hash| hash.parse().unwrap()).collect();
        ConsistencyProof::new(hashes).unwrap().verify(&older, &newest).unwrap();
    }
    let stream = daemon.mirror().await.get_stream(CHECKPOINT_STREAM).await.unwrap();
    wait_for(SIGNED_WITHIN, "the newest checkpoint on the stream", async || {
        let subject = checkpoint_subject(Epoch::FIRST);
        let last = stream.get_last_raw_message_by_subject(&subject).await.map_err(|error| error.to_string())?;
        let text = String::from_utf8(last.payload.to_vec()).unwrap();
        if Some(&text) == view.checkpoint.as_ref() { Ok(()) } else { Err(text) }
    })
    .await;
    daemon.assert_stream_is_copy().await;
}

/// The newest checkpoint in `log.db` of a control plane that was killed, which is of the events that the journal has.
fn stored_head(daemon: &OtherixdProcess, key: &str) -> TreeHead {
    let sql = |sql: &str| {
        let log = daemon.state().join("log.db");
        let output = std::process::Command::new("sqlite3").arg(log).arg(sql).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let note = sql("SELECT note FROM checkpoints");
    let policy = Policy::of_log(key.parse().unwrap()).unwrap();
    // `sqlite3` adds a line feed.
    let note = note.strip_suffix('\n').unwrap();
    let head = *policy.verify(note.as_bytes()).unwrap().checkpoint().head();
    let bodies = bodies(daemon);
    let size = usize::try_from(head.size()).unwrap();
    let signed = bodies.get(..size).unwrap();
    assert_eq!(head, tree_of(signed));
    let stored = sql("SELECT hex(hashes) FROM tiles WHERE level = 0 ORDER BY number").replace('\n', "");
    let leaves = signed.iter().flat_map(|body| *Hash::of_leaf(body.as_bytes()).as_bytes());
    let leaves: String = leaves.map(|byte| format!("{byte:02X}")).collect();
    assert!(stored.starts_with(&leaves), "the tiles are those of the checkpoint");
    head
}

/// It stores checkpoints all the time, so that it is killed while it does.
#[tokio::test]
async fn a_sigkill_while_checkpoints_are_stored_leaves_a_whole_one() {
    let mut daemon = OtherixdProcess::start_with(&["--checkpoint-interval-ms", "1"]).await;
    let mut before = TreeHead::EMPTY;
    for round in 0..3_u64 {
        let admin = daemon.connect("admin").await;
        // It signs nothing in the first 15 s.
        create(&admin, &overlay(&format!("first-{round}"))).await;
        let key = signed(&daemon, &admin).await.key;
        let commands = async {
            for number in 0.. {
                create(&admin, &overlay(&format!("net-{round}-{number}"))).await;
            }
        };
        // Any moment will do: it is not known which is the worst.
        let moment = Duration::from_millis(150 + 170 * round);
        tokio::time::timeout(moment, commands).await.unwrap_err();
        daemon.kill();
        let head = stored_head(&daemon, &key);
        assert!(head.size() > before.size(), "{head:?}");
        before = head;
        daemon.start_again().await;
    }
    let admin = daemon.connect("admin").await;
    let view = signed(&daemon, &admin).await;
    assert_eq!((head_of(&view), view.stopped.as_deref()), (tree_of(&bodies(&daemon)), None));
}

#[tokio::test]
async fn commands_do_not_depend_on_the_log() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("first")).await;
    signed(&daemon, &admin).await;
    daemon.stop().await;
    std::fs::write(daemon.state().join("log.db"), "this is no database").unwrap();
    daemon.start_again().await;
    create(&admin, &overlay("second")).await;
    let stopped = wait_for(DEADLINE, "the failure", async || log(&admin).await.stopped.ok_or(())).await;
    assert!(stopped.contains("cannot use the log's database"), "{stopped}");
    for name in ["log.db", "log.db-wal", "log.db-shm"] {
        let _may_be_missing = std::fs::remove_file(daemon.state().join(name));
    }
    let view = signed(&daemon, &admin).await;
    assert_eq!((head_of(&view), view.stopped), (tree_of(&bodies(&daemon)), None));
}

#[tokio::test]
async fn a_new_epoch_begins_a_new_log_that_continues_what_was_kept() {
    let (mut daemon, backup) = stopped_with_backup().await;
    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    let before = signed(&daemon, &admin).await;
    let kept_of_before = bodies(&daemon);
    daemon.stop().await;
    restore_backup(&daemon, &backup);
    let (ok, output, errors) = tool(daemon.state(), &["restore", "--new-epoch"]).await;
    assert!(ok, "{output}{errors}");
    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("in-the-new-epoch")).await;
    let all = bodies(&daemon);
    let after = wait_for(SIGNED_WITHIN, "a checkpoint of all events", async || {
        let view = log(&admin).await;
        let is_new = view.checkpoint.is_some() && head_of(&view).size() == all.len() as u64;
        if is_new { Ok(view) } else { Err(view) }
    })
    .await;
    assert_eq!((head_of(&after), after.stopped.as_deref()), (tree_of(&all), None));
    let name = |view: &LogView| view.key.split_once('+').unwrap().0.to_owned();
    assert!(name(&before).ends_with("/1") && name(&after).ends_with("/2"), "{} {}", before.key, after.key);
    // The tree up to the kept position is that of the log before.
    let kept = all.iter().zip(&kept_of_before).take_while(|(new, old)| new == old).count();
    assert!(kept > 0 && kept < kept_of_before.len());
    let range = ConsistencyRange { from: kept as u64, to: all.len() as u64 };
    let proof: LogConsistency = call(&admin, Request::of::<ProveLogConsistency>(), &range, None).await.unwrap().data;
    let hashes = proof.hashes.iter().map(|hash| hash.parse().unwrap()).collect();
    ConsistencyProof::new(hashes).unwrap().verify(&tree_of(&kept_of_before[..kept]), &head_of(&after)).unwrap();
}
