//! Where decisions are applied: to the ledger; or, if they diverge from it, to a new one, which replaces it once it is
//! complete. Until then the old ledger is acted on, and nothing is removed.

use std::time::Duration;

use otherix_schemas::error::Causes;
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::node::JoinAnswer;
use otherix_schemas::position::{Epoch, Position};
use otherix_transport::feed::{FeedError, FeedItem};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Agent, Holding};
use crate::control::{self, Decision, FeedStart, Membership};
use crate::ledger::store::Found;
use crate::ledger::{Ledger, Lineage};
use crate::release::{self, Released};

/// Time without a past decision after which those received are acted on.
const QUIET: Duration = Duration::from_millis(500);

/// Delay before decisions that contradict each other are read again.
const REREAD: Duration = Duration::from_secs(5);

/// Where decisions are applied.
pub(super) enum Reading {
    /// To the ledger.
    Ledger,
    /// To a new ledger, which is complete once all decisions are in it.
    Rebuilding(Box<Ledger>),
    /// Nowhere, until the cluster has answered this membership request or a later one.
    AwaitingMembership(u64),
    /// Nowhere: the ledger was written by a newer version.
    Nothing,
}

/// The subscription to the decisions.
pub(super) struct Following {
    decisions: mpsc::Receiver<Decision>,
    _task: JoinSet<()>,
}

/// Waits for the next decision; `None` if there will be no more.
pub(super) async fn next(following: &mut Option<Following>) -> Option<Decision> {
    match following {
        Some(following) => following.decisions.recv().await,
        None => std::future::pending().await,
    }
}

/// How the control plane differs from the ledger.
#[derive(Debug, thiserror::Error)]
enum Changed {
    #[error("the control plane is that of cluster `{now}`, and this node was part of cluster `{before}`")]
    Cluster { now: ClusterId, before: ClusterId },
    #[error("the control plane is in epoch {now}, and this node is in the later epoch {before}")]
    Epoch { now: Epoch, before: Epoch },
    #[error("the control plane's last decision is at position {now}, and this node has one at position {before}")]
    Head { now: Position, before: Position },
}

