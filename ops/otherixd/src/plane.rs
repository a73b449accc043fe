//! The control plane as a whole: what is started in which order, and how it ends.
//!
//! The journal comes first: without it nothing may be said. Whatever part ends by itself ends the process, for starting
//! again settles what is not known. On SIGTERM or SIGINT requests are no longer taken, what was taken is stored and
//! carried to the stream, and NATS is stopped last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use otherix_commands::journal::{Entry, Journal, SqliteJournal};
use otherix_commands::relay::{Notes, Relay, Relayed};
use otherix_commands::service as commands;
use otherix_commands::writer::{Writer, WriterHandle};
use otherix_projections::follow::Follower;
use otherix_projections::node::peer_reports;
use otherix_projections::read_models::{self, ReadModels};
use otherix_projections::service as queries;
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use otherix_transport::Connection;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::args::{RunArgs, State};
use crate::events::JournalEvents;
use crate::nats::{Access, Mirror, MirrorError, Progress, Settings, Supervisor, private_folder};
use crate::store::Store;

/// How long what was stored may take to reach the stream at the end; the rest is carried at the next start.
const DRAIN: Duration = Duration::from_secs(2);

/// Pause before the mirror is looked at again after a failure.
const MIRROR_RETRY: Duration = Duration::from_millis(200);

/// How often the mirror is looked at, and how often it may be found where it was although the stream has more.
const MIRROR_LOOK: Duration = Duration::from_secs(2);
const STANDING: u32 = 4;

