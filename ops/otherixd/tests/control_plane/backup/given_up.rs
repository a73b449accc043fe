//! What a new epoch gives up is proven: kept events and given-up ones have the root that was signed.
#![expect(clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use otherix_testkit::tempdir;
use otherix_tlog::{Checkpoint, Hash, RightEdge, SignatureKind, SignerKey, TreeHead};

use super::super::daemon::{OtherixdProcess, create, overlay, tool};
use super::super::log::{bodies, head_of, log, signed, tree_of};
use super::{backup, bodies_in, restored};

fn sqlite(database: &Path, sql: &str) {
    let output = Command::new("sqlite3").arg(database).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8(output.stderr).unwrap());
}

/// Signs a checkpoint with the log's real key.
fn sign(state: &Path, name: &str, head: TreeHead) -> String {
    let text = fs::read(state.join("identity/log-key.json")).unwrap();
    let key: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let seed = STANDARD.decode(key["seed"].as_str().unwrap()).unwrap().try_into().unwrap();
    let key = SignerKey::from_seed(name.parse().unwrap(), SignatureKind::Note, &seed);
    Checkpoint::new(name.parse().unwrap(), head).sign(&key).unwrap().to_string()
}

#[tokio::test]
async fn a_new_epoch_proves_what_it_gives_up() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b", "c"] {
        create(&admin, &overlay(name)).await;
    }
    let target = tempdir().unwrap();
    let file = backup(&daemon, target.path(), "a.tar").await;
    for name in ["d", "e"] {
        create(&admin, &overlay(name)).await;
    }
    let newest = signed(&daemon, &admin).await;
    let all = bodies(&daemon);
    daemon.assert_stream_is_copy().await;
    daemon.stop().await;
    let state = restored(&file).await;
    fs::rename(daemon.state().join("nats"), state.path().join("nats")).unwrap();
    let (path, kept) = (state.path().to_owned(), bodies_in(state.path()));
    let size = all.len();
    let proven = format!(
        "proven: the checkpoint of the stream was signed for {size} events, which are exactly the first {} of those \
         kept and 2 of the 2 given up",
        size - 2
    );

    // Somebody has the key, and has signed another history: nothing is given up before an operator says so.
    let origin = newest.key.split_once('+').unwrap().0.to_owned();
    let mut other = RightEdge::EMPTY;
    other.append_all(all.iter().map(|body| Hash::of_leaf(body.to_uppercase().as_bytes()))).unwrap();
    let forged = sign(&path, &origin, other.head());
    sqlite(&path.join("log.db"), &format!("INSERT OR REPLACE INTO checkpoints VALUES (1, '{forged}')"));
    for arguments in [&["restore", "--new-epoch"][..], &["restore", "--new-epoch", "--dry-run"]] {
        let (ok, output, errors) = tool(&path, arguments).await;
        let expected = format!("are not the {size} events for which the checkpoint of log.db was signed");
        assert!(!ok && errors.contains(&expected) && errors.contains("--unproven"), "{output}{errors}");
    }
    assert_eq!(bodies_in(&path), kept);
    let (ok, output, errors) = tool(&path, &["restore", "--new-epoch", "--dry-run", "--unproven"]).await;
    assert!(
        ok && output.contains("not proven: the checkpoint of log.db") && output.contains(&proven),
        "{output}{errors}"
    );
    // One that covers more than is known proves nothing, and one that the key has not signed counts for nothing.
    let more = TreeHead::new(size as u64 + 7, *other.head().root()).unwrap();
    let (ahead, foreign) = (sign(&path, &origin, more), forged.replace(&origin, "otherix.dev/other/1"));
    for (note, expected) in [(ahead, format!("of which only the first {size} are known")), (foreign, proven.clone())] {
        sqlite(&path.join("log.db"), &format!("UPDATE checkpoints SET note = '{note}'"));
        let (ok, output, errors) = tool(&path, &["restore", "--new-epoch", "--dry-run"]).await;
        assert!(ok && output.contains(&expected) && output.contains(&proven), "{output}{errors}");
    }
    sqlite(&path.join("log.db"), "DELETE FROM checkpoints");

    // Without the stream, nobody knows what was recorded last, and no file of given-up events is named.
    let without = restored(&file).await;
    let (ok, output, errors) = tool(without.path(), &["restore", "--new-epoch", "--above", "90"]).await;
    let unknown = format!("not proven: that nothing was recorded after position {}", kept.len());
    assert!(ok && output.contains(&unknown) && !output.contains("--given-up"), "{output}{errors}");
    assert!(
        !fs::read_dir(without.path()).unwrap().any(|entry| entry
            .unwrap()
            .path()
            .extension()
            .is_some_and(|it| it == "jsonl"))
    );

    let (ok, output, errors) = tool(&path, &["restore", "--new-epoch"]).await;
    assert!(ok && output.contains(&proven) && output.contains("epoch 2 has begun"), "{output}{errors}");
    // What was written suffices for anybody: kept events, the file, and the signed checkpoint.
    let name = format!("given-up-epoch-1-from-{}", kept.len() + 1);
    let note = fs::read_to_string(path.join(format!("{name}.checkpoint"))).unwrap();
    let given_up = fs::read_to_string(path.join(format!("{name}.jsonl"))).unwrap();
    let together: Vec<String> = kept.iter().cloned().chain(given_up.lines().map(str::to_owned)).collect();
    assert_eq!((Some(&note), head_of(&newest)), (newest.checkpoint.as_ref(), tree_of(&together)));
    assert!(output.contains(&format!("--checkpoint {name}.checkpoint --given-up {name}.jsonl")), "{output}");

    let daemon = OtherixdProcess::start_in(state, &[]).await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("f")).await;
    assert_eq!(log(&admin).await.stopped, None);
}
