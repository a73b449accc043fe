//! Users' durable consumers: made and removed by request, read by their user alone, and gone with it.

use std::path::Path;
use std::process::Command;

use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_schemas::consumer::{
    ConsumerByName, ConsumerDraft, ConsumerView, CreateConsumer, DeleteConsumer, ListConsumers, MyConsumers,
};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::request::Request;
use otherix_schemas::user::{
    DeleteUser, RevokeUser, RotateUserKey, SetUserRole, UserAndKey, UserAndRole, UserById, UserRole, UserView,
};
use otherix_testkit::python::{interpreter, modules, nats_py};
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use serde_json::{Value, json};

use super::users::{ask, register};
use crate::daemon::{DEADLINE, OtherixdProcess, call, create, overlay};

/// A user with a connection and a credentials file.
struct Reader {
    user: UserView,
    creds: Creds,
    connection: Nats,
    file: String,
}

impl Reader {
    async fn register(daemon: &OtherixdProcess, name: &str, role: UserRole) -> Self {
        let (user, creds) = register(&daemon.connect("admin").await, name, role).await;
        let file = daemon.state().join(format!("test-{name}.creds"));
        otherix_runtime::files::replace(&file, creds.render().as_bytes()).unwrap();
        let connection = daemon.connect_as(creds.clone()).await;
        Self { user, creds, connection, file: file.to_str().unwrap().to_owned() }
    }

    async fn try_create(&self, consumer: &ConsumerDraft) -> Result<ConsumerView, ErrorBody> {
        call(&self.connection, Request::of::<CreateConsumer>(), consumer, None).await.map(|answer| answer.data)
    }

    async fn create(&self, name: &str, from: &str) -> ConsumerView {
        self.try_create(&draft(name, from)).await.unwrap()
    }

    async fn list(&self) -> Vec<ConsumerView> {
        ask::<ListConsumers>(&self.connection, &MyConsumers {}).await
    }
}

fn draft(name: &str, from: &str) -> ConsumerDraft {
    ConsumerDraft { name: name.to_owned(), from: Some(from.to_owned()), ..ConsumerDraft::default() }
}

/// Reads and acknowledges events as the example in the documentation does. Returns their positions.
pub(crate) async fn consume(daemon: &OtherixdProcess, file: &str, consumer: &str, count: usize) -> Vec<u64> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/consume.py");
    let mut command = Command::new(interpreter());
    command.arg(example).args([consumer, &count.to_string()]).env("PYTHONPATH", modules());
    command.env("OTHERIX_NATS_URL", daemon.url().await).env("OTHERIX_CREDENTIALS", file).env_remove("OTHERIX_CA");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// The names of all users' consumers on the server.
async fn on_server(daemon: &OtherixdProcess) -> Vec<String> {
    let stream = daemon.mirror().await.get_stream("OTHERIX_EVENTS").await.unwrap();
    let mut names: Vec<String> = futures::TryStreamExt::try_collect(stream.consumer_names()).await.unwrap();
    names.sort();
    names
}

async fn wait_for_consumers(daemon: &OtherixdProcess, expected: &[&str]) {
    wait_for(DEADLINE, "the consumers on the server", async || match on_server(daemon).await {
        names if names == expected => Ok(()),
        names => Err(names),
    })
    .await;
}

async fn networks(daemon: &OtherixdProcess, names: &[&str]) {
    let admin = daemon.connect("admin").await;
    for name in names {
        create(&admin, &overlay(name)).await;
    }
}