/// How often the projection is told how far there are events, should the live feed have lost the last one.
const HEAD_TICK: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A part of the control plane ended that must not end by itself.
#[derive(Debug, thiserror::Error)]
#[error("the {0} ended")]
struct PartEnded(&'static str);

/// The signal to stop came before everything was started.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

/// Runs until a signal, or until a part fails.
pub(crate) async fn run(args: RunArgs) -> Result<(), Failure> {
    // Taken first, so that a signal that comes while things are started is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop = std::pin::pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    private_folder(&args.state.folder)?;
    // It says at once who else is at work here, and what is wrong with the journal.
    let journal = Arc::new(SqliteJournal::open(&args.state.journal(), ClusterId::new(Uuid::now_v7())).await?);
    let writer = Writer::open(Arc::clone(&journal), args.config()).await?;
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
    journal: Arc<SqliteJournal>,
    /// Writer and relay: they end when nobody asks any more and all is carried.
    write_side: JoinSet<Result<&'static str, Failure>>,
    /// All others: they can be dropped at any time.
    others: JoinSet<Result<&'static str, Failure>>,
}

impl Plane {
    async fn start(
        args: &RunArgs,
        journal: Arc<SqliteJournal>,
        (writer, asks, stored): (Writer<SqliteJournal>, WriterHandle, mpsc::Receiver<Vec<Entry>>),
        nats: Access,
    ) -> Result<Self, Failure> {
        let cluster = journal.identity().cluster;
        let (durable, head) = (writer.durable(), writer.head());
        let position = *head.borrow();
        let notes = Notes::new(args.state.relay());
        let control = Connection::lasting(&nats.control, "otherixd").await?;
        let clients = Connection::lasting(&nats.clients, "otherixd").await?;
        let relay = Relay::new(Arc::clone(&journal), &control, notes.clone(), stored, durable);
        let mirror = Mirror::new(&control, &clients, Arc::clone(&journal), notes);
        // Before anything is acknowledged behind a backup that lacks events.
        relay.inspect().await?;
        inspect(&mirror).await?;
        let (follower, models) = open_models(&args.state, cluster, position).await?;
        let peers = models.peers().clone();
        let peers = Arc::new(move |node, report| peers.record(node, report, peer_reports::now()));
        let told = commands::Told { durable: writer.durable(), roster: writer.roster(), peers };
        let commands = commands::Service::start(&control, asks, args.service(), told).await?;
        let queries = queries::Service::start(&control, models, head.clone()).await?;
        // From here on no request goes unheard, so that whoever is told may ask at once.
        control.settled().await?;
        tracing::info!(%cluster, %position, url = nats.url, "the control plane serves");

        let mut write_side = JoinSet::new();
        let mut others = JoinSet::new();
        let relayed = relay.relayed();
        let relay_settled = relayed.clone();
        part(&mut write_side, "writer", async { Ok(writer.run().await?) });
        part(&mut write_side, "relay", async { Ok(relay.run().await?) });
        let (stuck, mirror_stuck) = watch::channel(false);
        part(&mut others, "mirror", keep_mirror(mirror, relayed.clone(), stuck));
        let (state, connection, restart) = (args.state.folder.clone(), control.clone(), nats.restart);
        let store = Store { state, connection, relayed, mirror_stuck, restart };
        part(&mut others, "store", async move { match store.watch().await {} });
        let (tick, ticks) = watch::channel(position);
        part(&mut others, "head", tell_head(head, tick));
        let mut settled = relay_settled;
        let events = Arc::new(JournalEvents(Arc::clone(&journal)));
        part(&mut others, "projections", async move {
            // Before, the stream may have what is not the journal's.
            settled.wait_for(|relayed| relayed.settled > 0).await?;
            follower.run(control, ticks, events).await;
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

    /// Takes no more requests, stores what was taken and carries it to the stream.
    async fn stop(mut self) {
        self.others.shutdown().await;
        let drained = async { while self.write_side.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("not all events have reached the stream; the rest is carried at the next start");
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

/// Checks the mirror, as soon as it can be looked at.
async fn inspect(mirror: &Mirror<SqliteJournal>) -> Result<(), MirrorError> {
    loop {
        match mirror.inspect().await {
            Err(error @ MirrorError::Look { .. }) => {
                tracing::warn!(error = %Causes(&error), "the clients' mirror cannot be looked at yet");
                tokio::time::sleep(MIRROR_RETRY).await;
            }
            other => return other,
        }
    }
}

/// Opens the read models. Those of another cluster, or ahead of the journal, are left from an earlier use of the folder: they are
/// rebuilt.
async fn open_models(state: &State, cluster: ClusterId, head: Position) -> Result<(Follower, ReadModels), Failure> {
    let (path, state) = (state.read_models(), state.clone());
    let open = move || match read_models::open(&path, cluster, head) {
        Err(error @ (read_models::OpenError::OtherCluster(_) | read_models::OpenError::Ahead { .. })) => {
            tracing::warn!(reason = %error, "rebuilding the read models");
            state.remove_read_models()?;
            Ok(read_models::open(&path, cluster, head)?)
        }
        other => Ok(other?),
    };
    tokio::task::spawn_blocking(open).await?
}

/// Keeps the clients' mirror a mirror of the stream that there is, and tells whether it gets on.
async fn keep_mirror(
    mirror: Mirror<SqliteJournal>,
    mut relayed: watch::Receiver<Relayed>,
    stuck: watch::Sender<bool>,
) -> Result<(), Failure> {
    let mut settled = relayed.wait_for(|relayed| relayed.settled > 0).await?.settled;
    let mut told = String::new();
    let mut progress = None;
    let mut standing = 0;
    loop {
        let pause = match mirror.ensure().await {
            Ok(now) => {
                told.clear();
                standing =
                    if now.mirror < now.stream && progress.is_some_and(|last: Progress| last.mirror == now.mirror) {
                        standing + 1
                    } else {
                        0
                    };
                progress = Some(now);
                stuck.send_replace(standing >= STANDING);
                MIRROR_LOOK
            }
            Err(MirrorError::Lost(error)) => return Err(error.into()),
            Err(error) => {
                let text = Causes(&error).to_string();
                if text != told {
                    tracing::warn!(error = text, "the clients have no mirror of the events yet");
                    told = text;
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

/// Tells the projection now and then how far there are events.
async fn tell_head(head: watch::Receiver<Position>, tick: watch::Sender<Position>) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(HEAD_TICK);
    loop {
        ticks.tick().await;
        let position = *head.borrow();
        tick.send_if_modified(|told| std::mem::replace(told, position) != position);
    }
}
