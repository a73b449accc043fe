//! Independent programs verify what `otherix audit` writes about a running control plane, not only samples: checkpoint,
//! tiles, events, inclusion proofs of `audit prove`, and consistency proofs of the control plane.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use futures::future::join_all;
use otherix_schemas::log::{ConsistencyRange, LogConsistency, LogView, ProveLogConsistency};
use otherix_schemas::request::Request;
use otherix_testkit::python::interpreter;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::Nats;

use crate::daemon::{DEADLINE, OtherixdProcess, call, create, overlay};
use crate::examples::otherix;
use crate::log::{head_of, log};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Networks that are created before each checkpoint: the last tree has five full tiles and a partial one.
const NETWORKS: [usize; 3] = [100, 400, 900];

/// A control plane without nodes signs 15 s after its start.
const SIGNED_WITHIN: Duration = Duration::from_secs(15 + DEADLINE.as_secs());

/// Creates networks, and waits until a checkpoint covers them.
async fn grow(admin: &Nats, round: usize, count: usize) -> LogView {
    let before = log(admin).await.position.get();
    let names: Vec<String> = (0..count).map(|number| format!("net-{round}-{number}")).collect();
    for names in names.chunks(50) {
        join_all(names.iter().map(|name| async { create(admin, &overlay(name)).await })).await;
    }
    wait_for(SIGNED_WITHIN, "a checkpoint of all networks", async || {
        let view = log(admin).await;
        if view.position.get() >= before + count as u64 { Ok(view) } else { Err(view) }
    })
    .await
}

/// An export, with the key and proofs beside it as [`verify.py`](../../../../schemas/tlog/tests/tlog/verify.py) and
/// [`main.go`](../../../verify-go/main.go) expect them, and the number of its events.
async fn export() -> (TempDir, PathBuf, usize) {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let mut views = Vec::new();
    for (round, count) in NETWORKS.into_iter().enumerate() {
        views.push(grow(&admin, round, count).await);
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("export");
    otherix(&daemon, &["audit", "export", path.to_str().unwrap()]).await.unwrap();
    fs::write(path.join("vkey"), otherix(&daemon, &["audit", "key"]).await.unwrap()).unwrap();
    let events = fs::read_to_string(path.join("events.jsonl")).unwrap().lines().count();
    fs::create_dir(path.join("proof")).unwrap();
    for position in [1, 2, 256, 257, events / 2, events] {
        let out = path.join(format!("proof/{position}.tlog-proof"));
        let prove = ["audit", "prove", &position.to_string(), "--out", out.to_str().unwrap()];
        otherix(&daemon, &prove).await.unwrap();
    }
    fs::create_dir(path.join("consistency")).unwrap();
    for view in views {
        let size = head_of(&view).size();
        let range = ConsistencyRange { from: size, to: events as u64 };
        let proof: LogConsistency =
            call(&admin, Request::of::<ProveLogConsistency>(), &range, None).await.unwrap().data;
        let hashes: String = proof.hashes.iter().map(|hash| format!("{hash}\n")).collect();
        let text = format!("{}\n{hashes}", view.checkpoint.unwrap());
        fs::write(path.join(format!("consistency/{size}")), text).unwrap();
    }
    (folder, path, events)
}

/// One byte of each kind of file is changed, and what a verifier says of it.
async fn each_altered(folder: &Path, verify: impl AsyncFn() -> Output) {
    for (file, at) in [
        ("checkpoint", 60),
        ("events.jsonl", 5_000),
        ("tile/0/001", 5),
        ("tile/1/000.p/5", 5),
        ("proof/257.tlog-proof", 400),
        ("consistency", 0),
    ] {
        let path = if file == "consistency" {
            fs::read_dir(folder.join(file)).unwrap().map(|entry| entry.unwrap().path()).min().unwrap()
        } else {
            folder.join(file)
        };
        let original = fs::read(&path).unwrap();
        let mut altered = original.clone();
        // The hashes of a proof follow the last blank line.
        let at = if at == 0 { original.windows(2).rposition(|text| text == b"\n\n").unwrap() + 4 } else { at };
        let byte = altered.get_mut(at).unwrap();
        *byte = if *byte == b'A' { b'B' } else { b'A' };
        fs::write(&path, altered).unwrap();
        let output = verify().await;
        assert!(!output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stdout));
        fs::write(&path, original).unwrap();
    }
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn tlog_scales_verifies_an_export() {
    let (_kept, folder, events) = export().await;
    let verify = async || {
        let mut command = Command::new(interpreter());
        command.arg("-c").arg(include_str!("../../../../schemas/tlog/tests/tlog/verify.py")).arg(&folder);
        run(command).await
    };
    let output = verify().await;
    let expected = format!("checkpoint, {} consistency proofs, {events} entries\n", NETWORKS.len());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
    each_altered(&folder, verify).await;
}

/// `make verify-go` runs it.
#[tokio::test]
#[ignore = "takes Go, which `ops/setup go` installs (450 MB)"]
async fn go_verifies_an_export() {
    let (kept, folder, events) = export().await;
    let program = kept.path().join("verify-go");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(Path::new(PROJECT).join("ops/verify-go/main.go"));
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode");
    let built = run(build).await;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let verify = async || {
        let mut command = Command::new(&program);
        command.arg(&folder);
        run(command).await
    };
    let output = verify().await;
    let expected = format!("verify-go: {events} entries, 6 proofs, {} consistency proofs\n", NETWORKS.len());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
    each_altered(&folder, verify).await;
}
