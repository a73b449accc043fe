//! SIGKILL at many moments of a backup and of a restore: what has its name is whole.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use otherix_testkit::tempdir;

use super::super::daemon::{OtherixdProcess, create, overlay, tool};
use super::{backup, bodies, bodies_in, names};

/// Processes that are killed before they end.
const KILLS: u32 = 16;

fn start(state: &Path, arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherixd"));
    command.args(arguments).arg("--state").arg(state).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs a command once to know how long it takes, and then kills it at moments spread over that time. One that ends
/// before it is killed is run again, and killed earlier from then on. `prepare` comes before each run, and `check`
/// after it. Returns how many have ended by themselves.
fn kill_rounds(state: &Path, arguments: &[&str], mut prepare: impl FnMut(), mut check: impl FnMut(u32)) -> u32 {
    prepare();
    let began = Instant::now();
    assert!(start(state, arguments).wait().unwrap().success());
    let mut whole = began.elapsed();
    check(0);
    let (mut ended, mut killed) = (1, 0);
    while killed < KILLS {
        prepare();
        let mut process = start(state, arguments);
        std::thread::sleep(whole * (killed + 1) / KILLS);
        match process.try_wait().unwrap() {
            Some(_) => {
                ended += 1;
                whole = whole * 7 / 8;
            }
            None => {
                process.kill().unwrap();
                process.wait().unwrap();
                killed += 1;
            }
        }
        check(killed);
    }
    ended
}

#[tokio::test]
async fn sigkill_leaves_no_half_backup_and_no_half_restore() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for number in 0..200 {
        create(&admin, &overlay(&format!("net-{number}"))).await;
    }
    let (target, events) = (tempdir().unwrap(), bodies(&daemon));
    let file = target.path().join("a.tar");
    let name = file.to_str().unwrap().to_owned();
    let mut whole = 0;
    let remove = || drop(std::fs::remove_file(&file));
    let check = |round: u32| {
        if !file.exists() {
            return;
        }
        whole += 1;
        let none = target.path().join("none");
        let verified = start(&none, &["restore", "--dry-run", "--from", &name]).wait().unwrap();
        assert!(verified.success(), "round {round}");
    };
    let ended = kill_rounds(daemon.state(), &["backup", &name], remove, check);
    assert!(whole >= ended, "{whole} files of {ended} backups that ended");
    // What was left behind is in nobody's way.
    let _result = std::fs::remove_file(&file);
    let file = backup(&daemon, target.path(), "a.tar").await;
    assert_eq!(names(target.path()), ["a.tar"]);

    let state = target.path().join("state");
    let remove = || drop(std::fs::remove_dir_all(&state));
    let check = |round: u32| {
        if state.exists() {
            assert_eq!(bodies_in(&state), events, "round {round}");
            assert!(state.join("identity/decision-key.json").exists() && state.join("log.db").exists());
        }
    };
    let arguments = ["restore", "--from", file.to_str().unwrap()];
    kill_rounds(&state, &arguments, remove, check);
    let _result = std::fs::remove_dir_all(&state);
    let (ok, output, errors) = tool(&state, &arguments).await;
    assert!(ok, "{output}{errors}");
    assert_eq!(names(target.path()), ["a.tar", "state"]);
    let (ok, output, errors) = tool(&state, &["journal", "verify"]).await;
    assert!(ok && output.starts_with(&format!("{} events", events.len())), "{output}{errors}");
}
