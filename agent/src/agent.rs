//! The loop: decisions and what the kernel tells come in, rounds are made, reports go out.
//!
//! Before the view has caught up with the stream once, and while a decision cannot be understood, nothing is changed: what
//! runs keeps running. Signs of life come from a task of their own.

use std::path::PathBuf;
use std::pin::pin;

use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::ReportReceipt;
use otherix_schemas::position::Position;
use otherix_schemas::request::{JoinNode, Joined};
use otherix_schemas::value::NodeName;
use otherix_transport::feed::Item;
use otherix_transport::request::CallError;
use otherix_transport::{Connection, Endpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::control::{self, Decision, Pauses};
use crate::identity::{Identity, IdentityError};
use crate::kernel::KernelError;
use crate::model::desired::desired;
use crate::model::report::Reporter;
use crate::model::view::View;
use crate::reconcile::Reconciler;

/// Which node this is to be, and of which control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where NATS is.
    pub endpoint: Endpoint,
    /// Where the node's identity is kept.
    pub state: PathBuf,
    /// The node's name.
    pub name: NodeName,
}

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It does not know who it is.
    #[error("cannot take this node's identity")]
    Identity(#[from] IdentityError),
    /// The URL of NATS is malformed.
    #[error("cannot begin to connect")]
    Connect(#[from] otherix_transport::connection::ConnectError),
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
    let Config { endpoint, state, name } = config;
    let mut stop = pin!(stop);
    let identity = Identity::claim(&state)?;
    let node_id = identity.node_id;
    tracing::info!(node = %node_id, name = %name, incarnation = identity.incarnation, nats = endpoint.url, "starting");
    let reconciler = Reconciler::new()?;
    let connection = Connection::lasting(&endpoint, &format!("otherix-agent {name}")).await?;
    let node = JoinNode { node_id, name };
    let joined = tokio::select! {
        () = &mut stop => return Ok(()),
        joined = control::join(&connection, &node) => joined,
    };
    let Joined { cluster, epoch, decision_head } = joined;
    tracing::info!(cluster = %cluster, epoch = %epoch, decision_head = %decision_head, "joined");
    if let Err(error) = identity.note_joined(cluster) {
        tracing::warn!(error = %Causes(&error), "nobody who waits for this node to join is told");
    }
    let (head, known) = watch::channel(Position::ZERO);
    // The feed looks for changes only.
    head.send_replace(decision_head);
    let (sender, decisions) = mpsc::channel(control::DECISIONS);
    let follow = control::follow(connection.clone(), known, sender);
    let (position, folded) = watch::channel(Position::ZERO);
    let mut tasks = JoinSet::new();
    tasks.spawn(control::live(connection.clone(), node_id, folded, head));
    let agent = Agent {
        connection,
        cluster,
        join_head: decision_head,
        decisions,
        view: View::default(),
        position,
        standing: Standing::CatchingUp,
        reconciler,
        dirty: true,
        noticed: Vec::new(),
        reporter: Reporter::new(node_id, identity.incarnation),
        sending: JoinSet::new(),
        resend_at: None,
        pauses: Pauses::new(),
    };
    tokio::select! {
        () = stop => Ok(()),
        () = follow => Err(AgentError::Closed),
        error = agent.run() => Err(error),
    }
}

/// Whether the view may be acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It lacks decisions that the stream has.
    CatchingUp,
    /// It has all that the stream had.
    CaughtUp,
    /// The next decision cannot be had or understood.
    Stuck,
    /// The stream is another cluster's, whose decisions mean nothing here.
    Foreign,
}

struct Agent {
    connection: Connection,
    cluster: ClusterId,
    /// The last decision there was when this node joined.
    join_head: Position,
    decisions: mpsc::Receiver<Decision>,
    view: View,
    position: watch::Sender<Position>,
    standing: Standing,
    reconciler: Reconciler,
    /// There is a reason for a round.
    dirty: bool,
    noticed: Vec<String>,
    reporter: Reporter,
    /// The report in flight.
    sending: JoinSet<Result<ReportReceipt, CallError>>,
    /// When it is sent again, if it was not answered.
    resend_at: Option<Instant>,
    pauses: Pauses,
}