#[tokio::test]
async fn a_user_reads_its_own_consumer_and_does_nothing_with_anothers() {
    let mut daemon = OtherixdProcess::start().await;
    networks(&daemon, &["a", "b", "c"]).await;
    let ann = Reader::register(&daemon, "ann", UserRole::Operator).await;
    let bob = Reader::register(&daemon, "bob", UserRole::Admin).await;
    let (first, last) = positions(&daemon).await;
    let (audit, own) = (ann.create("audit", "all").await, bob.create("mine", "all").await);
    assert_eq!(audit.consumer, ann.creds.user().as_str());
    assert_eq!((audit.pending, audit.acknowledged.get()), (last, 0));
    assert_eq!(consume(&daemon, &ann.file, &audit.consumer, 2).await, [first, first + 1]);

    let before = ann.list().await;
    assert_eq!((before.len(), before[0].acknowledged.get(), before[0].ack_pending), (1, first + 1, 0));
    let url = daemon.url().await;
    let results = nats_py(include_str!("trespass.py"), &[&url, &bob.file, &audit.consumer, &own.consumer]).await;
    let results: Value = serde_json::from_str(&results).unwrap();
    for (attempt, result) in results.as_object().unwrap() {
        let expected = if ["read own", "inspect own"].contains(&attempt.as_str()) { "answered" } else { "refused" };
        assert_eq!(result, expected, "{attempt}: {results}");
    }
    assert_eq!(ann.list().await, before, "another user has changed the consumer");
    let missing =
        call::<Value>(&bob.connection, Request::of::<DeleteConsumer>(), &json!({"name": "audit"}), None).await;
    assert_eq!(missing.unwrap_err().error.code, ErrorCode::NotFound);

    // After a restart of everything, it continues where it was.
    daemon.kill();
    daemon.wait_for_no_servers().await;
    daemon.start_again().await;
    assert_eq!(consume(&daemon, &ann.file, &audit.consumer, 1).await, [first + 2]);
    let name = audit.name.clone();
    ask::<DeleteConsumer>(&ann.connection, &ConsumerByName { name }).await;
    assert!(ann.list().await.is_empty());
    wait_for_consumers(&daemon, &[&own.consumer]).await;
    let log = daemon.log();
    assert!(log.contains("a durable consumer is deleted") && log.contains("user=\"ann\""), "{log}");
}

/// The positions of the first and the last event, as soon as the mirror has all of them.
pub(crate) async fn positions(daemon: &OtherixdProcess) -> (u64, u64) {
    daemon.assert_stream_is_copy().await;
    let stream = daemon.mirror().await.get_stream("OTHERIX_EVENTS").await.unwrap();
    let state = &stream.cached_info().state;
    (state.first_sequence, state.last_sequence)
}

#[tokio::test]
async fn consumers_are_few_and_the_same_request_makes_no_other() {
    let daemon = OtherixdProcess::start().await;
    networks(&daemon, &["a"]).await;
    let ann = Reader::register(&daemon, "ann", UserRole::Operator).await;
    daemon.assert_stream_is_copy().await;
    let made = ann.create("one", "all").await;
    assert_eq!(ann.create("one", "all").await, made);
    let other = ConsumerDraft { ack_wait_seconds: Some(5), ..draft("one", "new") };
    let conflict = ann.try_create(&other).await.unwrap_err().error;
    assert_eq!(
        (conflict.code, &conflict.details["differences"]),
        (ErrorCode::Conflict, &json!(["from", "ack_wait_seconds"]))
    );
    for name in ["two", "three", "four"] {
        ann.create(name, "all").await;
    }
    let refused = ann.try_create(&draft("five", "all")).await.unwrap_err().error;
    assert!(refused.code == ErrorCode::Conflict && refused.message.contains("delete one"), "{refused:?}");
    let names: Vec<String> = ann.list().await.into_iter().map(|view| view.name.to_string()).collect();
    assert_eq!(names, ["four", "one", "three", "two"]);
    ask::<DeleteConsumer>(&ann.connection, &ConsumerByName { name: "two".parse().unwrap() }).await;
    let fifth = ann.create("five", "all").await;
    assert_eq!(fifth.consumer, format!("{}_1", ann.creds.user()), "a free slot is used again");

    let later = ConsumerDraft { from: Some("1000".to_owned()), ..draft("six", "all") };
    assert_eq!(ann.try_create(&later).await.unwrap_err().error.code, ErrorCode::ValidationFailed);
    let viewer = Reader::register(&daemon, "eve", UserRole::Viewer).await;
    let denied = viewer.try_create(&draft("audit", "all")).await.unwrap_err().error;
    assert_eq!((denied.code, &denied.details["permission"]), (ErrorCode::PermissionDenied, &json!("audit:read")));
}

