//! Properties of the process: it ends cleanly on SIGTERM, leaves no nats-server behind however it ends, has exclusive
//! use of its state folder, and logs its URL once it serves requests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use otherix_schemas::network::{CreateNetwork, GetNetwork, NetworkById, NetworkView};
use otherix_schemas::request::Request;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use rustix::process::Signal;

use super::daemon::{OtherixdProcess, command, create, draft, get, overlay, try_call};

#[tokio::test]
async fn stops_on_sigterm_and_resumes() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let created = create(&admin, &draft("net-dev", "br-dev")).await;
    for signal in [Signal::TERM, Signal::INT] {
        let signalled_at = Instant::now();
        daemon.signal(signal);
        let status = daemon.wait_for_exit().await;
        assert!(status.success(), "{status}: {}", daemon.log());
        assert!(signalled_at.elapsed() < Duration::from_secs(5), "{:?}", signalled_at.elapsed());
        assert_eq!(daemon.servers(), [0; 0]);
        daemon.start_again().await;
        assert_eq!(get(&admin, &created).await.unwrap().name, created.name);
    }
    daemon.signal(Signal::TERM);
    daemon.wait_for_exit().await;
    let verify = ["journal", "verify", "--state", daemon.state().to_str().unwrap()];
    let verified = Command::new(env!("CARGO_BIN_EXE_otherixd")).args(verify).output().unwrap();
    let verified = String::from_utf8(verified.stdout).unwrap();
    let last = daemon.position(1);
    assert!(verified.starts_with(&format!("{last} events up to position {last}, epoch 1, digest ")), "{verified}");
}

#[tokio::test]
async fn the_context_of_this_machine_has_address_and_credentials() {
    let daemon = OtherixdProcess::start().await;
    let path = daemon.state().join("context.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let context: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(context["url"].as_str(), Some(daemon.url().await.as_str()));
    let credentials = Credentials::load(Path::new(context["creds"].as_str().unwrap())).unwrap();
    let endpoint = NatsEndpoint::new(context["url"].as_str().unwrap(), credentials);
    Nats::once(&endpoint, "test", Duration::from_secs(10)).await.unwrap();
    assert!(context["ca"].is_null(), "it listens on loopback");
}

#[tokio::test]
async fn answers_first_request_after_ready_log() {
    let mut daemon = OtherixdProcess::start().await;
    for start in 0..5 {
        let (admin, name) = (daemon.connect("admin").await, format!("net-{start}"));
        let created =
            try_call::<NetworkView>(&admin, Request::of::<CreateNetwork>(), &overlay(&name), None).await.unwrap();
        let by_id = NetworkById { id: created.data.id };
        let found = try_call::<NetworkView>(&admin, Request::of::<GetNetwork>(), &by_id, None).await.unwrap();
        assert_eq!(found.data.name.as_str(), name);
        daemon.kill();
        daemon.wait_for_no_servers().await;
        daemon.start_again().await;
    }
}

#[tokio::test]
async fn nats_server_ends_with_otherixd() {
    let mut daemon = OtherixdProcess::start().await;
    assert_eq!(daemon.servers().len(), 1);
    daemon.kill();
    daemon.wait_for_no_servers().await;
}

#[tokio::test]
async fn rejects_state_folder_in_use() {
    let daemon = OtherixdProcess::start().await;
    let state = daemon.state().to_owned();
    let second = tokio::task::spawn_blocking(move || command(&state, "127.0.0.1:0").output().unwrap()).await.unwrap();
    assert!(!second.status.success());
    let errors = String::from_utf8(second.stderr).unwrap();
    assert!(
        errors.contains(&format!("another process (pid {})", daemon.pid())) && errors.contains("stop the otherixd"),
        "{errors}"
    );
    // The first is not affected.
    create(&daemon.connect("admin").await, &draft("net-dev", "br-dev")).await;
    assert_eq!(daemon.servers().len(), 1);
}