impl Agent {
    async fn run(mut self) -> AgentError {
        loop {
            let act = self.dirty && self.standing == Standing::CaughtUp;
            let resend = self.resend_at;
            tokio::select! {
                biased;
                Some(answer) = self.sending.join_next() => self.answered(answer),
                item = self.decisions.recv() => match item {
                    Some(item) => self.fold_all(item),
                    None => return AgentError::Closed,
                },
                () = self.reconciler.woken() => self.dirty |= self.reconciler.absorb(),
                () = tokio::time::sleep_until(resend.unwrap_or_else(Instant::now)), if resend.is_some() => {
                    self.resend_at = None;
                }
                () = std::future::ready(()), if act => {}
            }
            if self.dirty && self.standing == Standing::CaughtUp {
                self.round().await;
            }
            self.send();
        }
    }

    /// Folds what has come, and whatever else is there already: a burst is one round.
    fn fold_all(&mut self, first: Decision) {
        self.fold(first);
        while let Ok(next) = self.decisions.try_recv() {
            self.fold(next);
        }
        self.position.send_replace(self.view.position());
    }

    fn fold(&mut self, item: Decision) {
        if self.standing == Standing::Foreign {
            return;
        }
        match item {
            Ok(Item::Event { recorded, bytes: _ }) if recorded.header.cluster != self.cluster => {
                let cluster = recorded.header.cluster;
                tracing::error!(%cluster, "a decision of another cluster: changing nothing; restart this agent to join it");
                self.standing = Standing::Foreign;
            }
            Ok(Item::Event { recorded, bytes: _ }) => {
                self.view.apply(recorded.header.position, recorded.event);
                self.dirty = true;
            }
            Ok(Item::Current) => {
                if self.standing != Standing::CaughtUp {
                    tracing::info!(position = %self.view.position(), "caught up with the decisions");
                    self.standing = Standing::CaughtUp;
                }
            }
            Err(error) => {
                if self.standing != Standing::Stuck {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(%error, cause, "cannot follow the decisions: keeping what runs, changing nothing");
                    self.standing = Standing::Stuck;
                }
            }
        }
    }

    async fn round(&mut self) {
        let current = self.view.position() >= self.join_head;
        let desired = desired(&self.view, self.cluster);
        match self.reconciler.round(&desired, current).await {
            Ok(round) => {
                self.dirty = round.more;
                round.outcomes.into_iter().for_each(|outcome| self.reporter.observe(outcome));
                if round.notices != self.noticed {
                    round.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
                    self.noticed = round.notices;
                }
            }
            Err(error) => {
                // The links are read again at the next reason, within a minute.
                tracing::error!(error = %error, "cannot reconcile");
                self.dirty = false;
            }
        }
    }

    fn send(&mut self) {
        if self.sending.is_empty()
            && self.resend_at.is_none()
            && let Some(report) = self.reporter.report()
        {
            tracing::debug!(sequence = report.sequence, results = report.results.len(), "reporting");
            self.sending.spawn(control::report(self.connection.clone(), report.clone()));
        }
    }

    fn answered(&mut self, answer: Result<Result<ReportReceipt, CallError>, JoinError>) {
        match answer {
            Ok(Ok(receipt)) => {
                self.pauses = Pauses::new();
                for id in self.reporter.answered(&receipt) {
                    if self.view.forget(id) {
                        self.reporter.forget(id);
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "a report was not taken; sending it again");
                self.resend_at = Some(Instant::now() + self.pauses.pause());
            }
            // Only when the runtime ends.
            Err(_) => {}
        }
    }
}
