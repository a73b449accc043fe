//! Applies decisions to the ledger or, if they diverge from it, to a new one, which replaces it once it is complete.
//! Until then the old ledger stays in use, and nothing is removed.

use std::time::Duration;

use otherix_runtime::TaskSet;
use otherix_schemas::error::Causes;
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::node::JoinAnswer;
use otherix_schemas::position::{Epoch, Position};
use otherix_transport::feed::{FeedError, FeedItem};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Agent, HoldState};
use crate::control::{self, FeedResult, FeedStart, MembershipAnswer};
use crate::ledger::store::StoredLedger;
use crate::ledger::{Ledger, Lineage};
use crate::release::{self, ReleasedLineage};

/// Time without a past decision after which a pass is made with those received.
const QUIET: Duration = Duration::from_millis(500);

/// Delay before decisions that do not follow each other are read again.
const REREAD: Duration = Duration::from_secs(5);

/// What decisions are applied to.
pub(super) enum LedgerMode {
    /// The ledger in use.
    InUse,
    /// A new ledger, which is complete once it has all decisions.
    Rebuilding(Box<Ledger>),
    /// Nothing, until this membership request or a later one is answered.
    AwaitingMembership(u64),
    /// Nothing, because a newer version wrote the ledger.
    Unreadable,
}

/// The task that reads the decisions, and its channel.
pub(super) struct DecisionFeed {
    decisions: mpsc::Receiver<FeedResult>,
    _task: TaskSet<()>,
}

/// Waits for the next decision. Returns `None` if the feed has ended.
pub(super) async fn next(feed: &mut Option<DecisionFeed>) -> Option<FeedResult> {
    match feed {
        Some(feed) => feed.decisions.recv().await,
        None => std::future::pending().await,
    }
}

/// How the answer to a join request differs from the ledger.
#[derive(Debug, thiserror::Error)]
enum LedgerMismatch {
    #[error("the control plane is that of cluster `{now}`, and this node was part of cluster `{before}`")]
    Cluster { now: ClusterId, before: ClusterId },
    #[error("the control plane is in epoch {now}, and this node is in the later epoch {before}")]
    Epoch { now: Epoch, before: Epoch },
    #[error("the control plane's last decision is at position {now}, and this node has one at position {before}")]
    Head { now: Position, before: Position },
}

impl Agent {
    /// Starts with the ledger that was found on disk.
    pub(super) fn start_with(&mut self, found: StoredLedger) {
        match found {
            StoredLedger::Absent => {}
            StoredLedger::Present(ledger) => {
                let (position, last) = ledger.end();
                let networks = ledger.view().networks().count();
                tracing::info!(lineage = %ledger.lineage(), %position, networks, "starting with the ledger");
                if self.released == ReleasedLineage::Undecided {
                    self.release_first(ledger.lineage());
                }
                self.ledger = Some(*ledger);
                self.ledger_mode = LedgerMode::InUse;
                self.follow(position, last);
                // The first pass need not wait for decisions.
                self.catching_up = Instant::now().checked_sub(QUIET);
            }
            StoredLedger::Newer(error) => {
                tracing::error!(
                    error = %Causes(&error), hint = "upgrade otherix-agent",
                    "cannot read the ledger: the devices of this node stay as they are"
                );
                self.ledger_mode = LedgerMode::Unreadable;
            }
        }
    }

    fn follow(&mut self, after: Position, last: Option<EventId>) {
        let (sender, decisions) = mpsc::channel(control::DECISIONS);
        let mut task = TaskSet::default();
        let head = self.shared.head.subscribe();
        let follow = control::follow(self.connection.clone(), FeedStart { after, last }, head, sender);
        task.add(self.connection.runtime().spawn("follow decisions", follow));
        self.feed = Some(DecisionFeed { decisions, _task: task });
        self.shared.position.send_replace(after);
        self.is_stuck = false;
        self.catching_up = Some(Instant::now());
    }

