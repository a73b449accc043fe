//! The main loop: it receives decisions and notifications of the kernel, makes passes, sends reports and saves the
//! ledger.
//!
//! A node with a ledger reconciles at once, even if the control plane is unreachable. It removes orphans only when it
//! has read the last decision, and removes nothing while its lineage is not released ([`crate::release`]). While a
//! decision cannot be read, nothing is changed. Heartbeats are sent by a task of their own.
//!
//! [`decisions`] applies decisions, and handles those that diverge from the ledger. `hold` holds deletions, `needs`
//! determines what the node must be able to reach, `reporting` sends reports, and `node_removal` handles the removal of
//! this node from the cluster. `contact` determines what must not be taken away now, and keeps the networks that were
//! withdrawn. `pass` makes the passes. `guests` determines whose DHCP and DNS is answered. `metrics` counts, and logs
//! failures.

mod contact;
mod decisions;
mod guests;
mod hold;
mod metrics;
mod needs;
mod node_removal;
mod pass;
mod reporting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use otherix_observe::endpoint::MetricsArgs;
use otherix_observe::service_manager;
use otherix_responder::Responder;
use otherix_responder::dns::{Relay, Upstreams};
use otherix_runtime::{Backoff, LogLimit, Runtime, SystemRuntime, TaskSet};
use otherix_schemas::error::Causes;
use otherix_schemas::id::{NicId, VmId};
use otherix_schemas::node::{JoinAnswer, ReportReceipt};
use otherix_schemas::outcome::ResourceOutcome;
use otherix_schemas::position::Position;
use otherix_schemas::value::NodeName;
use otherix_transport::request::CallError;
use otherix_transport::{Connection, Nats, NatsEndpoint};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::contact::ContactGuard;
use self::decisions::{DecisionFeed, LedgerMode};
use self::guests::{AnsweredGuests, Zones};
use self::metrics::{AgentMetrics, OutcomeLog, Sources};
use self::needs::NodeNeeds;
use crate::asks::{self, Asks};
use crate::capacity_report;
use crate::contradiction::{self, Contradiction};
use crate::control::{self, Heartbeats, JoiningNode, MembershipAnswer, SharedState};
use crate::device::{self, KINDS};
use crate::engine::Reconciler;
use crate::identity::{Identity, IdentityError};
use crate::kernel::KernelError;
use crate::ledger::saver::LedgerSaver;
use crate::ledger::store;
use crate::ledger::{Ledger, Lineage};
use crate::left;
use crate::machines::{MachineOptions, MachinesHandle};
use crate::model::desired::DesiredVm;
use crate::model::report::OutcomeReporter;
use crate::only_agent::{OnlyAgentError, become_only_agent};
use crate::release::{self, HeldDeletions, ReleasedLineage};
use crate::status;
use crate::trust::{Trust, TrustError};
use crate::wireguard::{MeshHandle, MeshTaskOptions};
use crate::witness::{self, Witness, WitnessInputs};

/// How often `released.json` is read while deletions are held.
const RELEASE_POLL: Duration = Duration::from_secs(1);

/// The configuration of an agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub endpoint: NatsEndpoint,
    /// The state folder.
    pub state: PathBuf,
    pub name: NodeName,
    /// The options of the mesh; `None` if the node is not part of it.
    pub mesh: Option<MeshTaskOptions>,
    pub machines: MachineOptions,
    /// The resolvers that guests' questions about other names are relayed to; if there are none, those of
    /// `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    pub metrics: MetricsArgs,
}

