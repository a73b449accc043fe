//! The main loop: it receives decisions and notifications of the kernel, makes passes, sends reports and keeps the
//! ledger.
//!
//! A node with a ledger acts on it at once, whether or not the control plane is reachable. It removes devices with
//! unknown owners only when it has read the last decision, and removes nothing while its lineage is not released
//! ([`crate::release`]). While a decision cannot be read, nothing is changed: what runs keeps running. Heartbeats are
//! sent by a task of their own.
//!
//! [`reading`]: where decisions are applied, and what happens when they diverge from those that the node has.

mod hold;
mod reading;
mod removal;
mod reporting;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use otherix_runtime::Backoff;
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::node::{JoinAnswer, ReportReceipt};
use otherix_schemas::value::NodeName;
use otherix_transport::request::CallError;
use otherix_transport::{Connection, Nats, NatsEndpoint};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::reading::{Following, Reading};
use crate::control::{self, Joining, Membership, Shared};
use crate::device::{self, KINDS};
use crate::engine::{Pass, Reconciler};
use crate::identity::{Identity, IdentityError};
use crate::kernel::KernelError;
use crate::ledger::keeper::Keeper;
use crate::ledger::store;
use crate::ledger::{Ledger, Lineage};
use crate::model::desired::{Desired, desired};
use crate::model::mesh::desired_mesh_device;
use crate::model::report::OutcomeReporter;
use crate::release::{self, Held, Released};
use crate::wireguard::{MeshHandle, MeshTaskOptions};

/// How often `released.json` is read while removals are held back.
const RELEASE_POLL: Duration = Duration::from_secs(1);

/// The configuration of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    pub endpoint: NatsEndpoint,
    /// The state folder.
    pub state: PathBuf,
    pub name: NodeName,
    /// The options of the mesh; `None` if the node is not part of it.
    pub mesh: Option<MeshTaskOptions>,
}

/// The errors that end the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("cannot claim the identity of this node")]
    Identity(#[from] IdentityError),
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
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    let Config { endpoint, state, name, mesh } = config;
    let mut stop = pin!(stop);
    let identity = Identity::claim(&state)?;
    let node_id = identity.node_id;
    tracing::info!(node = %node_id, name = %name, incarnation = identity.incarnation, nats = endpoint.url, "starting");
    let connection = Connection::from(Nats::lasting(&endpoint, &format!("otherix-agent {name}")).await?);
    let shared = Shared::new();
    let (sender, answers) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let mesh = match mesh {
        Some(options) => match MeshHandle::start(options, &state, endpoint).await {
            Ok((mesh, task)) => {
                tasks.spawn(task.run());
                mesh
            }
            Err(error) => {
                let text = Causes(&error).to_string();
                tracing::error!(error = %text, "this node is not part of the mesh until its agent is restarted");
                MeshHandle::failed(format!("{text}: fix this, then restart the agent"))
            }
        },
        None => MeshHandle::disabled(),
    };
    let node = Joining { node_id, name, offers: mesh.offers() };
    tasks.spawn(control::keep_membership(connection.clone(), node, shared.clone(), sender));
    let peers = mesh.peers();
    let mut agent =
        Agent::new(connection.clone(), identity, state, mesh, MembershipChannel { shared: shared.clone(), answers })?;
    // The first heartbeat contains the position of the ledger.
    tasks.spawn(control::send_heartbeats(connection, node_id, shared, peers));
    let ended = tokio::select! {
        () = &mut stop => Ok(()),
        error = agent.run() => Err(error),
    };
    agent.finish().await;
    ended
}

/// The removals that are held back.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holding {
    /// Not determined yet.
    Unknown,
    Nothing,
    Held(Held),
}

/// The connection to the task that keeps the membership.
struct MembershipChannel {
    shared: Shared,
    answers: mpsc::Receiver<Membership>,
}

