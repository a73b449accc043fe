//! The relay: the stream has the journal's events at the sequences that are their positions, without duplicates,
//! whatever is killed or dropped meanwhile; live subscribers receive events as soon as they are durable. Checked with
//! an independent client.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::stream::StreamExt;
use otherix_commands::config::StoreIdentity;
use otherix_commands::relay::{Inputs, Relay, RelayError, Relayed, StreamSettings};
use otherix_commands::store::{EventStore, SqliteStore};
use otherix_commands::writer::Durable;
use otherix_runtime::SystemRuntime;
use otherix_schemas::decision_chain::{ChainDigest, DecisionHead, DecisionSigner, SIGNED_HEAD, SignedHead};
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, JetStream, NatsEndpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::support::{DEADLINE, JournalFolder, RunningWriter, create, join};

pub(crate) async fn connect(server: &NatsServer) -> JetStream {
    let credentials = Credentials::password("otherixd".parse().unwrap(), "none");
    JetStream::lasting(&NatsEndpoint::new(server.url(), credentials), "test").await.unwrap()
}

/// Asserts that the stream is a copy of the journal. Returns its number of events.
pub(crate) async fn assert_copy(server: &NatsServer, folder: &JournalFolder) -> u64 {
    let path = folder.path();
    let output = nats_py(include_str!("../copy.py"), &[&server.url(), path.to_str().unwrap()]).await;
    output.trim().parse().unwrap()
}

/// What heads are signed with.
pub(crate) fn signer() -> Arc<DecisionSigner> {
    Arc::new(DecisionSigner::from_seed(&[7; 32]))
}

/// A writer with a relay.
pub(crate) struct Pipeline {
    pub(crate) writer: RunningWriter<SqliteStore>,
    pub(crate) relayed: watch::Receiver<Relayed>,
    pub(crate) relay: JoinHandle<Result<(), RelayError>>,
}

impl Pipeline {
    pub(crate) async fn start(folder: &JournalFolder, connection: &JetStream) -> Self {
        Self::start_with(folder, connection, StreamSettings::default()).await
    }

    pub(crate) async fn start_with(folder: &JournalFolder, connection: &JetStream, settings: StreamSettings) -> Self {
        let mut writer = RunningWriter::start(folder.open().await).await;
        let stored = std::mem::replace(&mut writer.stored, mpsc::channel(1).1);
        let (durable, runtime) = (writer.durable.clone(), SystemRuntime::shared());
        let inputs = Inputs { notes: folder.notes(), stored, durable, signer: signer(), settings, runtime };
        let relay = Relay::new(Arc::clone(&writer.journal), connection, inputs);
        let relayed = relay.relayed();
        let relay = tokio::spawn(relay.run());
        // Events from before the stream existed are only copied into it, without being sent to live subscribers.
        let context = connection.context();
        wait_for(DEADLINE, "the stream", async || context.get_stream(STREAM).await).await;
        Self { writer, relayed, relay }
    }

    /// Waits until every durable event is in the stream.
    pub(crate) async fn caught_up(&self) {
        wait_for(DEADLINE, "the relay", async || {
            let (durable, relayed) = (self.writer.durable.borrow().position, self.relayed.borrow().position);
            if durable == relayed { Ok(()) } else { Err((durable, relayed)) }
        })
        .await;
    }
}

/// A relay that copies what the journal has, and ends.
pub(crate) fn one_shot_relay(
    folder: &JournalFolder,
    journal: &Arc<SqliteStore>,
    connection: &JetStream,
    head: u64,
) -> Relay<SqliteStore> {
    one_shot_relay_with(folder, journal, connection, (head, StreamSettings::default()))
}

pub(crate) fn one_shot_relay_with(
    folder: &JournalFolder,
    journal: &Arc<SqliteStore>,
    connection: &JetStream,
    (head, settings): (u64, StreamSettings),
) -> Relay<SqliteStore> {
    let head = Position::new(head);
    let StoreIdentity { cluster, epoch } = journal.identity();
    let decisions = DecisionHead { cluster, epoch, position: head, digest: ChainDigest::START };
    let (_, durable) = watch::channel(Durable { position: head, decisions });
    let (stored, runtime) = (mpsc::channel(1).1, SystemRuntime::shared());
    let inputs = Inputs { notes: folder.notes(), stored, durable, signer: signer(), settings, runtime };
    Relay::new(Arc::clone(journal), connection, inputs)
}

#[tokio::test]
async fn copies_the_journals_bytes_to_the_stream_and_live_subscribers() {
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let mut live = connection.client().subscribe("live.otherix.>").await.unwrap();
    connection.client().flush().await.unwrap();
    let pipeline = Pipeline::start(&folder, &connection).await;
    pipeline.writer.execute(join("node-1")).await.unwrap();
    futures::future::join_all(
        (0..300).map(async |n| pipeline.writer.execute(create(&format!("net-{n}"))).await.unwrap()),
    )
    .await;
    pipeline.caught_up().await;

    assert_eq!(assert_copy(&server, &folder).await, 301);

    let entries = pipeline.writer.journal.read(Position::ZERO, 1000).await.unwrap();
    let (mut digest, mut signed_to) = (ChainDigest::START, Position::ZERO);
    for entry in entries {
        let message = tokio::time::timeout(DEADLINE, live.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, entry.body);
        digest = digest.after(&message.payload);
        let headers = message.headers.unwrap();
        if let Some(head) = headers.get(SIGNED_HEAD) {
            let signed: SignedHead = serde_json::from_str(head.as_str()).unwrap();
            let head = signed.verify(&signer().public(), None).unwrap();
            assert_eq!((head.position, head.digest), (entry.position, digest));
            signed_to = head.position;
        }
        assert_eq!(headers.get("Nats-Sequence").unwrap().as_str(), entry.position.to_string());
        let (kind, id) = entry.stream_id.split_once('/').unwrap();
        let happened = if kind == "node" { "joined" } else { "created" };
        assert_eq!(message.subject.as_str(), format!("live.otherix.evt.v1.{kind}.{happened}.{id}"));
    }
    assert_eq!(signed_to.get(), 301, "the last decision of a batch has a signed head");
    pipeline.writer.stop().await;
    pipeline.relay.await.unwrap().unwrap();
}