#[tokio::test]
async fn a_consumer_begins_where_it_was_asked_to_and_has_only_what_it_filters() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let mut created = Vec::new();
    for name in ["a", "b", "c", "d"] {
        created.push(create(&admin, &overlay(name)).await);
    }
    let ann = Reader::register(&daemon, "ann", UserRole::Operator).await;
    let [_, second, third, fourth] = &created[..] else { panic!("{created:?}") };
    let (_, last) = positions(&daemon).await;

    // The event at that time, not the later one at which the server has stored it.
    let at = ann.create("time", &second.created_at.to_string()).await;
    assert_eq!(consume(&daemon, &ann.file, &at.consumer, 1).await, [second.generation.get()]);
    let at = ann.create("position", &third.generation.to_string()).await;
    assert_eq!(consume(&daemon, &ann.file, &at.consumer, 2).await, [third.generation.get(), fourth.generation.get()]);
    let (types, subjects) = (vec!["user.created".to_owned()], vec!["otherix.evt.v1.vm.>".to_owned()]);
    let filtered = ConsumerDraft { types, subjects, ..draft("filtered", "all") };
    let filtered = ann.try_create(&filtered).await.unwrap();
    assert_eq!(filtered.subjects, ["otherix.adm.v1.user.created.*", "otherix.evt.v1.vm.>"]);
    let new = ann.create("new", "new").await;
    assert_eq!((new.pending, new.acknowledged.get()), (0, last));
    let (bob, _) = register(&admin, "bob", UserRole::Viewer).await;
    let bob = bob.generation.get();
    assert_eq!(consume(&daemon, &ann.file, &new.consumer, 1).await, [bob]);
    // The first one is the administrator of the first start.
    let users = consume(&daemon, &ann.file, &filtered.consumer, 3).await;
    assert_eq!(users[1..], [ann.user.generation.get(), bob]);
}

#[tokio::test]
async fn consumers_end_with_their_users() {
    let mut daemon = OtherixdProcess::start().await;
    networks(&daemon, &["a"]).await;
    let admin = daemon.connect("admin").await;
    let mut readers = Vec::new();
    for name in ["ann", "bob", "cid", "dot", "eve"] {
        readers.push(Reader::register(&daemon, name, UserRole::Operator).await);
        readers.last().unwrap().create("audit", "all").await;
        readers.last().unwrap().create("billing", "all").await;
    }
    let [revoked, rotated, demoted, deleted, stays] = &readers[..] else { panic!("{}", readers.len()) };
    assert_eq!(on_server(&daemon).await.len(), 10);
    ask::<RevokeUser>(&admin, &UserById { id: revoked.user.id }).await;
    let key = KeyPair::generate(KeyKind::User).unwrap();
    let key = key.public_key().as_str().parse().unwrap();
    ask::<RotateUserKey>(&admin, &UserAndKey { id: rotated.user.id, key, expires_at: None }).await;
    ask::<SetUserRole>(&admin, &UserAndRole { id: demoted.user.id, role: UserRole::Viewer }).await;
    ask::<DeleteUser>(&admin, &UserById { id: deleted.user.id }).await;
    let key = stays.creds.user().to_string();
    let kept = [key.as_str(), &format!("{key}_1")];
    wait_for_consumers(&daemon, &kept).await;
    assert_eq!(stays.list().await.len(), 2);
    let log = daemon.log();
    assert!(log.contains("its user may have none any more") && log.contains(revoked.creds.user().as_str()), "{log}");

    // Of somebody that the registry does not know: of a change that was made while nothing removed consumers.
    let unknown = daemon.sign("operator", "clients");
    let stream = daemon.mirror().await.get_stream("OTHERIX_EVENTS").await.unwrap();
    daemon.signal(rustix::process::Signal::STOP);
    let durable_name = Some(format!("{}_2", unknown.user()));
    let config = async_nats::jetstream::consumer::pull::Config { durable_name, ..Default::default() };
    stream.create_consumer(config).await.unwrap();
    daemon.kill();
    daemon.wait_for_no_servers().await;
    daemon.start_again().await;
    wait_for_consumers(&daemon, &kept).await;
}