struct Agent {
    connection: Connection,
    identity: Identity,
    state: PathBuf,
    shared: Shared,
    answers: mpsc::Receiver<Membership>,
    /// The latest answer of the cluster.
    joined: Option<JoinAnswer>,
    following: Option<Following>,
    reading: Reading,
    /// The ledger that the agent acts on.
    ledger: Option<Ledger>,
    keeper: Keeper,
    /// The next decision cannot be read or parsed.
    is_stuck: bool,
    /// While past decisions are received: when the last one was.
    catching_up: Option<Instant>,
    released: Released,
    holding: Holding,
    reconciler: Reconciler,
    mesh: MeshHandle,
    /// This node was removed from the cluster, and has logged that.
    is_removed: bool,
    /// A pass is required.
    needs_pass: bool,
    notices: Vec<String>,
    reporter: OutcomeReporter,
    /// The report in flight.
    sending: JoinSet<Result<ReportReceipt, CallError>>,
    /// When the report is sent again if it was not answered.
    resend_at: Option<Instant>,
    backoff: Backoff,
    /// When the node asks for its membership again.
    membership_request_at: Option<Instant>,
    /// When `released.json` is read next.
    release_check_at: Option<Instant>,
}

impl Agent {
    fn new(
        connection: Connection,
        identity: Identity,
        state: PathBuf,
        mesh: MeshHandle,
        MembershipChannel { shared, answers }: MembershipChannel,
    ) -> Result<Self, AgentError> {
        let reporter = OutcomeReporter::new(identity.node_id, identity.incarnation);
        let found = store::find(&state, identity.incarnation);
        let mut agent = Self {
            connection,
            identity,
            shared,
            answers,
            joined: None,
            following: None,
            reading: Reading::AwaitingMembership(0),
            ledger: None,
            keeper: Keeper::new(state.clone()),
            is_stuck: false,
            catching_up: None,
            released: release::released(&state),
            holding: Holding::Unknown,
            state,
            reconciler: Reconciler::new(KINDS)?,
            mesh,
            is_removed: false,
            needs_pass: true,
            notices: Vec::new(),
            reporter,
            sending: JoinSet::new(),
            resend_at: None,
            backoff: control::backoff(),
            membership_request_at: None,
            release_check_at: None,
        };
        agent.start_with(found);
        Ok(agent)
    }

    async fn run(&mut self) -> AgentError {
        loop {
            let is_pass_due = self.needs_pass && self.can_act();
            let timer = self.timer();
            tokio::select! {
                biased;
                Some(answer) = self.sending.join_next() => self.answered(answer),
                item = reading::next(&mut self.following) => match item {
                    Some(item) => self.apply_all(item),
                    None => return AgentError::Closed,
                },
                Some(answer) = self.answers.recv() => self.joined(answer),
                () = self.reconciler.wait() => self.needs_pass |= self.reconciler.is_due(),
                () = self.keeper.woken() => {}
                faults = self.mesh.faults() => self.needs_pass |= self.reconciler.observe(|observed| {
                    let is_changed = observed.mesh_faults != faults;
                    observed.mesh_faults = faults;
                    is_changed
                }),
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
                () = std::future::ready(()), if is_pass_due => {}
            }
            self.on_time();
            if self.needs_pass && self.can_act() {
                self.pass().await;
            }
            if let Some(observed) = self.reconciler.notified(device::mesh::MeshKind::NAME) {
                self.mesh.device_changed(observed.mesh().map(|link| link.index));
            }
            self.send();
            if let Some(ledger) = &self.ledger {
                self.keeper.keep(ledger);
            }
        }
    }

    /// Returns the earliest time at which something is due.
    fn timer(&self) -> Option<Instant> {
        [self.resend_at, self.membership_request_at, self.release_check_at, self.quiet_at().filter(|_| self.needs_pass)]
            .into_iter()
            .flatten()
            .min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.resend_at.take_if(|at| now >= *at);
        if self.membership_request_at.take_if(|at| now >= *at).is_some() {
            self.reading = Reading::AwaitingMembership(self.shared.request_membership());
        }
        if self.release_check_at.take_if(|at| now >= *at).is_some() {
            self.check_release();
        }
    }

    fn check_release(&mut self) {
        let Holding::Held(held) = &self.holding else { return };
        let Held { lineage, devices } = held;
        if release::released(&self.state) == Released::Lineage(*lineage) {
            tracing::warn!(%lineage, count = devices.len(), devices = held.names(), "released by an operator");
            self.released = Released::Lineage(*lineage);
            self.needs_pass = true;
        } else {
            self.release_check_at = Some(Instant::now() + RELEASE_POLL);
        }
    }

    /// Not while past decisions are received: later ones may cancel what they require.
    fn can_act(&self) -> bool {
        self.ledger.is_some() && !self.is_stuck && self.quiet_at().is_none_or(|at| Instant::now() >= at)
    }

