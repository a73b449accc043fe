//! The control plane: the order in which its parts start and stop.
//!
//! The journal is opened first: nothing can be acknowledged without it. If any part ends unexpectedly, the process
//! ends, because a restart recovers a consistent state. On SIGTERM or SIGINT no more requests are accepted, accepted
//! ones are stored and relayed to the stream, and NATS is stopped last.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use otherix_commands::refusals::RefusalLog;
use otherix_commands::relay::{self, Notes, Relay, Relayed};
use otherix_commands::service::{self as commands, DecisionSigning};
use otherix_commands::store::EventStore;
use otherix_commands::tlog::{self, LogFollower, LogHandle};
use otherix_commands::writer::{StoredBatch, Writer, WriterHandle};
use otherix_observe::endpoint::Endpoint;
use otherix_observe::service_manager;
use otherix_projections::read_models::ReadModels;
use otherix_projections::service as queries;
use otherix_runtime::{Runtime, SystemRuntime, check_clock};
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::log::SignedLogKey;
use otherix_schemas::position::Position;
use otherix_schemas::user::Callers;
use otherix_transport::JetStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::args::RunArgs;
use crate::decision_key;
use crate::error::BoxError;
use crate::event_store::{self, JournalStore};
use crate::first_admin::FirstAdmin;
use crate::journal_events::JournalEvents;
use crate::local_context;
use crate::log_key;
use crate::nats::{
    CheckpointStream, FormerUsers, Mirror, MirrorError, MirrorProgress, MirrorTurn, NatsAccess, NatsChoice,
    NatsRefusals, NatsServer, NatsSettings, RevocationPusher, Revocations, StateMirrors, StatePublisher, UserConsumers,
    Wanted, private_folder, revocations,
};
use crate::nats_links::{Links, ensure_replicas, refusal_source, revocation_sink};
use crate::nats_watchdog::NatsWatchdog;
use crate::observed::{self, RequestMetrics, Sources};
use crate::read_side::ReadSide;

/// Time-out for stored events to reach the stream on shutdown; the rest is relayed at the next start.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause before the mirror is checked again after a failure.
const MIRROR_RETRY: Duration = Duration::from_millis(200);

/// Interval between checks of the mirror.
const MIRROR_CHECK: Duration = Duration::from_secs(2);
/// Consecutive checks without progress, although the stream is ahead, after which the mirror counts as stuck.
const STALLED_CHECKS: u32 = 4;

