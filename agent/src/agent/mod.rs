//! The loop: decisions and what the kernel tells come in, rounds are made, reports go out, the ledger is kept.
//!
//! A node that has a ledger acts on it at once, whoever else is in reach. What it does not know to be unwanted it removes only
//! once it has seen the last decision there is; and nothing at all while the lineage it is in is not released
//! ([`crate::release`]). While a decision cannot be understood, nothing is changed: what runs keeps running. Signs of life
//! come from a task of their own.
//!
//! [`reading`] says where decisions go, and what happens when they are not those that this node knew.

mod hold;
mod reading;
mod removal;
mod reporting;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

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
use crate::control::{self, Joining, Membership, Pauses, Shared};
use crate::device::{self, KINDS};
use crate::engine::{Pass, Reconciler};
use crate::identity::{Identity, IdentityError};
use crate::kernel::KernelError;
use crate::ledger::keeper::Keeper;
use crate::ledger::store;
use crate::ledger::{Ledger, Lineage};
use crate::model::desired::{Desired, desired};
use crate::model::mesh::place;
use crate::model::report::Reporter;
use crate::release::{self, Held, Released};
use crate::wireguard::{self, Mesh};

/// How often it is looked whether an operator has released what is held back.
const RELEASE_POLL: Duration = Duration::from_secs(1);

/// Which node this is to be, and of which control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where NATS is.
    pub endpoint: NatsEndpoint,
    /// Where the node's identity and ledger are kept.
    pub state: PathBuf,
    /// The node's name.
    pub name: NodeName,
    /// How it takes part in the mesh; nothing if it does not.
    pub mesh: Option<wireguard::Options>,
}

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It does not know who it is.
    #[error("cannot take this node's identity")]
    Identity(#[from] IdentityError),
    /// The URL of NATS is malformed.
    #[error("cannot begin to connect")]
    Connect(#[from] otherix_transport::nats::ConnectError),
    /// The kernel cannot be reached.
    #[error("cannot reach the kernel")]
    Kernel(#[from] KernelError),
    /// The connection was closed for good.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// Runs the agent until `stop`.
///
/// # Errors
/// When it cannot begin. Once it has, it goes on whatever happens.
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
        Some(options) => match Mesh::begin(options, &state, endpoint).await {
            Ok((mesh, keeper)) => {
                tasks.spawn(wireguard::keeper::keep(keeper));
                mesh
            }
            Err(error) => {
                let text = Causes(&error).to_string();
                tracing::error!(error = %text, "this node takes no part in the mesh until its agent is started again");
                Mesh::broken(format!("{text}; when that is mended, start the agent again"))
            }
        },
        None => Mesh::none(),
    };
    let node = Joining { node_id, name, offers: mesh.offers() };
    tasks.spawn(control::member(connection.clone(), node, shared.clone(), sender));
    let peers = mesh.peers();
    let mut agent = Agent::new(connection.clone(), identity, state, mesh, (shared.clone(), answers))?;
    // Its first sign of life says how far the ledger goes.
    tasks.spawn(control::live(connection, node_id, shared, peers));
    let ended = tokio::select! {
        () = &mut stop => Ok(()),
        error = agent.run() => Err(error),
    };
    agent.finish().await;
    ended
}

/// What is held back at present.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holding {
    /// It has not been found out.
    Unknown,
    /// Nothing.
    Nothing,
    /// This.
    Held(Held),
}

struct Agent {
    connection: Connection,
    identity: Identity,
    state: PathBuf,
    shared: Shared,
    answers: mpsc::Receiver<Membership>,
    /// What the cluster said last.
    joined: Option<JoinAnswer>,
    following: Option<Following>,
    reading: Reading,
    /// What is acted on.
    ledger: Option<Ledger>,
    keeper: Keeper,
    /// The next decision cannot be had or understood.
    stuck: bool,
    /// Decisions of the past are coming in: the last of them came then.
    catching_up: Option<Instant>,
    released: Released,
    holding: Holding,
    reconciler: Reconciler,
    mesh: Mesh,
    /// This node was removed from the cluster, and has said so.
    removed: bool,
    /// There is a reason for a round.
    dirty: bool,
    noticed: Vec<String>,
    reporter: Reporter,
    /// The report in flight.
    sending: JoinSet<Result<ReportReceipt, CallError>>,
    /// When it is sent again, if it was not answered.
    resend_at: Option<Instant>,
    pauses: Pauses,
    /// When the cluster is asked again what it is.
    ask_at: Option<Instant>,
    /// When it is looked for an operator's release.
    look_at: Option<Instant>,
}

impl Agent {
    fn new(
        connection: Connection,
        identity: Identity,
        state: PathBuf,
        mesh: Mesh,
        (shared, answers): (Shared, mpsc::Receiver<Membership>),
    ) -> Result<Self, AgentError> {
        let reporter = Reporter::new(identity.node_id, identity.incarnation);
        let found = store::find(&state, identity.incarnation);
        let mut agent = Self {
            connection,
            identity,
            shared,
            answers,
            joined: None,
            following: None,
            reading: Reading::Asking(0),
            ledger: None,
            keeper: Keeper::new(state.clone()),
            stuck: false,
            catching_up: None,
            released: release::released(&state),
            holding: Holding::Unknown,
            state,
            reconciler: Reconciler::new(KINDS)?,
            mesh,
            removed: false,
            dirty: true,
            noticed: Vec::new(),
            reporter,
            sending: JoinSet::new(),
            resend_at: None,
            pauses: Pauses::new(),
            ask_at: None,
            look_at: None,
        };
        agent.begin_with(found);
        Ok(agent)
    }