impl Agent {
    /// Starts with the ledger that was found on disk.
    pub(super) fn start_with(&mut self, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Ledger(ledger) => {
                let (position, last) = ledger.end();
                let networks = ledger.view().networks().count();
                tracing::info!(lineage = %ledger.lineage(), %position, networks, "starting with the ledger");
                if self.released == Released::Undecided {
                    self.release_first(ledger.lineage());
                }
                self.ledger = Some(*ledger);
                self.reading = Reading::Ledger;
                self.follow(position, last);
                // The ledger is acted on at once.
                self.catching_up = Instant::now().checked_sub(QUIET);
            }
            Found::Newer(error) => {
                tracing::error!(
                    error = %Causes(&error), hint = "upgrade otherix-agent",
                    "cannot read the ledger: the devices of this node stay as they are"
                );
                self.reading = Reading::Nothing;
            }
        }
    }

    fn follow(&mut self, after: Position, last: Option<EventId>) {
        let (sender, decisions) = mpsc::channel(control::DECISIONS);
        let mut task = JoinSet::new();
        let head = self.shared.head.subscribe();
        task.spawn(control::follow(self.connection.clone(), FeedStart { after, last }, head, sender));
        self.following = Some(Following { decisions, _task: task });
        self.shared.position.send_replace(after);
        self.is_stuck = false;
        self.catching_up = Some(Instant::now());
    }

    /// Returns the time from which the decisions received are acted on, although more past ones may follow.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        self.catching_up.filter(|_| matches!(self.reading, Reading::Ledger)).map(|last| last + QUIET)
    }

    /// Applies a decision and all others that have arrived, so that a burst causes one pass.
    pub(super) fn apply_all(&mut self, first: Decision) {
        let mut next = Some(first);
        while let Some(item) = next {
            self.apply(item);
            next = self.following.as_mut().and_then(|following| following.decisions.try_recv().ok());
        }
        let node = self.identity.node_id;
        if let Some(ledger) = &mut self.ledger {
            ledger.view_mut().forget_elsewhere(node);
        }
        let position = match &self.reading {
            Reading::Ledger => self.ledger.as_ref().map(|ledger| ledger.end().0),
            Reading::Rebuilding(ledger) => Some(ledger.end().0),
            Reading::AwaitingMembership(_) | Reading::Nothing => None,
        };
        self.shared.position.send_replace(position.unwrap_or(Position::ZERO));
    }

    fn apply(&mut self, item: Decision) {
        match item {
            Ok(FeedItem::Event { envelope, bytes: _ }) => {
                let epoch = envelope.header.epoch;
                if self.catching_up.is_some() {
                    self.catching_up = Some(Instant::now());
                }
                let (applied, before) = match (&mut self.reading, &mut self.ledger) {
                    (Reading::Rebuilding(ledger), _) => (ledger.apply(*envelope), epoch),
                    (Reading::Ledger, Some(ledger)) => {
                        let before = ledger.lineage().epoch;
                        self.needs_pass = true;
                        self.keeper.changed();
                        (ledger.apply(*envelope), before)
                    }
                    (Reading::Ledger | Reading::AwaitingMembership(_) | Reading::Nothing, _) => return,
                };
                match applied {
                    Ok(()) if epoch != before => self.new_epoch(),
                    Ok(()) => {}
                    Err(divergence) => self.diverged(&divergence),
                }
            }
            Ok(FeedItem::Current) => self.caught_up(),
            Err(error @ FeedError::Diverged { .. }) => self.diverged(&error),
            Err(error) => {
                if !std::mem::replace(&mut self.is_stuck, true) {
                    let error = Causes(&error);
                    tracing::error!(%error, "cannot read the decisions: the devices of this node stay as they are");
                }
            }
        }
    }

    fn caught_up(&mut self) {
        let unstuck = std::mem::take(&mut self.is_stuck);
        let caught_up = self.catching_up.take().is_some();
        if unstuck || caught_up {
            self.needs_pass = true;
        }
        match (&self.reading, &self.ledger) {
            (Reading::Ledger, Some(ledger)) if unstuck || caught_up => {
                tracing::info!(position = %ledger.end().0, "caught up with the decisions");
            }
            (Reading::Rebuilding(_), _) => self.adopt(),
            (Reading::Ledger | Reading::AwaitingMembership(_) | Reading::Nothing, _) => {}
        }
    }

    /// The ledger has entered another epoch: the control plane may have lost reports.
    fn new_epoch(&mut self) {
        if let Some(ledger) = &self.ledger {
            tracing::warn!(lineage = %ledger.lineage(), "a new epoch has begun");
        }
        self.reporter.resend_all();
        self.reconciler.report_all();
        self.shared.request_membership();
    }

    /// Replaces the old ledger by the new one, if that is complete.
    fn adopt(&mut self) {
        let (Reading::Rebuilding(ledger), Some(joined)) = (&self.reading, &self.joined) else { return };
        let lineage = ledger.lineage();
        let complete = lineage.epoch >= joined.epoch && ledger.end().0 >= joined.decision_head;
        // Without an old ledger, an incomplete one is used: it contains what to create.
        if !complete && self.ledger.is_some() {
            return;
        }
        tracing::info!(%lineage, position = %ledger.end().0, "caught up with the decisions");
        if self.released == Released::Undecided {
            let JoinAnswer { cluster, epoch, .. } = *joined;
            self.release_first(Lineage { cluster, epoch });
        }
        if let Reading::Rebuilding(ledger) = std::mem::replace(&mut self.reading, Reading::Ledger) {
            self.ledger = Some(*ledger);
        }
        self.reporter.resend_all();
        self.reconciler.report_all();
        self.keeper.changed();
        self.needs_pass = true;
    }

    /// The first lineage of a node needs no release: the node has no devices of another.
    fn release_first(&mut self, lineage: Lineage) {
        self.released = Released::Lineage(lineage);
        self.write_released(Some(lineage));
    }

    fn write_released(&self, lineage: Option<Lineage>) {
        if let Err(error) = release::write_released(&self.state, lineage) {
            tracing::error!(%error, "cannot write which epoch is released");
        }
    }

    /// Applies the answer to a membership request.
    pub(super) fn joined(&mut self, answer: Membership) {
        let Membership { request, position, joined } = answer;
        let JoinAnswer { cluster, epoch, decision_head } = joined;
        let known = self.joined.replace(joined);
        if known.as_ref().is_none_or(|known| (known.cluster, known.epoch) != (cluster, epoch)) {
            tracing::info!(%cluster, %epoch, %decision_head, "joined");
            if let Err(error) = self.identity.note_joined(cluster) {
                tracing::warn!(error = %Causes(&error), "cannot write the file `joined`");
            }
        }
        // The feed waits for changes only.
        self.shared.head.send_replace(decision_head);
        self.needs_pass = true;
        match &self.reading {
            Reading::AwaitingMembership(awaited) if request >= *awaited => self.rebuild(cluster),
            Reading::Rebuilding(ledger) if ledger.lineage().cluster != cluster => self.rebuild(cluster),
            Reading::Rebuilding(_) if self.catching_up.is_none() => self.adopt(),
            Reading::Ledger => {
                let seen = self.ledger.as_ref().map_or(Position::ZERO, |ledger| ledger.end().0).min(position);
                if let Some(changed) = self.changed(cluster, epoch, decision_head, seen) {
                    self.diverged(&changed);
                    self.rebuild(cluster);
                }
            }
            Reading::AwaitingMembership(_) | Reading::Rebuilding(_) | Reading::Nothing => {}
        }
    }

    fn changed(&self, cluster: ClusterId, epoch: Epoch, head: Position, seen: Position) -> Option<Changed> {
        let known = self.ledger.as_ref()?.lineage();
        if cluster != known.cluster {
            Some(Changed::Cluster { now: cluster, before: known.cluster })
        } else if epoch < known.epoch {
            Some(Changed::Epoch { now: epoch, before: known.epoch })
        } else if head < seen {
            Some(Changed::Head { now: head, before: seen })
        } else {
            None
        }
    }

    /// Handles decisions that diverge from the ledger.
    fn diverged(&mut self, reason: &(dyn std::error::Error + 'static)) {
        self.following = None;
        self.shared.position.send_replace(Position::ZERO);
        if matches!(self.reading, Reading::Rebuilding(_)) {
            tracing::error!(reason = %Causes(reason), "the decisions contradict each other: reading them again");
            self.reading = Reading::AwaitingMembership(u64::MAX);
            self.membership_request_at = Some(Instant::now() + REREAD);
            return;
        }
        tracing::error!(
            reason = %Causes(reason),
            "the decisions diverge from this node's ledger: reading all of them again, holding all deletions back"
        );
        self.released = Released::Nothing;
        self.write_released(None);
        self.hold(Holding::Unknown);
        self.reading = Reading::AwaitingMembership(self.shared.request_membership());
        self.needs_pass = true;
    }

    fn rebuild(&mut self, cluster: ClusterId) {
        let former = self.ledger.as_ref().map(Ledger::clusters).unwrap_or_default();
        self.reading = Reading::Rebuilding(Box::new(Ledger::begin(cluster, former)));
        self.membership_request_at = None;
        self.follow(Position::ZERO, None);
    }
}
