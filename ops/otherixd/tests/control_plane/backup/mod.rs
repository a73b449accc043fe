//! Properties of `otherixd backup` and `otherixd restore --from`: a backup is of one moment whatever happens beside it,
//! nothing half has its name, nothing wrong is restored, and the restored control plane is the one that was.

mod archive;
mod given_up;
mod kept;
mod parts;
mod refusals;
mod rounds;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use otherix_testkit::{TempDir, tempdir};

use super::daemon::{OtherixdProcess, create, list_all, overlay, tool};
use super::log::{bodies, head_of, log, signed, tree_of};

/// Makes a backup of a control plane in a folder of its own.
async fn backup(daemon: &OtherixdProcess, folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(name);
    let (ok, output, errors) = tool(daemon.state(), &["backup", file.to_str().unwrap()]).await;
    assert!(ok && output.contains("events up to position"), "{output}{errors}");
    file
}

/// Restores a backup into a new folder.
async fn restored(file: &Path) -> TempDir {
    let folder = tempdir().unwrap();
    let (ok, output, errors) = tool(folder.path(), &["restore", "--from", file.to_str().unwrap()]).await;
    // What is next, with the options for this state folder.
    let next = format!("start `otherixd run --state {}`", folder.path().display());
    assert!(ok && output.contains("next: if the folder `nats`") && output.contains(&next), "{output}{errors}");
    folder
}

/// The bodies of a journal's events, not read by the code under test.
fn bodies_in(state: &Path) -> Vec<String> {
    let sql = "SELECT body FROM events ORDER BY position";
    let output = Command::new("sqlite3").args(["-readonly"]).arg(state.join("journal.db")).arg(sql).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// All networks as the control plane answers.
async fn list(daemon: &OtherixdProcess) -> String {
    let networks = list_all(&daemon.connect("admin").await).await;
    networks.iter().map(|view| format!("{}\n", serde_json::to_string(view).unwrap())).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_beside_commands_is_of_one_moment_and_restores_the_same_control_plane() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let (target, stop) = (tempdir().unwrap(), AtomicBool::new(false));
    let write = async {
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            create(&admin, &overlay(&format!("net-{number}"))).await;
            number += 1;
        }
        number
    };
    let back_up = async {
        let mut files = Vec::new();
        for round in 0..3 {
            files.push(backup(&daemon, target.path(), &format!("{round}.tar")).await);
        }
        stop.store(true, Ordering::SeqCst);
        files
    };
    let (created, files) = futures::join!(write, back_up);
    assert!(created > 10, "too few commands ran beside the backups: {created}");
    let all = bodies(&daemon);
    let mut last = 0;
    for file in &files {
        let state = restored(file).await;
        let found = bodies_in(state.path());
        assert!(found.len() > last && all.starts_with(&found), "{} of {}", found.len(), all.len());
        last = found.len();
    }
    assert!(last < all.len(), "all commands were before the last backup");

    // One that has everything: what is asked of the restored control plane has the same answers.
    let file = backup(&daemon, target.path(), "last.tar").await;
    assert_eq!(
        (mode(&file), names(target.path())),
        (0o600, ["0", "1", "2", "last"].map(|n| format!("{n}.tar")).into())
    );
    let before = list(&daemon).await;
    let state = restored(&file).await;
    let keys = daemon.identity_key("account-events").public_key().clone();
    let copied = names(&daemon.state().join("identity"));
    drop(daemon);
    assert_eq!((bodies_in(state.path()), names(&state.path().join("identity"))), (all, copied));
    assert_eq!((mode(state.path()), mode(&state.path().join("identity"))), (0o700, 0o700));
    assert_eq!(mode(&state.path().join("identity/decision-key.json")), 0o600);
    assert_eq!(names(state.path()), ["credentials", "identity", "journal.db", "log.db"]);
    let daemon = OtherixdProcess::start_in(state, &[]).await;
    assert_eq!((list(&daemon).await, daemon.identity_key("account-events").public_key()), (before, &keys));
}

/// `tar` and `sha256sum` read it, too.
#[tokio::test]
async fn other_programs_verify_a_backup_of_a_stopped_control_plane() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("a")).await;
    signed(&daemon, &admin).await;
    // Killed: the last events are in the write-ahead log alone.
    daemon.kill();
    let wal = fs::metadata(daemon.state().join("journal.db-wal")).unwrap().len();
    assert!(wal > 0);
    let (target, unpacked) = (tempdir().unwrap(), tempdir().unwrap());
    let file = backup(&daemon, target.path(), "a.tar").await;
    let script = "tar -xf \"$0\" -C \"$1\" && cd \"$1\" && sha256sum --strict -c SHA256SUMS";
    let output = Command::new("sh").args(["-c", script]).arg(&file).arg(unpacked.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{text}{:?}", String::from_utf8(output.stderr));
    for name in ["manifest.json", "journal.db", "log.db", "identity/decision-key.json", "identity/log-key.json"] {
        assert!(text.contains(&format!("{name}: OK\n")), "{name}: {text}");
    }
    assert_eq!(bodies_in(unpacked.path()), bodies(&daemon));
    assert!(!unpacked.path().join("journal.db-wal").exists());
    assert_eq!(fs::metadata(daemon.state().join("journal.db-wal")).unwrap().len(), wal, "the state is not changed");
}