    async fn pass(&mut self) {
        self.log_removal();
        match self.reconcile().await {
            Ok(Pass { outcomes, notices, has_more }) => {
                self.needs_pass = has_more;
                outcomes.into_iter().for_each(|outcome| self.reporter.observe(outcome));
                if notices != self.notices {
                    notices.iter().for_each(|notice| tracing::warn!("{notice}"));
                    self.notices = notices;
                }
            }
            Err(error) => {
                // The next pass reads the links again, within a second.
                tracing::error!(error = %Causes(&error), "cannot reconcile");
                self.needs_pass = false;
            }
        }
    }

    async fn reconcile(&mut self) -> Result<Pass, KernelError> {
        let Some(ledger) = &self.ledger else {
            return Ok(Pass { outcomes: Vec::new(), notices: Vec::new(), has_more: false });
        };
        let lineage = ledger.lineage();
        let mut desired = desired(ledger.view(), lineage.cluster, self.identity.node_id);
        let is_free = self.is_settled(lineage) && self.released == Released::Lineage(lineage);
        let mesh = desired_mesh_device(ledger.view(), self.identity.node_id);
        let current = self.is_current(ledger) || self.is_removed;
        self.mesh.set_desired(mesh, self.is_removed && is_free, is_free && current);
        if is_free {
            let former = ledger.former().clone();
            self.hold(Holding::Nothing);
            let before = self.remove_former(former).await?;
            let mut pass = self.reconciler.pass(&desired, current).await?;
            pass.has_more |= before.has_more;
            pass.notices.extend(before.notices);
            return Ok(pass);
        }
        let clusters = ledger.clusters();
        let ours = self.reconciler.owned().await?;
        let (held, outcomes) = hold::hold_back(&mut desired, lineage, &clusters, ours);
        self.hold(if self.is_settled(lineage) { Holding::Held(held) } else { Holding::Unknown });
        let mut pass = self.reconciler.pass(&desired, false).await?;
        pass.outcomes.extend(outcomes);
        Ok(pass)
    }

    /// Removes the devices of clusters that this node was part of before.
    async fn remove_former(&mut self, former: BTreeSet<ClusterId>) -> Result<Pass, KernelError> {
        let mut all = Pass { outcomes: Vec::new(), notices: Vec::new(), has_more: false };
        for cluster in &former {
            let nothing = Desired::nothing(*cluster, true);
            let Pass { outcomes: _, notices, has_more } = self.reconciler.pass(&nothing, true).await?;
            all.notices.extend(notices);
            all.has_more |= has_more;
        }
        if !former.is_empty()
            && !self.reconciler.owned().await?.iter().any(|(owner, _)| former.contains(&owner.cluster))
        {
            self.ledger.iter_mut().for_each(Ledger::forget_former);
            self.keeper.changed();
        }
        Ok(all)
    }

    /// Whether the node has all decisions that the cluster had made when it last answered.
    fn is_current(&self, ledger: &Ledger) -> bool {
        let joined = self.joined.as_ref();
        joined.is_some_and(|joined| {
            joined.epoch == ledger.lineage().epoch && joined.decision_head <= ledger.view().position()
        })
    }

    /// Whether the ledger is of the cluster and epoch of the latest answer, if there was one.
    fn is_settled(&self, lineage: Lineage) -> bool {
        let fits = |joined: &JoinAnswer| joined.cluster == lineage.cluster && joined.epoch <= lineage.epoch;
        matches!(self.reading, Reading::Ledger) && self.joined.as_ref().is_none_or(fits)
    }

    /// Logs what is held back, and writes it to `held.json` for the operator.
    fn hold(&mut self, holding: Holding) {
        if self.holding == holding {
            return;
        }
        match &holding {
            Holding::Held(held) => {
                tracing::warn!(
                    lineage = %held.lineage, count = held.devices.len(), devices = held.names(),
                    hint = format!("otherix-agent release --state {}", self.state.display()),
                    "holding all deletions back until an operator releases them"
                );
                release::write_held(&self.state, Some(held));
                self.release_check_at = Some(Instant::now() + RELEASE_POLL);
            }
            Holding::Nothing | Holding::Unknown => {
                release::write_held(&self.state, None);
                self.release_check_at = None;
            }
        }
        self.holding = holding;
    }

    async fn finish(&mut self) {
        if let Some(ledger) = &self.ledger {
            self.keeper.finish(ledger).await;
        }
    }
}
