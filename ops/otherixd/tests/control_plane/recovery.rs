//! Properties of a journal restored from an older backup: the control plane does not start until an operator has
//! decided about the events that only the stream has; `adopt` and `restore` both work and print what they do; clients
//! continue at their position.

use std::fs;
use std::process::Command;

use otherix_schemas::consumer::{
    ConsumerByName, ConsumerDraft, ConsumerView, CreateConsumer, DeleteConsumer, ListConsumers, MyConsumers,
};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{JoinAnswer, JoinNode, JoinRequest};
use otherix_schemas::request::{Answer, Request};
use otherix_schemas::user::UserRole;
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use uuid::Uuid;

use super::accounts::consumers::{consume, positions};
use super::accounts::users::{ask, register};
use super::daemon::{DEADLINE, OtherixdProcess, call, create, draft, list_all, overlay, tool};

const DURABLES: &str = include_str!("../../../../commands/tests/write_side/durables.py");

/// Runs an independent client with durable consumers.
async fn durables(daemon: &OtherixdProcess, phase: &str) -> String {
    let (url, credentials) = (daemon.url().await, daemon.credentials_of_part("mirror", "events"));
    let skipped = daemon.position(0).to_string();
    nats_py(DURABLES, &[&url, phase, &skipped, credentials.to_str().unwrap()]).await
}

/// Restores a journal into the state folder, as an operator would.
pub(crate) fn restore_backup(daemon: &OtherixdProcess, backup: &[u8]) {
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _may_be_missing = fs::remove_file(daemon.state().join(name));
    }
    fs::write(daemon.state().join("journal.db"), backup).unwrap();
}

