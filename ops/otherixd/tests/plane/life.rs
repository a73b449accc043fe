//! Promises of the process: it ends cleanly when asked to, leaves no server behind however it ends, has its state folder to
//! itself, and says where it listens once it answers.

use std::process::Command;
use std::time::{Duration, Instant};

use otherix_schemas::network::{NetworkById, NetworkView};
use otherix_schemas::request::Request;
use rustix::process::Signal;

use super::daemon::{Daemon, command, create, draft, get, overlay, try_call};

#[tokio::test]
async fn it_ends_when_asked_to_and_goes_on_where_it_was() {
    let mut daemon = Daemon::start().await;
    let admin = daemon.connect("admin").await;
    let created = create(&admin, &draft("net-dev", "br-dev")).await;
    for signal in [Signal::TERM, Signal::INT] {
        let asked = Instant::now();
        daemon.signal(signal);
        let status = daemon.ended().await;
        assert!(status.success(), "{status}: {}", daemon.log());
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(daemon.servers(), [0; 0]);
        daemon.start_again().await;
        assert_eq!(get(&admin, &created).await.unwrap().name, created.name);
    }
    daemon.signal(Signal::TERM);
    daemon.ended().await;
    let verify = ["journal", "verify", "--state", daemon.state().to_str().unwrap()];
    let verified = Command::new(env!("CARGO_BIN_EXE_otherixd")).args(verify).output().unwrap();
    assert!(String::from_utf8(verified.stdout).unwrap().starts_with("1 events up to position 1, epoch 1, digest "));
}

#[tokio::test]
async fn whoever_reads_that_it_serves_is_answered_at_the_first_attempt() {
    let mut daemon = Daemon::start().await;
    for start in 0..5 {
        let (admin, name) = (daemon.connect("admin").await, format!("net-{start}"));
        let created = try_call::<NetworkView>(&admin, Request::NetworkCreate, &overlay(&name), None).await.unwrap();
        let asked = NetworkById { id: created.data.id };
        let found = try_call::<NetworkView>(&admin, Request::NetworkGet, &asked, None).await.unwrap();
        assert_eq!(found.data.name.as_str(), name);
        daemon.kill9();
        daemon.no_servers().await;
        daemon.start_again().await;
    }
}

#[tokio::test]
async fn no_server_outlives_it() {
    let mut daemon = Daemon::start().await;
    assert_eq!(daemon.servers().len(), 1);
    daemon.kill9();
    daemon.no_servers().await;
}

#[tokio::test]
async fn a_second_one_on_the_same_state_is_refused() {
    let daemon = Daemon::start().await;
    let state = daemon.state().to_owned();
    let second = tokio::task::spawn_blocking(move || command(&state, "127.0.0.1:0").output().unwrap()).await.unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains(&format!("another process (pid {})", daemon.pid())) && said.contains("stop the otherixd"),
        "{said}"
    );
    // The first does not mind.
    create(&daemon.connect("admin").await, &draft("net-dev", "br-dev")).await;
    assert_eq!(daemon.servers().len(), 1);
}
