//! Applies decisions to the ledger or, if they diverge from it, to a new one, which replaces it once it is complete.
//! Until then the old ledger stays in use, and nothing is removed.

use std::time::Duration;

use otherix_runtime::TaskSet;
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::node::JoinAnswer;
use otherix_schemas::position::{Epoch, Position};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Agent, HoldState, RELEASE_POLL};
use crate::contradiction::{self, Contradiction};
use crate::control::MembershipAnswer;
use crate::ledger::store::StoredLedger;
use crate::ledger::{Ledger, Lineage};
use crate::model::chain_proof::{ChainEnd, ChainMismatch};
use crate::release::{self, ReleasedLineage};
use crate::verified_feed::{self, FeedMode, FeedResult, FeedStart, VerifiedFeedError, VerifiedItem};

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
    /// A copy of the ledger in use, which it replaces once what is applied to it is verified.
    Extending(Box<Ledger>),
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

/// The decisions are those that the control plane has signed, and do not follow the ledger.
#[derive(Debug, thiserror::Error)]
#[error("the decisions that the control plane has signed do not follow those of this node")]
struct NotExtended;

/// An operator has accepted another history.
#[derive(Debug, thiserror::Error)]
#[error("an operator has accepted the other history: {0}")]
struct HistoryAccepted(String);

