//! Properties of a journal restored from an older backup: nothing is served until an operator has decided about the
//! events that only the stream has; `adopt` and `restore` both work and report what they do; clients continue where
//! they were.

use std::fs;
use std::process::Command;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::{JoinAnswer, JoinNode, JoinRequest};
use otherix_schemas::request::{Answer, Request};
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use uuid::Uuid;

use super::daemon::{DEADLINE, Daemon, call, create, draft, list_all, overlay, tool};

const DURABLES: &str = include_str!("../../../../commands/tests/write_side/durables.py");

/// An independent client with durable consumers.
async fn durables(daemon: &Daemon, phase: &str) -> String {
    let (url, credentials) = (daemon.url().await, daemon.credentials("admin"));
    nats_py(DURABLES, &[&url, phase, "admin", credentials.to_str().unwrap()]).await
}

/// Puts a journal into the state folder, as an operator would.
fn put_back(daemon: &Daemon, backup: &[u8]) {
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _there_may_be_none = fs::remove_file(daemon.state().join(name));
    }
    fs::write(daemon.state().join("journal.db"), backup).unwrap();
}

fn sql(daemon: &Daemon, statement: &str) -> String {
    let journal = daemon.state().join("journal.db");
    let output = Command::new("sqlite3").arg("-readonly").arg(journal).arg(statement).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A stopped control plane with five networks, and its journal when it had three.
async fn with_a_backup() -> (Daemon, Vec<u8>) {
    let mut daemon = Daemon::start().await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b", "c"] {
        create(&admin, &overlay(name)).await;
    }
    daemon.stop().await;
    let backup = fs::read(daemon.state().join("journal.db")).unwrap();
    daemon.start_again().await;
    for name in ["d", "e"] {
        create(&admin, &overlay(name)).await;
    }
    daemon.assert_copy().await;
    daemon.stop().await;
    (daemon, backup)
}

