//! Promises of the relay: the stream has the journal's bytes at the sequences that are their positions, whatever is
//! killed or dropped on the way, and nothing twice; followers get what is durable, live. Checked with an independent
//! client.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::stream::StreamExt;
use otherix_commands::relay::{Inputs, Relay, RelayError, Relayed};
use otherix_commands::store::{EventStore, SqliteStore};
use otherix_commands::writer::Durable;
use otherix_runtime::SystemRuntime;
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::support::{DEADLINE, Place, Running, create, join};

pub(crate) async fn connect(server: &NatsServer) -> Nats {
    let credentials = Credentials { user: "otherixd".parse().unwrap(), password: "none".to_owned() };
    Nats::lasting(&NatsEndpoint { url: server.url(), credentials }, "test").await.unwrap()
}

/// The number of events in the stream, which is the journal's copy.
pub(crate) async fn assert_copy(server: &NatsServer, place: &Place) -> u64 {
    let path = place.path();
    let said = nats_py(include_str!("../copy.py"), &[&server.url(), path.to_str().unwrap()]).await;
    said.trim().parse().unwrap()
}

/// A writer with a relay.
pub(crate) struct Line {
    pub(crate) lab: Running<SqliteStore>,
    pub(crate) relayed: watch::Receiver<Relayed>,
    pub(crate) relay: JoinHandle<Result<(), RelayError>>,
}

impl Line {
    pub(crate) async fn start(place: &Place, connection: &Nats) -> Self {
        let mut lab = Running::start(place.open().await).await;
        let stored = std::mem::replace(&mut lab.stored, mpsc::channel(1).1);
        let (durable, runtime) = (lab.durable.clone(), SystemRuntime::shared());
        let inputs = Inputs { notes: place.notes(), stored, durable, runtime };
        let relay = Relay::new(Arc::clone(&lab.journal), connection, inputs);
        let relayed = relay.relayed();
        let relay = tokio::spawn(relay.run());
        // Events that come before there is a stream are filled into it: nobody is told of them.
        let context = connection.jetstream();
        wait_for(DEADLINE, "the stream", async || context.get_stream(STREAM).await).await;
        Self { lab, relayed, relay }
    }

    /// Waits until all that is durable is in the stream.
    pub(crate) async fn carried(&self) {
        wait_for(DEADLINE, "the relay", async || {
            let (durable, relayed) = (self.lab.durable.borrow().position, self.relayed.borrow().position);
            if durable == relayed { Ok(()) } else { Err((durable, relayed)) }
        })
        .await;
    }
}

/// Carries what the journal has, and ends.
pub(crate) fn carry(place: &Place, journal: &Arc<SqliteStore>, connection: &Nats, head: u64) -> Relay<SqliteStore> {
    let head = Position::new(head);
    let (_, durable) = watch::channel(Durable { position: head, decision_head: head });
    let inputs = Inputs { notes: place.notes(), stored: mpsc::channel(1).1, durable, runtime: SystemRuntime::shared() };
    Relay::new(Arc::clone(journal), connection, inputs)
}

#[tokio::test]
async fn copies_the_journals_bytes_to_the_stream_and_live_subscribers() {
    let (server, place) = (NatsServer::start(), Place::new());
    let connection = connect(&server).await;
    let mut live = connection.client().subscribe("live.otherix.>").await.unwrap();
    connection.client().flush().await.unwrap();
    let line = Line::start(&place, &connection).await;
    line.lab.execute(join("node-1")).await.unwrap();
    futures::future::join_all((0..300).map(async |n| line.lab.execute(create(&format!("net-{n}"))).await.unwrap()))
        .await;
    line.carried().await;

    assert_eq!(assert_copy(&server, &place).await, 301);

    let entries = line.lab.journal.read(Position::ZERO, 1000).await.unwrap();
    for entry in entries {
        let message = tokio::time::timeout(DEADLINE, live.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, entry.body);
        assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), entry.position.to_string());
        let (kind, id) = entry.stream_id.split_once('/').unwrap();
        let happened = if kind == "node" { "joined" } else { "created" };
        assert_eq!(message.subject.as_str(), format!("live.otherix.evt.v1.{kind}.{happened}.{id}"));
    }
    line.lab.stop().await;
    line.relay.await.unwrap().unwrap();
}