#[tokio::test]
async fn continues_after_nats_was_killed_under_load() {
    let (mut server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let pipeline = Pipeline::start(&folder, &connection).await;
    let stop = watch::Sender::new(false);
    let load: Vec<_> = (0..8)
        .map(|worker| {
            let (handle, stop) = (pipeline.writer.handle.clone(), stop.subscribe());
            tokio::spawn(async move {
                let mut number = 0;
                while !*stop.borrow() {
                    handle.execute(create(&format!("net-{worker}-{number}"))).await.unwrap();
                    number += 1;
                }
                number
            })
        })
        .collect();
    for _ in 0..3 {
        let from = pipeline.relayed.borrow().position.get();
        wait_for(DEADLINE, "progress", async || pipeline.relayed.borrow().position.get() > from + 100).await;
        server.kill9();
        let durable = pipeline.writer.durable.borrow().position.get();
        wait_for(DEADLINE, "commands without NATS", async || {
            pipeline.writer.durable.borrow().position.get() > durable + 100
        })
        .await;
        server.restart();
    }
    stop.send_replace(true);
    let acknowledged: u64 = futures::future::join_all(load).await.into_iter().map(Result::unwrap).sum();
    pipeline.caught_up().await;
    assert_eq!(assert_copy(&server, &folder).await, acknowledged);
    assert_eq!(pipeline.relayed.borrow().rebuilds, 0);
}

/// Polls a future at most `times` times, and drops it.
async fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn a_dropped_relay_neither_duplicates_nor_loses_events() {
    const EVENTS: u64 = 3_000;
    let (server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let writer = RunningWriter::start(folder.open().await).await;
    futures::future::join_all((0..EVENTS).map(async |n| writer.execute(create(&format!("net-{n}"))).await.unwrap()))
        .await;
    let journal = writer.stop().await;
    let mut dropped = 0;
    for polls in (1..).step_by(3) {
        match poll_times(one_shot_relay(&folder, &journal, &connection, EVENTS).run(), polls).await {
            None => dropped += 1,
            Some(ended) => {
                ended.unwrap();
                break;
            }
        }
    }
    assert!(dropped > 2, "{dropped} drops are too few");
    assert_eq!(assert_copy(&server, &folder).await, EVENTS);
    // Another run changes nothing.
    one_shot_relay(&folder, &journal, &connection, EVENTS).run().await.unwrap();
    assert_eq!(assert_copy(&server, &folder).await, EVENTS);
}

#[tokio::test]
async fn a_relay_that_is_behind_reads_the_journal() {
    let (mut server, folder) = (NatsServer::start(), JournalFolder::new());
    let connection = connect(&server).await;
    let pipeline = Pipeline::start(&folder, &connection).await;
    pipeline.writer.execute(create("first")).await.unwrap();
    pipeline.caught_up().await;
    server.kill9();
    // Far more batches than may wait for the relay.
    for n in 0..300 {
        pipeline.writer.execute(create(&format!("net-{n}"))).await.unwrap();
    }
    server.restart();
    pipeline.caught_up().await;
    assert_eq!(assert_copy(&server, &folder).await, 301);
}

#[tokio::test]
async fn a_full_stream_delays_neither_commands_nor_live_subscribers() {
    const EVENTS: u64 = 200;
    let limit = |size: &'static str| {
        move |store: &Path| format!("jetstream {{ store_dir: \"{}\", max_file_store: {size} }}\n", store.display())
    };
    let (mut server, folder) = (NatsServer::start_with_config(limit("64K")), JournalFolder::new());
    let connection = connect(&server).await;
    let mut live = connection.client().subscribe("live.otherix.>").await.unwrap();
    connection.client().flush().await.unwrap();
    let pipeline = Pipeline::start(&folder, &connection).await;
    for n in 0..EVENTS {
        pipeline.writer.execute(create(&format!("net-{n}"))).await.unwrap();
    }
    for position in 1..=EVENTS {
        let message = tokio::time::timeout(DEADLINE, live.next()).await.unwrap().unwrap();
        assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), position.to_string());
    }
    // The server keeps refusing to store them.
    wait_for(DEADLINE, "a refusal", async || server.log().contains("resource limits exceeded")).await;
    let relayed = pipeline.relayed.borrow().position.get();
    assert!((1..EVENTS).contains(&relayed), "{relayed} events fit into 64 KiB");
    server.configure(limit("1G"));
    server.restart();
    pipeline.caught_up().await;
    assert_eq!(assert_copy(&server, &folder).await, EVENTS);
    assert_eq!(pipeline.relayed.borrow().rebuilds, 0);
}
