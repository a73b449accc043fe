//! The control plane as a whole: what is started in which order, and how it ends.
//!
//! The journal comes first: without it nothing may be said. Whatever part ends by itself ends the process, for starting
//! again settles what is not known. On SIGTERM or SIGINT requests are no longer taken, what was taken is stored and
//! carried to the stream, and NATS is stopped last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use otherix_commands::journal::{Journal, SqliteJournal};
use otherix_commands::relay::{Relay, Relayed};
use otherix_commands::service as commands;
use otherix_commands::writer::Writer;
use otherix_projections::{projection, service as queries};
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use otherix_transport::Connection;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::args::RunArgs;
use crate::nats::{Settings, Supervisor, ensure_mirror};

/// How long what was stored may take to reach the stream at the end; the rest is carried at the next start.
const DRAIN: Duration = Duration::from_secs(2);

/// Pause before the mirror is looked at again after a failure.
const MIRROR_RETRY: Duration = Duration::from_millis(200);

/// How often the projection is told how far there are events, should the live feed have lost the last one.
const HEAD_TICK: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A part of the control plane ended that must not end by itself.
#[derive(Debug, thiserror::Error)]
#[error("the {0} ended")]
struct PartEnded(&'static str);

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
    let settings = Settings { state: args.state.folder.clone(), listen: args.listen, server: args.nats_server.clone() };
    let mut nats = tokio::select! {
        () = &mut stop => return Ok(()),
        nats = Supervisor::start(settings) => nats?,
    };
    let ended = match Plane::start(&args, &nats).await {
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
    async fn start(args: &RunArgs, nats: &Supervisor) -> Result<Self, Failure> {
        let journal = Arc::new(SqliteJournal::open(&args.state.journal(), ClusterId::new(Uuid::now_v7())).await?);
        let cluster = journal.identity().cluster;
        let (writer, asks, stored) = Writer::open(Arc::clone(&journal), args.config()).await?;
        let (durable, head) = (writer.durable(), writer.head());
        let position = *head.borrow();
        tracing::info!(%cluster, %position, url = nats.url(), "the control plane serves");

        let control = Connection::lasting(&nats.endpoint(&nats.users().control), "otherixd").await?;
        let clients = Connection::lasting(&nats.endpoint(&nats.users().clients), "otherixd").await?;
        let relay = Relay::new(Arc::clone(&journal), &control, stored, durable.clone());
        let (projection, models) = projection::open(&args.state.read_models(), cluster, position).await?;

        let mut write_side = JoinSet::new();
        let mut others = JoinSet::new();
        let relayed = relay.relayed();
        part(&mut write_side, "writer", async { Ok(writer.run().await?) });
        part(&mut write_side, "relay", async { Ok(relay.run().await?) });
        part(&mut others, "mirror", keep_mirror(control.clone(), clients, relayed));
        let (tick, ticks) = watch::channel(position);
        part(&mut others, "head", tell_head(head.clone(), tick));
        let feed = control.clone();
        part(&mut others, "projection", async {
            projection.run(feed, ticks).await;
            Ok(())
        });
        let (mesh, connection) = (args.mesh_supernet, control.clone());
        part(
            &mut others,
            "command service",
            async move { Ok(commands::serve(&connection, asks, mesh, durable).await?) },
        );
        part(&mut others, "query service", async move { Ok(queries::serve(&control, models, head).await?) });
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

/// Keeps the clients' mirror a mirror of the stream that there is.
async fn keep_mirror(
    control: Connection,
    clients: Connection,
    mut relayed: watch::Receiver<Relayed>,
) -> Result<(), Failure> {
    let mut settled = 0;
    loop {
        settled = relayed.wait_for(|relayed| relayed.settled != settled).await?.settled;
        while let Err(error) = ensure_mirror(&control, &clients).await {
            tracing::warn!(error = %Causes(&error), "the clients have no mirror of the events yet");
            tokio::time::sleep(MIRROR_RETRY).await;
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