#[tokio::test]
async fn continues_after_nats_was_killed_under_load() {
    let (mut server, place) = (NatsServer::start(), Place::new());
    let connection = connect(&server).await;
    let line = Line::start(&place, &connection).await;
    let stop = watch::Sender::new(false);
    let load: Vec<_> = (0..8)
        .map(|worker| {
            let (asks, stop) = (line.lab.asks.clone(), stop.subscribe());
            tokio::spawn(async move {
                let mut number = 0;
                while !*stop.borrow() {
                    asks.execute(create(&format!("net-{worker}-{number}"))).await.unwrap();
                    number += 1;
                }
                number
            })
        })
        .collect();
    for _ in 0..3 {
        let from = line.relayed.borrow().position.get();
        wait_for(DEADLINE, "progress", async || line.relayed.borrow().position.get() > from + 100).await;
        server.kill9();
        let durable = line.lab.durable.borrow().position.get();
        wait_for(DEADLINE, "commands without NATS", async || line.lab.durable.borrow().position.get() > durable + 100)
            .await;
        server.restart();
    }
    stop.send_replace(true);
    let acknowledged: u64 = futures::future::join_all(load).await.into_iter().map(Result::unwrap).sum();
    line.carried().await;
    assert_eq!(assert_copy(&server, &place).await, acknowledged);
    assert_eq!(line.relayed.borrow().rebuilds, 0);
}

/// Polls a future so often, and drops it.
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
    let (server, place) = (NatsServer::start(), Place::new());
    let connection = connect(&server).await;
    let lab = Running::start(place.open().await).await;
    futures::future::join_all((0..EVENTS).map(async |n| lab.execute(create(&format!("net-{n}"))).await.unwrap())).await;
    let journal = lab.stop().await;
    let mut dropped = 0;
    for polls in (1..).step_by(3) {
        match poll_times(carry(&place, &journal, &connection, EVENTS).run(), polls).await {
            None => dropped += 1,
            Some(ended) => {
                ended.unwrap();
                break;
            }
        }
    }
    assert!(dropped > 2, "{dropped} drops test nothing");
    assert_eq!(assert_copy(&server, &place).await, EVENTS);
    // Once more from the beginning: there is nothing to do.
    carry(&place, &journal, &connection, EVENTS).run().await.unwrap();
    assert_eq!(assert_copy(&server, &place).await, EVENTS);
}

#[tokio::test]
async fn a_relay_that_is_behind_reads_the_journal() {
    let (mut server, place) = (NatsServer::start(), Place::new());
    let connection = connect(&server).await;
    let line = Line::start(&place, &connection).await;
    line.lab.execute(create("first")).await.unwrap();
    line.carried().await;
    server.kill9();
    // Far more batches than may wait for the relay.
    for n in 0..300 {
        line.lab.execute(create(&format!("net-{n}"))).await.unwrap();
    }
    server.restart();
    line.carried().await;
    assert_eq!(assert_copy(&server, &place).await, 301);
}

#[tokio::test]
async fn a_full_stream_delays_neither_commands_nor_live_subscribers() {
    const EVENTS: u64 = 200;
    let room = |room: &'static str| {
        move |store: &Path| format!("jetstream {{ store_dir: \"{}\", max_file_store: {room} }}\n", store.display())
    };
    let (mut server, place) = (NatsServer::start_with_config(room("64K")), Place::new());
    let connection = connect(&server).await;
    let mut live = connection.client().subscribe("live.otherix.>").await.unwrap();
    connection.client().flush().await.unwrap();
    let line = Line::start(&place, &connection).await;
    for n in 0..EVENTS {
        line.lab.execute(create(&format!("net-{n}"))).await.unwrap();
    }
    for position in 1..=EVENTS {
        let message = tokio::time::timeout(DEADLINE, live.next()).await.unwrap().unwrap();
        assert_eq!(message.headers.unwrap().get("Nats-Sequence").unwrap().as_str(), position.to_string());
    }
    // The server says no, and not only once.
    wait_for(DEADLINE, "a refusal", async || server.log().contains("resource limits exceeded")).await;
    let relayed = line.relayed.borrow().position.get();
    assert!((1..EVENTS).contains(&relayed), "{relayed} events fit into 64 KiB");
    server.configure(room("1G"));
    server.restart();
    line.carried().await;
    assert_eq!(assert_copy(&server, &place).await, EVENTS);
    assert_eq!(line.relayed.borrow().rebuilds, 0);
}