#[tokio::test]
async fn stops_on_missing_events_until_adopted() {
    let (mut daemon, backup) = with_a_backup().await;
    put_back(&daemon, &backup);

    daemon.launch();
    let status = daemon.ended().await;

    let log = daemon.log();
    assert!(!status.success() && !log.contains("the control plane serves"), "{log}");
    let ways = ["otherixd journal adopt", "otherixd restore --new-epoch"];
    for said in ["sequence 5, ahead of the journal at position 3"].iter().chain(&ways) {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert_eq!(daemon.servers(), [0; 0]);
    let state = daemon.state().to_owned();
    let (good, _, said) = tool(&state, &["journal", "verify", "--stream"]).await;
    assert!(!good && said.contains("position 4: the journal lacks the event"), "{said}");
    let (good, said, errors) = tool(&state, &["journal", "adopt", "--dry-run"]).await;
    assert!(good && said.contains("2 events") && said.contains("positions 4 to 5"), "{said}{errors}");
    assert_eq!(sql(&daemon, "SELECT count(*) FROM events"), "3");
    let (good, said, errors) = tool(&state, &["journal", "adopt"]).await;
    assert!(good && said.contains("the journal's head is position 5"), "{said}{errors}");
    let (good, said, _) = tool(&state, &["journal", "adopt"]).await;
    assert!(good && said.contains("has every event of the stream"), "{said}");
    let (good, said, errors) = tool(&state, &["journal", "verify", "--stream"]).await;
    assert!(good && said.matches("is identical up to position 5").count() == 2, "{said}{errors}");

    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    assert_eq!(list_all(&admin).await.len(), 5);
    assert_eq!(daemon.assert_copy().await, 5);
    for arguments in [&["journal", "adopt"][..], &["restore", "--new-epoch"], &["journal", "verify", "--stream"]] {
        let (good, _, said) = tool(&state, arguments).await;
        assert!(!good && said.contains(&format!("(pid {})", daemon.pid())), "{arguments:?}: {said}");
    }
    let (url, credentials) = (daemon.url().await, daemon.credentials("admin"));
    let beside = ["journal", "verify", "--nats", &url, "--credentials", credentials.to_str().unwrap()];
    let (good, said, errors) = tool(&state, &beside).await;
    assert!(good && said.contains("the stream is identical up to position 5"), "{said}{errors}");
}

#[tokio::test]
async fn adopts_events_from_the_clients_mirror() {
    let (mut daemon, backup) = with_a_backup().await;
    put_back(&daemon, &backup);
    let state = daemon.state().to_owned();
    fs::remove_dir_all(state.join("nats/jetstream/jetstream/CONTROL/streams/OTHERIX_EVENTS")).unwrap();

    daemon.launch();
    let status = daemon.ended().await;

    let log = daemon.log();
    assert!(!status.success() && log.contains("ahead of the journal at position 3"), "{log}");
    let (good, said, errors) = tool(&state, &["journal", "adopt"]).await;
    assert!(good && said.contains("2 events of the clients' mirror"), "{said}{errors}");
    daemon.start_again().await;
    assert_eq!(list_all(&daemon.connect("admin").await).await.len(), 5);
    assert_eq!(daemon.assert_copy().await, 5);
}

#[tokio::test]
async fn new_epoch_gives_up_later_events() {
    let (mut daemon, backup) = with_a_backup().await;
    let lost = sql(&daemon, "SELECT body FROM events WHERE position > 3 ORDER BY position");
    put_back(&daemon, &backup);
    let state = daemon.state().to_owned();
    let (good, _, said) = tool(&state, &["restore"]).await;
    assert!(!good && said.contains("--new-epoch"), "{said}");
    let (good, said, errors) = tool(&state, &["restore", "--new-epoch", "--dry-run"]).await;
    assert!(good && said.contains("epoch 2 begins at position 1006"), "{said}{errors}");
    assert!(said.contains("from position 4 to 5"), "{said}");
    assert_eq!(sql(&daemon, "SELECT epoch, (SELECT count(*) FROM events) FROM meta"), "1|3");
    let (good, said, errors) = tool(&state, &["restore", "--new-epoch"]).await;
    assert!(good && said.contains("epoch 2 has begun"), "{said}{errors}");
    let (good, said, _) = tool(&state, &["restore", "--new-epoch"]).await;
    assert!(good && said.contains("nothing to do"), "{said}");
    let kept = fs::read_to_string(state.join("given-up-epoch-1-from-4.jsonl")).unwrap();
    assert_eq!(kept.trim(), lost);

    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    let names: Vec<_> = list_all(&admin).await.into_iter().map(|view| view.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let view = create(&admin, &overlay("d")).await;
    assert_eq!((view.generation.get(), view.vni.map(|vni| vni.get())), (1007, Some(2005)));
    assert_eq!(daemon.assert_copy().await, 5);
    // A node joins after the gap.
    let node = daemon.connect("node").await;
    let body = JoinRequest { node_id: NodeId::new(Uuid::from_u128(1)), name: "node-1".parse().unwrap(), mesh: None };
    let joined: Answer<JoinAnswer> = call(&node, Request::of::<JoinNode>(), &body, None).await.unwrap();
    assert_eq!(joined.data.decision_head.get(), 1008);
    assert_eq!(daemon.assert_copy().await, 6);
}

#[tokio::test]
async fn durable_consumers_survive_a_new_stream() {
    let daemon = Daemon::start().await;
    let admin = daemon.connect("admin").await;
    for number in 0..20 {
        create(&admin, &draft(&format!("net-{number}"), &format!("br-{number}"))).await;
    }
    daemon.assert_copy().await;
    let before = durables(&daemon, "begin").await;
    let clients = admin.jetstream();
    let created = async || clients.get_stream("OTHERIX_EVENTS").await.map(|stream| stream.cached_info().created).ok();
    let old = created().await;
    let credentials = Credentials::load(&daemon.credentials("otherixd")).unwrap();
    let control = Nats::once(&NatsEndpoint { url: daemon.url().await, credentials }, "test", DEADLINE).await.unwrap();
    control.jetstream().delete_stream("OTHERIX_EVENTS").await.unwrap();
    let anew = async || created().await.is_some_and(|created| Some(created) != old);
    wait_for(DEADLINE, "another mirror", anew).await;
    wait_for(DEADLINE, "consumers", async || daemon.log().contains("durable consumers are restored")).await;
    assert_eq!(daemon.assert_copy().await, 20);
    assert_eq!(durables(&daemon, "end").await, before);
}
