//! Properties of read models: one that has stopped reports the cause and its lag, and still answers stale queries;
//! `otherixd rebuild` repairs it, and refuses to run beside the control plane.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use futures::future::join_all;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{ListNetworks, NetworkPageRequest, NetworkView};
use otherix_schemas::projection::{
    AllProjections, ProjectionStatus, ProjectionsView, RebuildProjections, RebuildState, RebuildView,
};
use otherix_schemas::request::{Answer, Request};
use otherix_testkit::wait::wait_for;
use otherix_transport::request::CallError;
use rustix::process::Signal;

use super::daemon::{DEADLINE, OtherixdProcess, call, create, draft, list_all, overlay, try_call};

fn sql(daemon: &OtherixdProcess, statements: &str) {
    let path = daemon.state().join("read-models.db");
    let arguments = ["-bail", "-batch", path.to_str().unwrap(), ".timeout 5000", statements];
    assert!(Command::new("sqlite3").args(arguments).status().unwrap().success());
}

fn rebuild(daemon: &OtherixdProcess) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherixd"));
    command.arg("rebuild").arg("--state").arg(daemon.state()).output().unwrap()
}

#[tokio::test]
async fn stopped_read_models_are_reported_and_rebuilt() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &draft("first", "br-first")).await;
    assert_eq!(list_all(&admin).await.len(), 1);
    // A row with the position of the next event.
    let next = daemon.position(2);
    sql(
        &daemon,
        &format!("INSERT INTO networks VALUES ('x', {next}, 'second', 'overlay', '{{}}', '{{}}', 999, 0, 0, NULL)"),
    );
    create(&admin, &overlay("second")).await;

    let request = NetworkPageRequest { kind: Some("bridge".to_owned()), ..NetworkPageRequest::default() };
    let answer = try_call::<Vec<NetworkView>>(&admin, Request::of::<ListNetworks>(), &request, None).await;
    let Err(CallError::Refused(refusal)) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal.error.code, ErrorCode::Unavailable);
    assert_eq!(refusal.error.details.get("lag"), Some(&1.into()));
    let reason = format!("cannot apply the event at position {next}");
    assert!(refusal.error.message.contains(&reason), "{}", refusal.error.message);
    let second = Duration::from_secs(1);
    let stale: Answer<Vec<NetworkView>> = admin.call_stale::<ListNetworks>(&request, second).await.unwrap();
    assert_eq!((stale.data.len(), stale.meta.position.get()), (1, daemon.position(1)));

    let running = rebuild(&daemon);
    assert!(!running.status.success() && !running.stderr.is_empty());
    daemon.signal(Signal::TERM);
    daemon.wait_for_exit().await;
    let rebuilt = rebuild(&daemon);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    let expected = format!("read models rebuilt, up to position {next}\n");
    assert_eq!(String::from_utf8(rebuilt.stdout).unwrap(), expected);
    daemon.start_again().await;
    let names: Vec<_> = list_all(&admin).await.into_iter().map(|view| view.name.to_string()).collect();
    assert_eq!(names, ["first", "second"]);
}

/// Overwrites the pages of a file from the second on.
fn damage(path: &Path) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0x5a; usize::try_from(length - 4096).unwrap()]).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test]
async fn damaged_read_models_are_rebuilt_without_an_operator() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    create(&admin, &draft("first", "br-first")).await;
    create(&admin, &draft("second", "br-second")).await;
    assert_eq!(list_all(&admin).await.len(), 2);
    let path = daemon.state().join("read-models.db");
    // While it runs: what is in its caches hides the damage at first.
    sql(&daemon, "PRAGMA wal_checkpoint(TRUNCATE)");
    damage(&path);
    create(&admin, &draft("third", "br-third")).await;
    assert_eq!(list_all(&admin).await.len(), 3);
    daemon.stop().await;
    // And while it is stopped.
    damage(&path);
    daemon.start_again().await;
    assert_eq!(list_all(&admin).await.len(), 3);
    assert!(path.with_extension("db.unusable").exists(), "the damaged file is kept");
    create(&admin, &draft("fourth", "br-fourth")).await;
    assert_eq!(list_all(&admin).await.len(), 4);
}

#[tokio::test]
async fn sigkill_during_a_rebuild_leaves_whole_read_models() {
    const NETWORKS: usize = 1_500;
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for from in (0..NETWORKS).step_by(100) {
        let drafts: Vec<_> = (from..from + 100).map(|number| overlay(&format!("net-{number}"))).collect();
        join_all(drafts.iter().map(|draft| create(&admin, draft))).await;
    }
    let expected = list_all(&admin).await;
    assert_eq!(expected.len(), NETWORKS);
    let path = daemon.state().join("read-models.db");
    let mut interrupted = 0;
    for round in 0..5_u64 {
        let begin = Request::of::<RebuildProjections>();
        let begun: RebuildView = call(&admin, begin, &AllProjections {}, None).await.unwrap().data;
        // Before the first event, in between, and about when the new ones replace the old ones.
        let enough = begun.head.get() * round / 4;
        let last = wait_for(DEADLINE, "the rebuild", async || {
            let status = Request::of::<ProjectionStatus>();
            let status: ProjectionsView = call(&admin, status, &AllProjections {}, None).await.unwrap().data;
            let last = status.rebuild.unwrap();
            if last.position.get() >= enough { Ok(last) } else { Err(last) }
        })
        .await;
        daemon.kill();
        daemon.wait_for_no_servers().await;
        interrupted += u32::from(last.state == RebuildState::Running);
        let check = Command::new("sqlite3").arg(&path).arg("PRAGMA integrity_check").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&check.stdout), "ok\n", "round {round}");
        daemon.start_again().await;
        assert!(!daemon.log().contains("rebuilding the read models"), "the file in place was not usable");
        assert_eq!(list_all(&admin).await, expected, "round {round}");
        assert!(!path.with_extension("db.new").exists(), "the unfinished file is removed");
    }
    assert!(interrupted >= 3, "{interrupted} rebuilds were interrupted");
}