/// A part ended without being stopped.
#[derive(Debug, thiserror::Error)]
#[error("the {0} ended")]
struct PartEnded(&'static str);

/// The signal to stop arrived during the start.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct StoppedDuringStart;

/// Runs until a signal, or until a part fails.
pub(crate) async fn run(args: RunArgs) -> Result<(), BoxError> {
    // Registered first, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop = std::pin::pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    check_clock(&SystemRuntime)?;
    private_folder(&args.state.folder)?;
    // Fails at once if another process holds the journal or the journal is damaged.
    let journal = Arc::new(event_store::open(&args.state, ClusterId::new(Uuid::now_v7())).await?);
    let writer = Writer::open(Arc::clone(&journal), args.config(), SystemRuntime::shared()).await?;
    let former = FormerUsers::load(&args.state.folder)?;
    let revoked =
        watch::Sender::new(revocations(&writer.0.callers().borrow(), former.node(), SystemRuntime.now().ok()));
    let choice = match args.own.settings(&args.state)? {
        Some(settings) => NatsChoice::Own(settings),
        None => NatsChoice::Embedded(NatsSettings {
            state: args.state.folder.clone(),
            listen: args.listen,
            server: args.nats_server.clone(),
            tls: args.tls.settings(),
            revoked: revoked.subscribe(),
        }),
    };
    let (known, callers) = (revoked.borrow().clone(), writer.0.callers().borrow().clone());
    let wanted = Wanted { revoked: &known, callers: &callers, is_dry_run: false };
    let mut nats = tokio::select! {
        () = &mut stop => return Ok(()),
        nats = NatsServer::start(choice, wanted) => nats?,
    };
    let access = nats.access();
    let started = tokio::select! {
        () = &mut stop => None,
        started = ControlPlane::start(&args, journal, writer, access, (former, revoked)) => Some(started),
        never = nats.run() => match never {},
    };
    let ended = match started.unwrap_or(Err(StoppedDuringStart.into())) {
        Err(failure) if failure.is::<StoppedDuringStart>() => Ok(()),
        Err(failure) => Err(failure),
        Ok(mut control_plane) => {
            let ended = tokio::select! {
                () = stop => {
                    tracing::info!("stopping");
                    service_manager::stopping();
                    Ok(())
                }
                failure = control_plane.failure() => Err(failure),
                never = nats.run() => match never {},
            };
            control_plane.stop().await;
            ended
        }
    };
    nats.stop().await;
    ended
}

/// The parts that administer the NATS server.
struct NatsParts {
    watchdog: NatsWatchdog,
    pusher: RevocationPusher,
    refusals: NatsRefusals,
    consumers: Arc<UserConsumers<JournalStore>>,
}

impl NatsParts {
    fn spawn(self, parts: &mut JoinSet<Result<&'static str, BoxError>>) {
        let Self { watchdog, pusher, refusals, consumers } = self;
        spawn_part(parts, "NATS watchdog", async move { match watchdog.run().await {} });
        spawn_lasting(parts, "revocations", pusher.run());
        spawn_part(parts, "refusals of NATS", async move { match refusals.run().await {} });
        spawn_part(parts, "consumers", async move { match consumers.remove_orphans().await {} });
    }
}

/// The parts, each in a separate task.
struct ControlPlane {
    journal: Arc<JournalStore>,
    /// Writer and relay: they end once all requests are processed and their events relayed.
    write_side: JoinSet<Result<&'static str, BoxError>>,
    /// The other parts, which can be dropped at any time.
    others: JoinSet<Result<&'static str, BoxError>>,
}

impl ControlPlane {
    async fn start(
        args: &RunArgs,
        journal: Arc<JournalStore>,
        (writer, requests, stored): (Writer<JournalStore>, WriterHandle, mpsc::Receiver<StoredBatch>),
        nats: NatsAccess,
        (former, revoked): (FormerUsers, watch::Sender<Revocations>),
    ) -> Result<Self, BoxError> {
        let (cluster, position, runtime) =
            (journal.identity().cluster, *writer.head().borrow(), SystemRuntime::shared());
        let (durable, head, notes) = (writer.durable(), writer.head(), Notes::new(args.state.relay()));
        let (requests_seen, written) = (RequestMetrics::new(), writer.metrics());
        let Links { stream, events, state, state_mirrors, claims, connections } =
            Links::open(&nats, requests_seen.observer(writer.callers())).await?;
        let signing = decision_key::load_or_create(&args.state)?;
        let inputs = relay_inputs(stored, &writer, &notes, &signing, args.stream(nats.replicas));
        let (log_follower, log) = open_log(args, Arc::clone(&journal), &writer, (&events, nats.replicas), &signing)?;
        let relay = Relay::new(Arc::clone(&journal), &stream, inputs);
        let (turn, relayed) = (MirrorTurn::default(), relay.relayed());
        let mirror = Mirror::new(&stream, &events, Arc::clone(&journal), notes.clone(), Arc::clone(&turn));
        // Before anything is acknowledged on top of a backup that lacks events.
        relay.inspect().await?;
        inspect_mirror(&mirror).await?;
        ensure_replicas(&nats, (&stream, &state), (&events, &state_mirrors)).await;
        let read_side = ReadSide::open(&args.state, cluster, position, Arc::clone(&runtime)).await?;
        let (roster, callers) = (writer.roster(), writer.callers());
        let consumers = Arc::new(UserConsumers::new(&events, Arc::clone(&journal), notes, callers.clone(), turn));
        let (mut write_side, mut others) = (JoinSet::new(), JoinSet::new());
        spawn_part(&mut write_side, "writer", async { Ok(writer.run().await?) });
        spawn_part(&mut write_side, "relay", async { Ok(relay.run().await?) });
        ensure_admin(args, &nats, &former, callers.clone(), &requests).await?;
        let refusals = NatsRefusals::new(refusal_source(&nats, claims.as_ref()), callers.clone(), Arc::clone(&runtime));
        let pusher = RevocationPusher {
            sink: revocation_sink(&nats, claims),
            callers: callers.clone(),
            former_node: former.node().cloned(),
            relayed: relayed.clone(),
            head: head.clone(),
            revoked,
        };
        let inputs = commands::Inputs {
            cluster,
            issuer: nats.identity,
            consumers: Arc::clone(&consumers) as _,
            writer: requests,
            durable,
            roster,
            callers: callers.clone(),
            telemetry: telemetry_of(read_side.models.clone()),
            signing,
            log,
            refusals: open_refusals(args, &mut others),
            decisions: commands::decisions_of(Arc::clone(&journal)),
            runtime,
        };
        let (state_mirrors, events) =
            (StateMirrors::new(&state, &state_mirrors), Arc::new(JournalEvents(Arc::clone(&journal))));
        let publisher = StatePublisher::new(&state, read_side.models.clone(), Arc::clone(&events) as _, nats.replicas);
        let sources = Sources::new(&head, &relayed, &read_side.models, &inputs.log, &connections.people);
        let endpoint = observed::listen(args.metrics, &requests_seen, &written, sources).await?;
        let commands = commands::Service::start(&connections, args.service(), inputs).await?;
        let stream = observed::stream_position(relayed.clone());
        let (inputs, followers) = read_side.split(head.clone(), Arc::clone(&events) as _, stream);
        let queries = queries::Service::start(&connections, inputs, callers).await?;
        // From here on the services receive every request, so readiness is logged only now.
        connections.people.settled().await?;
        connections.nodes.settled().await?;
        log_ready(cluster, *head.borrow(), &nats.url);

        let (stuck, mirror_stuck) = watch::channel(false);
        let (state, connection, restart) = (args.state.folder.clone(), connections.people.clone(), nats.restart);
        let watchdog = NatsWatchdog { state, connection, relayed: relayed.clone(), mirror_stuck, restart };
        spawn_part(&mut others, "mirror", keep_mirror(mirror, relayed, stuck));
        NatsParts { watchdog, pusher, refusals, consumers }.spawn(&mut others);
        spawn_buckets(&mut others, publisher, state_mirrors);
        spawn_lasting(&mut others, "transparency log", log_follower.run());
        spawn_lasting(&mut others, "projections", followers.run(head, events));
        spawn_serving(&mut others, commands, queries, endpoint);
        Ok(Self { journal, write_side, others })
    }

    /// Waits until a part ends, which is always a failure, and returns the reason.
    async fn failure(&mut self) -> BoxError {
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

    /// Stops accepting requests, stores the accepted ones and relays their events to the stream.
    async fn stop(mut self) {
        self.others.shutdown().await;
        let drained = async { while self.write_side.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("not all events have reached the stream; the rest is relayed at the next start");
        }
        self.write_side.shutdown().await;
        self.journal.close().await;
    }
}

fn spawn_part(
    parts: &mut JoinSet<Result<&'static str, BoxError>>,
    name: &'static str,
    run: impl Future<Output = Result<(), BoxError>> + Send + 'static,
) {
    parts.spawn(async move { run.await.map(|()| name) });
}

/// As [`spawn_part`], for a part that does not fail.
fn spawn_lasting(
    parts: &mut JoinSet<Result<&'static str, BoxError>>,
    name: &'static str,
    run: impl Future<Output = ()> + Send + 'static,
) {
    spawn_part(parts, name, run.map(Ok));
}

/// Tells that requests are served.
fn log_ready(cluster: ClusterId, position: Position, url: &str) {
    tracing::info!(%cluster, %position, url, "the control plane serves");
    service_manager::ready(&format!("serving at {url}"));
}

/// Spawns what keeps the buckets of networks, VMs and nodes up to date.
fn spawn_buckets(
    parts: &mut JoinSet<Result<&'static str, BoxError>>,
    publisher: StatePublisher,
    mirrors: StateMirrors,
) {
    spawn_part(parts, "state", async move { match publisher.run().await {} });
    spawn_part(parts, "state mirrors", async move { match mirrors.run().await {} });
}

/// Spawns what answers requests, and what tells whether it does.
fn spawn_serving(
    parts: &mut JoinSet<Result<&'static str, BoxError>>,
    commands: commands::Service,
    queries: queries::Service,
    endpoint: Option<Endpoint>,
) {
    spawn_lasting(parts, "command service", commands.run());
    spawn_lasting(parts, "query service", queries.run());
    if let Some(endpoint) = endpoint {
        spawn_lasting(parts, "metrics", endpoint.run());
    }
    spawn_lasting(parts, "watchdog of the service manager", service_manager::keep_alive());
}

/// What the relay of the journal needs.
fn relay_inputs(
    stored: mpsc::Receiver<StoredBatch>,
    writer: &Writer<JournalStore>,
    notes: &Notes,
    signing: &DecisionSigning,
    settings: relay::StreamSettings,
) -> relay::Inputs {
    relay::Inputs {
        notes: notes.clone(),
        stored,
        durable: writer.durable(),
        signer: Arc::clone(&signing.signer),
        settings,
        runtime: SystemRuntime::shared(),
    }
}

/// What is refused. Without its database, nothing else is missing.
fn open_refusals(args: &RunArgs, parts: &mut JoinSet<Result<&'static str, BoxError>>) -> RefusalLog {
    match RefusalLog::open(&args.state.refusals(), SystemRuntime::shared()) {
        Ok((log, recorder)) => {
            spawn_lasting(parts, "refusals", recorder.run());
            log
        }
        Err(error) => {
            tracing::error!(error = %Causes(&error), "refused commands are not recorded: delete their database");
            RefusalLog::none()
        }
    }
}

/// The transparency log of the journal.
fn open_log(
    args: &RunArgs,
    journal: Arc<JournalStore>,
    writer: &Writer<JournalStore>,
    (events, replicas): (&JetStream, Option<usize>),
    signing: &DecisionSigning,
) -> Result<(LogFollower<JournalStore>, LogHandle), BoxError> {
    let key = log_key::load_or_create(&args.state, journal.identity())?;
    let inputs = tlog::Inputs {
        store: journal,
        durable: writer.durable(),
        roster: writer.roster(),
        sink: Arc::new(CheckpointStream::new(events, replicas)),
        path: args.state.log(),
        signed_key: SignedLogKey::new(key.public_key().to_string(), &signing.signer),
        key,
        settle: args.service().unreachable_after,
        interval: Duration::from_millis(args.checkpoint_interval_ms),
        runtime: SystemRuntime::shared(),
    };
    Ok(LogFollower::new(inputs)?)
}

/// Ensures that there is an administrator, whose credentials the owner of the state folder can use on this machine.
async fn ensure_admin(
    args: &RunArgs,
    nats: &NatsAccess,
    former: &FormerUsers,
    callers: watch::Receiver<Callers>,
    writer: &WriterHandle,
) -> Result<(), BoxError> {
    let (state, identity, runtime) = (&args.state.folder, &nats.identity, &SystemRuntime);
    FirstAdmin { state, identity, former, callers, writer, runtime }.ensure().await?;
    if let Err(error) = local_context::write(state, &nats.url, nats.relay.ca.as_ref()) {
        tracing::warn!(error = %Causes(&error), "`otherix` on this machine needs --server and --credentials");
    }
    Ok(())
}

/// Records what heartbeats tell in the read models.
fn telemetry_of(models: ReadModels) -> commands::TelemetrySink {
    Arc::new(move |heard| {
        let commands::NodeTelemetry { node_id, mesh } = heard;
        models.record_telemetry(node_id, mesh);
    })
}

/// Checks the mirror as soon as it is available.
async fn inspect_mirror(mirror: &Mirror<JournalStore>) -> Result<(), MirrorError> {
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

/// Keeps the clients' mirror consistent with the current stream, and reports whether it makes progress.
async fn keep_mirror(
    mirror: Mirror<JournalStore>,
    mut relayed: watch::Receiver<Relayed>,
    stuck: watch::Sender<bool>,
) -> Result<(), BoxError> {
    let mut settled = relayed.wait_for(|relayed| relayed.settled > 0).await?.settled;
    let mut last_logged = String::new();
    let mut progress = None;
    let mut stalled = 0;
    loop {
        let pause = match mirror.ensure().await {
            Ok(now) => {
                last_logged.clear();
                stalled = if now.mirror < now.stream
                    && progress.is_some_and(|last: MirrorProgress| last.mirror == now.mirror)
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
                if text != last_logged {
                    tracing::warn!(error = text, "the clients' mirror of the events does not exist yet");
                    last_logged = text;
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
