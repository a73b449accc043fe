//! The control plane as a whole: the order in which its parts start and stop.
//!
//! The journal is opened first: nothing can be acknowledged without it. If any part ends by itself, the process ends,
//! for a restart resolves every uncertainty. On SIGTERM or SIGINT no more requests are accepted, accepted ones are
//! stored and relayed to the stream, and NATS is stopped last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use otherix_commands::relay::{self, Notes, Relay, Relayed};
use otherix_commands::service as commands;
use otherix_commands::store::{Entry, EventStore};
use otherix_commands::writer::{Writer, WriterHandle};
use otherix_projections::follow::Follower;
use otherix_projections::read_models::{self, ReadModels};
use otherix_projections::service as queries;
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use otherix_transport::Nats;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::args::{RunArgs, State};
use crate::event_store::{self, JournalStore};
use crate::events::JournalEvents;
use crate::nats::{Access, Mirror, MirrorError, Progress, Settings, Supervisor, private_folder};
use crate::store::Store;

/// Time-out for stored events to reach the stream on shutdown; the rest is relayed at the next start.
const DRAIN: Duration = Duration::from_secs(2);

/// Pause before the mirror is checked again after a failure.
const MIRROR_RETRY: Duration = Duration::from_millis(200);

/// Interval between checks of the mirror, and how many of them may find no progress although the stream is ahead.
const MIRROR_CHECK: Duration = Duration::from_secs(2);
const STALLED_CHECKS: u32 = 4;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A part ended that must not end by itself.
#[derive(Debug, thiserror::Error)]
#[error("the {0} ended")]
struct PartEnded(&'static str);

/// The signal to stop arrived during the start.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

/// Runs until a signal, or until a part fails.
pub(crate) async fn run(args: RunArgs) -> Result<(), Failure> {
    // Registered first, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop = std::pin::pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    private_folder(&args.state.folder)?;
    // Fails at once if another process holds the journal or the journal is damaged.
    let journal = Arc::new(event_store::open(&args.state, ClusterId::new(Uuid::now_v7())).await?);
    let writer = Writer::open(Arc::clone(&journal), args.config(), SystemRuntime::shared()).await?;
    let settings = Settings { state: args.state.folder.clone(), listen: args.listen, server: args.nats_server.clone() };
    let mut nats = tokio::select! {
        () = &mut stop => return Ok(()),
        nats = Supervisor::start(settings) => nats?,
    };
    let access = nats.access();
    let started = tokio::select! {
        () = &mut stop => None,
        started = Plane::start(&args, journal, writer, access) => Some(started),
        never = nats.run() => match never {},
    };
    let ended = match started.unwrap_or(Err(Stopped.into())) {
        Err(failure) if failure.is::<Stopped>() => Ok(()),
        Err(failure) => Err(failure),
        Ok(mut plane) => {
            let ended = tokio::select! {
                () = stop => {
                    tracing::info!("stopping");
                    Ok(())
                }
                failure = plane.failure() => Err(failure),
                never = nats.run() => match never {},
            };
            plane.stop().await;
            ended
        }
    };
    nats.stop().await;
    ended
}

/// The parts, each in a task of its own.
struct Plane {
    journal: Arc<JournalStore>,
    /// Writer and relay: they end when all requests are done and relayed.
    write_side: JoinSet<Result<&'static str, Failure>>,
    /// The others can be dropped at any time.
    others: JoinSet<Result<&'static str, Failure>>,
}

impl Plane {
    async fn start(
        args: &RunArgs,
        journal: Arc<JournalStore>,
        (writer, requests, stored): (Writer<JournalStore>, WriterHandle, mpsc::Receiver<Vec<Entry>>),
        nats: Access,
    ) -> Result<Self, Failure> {
        let cluster = journal.identity().cluster;
        let (durable, head) = (writer.durable(), writer.head());
        let position = *head.borrow();
        let notes = Notes::new(args.state.relay());
        let control = Nats::lasting(&nats.control, "otherixd").await?;
        let clients = Nats::lasting(&nats.clients, "otherixd").await?;
        let runtime = SystemRuntime::shared();
        let inputs =
            relay::Inputs { notes: notes.clone(), stored, durable: durable.clone(), runtime: Arc::clone(&runtime) };
        let relay = Relay::new(Arc::clone(&journal), &control, inputs);
        let mirror = Mirror::new(&control, &clients, Arc::clone(&journal), notes);
        // Before anything is acknowledged on top of a backup that lacks events.
        relay.inspect().await?;
        inspect(&mirror).await?;
        let (follower, models) = open_models(&args.state, cluster, position, Arc::clone(&runtime)).await?;
        let recorder = models.clone();
        let mesh_status = Arc::new(move |node, peers| recorder.record_mesh_peers(node, peers));
        let inputs = commands::Inputs { writer: requests, durable, roster: writer.roster(), mesh_status, runtime };
        let commands = commands::Service::start(&control, args.service(), inputs).await?;
        let queries = queries::Service::start(&control, models, head.clone()).await?;
        // From here on the services receive every request; only now is readiness announced.
        control.settled().await?;
        tracing::info!(%cluster, %position, url = nats.url, "the control plane serves");

        let mut write_side = JoinSet::new();
        let mut others = JoinSet::new();
        let relayed = relay.relayed();
        part(&mut write_side, "writer", async { Ok(writer.run().await?) });
        part(&mut write_side, "relay", async { Ok(relay.run().await?) });
        let (stuck, mirror_stuck) = watch::channel(false);
        part(&mut others, "mirror", keep_mirror(mirror, relayed.clone(), stuck));
        let (state, connection, restart) = (args.state.folder.clone(), control.connection(), nats.restart);
        let store = Store { state, connection, relayed, mirror_stuck, restart };
        part(&mut others, "store", async move { match store.watch().await {} });
        let events = Arc::new(JournalEvents(Arc::clone(&journal)));
        part(&mut others, "projections", async move {
            follower.run(head, events).await;
            Ok(())
        });
        part(&mut others, "command service", async move {
            commands.run().await;
            Ok(())
        });
        part(&mut others, "query service", async move {
            queries.run().await;
            Ok(())
        });
        Ok(Self { journal, write_side, others })
    }

    /// Waits until a part ends; none should.
    async fn failure(&mut self) -> Failure {
        let ended = tokio::select! {
            Some(ended) = self.write_side.join_next() => ended,
            Some(ended) = self.others.join_next() => ended,
        };
        match ended {
            Ok(Ok(part)) => PartEnded(part).into(),
            Ok(Err(failure)) => failure,
            Err(error) => error.into(),
        }
    }

    /// Accepts no more requests, stores those accepted and relays their events to the stream.
    async fn stop(mut self) {
        self.others.shutdown().await;
        let drained = async { while self.write_side.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("not all events have reached the stream; the rest is relayed at the next start");
        }
        self.write_side.shutdown().await;
        self.journal.close().await;
    }
}

fn part(
    parts: &mut JoinSet<Result<&'static str, Failure>>,
    name: &'static str,
    run: impl Future<Output = Result<(), Failure>> + Send + 'static,
) {
    parts.spawn(async move { run.await.map(|()| name) });
}

/// Checks the mirror as soon as it is available.
async fn inspect(mirror: &Mirror<JournalStore>) -> Result<(), MirrorError> {
    loop {
        match mirror.inspect().await {
            Err(error @ MirrorError::State { .. }) => {
                tracing::warn!(error = %Causes(&error), "the clients' mirror is not available yet");
                tokio::time::sleep(MIRROR_RETRY).await;
            }
            other => return other,
        }
    }
}

/// Opens the read models. Those of another cluster, or ahead of the journal, are outdated and rebuilt.
async fn open_models(
    state: &State,
    cluster: ClusterId,
    head: Position,
    runtime: Arc<dyn Runtime>,
) -> Result<(Follower, ReadModels), Failure> {
    let (path, state, models_runtime) = (state.read_models(), state.clone(), Arc::clone(&runtime));
    let open = move || match read_models::open(&path, cluster, head, Arc::clone(&models_runtime)) {
        Err(error @ (read_models::OpenError::OtherCluster(_) | read_models::OpenError::Ahead { .. })) => {
            tracing::warn!(reason = %error, "rebuilding the read models");
            state.remove_read_models()?;
            Ok(read_models::open(&path, cluster, head, models_runtime)?)
        }
        other => Ok(other?),
    };
    runtime.run_blocking("open read models", open).await?
}

/// Keeps the clients' mirror consistent with the current stream, and reports whether it makes progress.
async fn keep_mirror(
    mirror: Mirror<JournalStore>,
    mut relayed: watch::Receiver<Relayed>,
    stuck: watch::Sender<bool>,
) -> Result<(), Failure> {
    let mut settled = relayed.wait_for(|relayed| relayed.settled > 0).await?.settled;
    let mut logged = String::new();
    let mut progress = None;
    let mut stalled = 0;
    loop {
        let pause = match mirror.ensure().await {
            Ok(now) => {
                logged.clear();
                stalled = if now.mirror < now.stream && progress.is_some_and(|last: Progress| last.mirror == now.mirror)
                {
                    stalled + 1
                } else {
                    0
                };
                progress = Some(now);
                stuck.send_replace(stalled >= STALLED_CHECKS);
                MIRROR_CHECK
            }
            Err(MirrorError::Lost(error)) => return Err(error.into()),
            Err(error) => {
                let text = Causes(&error).to_string();
                if text != logged {
                    tracing::warn!(error = text, "the clients' mirror of the events does not exist yet");
                    logged = text;
                }
                MIRROR_RETRY
            }
        };
        let changed = relayed.wait_for(|relayed| relayed.settled != settled);
        if let Ok(changed) = tokio::time::timeout(pause, changed).await {
            settled = changed?.settled;
        }
    }
}
