//! SIGKILL at many moments of a backup and of a restore: what has its name is whole.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use otherix_testkit::tempdir;

use super::super::daemon::{OtherixdProcess, create, overlay, tool};
use super::{backup, bodies, bodies_in, names};

const ROUNDS: u32 = 24;

fn start(state: &Path, arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherixd"));
    command.args(arguments).arg("--state").arg(state).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs a command once to know how long it takes, and then kills it at moments spread over that time. `prepare` comes
/// before each run, and `check` after it. Returns in how many rounds it had ended by itself, and was killed.
fn kill_rounds(state: &Path, arguments: &[&str], mut prepare: impl FnMut(), mut check: impl FnMut(u32)) -> (u32, u32) {
    prepare();
    let began = Instant::now();
    assert!(start(state, arguments).wait().unwrap().success());
    let whole = began.elapsed();
    check(0);
    let (mut ended, mut killed) = (0, 0);
    for round in 1..=ROUNDS {
        prepare();
        let mut process = start(state, arguments);
        std::thread::sleep(whole * round / (ROUNDS - 2));
        match process.try_wait().unwrap() {
            Some(_) => ended += 1,
            None => {
                process.kill().unwrap();
                process.wait().unwrap();
                killed += 1;
            }
        }
        check(round);
    }
    (ended, killed)
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
    let (ended, killed) = kill_rounds(daemon.state(), &["backup", &name], remove, check);
    assert!(killed >= ROUNDS / 2, "{killed} killed, {ended} ended");
    assert!(whole > ended, "the first run, and those that ended, made it");
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
    let (ended, killed) = kill_rounds(&state, &arguments, remove, check);
    assert!(killed >= ROUNDS / 2, "{killed} killed, {ended} ended");
    let _result = std::fs::remove_dir_all(&state);
    let (ok, output, errors) = tool(&state, &arguments).await;
    assert!(ok, "{output}{errors}");
    assert_eq!(names(target.path()), ["a.tar", "state"]);
    let (ok, output, errors) = tool(&state, &["journal", "verify"]).await;
    assert!(ok && output.starts_with(&format!("{} events", events.len())), "{output}{errors}");
}