    async fn run(&mut self) -> AgentError {
        loop {
            let act = self.dirty && self.may_act();
            let timer = self.timer();
            tokio::select! {
                biased;
                Some(answer) = self.sending.join_next() => self.answered(answer),
                item = reading::next(&mut self.following) => match item {
                    Some(item) => self.fold_all(item),
                    None => return AgentError::Closed,
                },
                Some(answer) = self.answers.recv() => self.member(answer),
                () = self.reconciler.wait() => self.dirty |= self.reconciler.is_due(),
                () = self.keeper.woken() => {}
                faults = self.mesh.trouble() => self.dirty |= self.reconciler.observe(|observed| {
                    let is_changed = observed.mesh_faults != faults;
                    observed.mesh_faults = faults;
                    is_changed
                }),
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
                () = std::future::ready(()), if act => {}
            }
            self.on_time();
            if self.dirty && self.may_act() {
                self.round().await;
            }
            if let Some(observed) = self.reconciler.notified(device::mesh::Mesh::NAME) {
                self.mesh.changed(observed.mesh().map(|link| link.index));
            }
            self.send();
            if let Some(ledger) = &self.ledger {
                self.keeper.keep(ledger);
            }
        }
    }

    /// The earliest thing that is to be done without another reason.
    fn timer(&self) -> Option<Instant> {
        [self.resend_at, self.ask_at, self.look_at, self.quiet_at().filter(|_| self.dirty)].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.resend_at.take_if(|at| now >= *at);
        if self.ask_at.take_if(|at| now >= *at).is_some() {
            self.reading = Reading::Asking(self.shared.ask());
        }
        if self.look_at.take_if(|at| now >= *at).is_some() {
            self.look_for_release();
        }
    }

    fn look_for_release(&mut self) {
        let Holding::Held(held) = &self.holding else { return };
        let Held { lineage, devices } = held;
        if release::released(&self.state) == Released::Lineage(*lineage) {
            tracing::warn!(%lineage, count = devices.len(), devices = held.names(), "released by an operator");
            self.released = Released::Lineage(*lineage);
            self.dirty = true;
        } else {
            self.look_at = Some(Instant::now() + RELEASE_POLL);
        }
    }

    /// Not while decisions of the past are coming in: what they ask for may be over.
    fn may_act(&self) -> bool {
        self.ledger.is_some() && !self.stuck && self.quiet_at().is_none_or(|at| Instant::now() >= at)
    }

    async fn round(&mut self) {
        self.note_removal();
        let round = self.reconcile().await;
        match round {
            Ok(Pass { outcomes, notices, has_more }) => {
                self.dirty = has_more;
                outcomes.into_iter().for_each(|outcome| self.reporter.observe(outcome));
                if notices != self.noticed {
                    notices.iter().for_each(|notice| tracing::warn!("{notice}"));
                    self.noticed = notices;
                }
            }
            Err(error) => {
                // The links are read again within a second.
                tracing::error!(error = %Causes(&error), "cannot reconcile");
                self.dirty = false;
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
        let place = place(ledger.view(), self.identity.node_id);
        let current = self.is_current(ledger) || self.removed;
        self.mesh.want(place, self.removed && is_free, is_free && current);
        if is_free {
            let former = ledger.former().clone();
            self.hold(Holding::Nothing);
            let before = self.remove_former(former).await?;
            let mut round = self.reconciler.pass(&desired, current).await?;
            round.has_more |= before.has_more;
            round.notices.extend(before.notices);
            return Ok(round);
        }
        let clusters = ledger.clusters();
        let ours = self.reconciler.owned().await?;
        let (held, outcomes) = hold::hold_back(&mut desired, lineage, &clusters, ours);
        self.hold(if self.is_settled(lineage) { Holding::Held(held) } else { Holding::Unknown });
        let mut round = self.reconciler.pass(&desired, false).await?;
        round.outcomes.extend(outcomes);
        Ok(round)
    }

    /// Removes what clusters that this node is no longer part of have left on it.
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

    /// The node knows all that the cluster had decided when it was asked last.
    fn is_current(&self, ledger: &Ledger) -> bool {
        let joined = self.joined.as_ref();
        joined.is_some_and(|joined| {
            joined.epoch == ledger.lineage().epoch && joined.decision_head <= ledger.view().position()
        })
    }

    /// What the node acts on is of the cluster and epoch that there are, as far as it has been told.
    fn is_settled(&self, lineage: Lineage) -> bool {
        let fits = |joined: &JoinAnswer| joined.cluster == lineage.cluster && joined.epoch <= lineage.epoch;
        matches!(self.reading, Reading::Ledger) && self.joined.as_ref().is_none_or(fits)
    }

    /// Says what is held back, and writes it down for the operator's release.
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
                self.look_at = Some(Instant::now() + RELEASE_POLL);
            }
            Holding::Nothing | Holding::Unknown => {
                release::write_held(&self.state, None);
                self.look_at = None;
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