    /// Returns the time from which a pass may be made with the decisions received, although more past ones may follow.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        self.catching_up.filter(|_| matches!(self.ledger_mode, LedgerMode::InUse)).map(|last| last + QUIET)
    }

    /// Applies a decision and all others that have arrived, so that a burst results in one pass.
    pub(super) fn apply_all(&mut self, first: FeedResult) {
        let mut next = Some(first);
        while let Some(item) = next {
            self.apply(item);
            next = self.feed.as_mut().and_then(|feed| feed.decisions.try_recv().ok());
        }
        let node = self.identity.node_id;
        if let Some(ledger) = &mut self.ledger {
            ledger.view_mut().forget_elsewhere(node);
        }
        let position = match &self.ledger_mode {
            LedgerMode::InUse => self.ledger.as_ref().map(|ledger| ledger.end().0),
            LedgerMode::Rebuilding(ledger) => Some(ledger.end().0),
            LedgerMode::AwaitingMembership(_) | LedgerMode::Unreadable => None,
        };
        self.shared.position.send_replace(position.unwrap_or(Position::ZERO));
    }

    fn apply(&mut self, item: FeedResult) {
        match item {
            Ok(FeedItem::Event { envelope, bytes: _ }) => {
                let epoch = envelope.header.epoch;
                if self.catching_up.is_some() {
                    self.catching_up = Some(Instant::now());
                }
                let (applied, before) = match (&mut self.ledger_mode, &mut self.ledger) {
                    (LedgerMode::Rebuilding(ledger), _) => (ledger.apply(*envelope), epoch),
                    (LedgerMode::InUse, Some(ledger)) => {
                        let before = ledger.lineage().epoch;
                        self.needs_pass = true;
                        self.ledger_saver.changed();
                        (ledger.apply(*envelope), before)
                    }
                    (LedgerMode::InUse | LedgerMode::AwaitingMembership(_) | LedgerMode::Unreadable, _) => return,
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
        match (&self.ledger_mode, &self.ledger) {
            (LedgerMode::InUse, Some(ledger)) if unstuck || caught_up => {
                tracing::info!(position = %ledger.end().0, "caught up with the decisions");
            }
            (LedgerMode::Rebuilding(_), _) => self.adopt(),
            (LedgerMode::InUse | LedgerMode::AwaitingMembership(_) | LedgerMode::Unreadable, _) => {}
        }
    }

    /// Handles a new epoch of the ledger, in which the control plane may lack reports.
    fn new_epoch(&mut self) {
        if let Some(ledger) = &self.ledger {
            tracing::warn!(lineage = %ledger.lineage(), "a new epoch has begun");
        }
        self.reporter.resend_all();
        self.reconciler.report_all();
        self.shared.request_membership();
    }

    /// Replaces the ledger by the new one, if that is complete.
    fn adopt(&mut self) {
        let (LedgerMode::Rebuilding(ledger), Some(joined)) = (&self.ledger_mode, &self.joined) else { return };
        let lineage = ledger.lineage();
        let complete = lineage.epoch >= joined.epoch && ledger.end().0 >= joined.decision_head;
        // Without an old ledger, an incomplete one is used: what it requires can be created.
        if !complete && self.ledger.is_some() {
            return;
        }
        tracing::info!(%lineage, position = %ledger.end().0, "caught up with the decisions");
        if self.released == ReleasedLineage::Undecided {
            let JoinAnswer { cluster, epoch, .. } = *joined;
            self.release_first(Lineage { cluster, epoch });
        }
        if let LedgerMode::Rebuilding(ledger) = std::mem::replace(&mut self.ledger_mode, LedgerMode::InUse) {
            self.ledger = Some(*ledger);
        }
        self.reporter.resend_all();
        self.reconciler.report_all();
        self.ledger_saver.changed();
        self.needs_pass = true;
    }

    /// Releases the first lineage of a node, which has no devices of another.
    fn release_first(&mut self, lineage: Lineage) {
        self.released = ReleasedLineage::Lineage(lineage);
        self.write_released(Some(lineage));
    }

    fn write_released(&self, lineage: Option<Lineage>) {
        if let Err(error) = release::write_released(&self.state, lineage) {
            tracing::error!(%error, "cannot write which epoch is released");
        }
    }

    /// Applies the answer to a membership request.
    pub(super) fn joined(&mut self, answer: MembershipAnswer) {
        let MembershipAnswer { request, position, joined } = answer;
        let JoinAnswer { cluster, epoch, decision_head } = joined;
        let known = self.joined.replace(joined);
        if known.as_ref().is_none_or(|known| (known.cluster, known.epoch) != (cluster, epoch)) {
            tracing::info!(%cluster, %epoch, %decision_head, "joined");
            if let Err(error) = self.identity.note_joined(cluster) {
                tracing::warn!(error = %Causes(&error), "cannot write the file `joined`");
            }
        }
        // The feed waits for changes of the head.
        self.shared.head.send_replace(decision_head);
        self.needs_pass = true;
        match &self.ledger_mode {
            LedgerMode::AwaitingMembership(awaited) if request >= *awaited => self.rebuild(cluster),
            LedgerMode::Rebuilding(ledger) if ledger.lineage().cluster != cluster => self.rebuild(cluster),
            LedgerMode::Rebuilding(_) if self.catching_up.is_none() => self.adopt(),
            LedgerMode::InUse => {
                let seen = self.ledger.as_ref().map_or(Position::ZERO, |ledger| ledger.end().0).min(position);
                if let Some(mismatch) = self.mismatch(cluster, epoch, decision_head, seen) {
                    self.diverged(&mismatch);
                    self.rebuild(cluster);
                }
            }
            LedgerMode::AwaitingMembership(_) | LedgerMode::Rebuilding(_) | LedgerMode::Unreadable => {}
        }
    }

    fn mismatch(&self, cluster: ClusterId, epoch: Epoch, head: Position, seen: Position) -> Option<LedgerMismatch> {
        let known = self.ledger.as_ref()?.lineage();
        if cluster != known.cluster {
            Some(LedgerMismatch::Cluster { now: cluster, before: known.cluster })
        } else if epoch < known.epoch {
            Some(LedgerMismatch::Epoch { now: epoch, before: known.epoch })
        } else if head < seen {
            Some(LedgerMismatch::Head { now: head, before: seen })
        } else {
            None
        }
    }

    /// Handles decisions that diverge from the ledger.
    fn diverged(&mut self, reason: &(dyn std::error::Error + 'static)) {
        self.feed = None;
        self.shared.position.send_replace(Position::ZERO);
        if matches!(self.ledger_mode, LedgerMode::Rebuilding(_)) {
            tracing::error!(reason = %Causes(reason), "the decisions contradict each other: reading them again");
            self.ledger_mode = LedgerMode::AwaitingMembership(u64::MAX);
            self.membership_request_at = Some(Instant::now() + REREAD);
            return;
        }
        tracing::error!(
            reason = %Causes(reason),
            "the decisions diverge from this node's ledger: reading all of them again, holding all deletions back"
        );
        self.released = ReleasedLineage::Nothing;
        self.write_released(None);
        self.hold(HoldState::Unknown);
        self.ledger_mode = LedgerMode::AwaitingMembership(self.shared.request_membership());
        self.needs_pass = true;
    }

    fn rebuild(&mut self, cluster: ClusterId) {
        let former = self.ledger.as_ref().map(Ledger::clusters).unwrap_or_default();
        self.ledger_mode = LedgerMode::Rebuilding(Box::new(Ledger::begin(cluster, former)));
        self.membership_request_at = None;
        self.follow(Position::ZERO, None);
    }
}
