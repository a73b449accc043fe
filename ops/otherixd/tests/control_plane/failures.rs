//! Properties under failures of disks and files: events that cannot be stored are not acknowledged, operation resumes
//! by itself once there is free space, and a failed start reports the cause and a hint.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{CreateNetwork, NetworkView};
use otherix_schemas::request::Request;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::request::CallError;
use rustix::thread::UnshareFlags;

use super::daemon::{DEADLINE, OtherixdProcess, command, create, list_all, overlay, tool, try_call};

/// Moves this thread, and its children, into a new mount namespace.
#[expect(unsafe_code, reason = "`unshare` is unsafe, for a flag that is not used here")]
fn enter_mount_namespace() {
    // SAFETY: the hazard is unsharing the file descriptor table (`FILES`); `NEWNS` does not change it.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount(&["--make-rprivate", "/"]);
}

fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().unwrap();
    assert!(status.success(), "mount {arguments:?}");
}

/// A mount, undone on drop: a mount point cannot be removed.
struct MountGuard(PathBuf);

impl MountGuard {
    fn new(folder: &Path, arguments: &[&str]) -> Self {
        mount(&[arguments, &[folder.to_str().unwrap()]].concat());
        Self(folder.to_owned())
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        // Lazily: processes that are about to be killed still use it.
        let _mount_may_be_gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills a file system completely.
fn fill(folder: &Path) -> PathBuf {
    let ballast = folder.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    ballast
}

async fn start_on_small_disk(below: &str, size: &str) -> (OtherixdProcess, MountGuard) {
    enter_mount_namespace();
    let folder = tempdir().unwrap();
    let disk = folder.path().join(below);
    fs::create_dir_all(&disk).unwrap();
    let disk = MountGuard::new(&disk, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
    (OtherixdProcess::start_in(folder, &[]).await, disk)
}

#[tokio::test]
async fn full_disk_rejects_and_loses_nothing() {
    let (daemon, disk) = start_on_small_disk("", "24m").await;
    let admin = daemon.connect("admin").await;
    for number in 0..5 {
        create(&admin, &overlay(&format!("before-{number}"))).await;
    }
    let ballast = fill(&disk.0);
    let mut acknowledged = 5;
    let mut refused = 0;
    for number in 0.. {
        let network = overlay(&format!("full-{number}"));
        match try_call::<NetworkView>(&admin, Request::of::<CreateNetwork>(), &network, None).await {
            Ok(_) => acknowledged += 1,
            Err(CallError::Refused(refusal)) => {
                assert_eq!(refusal.error.code, ErrorCode::Unavailable, "{refusal:?}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        if refused > 3 {
            break;
        }
    }
    fs::remove_file(ballast).unwrap();
    create(&admin, &overlay("after")).await;
    assert_eq!(daemon.assert_stream_is_copy().await, acknowledged + 1);
    assert_eq!(list_all(&admin).await.len() as u64, acknowledged + 1);
}

#[tokio::test]
async fn events_are_relayed_after_nats_disk_was_full() {
    let (daemon, disk) = start_on_small_disk("nats", "16m").await;
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("before")).await;
    daemon.assert_stream_is_copy().await;
    let ballast = fill(&disk.0);
    // The server may have a few preallocated kilobytes.
    for number in 0..60 {
        create(&admin, &overlay(&format!("full-{number}"))).await;
    }
    wait_for(DEADLINE, "the warning", async || match daemon.log() {
        log if log.contains("accepts no data") => Ok(()),
        log => Err(log),
    })
    .await;
    fs::remove_file(ballast).unwrap();
    create(&admin, &overlay("after")).await;
    assert_eq!(daemon.assert_stream_is_copy().await, 62);
    assert_eq!(list_all(&admin).await.len(), 62);
}

/// Returns the output of a start on this folder, which must fail.
async fn failed_start(state: &Path) -> String {
    let mut command = command(state, "127.0.0.1:0");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// A state folder with a journal of some events.
async fn journal_fixture() -> TempDir {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for number in 0..40 {
        create(&admin, &overlay(&format!("net-{number}"))).await;
    }
    daemon.stop().await;
    let folder = tempdir().unwrap();
    fs::copy(daemon.state().join("journal.db"), folder.path().join("journal.db")).unwrap();
    folder
}

fn assert_contains(output: &str, expected: &[&str]) {
    for text in expected {
        assert!(output.contains(text), "{text}: {output}");
    }
}

#[tokio::test]
async fn failed_start_reports_cause_and_hint() {
    enter_mount_namespace();
    let folder = journal_fixture().await;
    let (state, journal) = (folder.path(), folder.path().join("journal.db"));
    let intact = fs::read(&journal).unwrap();
    let sql = |statement: &str| {
        assert!(Command::new("sqlite3").arg(&journal).arg(statement).status().unwrap().success());
    };
    // A damaged page in the middle, a damaged header, and a truncated file.
    let mut page = intact.clone();
    let root: usize = {
        let query = ["SELECT rootpage FROM sqlite_schema WHERE name = 'events'"];
        let output = Command::new("sqlite3").arg(&journal).args(query).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    page.get_mut((root - 1) * 4096..root * 4096).unwrap().fill(0xa5);
    let mut beginning = intact.clone();
    beginning.get_mut(..100).unwrap().fill(0);
    for damaged in [page, beginning, intact.get(..intact.len() / 2 / 4096 * 4096).unwrap().to_vec()] {
        fs::write(&journal, damaged).unwrap();
        assert_contains(&failed_start(state).await, &["damaged", "restore journal.db from a backup"]);
    }
    let rewrite = |statement: &str| {
        fs::write(&journal, &intact).unwrap();
        sql(statement);
    };
    rewrite(
        "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time
         FROM _sqlx_migrations LIMIT 1",
    );
    assert_contains(&failed_start(state).await, &["schema version 9999", "run the newer otherixd"]);
    rewrite(
        "DROP TRIGGER events_are_never_changed;
         UPDATE events SET body = CAST(replace(body, '10.7', '10.8') AS BLOB) WHERE position = 3",
    );
    assert_contains(&failed_start(state).await, &["`digest` at position 3", "restore journal.db from a backup"]);
    fs::write(&journal, &intact).unwrap();
    let _read_only = MountGuard::new(state, &["--bind", state.to_str().unwrap()]);
    mount(&["-o", "remount,bind,ro", state.to_str().unwrap()]);
    assert_contains(&failed_start(state).await, &["Read-only file system", "mount options"]);
    assert_contains(&failed_start(&state.join("journal.db")).await, &["journal.db", "must own the state folder"]);
    let (ok, _, errors) = tool(&state.join("none"), &["journal", "verify"]).await;
    assert!(!ok);
    assert_contains(&errors, &["there is no journal", "--state"]);
}