#[tokio::test]
async fn after_a_restore_the_stream_gives_back_what_the_backup_lacks_and_the_log_goes_on() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b", "c"] {
        create(&admin, &overlay(name)).await;
    }
    signed(&daemon, &admin).await;
    let target = tempdir().unwrap();
    let file = backup(&daemon, target.path(), "a.tar").await;
    for name in ["d", "e"] {
        create(&admin, &overlay(name)).await;
    }
    let newest = signed(&daemon, &admin).await;
    daemon.assert_stream_is_copy().await;
    let before = list(&daemon).await;
    daemon.stop().await;

    let state = restored(&file).await;
    fs::rename(daemon.state().join("nats"), state.path().join("nats")).unwrap();
    let path = state.path().to_owned();
    // The stream is ahead, which only the control plane finds: nothing is recorded on top of the backup.
    let run = super::daemon::command(&path, "127.0.0.1:0").output();
    let run = tokio::task::spawn_blocking(move || run.unwrap()).await.unwrap();
    let errors = String::from_utf8(run.stderr).unwrap();
    assert!(!run.status.success() && errors.contains("otherixd journal adopt"), "{errors}");
    let (ok, output, errors) = tool(&path, &["journal", "adopt"]).await;
    assert!(ok && output.contains("adopted"), "{output}{errors}");
    let daemon = OtherixdProcess::start_in(state, &[]).await;
    assert_eq!(list(&daemon).await, before);
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("f")).await;
    let view = signed(&daemon, &admin).await;
    assert_eq!((head_of(&view), view.stopped.as_deref()), (tree_of(&bodies(&daemon)), None));
    assert!(head_of(&view).size() > head_of(&newest).size());
}

/// A process that was killed while it made the log's tables.
#[tokio::test]
async fn a_log_without_tables_is_none() {
    let mut daemon = OtherixdProcess::start().await;
    create(&daemon.connect("admin").await, &overlay("a")).await;
    daemon.stop().await;
    let log_file = daemon.state().join("log.db");
    fs::remove_file(&log_file).unwrap();
    let made = Command::new("sqlite3").arg(&log_file).arg("PRAGMA journal_mode = wal; PRAGMA user_version").status();
    assert!(made.unwrap().success() && log_file.exists());
    let target = tempdir().unwrap();
    let file = backup(&daemon, target.path(), "a.tar").await;
    assert_eq!(names(restored(&file).await.path()), ["credentials", "identity", "journal.db"]);
}

/// Without the later events, the log must not sign another history of the same length.
#[tokio::test]
async fn a_restored_log_does_not_sign_against_a_newer_checkpoint() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("a")).await;
    signed(&daemon, &admin).await;
    let target = tempdir().unwrap();
    let file = backup(&daemon, target.path(), "a.tar").await;
    create(&admin, &overlay("b")).await;
    signed(&daemon, &admin).await;
    let (events, account) = ("OTHERIX_EVENTS", daemon.identity_key("account-events").public_key().clone());
    let control = daemon.identity_key("account-control").public_key().clone();
    daemon.stop().await;
    let state = restored(&file).await;
    let nats = state.path().join("nats");
    fs::rename(daemon.state().join("nats"), &nats).unwrap();
    for account in [account, control] {
        fs::remove_dir_all(nats.join(format!("jetstream/jetstream/{account}/streams/{events}"))).unwrap();
    }
    let daemon = OtherixdProcess::start_in(state, &[]).await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("another")).await;
    let stopped = otherix_testkit::wait::wait_for(super::daemon::DEADLINE, "the log to stop", async || {
        log(&admin).await.stopped.ok_or(())
    })
    .await;
    assert!(stopped.contains("the stream"), "{stopped}");
    // Such a state is backed up, too, and says so.
    let again = target.path().join("b.tar");
    let (ok, output, errors) = tool(daemon.state(), &["backup", again.to_str().unwrap()]).await;
    assert!(ok && output.contains("the log has stopped"), "{output}{errors}");
    restored(&again).await;
}