fn sql(daemon: &OtherixdProcess, statement: &str) -> String {
    let journal = daemon.state().join("journal.db");
    let output = Command::new("sqlite3").arg("-readonly").arg(journal).arg(statement).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A stopped control plane with five networks, and a backup of its journal with the first three.
pub(crate) async fn stopped_with_backup() -> (OtherixdProcess, Vec<u8>) {
    let mut daemon = OtherixdProcess::start().await;
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
    daemon.assert_stream_is_copy().await;
    daemon.stop().await;
    (daemon, backup)
}

#[tokio::test]
async fn stops_on_missing_events_until_adopted() {
    let (mut daemon, backup) = stopped_with_backup().await;
    restore_backup(&daemon, &backup);

    daemon.launch();
    let status = daemon.wait_for_exit().await;

    let log = daemon.log();
    assert!(!status.success() && !log.contains("the control plane serves"), "{log}");
    let options = ["otherixd journal adopt", "otherixd restore --new-epoch"];
    let [third, fourth, fifth] = [3, 4, 5].map(|number| daemon.position(number));
    let ahead = format!("sequence {fifth}, ahead of the journal at position {third}");
    for message in [ahead.as_str()].iter().chain(&options) {
        assert!(log.contains(message), "{message}: {log}");
    }
    assert_eq!(daemon.servers(), [0; 0]);
    let state = daemon.state().to_owned();
    let (ok, _, errors) = tool(&state, &["journal", "verify", "--stream"]).await;
    assert!(!ok && errors.contains(&format!("position {fourth}: the journal lacks the event")), "{errors}");
    let (ok, output, errors) = tool(&state, &["journal", "adopt", "--dry-run"]).await;
    assert!(ok && output.contains("2 events"), "{output}{errors}");
    assert!(output.contains(&format!("positions {fourth} to {fifth}")), "{output}");
    assert_eq!(sql(&daemon, "SELECT count(*) FROM events"), third.to_string());
    let (ok, output, errors) = tool(&state, &["journal", "adopt"]).await;
    assert!(ok && output.contains(&format!("the journal's head is position {fifth}")), "{output}{errors}");
    let (ok, output, _) = tool(&state, &["journal", "adopt"]).await;
    assert!(ok && output.contains("has every event of the stream"), "{output}");
    let (ok, output, errors) = tool(&state, &["journal", "verify", "--stream"]).await;
    let identical = format!("is identical up to position {fifth}");
    assert!(ok && output.matches(&identical).count() == 2, "{output}{errors}");

    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    assert_eq!(list_all(&admin).await.len(), 5);
    assert_eq!(daemon.assert_stream_is_copy().await, 5);
    for arguments in [&["journal", "adopt"][..], &["restore", "--new-epoch"], &["journal", "verify", "--stream"]] {
        let (ok, _, errors) = tool(&state, arguments).await;
        assert!(!ok && errors.contains(&format!("(pid {})", daemon.pid())), "{arguments:?}: {errors}");
    }
    let (url, credentials) = (daemon.url().await, daemon.credentials("admin"));
    let online = ["journal", "verify", "--nats", &url, "--credentials", credentials.to_str().unwrap()];
    let (ok, output, errors) = tool(&state, &online).await;
    assert!(ok && output.contains(&format!("the stream {identical}")), "{output}{errors}");
}

#[tokio::test]
async fn adopts_events_from_the_clients_mirror() {
    let (mut daemon, backup) = stopped_with_backup().await;
    restore_backup(&daemon, &backup);
    let state = daemon.state().to_owned();
    let account = daemon.identity_key("account-control").public_key().clone();
    fs::remove_dir_all(state.join(format!("nats/jetstream/jetstream/{account}/streams/OTHERIX_EVENTS"))).unwrap();

    daemon.launch();
    let status = daemon.wait_for_exit().await;

    let log = daemon.log();
    let ahead = format!("ahead of the journal at position {}", daemon.position(3));
    assert!(!status.success() && log.contains(&ahead), "{log}");
    let (ok, output, errors) = tool(&state, &["journal", "adopt"]).await;
    assert!(ok && output.contains("2 events of the clients' mirror"), "{output}{errors}");
    daemon.start_again().await;
    assert_eq!(list_all(&daemon.connect("admin").await).await.len(), 5);
    assert_eq!(daemon.assert_stream_is_copy().await, 5);
}

#[tokio::test]
async fn new_epoch_gives_up_later_events() {
    let (mut daemon, backup) = stopped_with_backup().await;
    let [third, fourth, fifth] = [3, 4, 5].map(|number| daemon.position(number));
    let lost = sql(&daemon, &format!("SELECT body FROM events WHERE position > {third} ORDER BY position"));
    restore_backup(&daemon, &backup);
    let state = daemon.state().to_owned();
    let (ok, _, errors) = tool(&state, &["restore"]).await;
    assert!(!ok && errors.contains("--new-epoch"), "{errors}");
    let (ok, output, errors) = tool(&state, &["restore", "--new-epoch", "--dry-run"]).await;
    let begin = fifth + 1001;
    assert!(ok && output.contains(&format!("epoch 2 begins at position {begin}")), "{output}{errors}");
    assert!(output.contains(&format!("from position {fourth} to {fifth}")), "{output}");
    assert_eq!(sql(&daemon, "SELECT epoch, (SELECT count(*) FROM events) FROM meta"), format!("1|{third}"));
    let (ok, output, errors) = tool(&state, &["restore", "--new-epoch"]).await;
    assert!(ok && output.contains("epoch 2 has begun"), "{output}{errors}");
    let (ok, output, _) = tool(&state, &["restore", "--new-epoch"]).await;
    assert!(ok && output.contains("nothing to do"), "{output}");
    let kept = fs::read_to_string(state.join(format!("given-up-epoch-1-from-{fourth}.jsonl"))).unwrap();
    assert_eq!(kept.trim(), lost);

    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    let names: Vec<_> = list_all(&admin).await.into_iter().map(|view| view.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let view = create(&admin, &overlay("d")).await;
    assert_eq!((view.generation.get(), view.vni.map(|vni| vni.get())), (begin + 1, Some(2005)));
    assert_eq!(daemon.assert_stream_is_copy().await, 5);
    // A node joins after the gap.
    let node = daemon.node(NodeId::new(Uuid::from_u128(1)), "node-1").await;
    let body = JoinRequest {
        node_id: NodeId::new(Uuid::from_u128(1)),
        name: "node-1".parse().unwrap(),
        mesh: None,
        arch: None,
    };
    let joined: Answer<JoinAnswer> = call(&node, Request::of::<JoinNode>(), &body, None).await.unwrap();
    assert_eq!(joined.data.decision_head.get(), begin + 4, "after the events about its token");
    assert_eq!(daemon.assert_stream_is_copy().await, 6);
}

#[tokio::test]
async fn durable_consumers_survive_a_new_stream() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for number in 0..20 {
        create(&admin, &draft(&format!("net-{number}"), &format!("br-{number}"))).await;
    }
    daemon.assert_stream_is_copy().await;
    let before = durables(&daemon, "begin").await;
    let clients = daemon.mirror().await;
    let created = async || clients.get_stream("OTHERIX_EVENTS").await.map(|stream| stream.cached_info().created).ok();
    let old = created().await;
    daemon.stream().await.delete_stream("OTHERIX_EVENTS").await.unwrap();
    let is_recreated = async || created().await.is_some_and(|created| Some(created) != old);
    wait_for(DEADLINE, "another mirror", is_recreated).await;
    wait_for(DEADLINE, "consumers", async || daemon.log().contains("durable consumers are restored")).await;
    assert_eq!(daemon.assert_stream_is_copy().await, 20);
    assert_eq!(durables(&daemon, "end").await, before);
}

/// A user with a credentials file, and a consumer of which the first two events are acknowledged.
async fn reader(daemon: &OtherixdProcess) -> (Nats, String, ConsumerView) {
    let (_, creds) = register(&daemon.connect("admin").await, "ann", UserRole::Operator).await;
    let file = daemon.state().join("test-ann.creds").to_str().unwrap().to_owned();
    otherix_runtime::files::replace(file.as_ref(), creds.render().as_bytes()).unwrap();
    let connection = daemon.connect_as(creds).await;
    let draft = ConsumerDraft { name: "audit".to_owned(), ..ConsumerDraft::default() };
    let made: ConsumerView = ask::<CreateConsumer>(&connection, &draft).await;
    assert_eq!(consume(daemon, &file, &made.consumer, 2).await.len(), 2);
    (connection, file, made)
}

async fn consumers(connection: &Nats) -> Vec<ConsumerView> {
    ask::<ListConsumers>(connection, &MyConsumers {}).await
}

#[tokio::test]
async fn a_users_consumer_continues_in_a_new_epoch() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b"] {
        create(&admin, &overlay(name)).await;
    }
    let (connection, file, made) = reader(&daemon).await;
    let acknowledged = consumers(&connection).await.remove(0).acknowledged;
    daemon.stop().await;
    let backup = fs::read(daemon.state().join("journal.db")).unwrap();
    daemon.start_again().await;
    let given_up = create(&admin, &overlay("c")).await.generation;
    daemon.assert_stream_is_copy().await;
    daemon.stop().await;
    restore_backup(&daemon, &backup);
    let (ok, output, errors) = tool(daemon.state(), &["restore", "--new-epoch"]).await;
    assert!(ok, "{output}{errors}");
    daemon.start_again().await;
    let next = create(&admin, &overlay("d")).await.generation;
    assert!(next.get() > given_up.get() + 1, "{next}");
    daemon.assert_stream_is_copy().await;
    wait_for(DEADLINE, "consumers", async || daemon.log().contains("durable consumers are restored")).await;

    let continued = consumers(&connection).await.remove(0);
    assert_eq!((&continued.consumer, continued.acknowledged), (&made.consumer, acknowledged));
    let pending = usize::try_from(continued.pending).unwrap();
    let positions = consume(&daemon, &file, &made.consumer, pending).await;
    assert!(positions.iter().all(|position| *position > acknowledged.get()), "{positions:?}");
    assert!(positions.contains(&next.get()), "{positions:?}");
    // It is the user's as before.
    let draft = ConsumerDraft { name: "audit".to_owned(), ..ConsumerDraft::default() };
    let again: ConsumerView = ask::<CreateConsumer>(&connection, &draft).await;
    assert_eq!(again.consumer, made.consumer);
    ask::<DeleteConsumer>(&connection, &ConsumerByName { name: made.name }).await;
    assert!(consumers(&connection).await.is_empty());
    // Nor does one that is made in its place get its position.
    let saved = fs::read_to_string(daemon.state().join("relay/consumers-clients.json")).unwrap_or_default();
    assert!(!saved.contains(&made.consumer), "{saved}");
}

/// Only NATS knows where a reader is. It is told so, and begins again where it wants to.
#[tokio::test]
async fn a_users_consumer_is_gone_with_the_storage_of_nats() {
    let mut daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b"] {
        create(&admin, &overlay(name)).await;
    }
    let (connection, file, made) = reader(&daemon).await;
    let last = consumers(&connection).await.remove(0).acknowledged;
    daemon.stop().await;
    fs::remove_dir_all(daemon.state().join("nats")).unwrap();
    daemon.start_again().await;
    let (_, end) = positions(&daemon).await;
    assert_eq!(consumers(&connection).await, []);
    let draft = ConsumerDraft { from: Some(last.next().to_string()), name: "audit".to_owned(), ..Default::default() };
    let again: ConsumerView = ask::<CreateConsumer>(&connection, &draft).await;
    assert_eq!((again.consumer, again.pending), (made.consumer.clone(), end - last.get()));
    assert_eq!(consume(&daemon, &file, &made.consumer, 1).await, [last.get() + 1]);
}