/// The errors that end the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    OnlyAgent(#[from] OnlyAgentError),
    #[error("cannot claim the identity of this node")]
    Identity(#[from] IdentityError),
    #[error("cannot use the key of the control plane")]
    Trust(#[from] TrustError),
    #[error("cannot use `witness.json` in the state folder: restore it, or remove it and begin as a new witness")]
    Witness(#[source] std::io::Error),
    #[error("cannot connect to NATS")]
    Connect(#[from] otherix_transport::nats::ConnectError),
    #[error("cannot use the kernel's netlink interfaces")]
    Kernel(#[from] KernelError),
    #[error("the connection to NATS is closed")]
    Closed,
}

/// Runs the agent until `stop`.
///
/// # Errors
/// [`AgentError`] if the agent cannot start, or if the connection is closed. Everything else is retried.
pub async fn run(config: AgentConfig, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    let AgentConfig { endpoint, state, name, mesh, machines, resolvers, metrics: metrics_args } = config;
    let mut stop = pin!(stop);
    let runtime = SystemRuntime::shared();
    let _only_agent = become_only_agent(&state, &runtime).await?;
    let identity = Identity::claim(&state, runtime.as_ref())?;
    // It is found again if it persists.
    contradiction::write(&state, None);
    if let Err(error) = status::clear(&state) {
        tracing::warn!(%error, "cannot remove what was wrong before");
    }
    let node_id = identity.node_id;
    tracing::info!(node = %node_id, name = %name, incarnation = identity.incarnation, nats = endpoint.url, "starting");
    let nats = Nats::lasting(&endpoint, &format!("otherix-agent {name}")).await?;
    let peer = nats.peer();
    let connection = Connection::from(nats);
    let witness = Witness::load(&state).map_err(AgentError::Witness)?;
    let shared = SharedState::new(Trust::load(&state)?, witness, asks::challenge(runtime.as_ref()));
    let (sender, answers) = mpsc::channel(1);
    let mut tasks = TaskSet::default();
    let nats_ports = needs::ports(&endpoint);
    let needs = needs::start(&endpoint, peer.clone(), state.clone(), &runtime, &mut tasks).await;
    let mesh = start_mesh(mesh, &state, endpoint, &runtime, &mut tasks).await;
    shared.incarnation.send_replace(identity.incarnation);
    let node = JoiningNode { node_id, name, offers: mesh.offers() };
    let heartbeats = Heartbeats { connection: connection.clone(), shared: shared.clone(), peers: mesh.peers() };
    tasks.add(runtime.spawn("membership", control::keep_membership(heartbeats.clone(), node, sender)));
    let inputs = WitnessInputs {
        connection: connection.clone(),
        witness: shared.witness.clone(),
        answers: shared.log.subscribe(),
        trust: shared.trust.clone(),
        heartbeat_wanted: Arc::clone(&shared.head_wanted),
    };
    tasks.add(runtime.spawn("witness", witness::follow(inputs)));
    let machines = MachinesHandle::start(machines, &state, Arc::clone(&runtime));
    let asks = Asks {
        connection: connection.clone(),
        trust: shared.trust.clone(),
        challenge: shared.challenge.clone(),
        machines: machines.access(),
    };
    tasks.add(runtime.spawn("asks", asks::answer(asks)));
    let capacities = capacity_report::report(connection.clone(), node_id, machines.capacity());
    tasks.add(runtime.spawn("capacity report", capacities));
    let metrics = AgentMetrics::new();
    let sources = Sources { connection: connection.clone(), shared: shared.clone(), peers: mesh.peers() };
    tasks.add(runtime.spawn("metrics", metrics.clone().serve(metrics_args, sources)));
    tasks.add(runtime.spawn("watchdog of the service manager", service_manager::keep_alive()));
    let zones = Zones::new(Arc::new(Relay::new(Arc::clone(&runtime), Upstreams::new(resolvers))));
    let handles = Handles { mesh, machines, zones, outcome_log: OutcomeLog::new(metrics) };
    let mut agent = Agent::new(connection, identity, state, handles, MembershipChannel { shared, answers })?;
    (agent.needs, agent.nats_ports) = (needs, nats_ports);
    agent.guard.follow(peer);
    // The first heartbeat contains the position of the ledger.
    tasks.add(runtime.spawn("heartbeats", control::send_heartbeats(heartbeats)));
    let ended = tokio::select! {
        () = &mut stop => Ok(()),
        error = agent.run() => Err(error),
    };
    agent.finish().await;
    ended
}

/// Starts what manages the mesh device, if the node is part of the mesh.
async fn start_mesh(
    options: Option<MeshTaskOptions>,
    state: &Path,
    endpoint: NatsEndpoint,
    runtime: &Arc<dyn Runtime>,
    tasks: &mut TaskSet<()>,
) -> MeshHandle {
    let Some(options) = options else { return MeshHandle::disabled() };
    match MeshHandle::start(options, state, endpoint, Arc::clone(runtime)).await {
        Ok((mesh, task)) => {
            tasks.add(runtime.spawn("mesh", task.run()));
            mesh
        }
        Err(error) => {
            let text = Causes(&error).to_string();
            tracing::error!(error = %text, "this node is not part of the mesh until its agent is restarted");
            MeshHandle::failed(format!("{text}: fix this, then restart the agent"))
        }
    }
}

/// Which deletions are held.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HoldState {
    /// Not determined yet.
    Unknown,
    Nothing,
    Held(HeldDeletions),
}

/// The channels to and from [`control::keep_membership`].
struct MembershipChannel {
    shared: SharedState,
    answers: mpsc::Receiver<MembershipAnswer>,
}

/// What the main loop tells what is to be: tasks beside it, and the names that guests ask for.
struct Handles {
    mesh: MeshHandle,
    machines: MachinesHandle,
    zones: Zones,
    outcome_log: OutcomeLog,
}

struct Agent {
    connection: Connection,
    identity: Identity,
    state: PathBuf,
    shared: SharedState,
    answers: mpsc::Receiver<MembershipAnswer>,
    /// The latest answer to a join request.
    joined: Option<JoinAnswer>,
    feed: Option<DecisionFeed>,
    ledger_mode: LedgerMode,
    /// The ledger in use.
    ledger: Option<Ledger>,
    ledger_saver: LedgerSaver,
    /// The next decision cannot be read or parsed.
    is_stuck: bool,
    contradiction: Option<Contradiction>,
    contradiction_written: bool,
    /// When the last past decision was received, while past decisions are received.
    catching_up: Option<Instant>,
    released: ReleasedLineage,
    hold_state: HoldState,
    reconciler: Reconciler,
    mesh: MeshHandle,
    machines: MachinesHandle,
    /// The NICs whose taps are as they are to be.
    ready_nics: BTreeSet<NicId>,
    /// What the pass that is made found of VMs. Nothing while the lineage is not released: another one never stops a
    /// VM.
    wanted_vms: Option<BTreeMap<VmId, DesiredVm>>,
    zones: Zones,
    /// The guests that are to be answered.
    answered: AnsweredGuests,
    responder: Responder,
    /// What the node must be able to reach, apart from other nodes.
    needs: watch::Receiver<NodeNeeds>,
    nats_ports: BTreeSet<u16>,
    guard: ContactGuard,
    /// This node was removed from the cluster, and that is logged.
    is_removed: bool,
    /// An operator has told that the node was removed, and the control plane has not accepted it since.
    has_left: bool,
    /// A pass is required.
    needs_pass: bool,
    notices: Vec<String>,
    reporter: OutcomeReporter,
    outcome_log: OutcomeLog,
    /// The report in flight.
    sending: TaskSet<Result<ReportReceipt, CallError>>,
    /// When a report that failed is sent again.
    resend_at: Option<Instant>,
    /// The incarnation of another agent that uses this node's id.
    other_agent: watch::Receiver<Option<u64>>,
    other_agent_log: LogLimit,
    backoff: Backoff,
    /// When the membership is requested again.
    membership_request_at: Option<Instant>,
    /// When `released.json` is read next.
    release_check_at: Option<Instant>,
}

impl Agent {
    fn new(
        connection: Connection,
        identity: Identity,
        state: PathBuf,
        Handles { mesh, machines, zones, outcome_log }: Handles,
        MembershipChannel { shared, answers }: MembershipChannel,
    ) -> Result<Self, AgentError> {
        let runtime = Arc::clone(connection.runtime());
        let reporter = OutcomeReporter::new(identity.node_id, identity.incarnation);
        let other_agent = shared.other_agent.subscribe();
        let found = store::read(&state, identity.incarnation);
        let has_left = left::has_left(&state);
        let ledger_saver = LedgerSaver::new(state.clone(), Arc::clone(&runtime), shared.saved.clone());
        let mut agent = Self {
            connection,
            identity,
            shared,
            answers,
            joined: None,
            feed: None,
            ledger_mode: LedgerMode::AwaitingMembership(0),
            ledger: None,
            ledger_saver,
            is_stuck: false,
            contradiction: None,
            contradiction_written: false,
            catching_up: None,
            released: release::released(&state),
            hold_state: HoldState::Unknown,
            reconciler: Reconciler::new(KINDS, Arc::clone(&runtime))?,
            mesh,
            machines,
            ready_nics: BTreeSet::new(),
            wanted_vms: None,
            zones,
            answered: AnsweredGuests::default(),
            responder: Responder::new(Arc::clone(&runtime)),
            needs: watch::channel(NodeNeeds::default()).1,
            nats_ports: BTreeSet::new(),
            guard: ContactGuard::new(&state),
            state,
            is_removed: false,
            has_left,
            needs_pass: true,
            notices: Vec::new(),
            reporter,
            outcome_log,
            sending: TaskSet::default(),
            resend_at: None,
            other_agent,
            other_agent_log: LogLimit::default(),
            backoff: control::backoff(runtime.as_ref()),
            membership_request_at: None,
            release_check_at: None,
        };
        agent.reconciler.record_in(&agent.state);
        agent.start_with(found);
        let started_with = agent.ledger.as_ref().map_or(Position::ZERO, Ledger::position);
        agent.shared.started_with.send_replace(Some(started_with));
        Ok(agent)
    }

    async fn run(&mut self) -> AgentError {
        if !self.can_act() {
            // There is nothing to do before the control plane is reached.
            self.outcome_log.ready();
        }
        loop {
            let is_pass_due = self.needs_pass && self.can_act();
            let timer = self.timer();
            tokio::select! {
                biased;
                Some(answer) = self.sending.join_next() => self.answered(answer),
                item = decisions::next(&mut self.feed) => match item {
                    Some(item) => self.apply_all(item),
                    None => return AgentError::Closed,
                },
                Some(answer) = self.answers.recv() => self.joined(answer),
                () = self.reconciler.wait() => self.needs_pass |= self.reconciler.is_due(),
                () = self.ledger_saver.wait() => {}
                Ok(()) = self.needs.changed() => self.needs_pass = true,
                () = self.guard.changed() => self.needs_pass = true,
                Ok(()) = self.other_agent.changed() => self.other_agent_changed(),
                outcome = self.machines.outcome() => self.observe(outcome),
                faults = self.mesh.faults() => self.needs_pass |= pass::observe_mesh(&mut self.reconciler, faults),
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
                () = std::future::ready(()), if is_pass_due => {}
            }
            self.on_time();
            if self.needs_pass && self.can_act() {
                self.pass().await;
                self.outcome_log.ready();
            }
            if let Some(observed) = self.reconciler.notified(device::mesh::MeshKind::NAME) {
                self.mesh.device_changed(observed.mesh().map(|link| link.index));
            }
            self.send();
            if let Some(ledger) = &self.ledger {
                self.ledger_saver.save_if_due(ledger);
            }
        }
    }

    /// Takes an outcome over, to be reported if it is new.
    fn observe(&mut self, outcome: ResourceOutcome) {
        self.outcome_log.observe(&outcome, self.ledger.as_ref());
        self.reporter.observe(outcome);
    }

    /// Returns the earliest time at which something is due.
    fn timer(&self) -> Option<Instant> {
        let quiet_at = self.quiet_at().filter(|_| self.needs_pass);
        let release_at = [self.release_check_at, self.guard.check_at()];
        let others = [self.resend_at, self.membership_request_at, quiet_at];
        others.into_iter().chain(release_at).flatten().min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.resend_at.take_if(|at| now >= *at);
        if self.membership_request_at.take_if(|at| now >= *at).is_some() {
            self.ledger_mode = LedgerMode::AwaitingMembership(self.shared.request_membership());
        }
        if self.release_check_at.take_if(|at| now >= *at).is_some() {
            self.check_release();
            self.check_contradiction();
        }
        self.needs_pass |= self.guard.on_time(now, self.ledger.is_some());
    }

    fn check_release(&mut self) {
        let HoldState::Held(held) = &self.hold_state else { return };
        let HeldDeletions { lineage, devices } = held;
        if release::released(&self.state) == ReleasedLineage::Lineage(*lineage) {
            tracing::warn!(%lineage, count = devices.len(), devices = held.names(), "released by an operator");
            self.released = ReleasedLineage::Lineage(*lineage);
            self.needs_pass = true;
        } else {
            self.release_check_at = Some(Instant::now() + RELEASE_POLL);
        }
    }

    /// Whether a pass may be made. Not while past decisions are received: later ones may revoke them.
    fn can_act(&self) -> bool {
        let has_state = self.ledger.is_some() || self.left_cluster().is_some();
        has_state && !self.is_stuck && self.quiet_at().is_none_or(|at| Instant::now() >= at)
    }

    /// Whether the ledger has all decisions up to the decision head of the latest answer.
    fn is_current(&self, ledger: &Ledger) -> bool {
        let joined = self.joined.as_ref();
        joined.is_some_and(|joined| {
            joined.epoch == ledger.lineage().epoch && joined.decision_head <= ledger.view().position()
        })
    }

    /// Whether the ledger is in use, and of the cluster and epoch of the latest answer, if there was one.
    fn is_settled(&self, lineage: Lineage) -> bool {
        let matches = |joined: &JoinAnswer| joined.cluster == lineage.cluster && joined.epoch <= lineage.epoch;
        matches!(self.ledger_mode, LedgerMode::InUse) && self.joined.as_ref().is_none_or(matches)
    }

    /// Logs the held deletions, and writes them to `held.json` for the operator.
    fn hold(&mut self, hold_state: HoldState) {
        if self.hold_state == hold_state {
            return;
        }
        match &hold_state {
            HoldState::Held(held) => {
                tracing::warn!(
                    lineage = %held.lineage, count = held.devices.len(), devices = held.names(),
                    hint = format!("otherix-agent release --state {}", self.state.display()),
                    "holding all deletions back until an operator releases them"
                );
                release::write_held(&self.state, Some(held));
                self.release_check_at = Some(Instant::now() + RELEASE_POLL);
            }
            HoldState::Nothing | HoldState::Unknown => {
                release::write_held(&self.state, None);
                self.release_check_at = None;
            }
        }
        self.hold_state = hold_state;
    }

    async fn finish(&mut self) {
        if let Some(ledger) = &self.ledger {
            self.ledger_saver.finish(ledger).await;
        }
    }
}
