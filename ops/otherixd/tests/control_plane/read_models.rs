//! Properties of read models: one that has stopped reports the cause and its lag, and still answers stale queries;
//! `otherixd rebuild` repairs it, and refuses to run beside the control plane.

use std::process::{Command, Output};
use std::time::Duration;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{ListNetworks, NetworkPageRequest, NetworkView};
use otherix_schemas::request::{Answer, Request};
use otherix_transport::request::CallError;
use rustix::process::Signal;

use super::daemon::{OtherixdProcess, create, draft, list_all, overlay, try_call};

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
    // A row that conflicts with the next event.
    sql(&daemon, "INSERT INTO networks VALUES ('x', 999, 'second', 'overlay', '{}', 999, 0, NULL)");
    create(&admin, &overlay("second")).await;

    let request = NetworkPageRequest { kind: Some("bridge".to_owned()), ..NetworkPageRequest::default() };
    let answer = try_call::<Vec<NetworkView>>(&admin, Request::of::<ListNetworks>(), &request, None).await;
    let Err(CallError::Refused(refusal)) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal.error.code, ErrorCode::Unavailable);
    assert_eq!(refusal.error.details.get("lag"), Some(&1.into()));
    assert!(refusal.error.message.contains("cannot apply the event at position 2"), "{}", refusal.error.message);
    let second = Duration::from_secs(1);
    let stale: Answer<Vec<NetworkView>> = admin.call_stale::<ListNetworks>(&request, second).await.unwrap();
    assert_eq!((stale.data.len(), stale.meta.position.get()), (1, 1));

    let running = rebuild(&daemon);
    assert!(!running.status.success() && !running.stderr.is_empty());
    daemon.signal(Signal::TERM);
    daemon.wait_for_exit().await;
    let rebuilt = rebuild(&daemon);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    assert_eq!(String::from_utf8(rebuilt.stdout).unwrap(), "read models rebuilt, up to position 2\n");
    daemon.start_again().await;
    let names: Vec<_> = list_all(&admin).await.into_iter().map(|view| view.name.to_string()).collect();
    assert_eq!(names, ["first", "second"]);
}