impl Agent {
    /// Starts with the ledger that was found on disk.
    pub(super) fn start_with(&mut self, found: StoredLedger) {
        match found {
            StoredLedger::Absent => {}
            StoredLedger::Present(ledger) => {
                let (position, lineage) = (ledger.position(), ledger.lineage());
                let networks = ledger.view().networks().count();
                tracing::info!(%lineage, %position, networks, "starting with the ledger");
                if self.released == ReleasedLineage::Undecided {
                    self.release_first(lineage);
                }
                self.ledger = Some(*ledger);
                self.follow_ledger();
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

    /// Follows the decisions after the ledger. One of decisions that were not verified is in use until all of them were
    /// read again.
    fn follow_ledger(&mut self) {
        let ledger = self.ledger.as_ref();
        if let Some((lineage, end)) = ledger.and_then(|ledger| Some((ledger.lineage(), ledger.chain_end()?))) {
            self.ledger_mode = LedgerMode::InUse;
            self.follow(lineage, end, FeedMode::Verified);
        }
    }

    /// Applies the decisions after the ledger to a copy of it, so that none of them waits in memory.
    fn extend(&mut self) {
        let Some(ledger) = self.ledger.clone() else { return };
        if let Some(end) = ledger.chain_end() {
            let lineage = ledger.lineage();
            self.ledger_mode = LedgerMode::Extending(Box::new(ledger));
            self.follow(lineage, end, FeedMode::Provisional);
        }
    }

    fn follow(&mut self, Lineage { cluster, epoch }: Lineage, end: ChainEnd, mode: FeedMode) {
        let (sender, decisions) = mpsc::channel(verified_feed::DECISIONS);
        let mut task = TaskSet::default();
        let start = FeedStart { cluster, epoch, end, mode };
        let follow = verified_feed::follow(self.connection.clone(), start, self.shared.clone(), sender);
        task.add(self.connection.runtime().spawn("follow decisions", follow));
        self.feed = Some(DecisionFeed { decisions, _task: task });
        self.shared.position.send_replace(end.position);
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
            LedgerMode::InUse => self.ledger.as_ref().map(|ledger| ledger.position()),
            LedgerMode::Rebuilding(ledger) | LedgerMode::Extending(ledger) => Some(ledger.position()),
            LedgerMode::AwaitingMembership(_) | LedgerMode::Unreadable => None,
        };
        self.shared.position.send_replace(position.unwrap_or(Position::ZERO));
    }

    fn apply(&mut self, item: FeedResult) {
        match item {
            Ok(VerifiedItem::Decision { envelope, end }) => {
                let epoch = envelope.header.epoch;
                if self.catching_up.is_some() {
                    self.catching_up = Some(Instant::now());
                }
                let (applied, before) = match (&mut self.ledger_mode, &mut self.ledger) {
                    (LedgerMode::Rebuilding(ledger) | LedgerMode::Extending(ledger), _) => {
                        (ledger.apply(*envelope, end.digest), epoch)
                    }
                    (LedgerMode::InUse, Some(ledger)) => {
                        let before = ledger.lineage().epoch;
                        self.needs_pass = true;
                        self.ledger_saver.changed();
                        (ledger.apply(*envelope, end.digest), before)
                    }
                    (LedgerMode::InUse | LedgerMode::AwaitingMembership(_) | LedgerMode::Unreadable, _) => return,
                };
                if matches!(self.ledger_mode, LedgerMode::InUse) {
                    self.agreed();
                }
                match applied {
                    Ok(()) if epoch != before => self.new_epoch(),
                    Ok(()) => {}
                    // What is not verified yet proves nothing: if the control plane has signed it, `adopt` finds out.
                    Err(_) if matches!(self.ledger_mode, LedgerMode::Extending(_)) => {}
                    Err(divergence) => self.diverged(&divergence),
                }
            }
            Ok(VerifiedItem::Current) => self.caught_up(),
            Err(VerifiedFeedError::Mismatch(mismatch)) => self.mismatched(&mismatch),
            Err(error @ VerifiedFeedError::TooMany) => {
                // While the histories contradict each other, all of them wait in vain.
                if self.contradiction.is_none() {
                    tracing::info!(reason = %error, "carrying them out once all are verified");
                    self.extend();
                }
            }
            Err(error @ VerifiedFeedError::Feed(_)) => {
                if !std::mem::replace(&mut self.is_stuck, true) {
                    let error = Causes(&error);
                    tracing::error!(%error, "cannot read the decisions: the devices of this node stay as they are");
                }
            }
        }
    }

    /// What was received is not what the control plane has signed, also when it was read again.
    fn mismatched(&mut self, mismatch: &ChainMismatch) {
        let epoch = self.ledger.as_ref().map(|ledger| ledger.lineage().epoch);
        let is_same_epoch = mismatch.epoch().is_some() && mismatch.epoch() <= epoch;
        match self.ledger_mode {
            LedgerMode::InUse if is_same_epoch => self.contradicted(mismatch),
            LedgerMode::Extending(_) if is_same_epoch => {
                self.contradicted(mismatch);
                self.follow_ledger();
            }
            LedgerMode::InUse | LedgerMode::Extending(_) | LedgerMode::Rebuilding(_) => self.diverged(mismatch),
            LedgerMode::AwaitingMembership(_) | LedgerMode::Unreadable => {}
        }
    }

    /// The control plane has signed another history in the epoch that this node follows: it is not carried out. What
    /// was decided before is kept, and repaired.
    fn contradicted(&mut self, reason: &(dyn std::error::Error + 'static)) {
        if self.contradiction.is_some() {
            return;
        }
        let text = Causes(reason).to_string();
        let contradiction = Contradiction { at: self.connection.runtime().now().ok(), text };
        // Whoever reads the line in the log may accept the other history at once.
        self.contradiction_written = contradiction::write(&self.state, Some(&contradiction));
        tracing::error!(
            reason = contradiction.text,
            hint = format!(
                "check the NATS server first; if the journal was replaced on purpose, `otherix-agent release --state \
                 {}` accepts the other history",
                self.state.display()
            ),
            "what this node receives is not what the control plane has signed, or contradicts what it has told this \
             node before: nothing of it is carried out"
        );
        self.shared.contradiction.send_replace(Some(contradiction.text.clone()));
        self.shared.head_wanted.notify_one();
        self.contradiction = Some(contradiction);
        self.release_check_at = Some(Instant::now() + RELEASE_POLL);
    }

    /// Looks whether an operator has accepted the other history.
    pub(super) fn check_contradiction(&mut self) {
        let Some(contradiction) = &self.contradiction else { return };
        // Only a file that was written can have been removed by an operator.
        if !self.contradiction_written {
            self.contradiction_written = contradiction::write(&self.state, Some(contradiction));
            self.release_check_at = Some(Instant::now() + RELEASE_POLL);
            return;
        }
        if !contradiction::is_accepted(&self.state) {
            self.release_check_at = Some(Instant::now() + RELEASE_POLL);
            return;
        }
        let reason = HistoryAccepted(contradiction.text.clone());
        self.diverged(&reason);
    }

    /// The control plane continues the history that this node knows.
    fn agreed(&mut self) {
        if self.end_contradiction() {
            tracing::warn!("the control plane continues the history that this node knows");
        }
    }

    /// Returns whether there was a contradiction.
    fn end_contradiction(&mut self) -> bool {
        if self.contradiction.take().is_none() {
            return false;
        }
        contradiction::write(&self.state, None);
        self.shared.contradiction.send_replace(None);
        true
    }

    fn caught_up(&mut self) {
        if self.contradiction.is_some() {
            let head = *self.shared.signed_head.borrow();
            let end = self.ledger.as_ref().and_then(Ledger::chain_end);
            if head.map(|head| ChainEnd { position: head.position, digest: head.digest }) != end {
                return;
            }
            self.agreed();
        }
        let unstuck = std::mem::take(&mut self.is_stuck);
        let caught_up = self.catching_up.take().is_some();
        if unstuck || caught_up {
            self.needs_pass = true;
        }
        match (&self.ledger_mode, &self.ledger) {
            (LedgerMode::InUse, Some(ledger)) if unstuck || caught_up => {
                tracing::info!(position = %ledger.position(), "caught up with the decisions");
            }
            (LedgerMode::Rebuilding(_) | LedgerMode::Extending(_), _) => self.adopt(),
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
        let (LedgerMode::Rebuilding(ledger) | LedgerMode::Extending(ledger)) = &self.ledger_mode else { return };
        let (lineage, position) = (ledger.lineage(), ledger.position());
        let Some(JoinAnswer { cluster, epoch, decision_head }) = self.joined else { return };
        // Without an old ledger, an incomplete one is used: what it requires can be created.
        if self.ledger.is_some() && (lineage.epoch < epoch || position < decision_head) {
            if matches!(self.ledger_mode, LedgerMode::Extending(_)) {
                self.diverged(&NotExtended);
            }
            return;
        }
        tracing::info!(%lineage, %position, "caught up with the decisions");
        if self.released == ReleasedLineage::Undecided {
            self.release_first(Lineage { cluster, epoch });
        }
        if lineage.epoch != epoch {
            self.shared.request_membership();
        }
        if let LedgerMode::Rebuilding(ledger) | LedgerMode::Extending(ledger) =
            std::mem::replace(&mut self.ledger_mode, LedgerMode::InUse)
        {
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
        self.stay();
        // The feed waits for changes of the head.
        self.shared.head.send_replace(decision_head);
        self.needs_pass = true;
        match &self.ledger_mode {
            LedgerMode::AwaitingMembership(awaited) if request >= *awaited => self.rebuild(cluster),
            LedgerMode::Rebuilding(ledger) if ledger.lineage().cluster != cluster => self.rebuild(cluster),
            LedgerMode::Rebuilding(_) | LedgerMode::Extending(_) if self.catching_up.is_none() => self.adopt(),
            LedgerMode::InUse => {
                let seen = self.ledger.as_ref().map_or(Position::ZERO, |ledger| ledger.position()).min(position);
                match self.mismatch(cluster, epoch, decision_head, seen) {
                    None => {}
                    Some(mismatch @ LedgerMismatch::Cluster { .. }) => {
                        self.diverged(&mismatch);
                        self.rebuild(cluster);
                    }
                    Some(mismatch @ (LedgerMismatch::Epoch { .. } | LedgerMismatch::Head { .. })) => {
                        self.contradicted(&mismatch);
                    }
                }
            }
            LedgerMode::AwaitingMembership(_)
            | LedgerMode::Rebuilding(_)
            | LedgerMode::Extending(_)
            | LedgerMode::Unreadable => {}
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
        self.end_contradiction();
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
        let lineage = Lineage { cluster, epoch: Epoch::FIRST };
        self.follow(lineage, ChainEnd::START, FeedMode::Provisional);
    }
}
