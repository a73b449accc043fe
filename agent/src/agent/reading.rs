//! Where decisions go: into the ledger; or, when they are not those that this node knew, into a new one, which takes the old
//! one's place once all decisions are in it. Until then the old one is acted on, and nothing is removed.

use std::time::Duration;

use otherix_schemas::error::Causes;
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::node::JoinAnswer;
use otherix_schemas::position::{Epoch, Position};
use otherix_transport::feed::{FeedError, Item};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Agent, Holding};
use crate::control::{self, Decision, Membership};
use crate::ledger::store::Found;
use crate::ledger::{Ledger, Lineage};
use crate::release::{self, Released};

/// How long no decision of the past must have come before what has come is acted on.
const QUIET: Duration = Duration::from_millis(500);

/// Pause before decisions that contradict each other are read again.
const REREAD: Duration = Duration::from_secs(5);

/// Where decisions go.
pub(super) enum Reading {
    /// Into the ledger.
    Ledger,
    /// Into a new one.
    Anew(Box<Ledger>),
    /// Nowhere, until the cluster has answered this question or a later one.
    Asking(u64),
    /// Nowhere: the ledger is a newer version's.
    Nothing,
}

/// The decisions that are followed.
pub(super) struct Following {
    decisions: mpsc::Receiver<Decision>,
    _task: JoinSet<()>,
}

/// The next decision, if any are followed; `None` when there will be no more.
pub(super) async fn next(following: &mut Option<Following>) -> Option<Decision> {
    match following {
        Some(following) => following.decisions.recv().await,
        None => std::future::pending().await,
    }
}

/// Another life of the cluster, or another cluster, than this node knew.
#[derive(Debug, thiserror::Error)]
enum Changed {
    #[error("the control plane is cluster `{now}`'s, and this node was part of cluster `{before}`")]
    Cluster { now: ClusterId, before: ClusterId },
    #[error("the control plane is in epoch {now}, and this node is in epoch {before} already")]
    Epoch { now: Epoch, before: Epoch },
    #[error("the control plane's last decision is at position {now}, and this node has seen one at {before}")]
    Head { now: Position, before: Position },
}

impl Agent {
    /// Begins with what was found on disk.
    pub(super) fn begin_with(&mut self, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Ledger(ledger) => {
                let (position, last) = ledger.end();
                let networks = ledger.view().networks().count();
                tracing::info!(lineage = %ledger.lineage(), %position, networks, "beginning with the ledger");
                if self.released == Released::Undecided {
                    self.release_first(ledger.lineage());
                }
                self.ledger = Some(*ledger);
                self.reading = Reading::Ledger;
                self.follow(position, last);
                // What is in the ledger is acted on at once.
                self.catching_up = Instant::now().checked_sub(QUIET);
            }
            Found::Newer(error) => {
                tracing::error!(
                    error = %Causes(&error), hint = "upgrade otherix-agent",
                    "the ledger cannot be understood: keeping what runs, changing nothing"
                );
                self.reading = Reading::Nothing;
            }
        }
    }

    fn follow(&mut self, after: Position, last: Option<EventId>) {
        let (sender, decisions) = mpsc::channel(control::DECISIONS);
        let mut task = JoinSet::new();
        let head = self.shared.head.subscribe();
        task.spawn(control::follow(self.connection.clone(), (after, last), head, sender));
        self.following = Some(Following { decisions, _task: task });
        self.shared.folded.send_replace(after);
        self.stuck = false;
        self.catching_up = Some(Instant::now());
    }

    /// When what has come is to be acted on although more of the past may be coming.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        self.catching_up.filter(|_| matches!(self.reading, Reading::Ledger)).map(|last| last + QUIET)
    }

    /// Folds what has come, and whatever else is there already: a burst is one round.
    pub(super) fn fold_all(&mut self, first: Decision) {
        let mut next = Some(first);
        while let Some(item) = next {
            self.fold(item);
            next = self.following.as_mut().and_then(|following| following.decisions.try_recv().ok());
        }
        let node = self.identity.node_id;
        if let Some(ledger) = &mut self.ledger {
            ledger.view_mut().forget_elsewhere(node);
        }
        let position = match &self.reading {
            Reading::Ledger => self.ledger.as_ref().map(|ledger| ledger.end().0),
            Reading::Anew(ledger) => Some(ledger.end().0),
            Reading::Asking(_) | Reading::Nothing => None,
        };
        self.shared.folded.send_replace(position.unwrap_or(Position::ZERO));
    }

    fn fold(&mut self, item: Decision) {
        match item {
            Ok(Item::Event { envelope, bytes: _ }) => {
                let epoch = envelope.header.epoch;
                if self.catching_up.is_some() {
                    self.catching_up = Some(Instant::now());
                }
                let (taken, before) = match (&mut self.reading, &mut self.ledger) {
                    (Reading::Anew(ledger), _) => (ledger.take_in(*envelope), epoch),
                    (Reading::Ledger, Some(ledger)) => {
                        let before = ledger.lineage().epoch;
                        self.dirty = true;
                        self.keeper.changed();
                        (ledger.take_in(*envelope), before)
                    }
                    (Reading::Ledger | Reading::Asking(_) | Reading::Nothing, _) => return,
                };
                match taken {
                    Ok(()) if epoch != before => self.new_epoch(),
                    Ok(()) => {}
                    Err(divergence) => self.diverged(&divergence),
                }
            }
            Ok(Item::Current) => self.caught_up(),
            Err(error @ FeedError::Diverged { .. }) => self.diverged(&error),
            Err(error) => {
                if !std::mem::replace(&mut self.stuck, true) {
                    let error = Causes(&error);
                    tracing::error!(%error, "cannot follow the decisions: keeping what runs, changing nothing");
                }
            }
        }
    }

    fn caught_up(&mut self) {
        let unstuck = std::mem::take(&mut self.stuck);
        let caught_up = self.catching_up.take().is_some();
        if unstuck || caught_up {
            self.dirty = true;
        }
        match (&self.reading, &self.ledger) {
            (Reading::Ledger, Some(ledger)) if unstuck || caught_up => {
                tracing::info!(position = %ledger.end().0, "caught up with the decisions");
            }
            (Reading::Anew(_), _) => self.adopt(),
            (Reading::Ledger | Reading::Asking(_) | Reading::Nothing, _) => {}
        }
    }

    /// The ledger has gone over into another epoch: what was reported may have been forgotten.
    fn new_epoch(&mut self) {
        if let Some(ledger) = &self.ledger {
            tracing::warn!(lineage = %ledger.lineage(), "a new epoch has begun");
        }
        self.reporter.tell_anew();
        self.reconciler.report_all();
        self.shared.ask();
    }

    /// Has the new ledger take the old one's place, if everything is in it.
    fn adopt(&mut self) {
        let (Reading::Anew(ledger), Some(joined)) = (&self.reading, &self.joined) else { return };
        let lineage = ledger.lineage();
        let complete = lineage.epoch >= joined.epoch && ledger.end().0 >= joined.decision_head;
        // Without an old one what is known is better than nothing: it says what to make.
        if !complete && self.ledger.is_some() {
            return;
        }
        tracing::info!(%lineage, position = %ledger.end().0, "caught up with the decisions");
        if self.released == Released::Undecided {
            let JoinAnswer { cluster, epoch, .. } = *joined;
            self.release_first(Lineage { cluster, epoch });
        }
        if let Reading::Anew(ledger) = std::mem::replace(&mut self.reading, Reading::Ledger) {
            self.ledger = Some(*ledger);
        }
        self.reporter.tell_anew();
        self.reconciler.report_all();
        self.keeper.changed();
        self.dirty = true;
    }

    /// The first lineage that a node is in needs nobody's release: it has nothing of another.
    fn release_first(&mut self, lineage: Lineage) {
        self.released = Released::Lineage(lineage);
        self.write_released(Some(lineage));
    }

    fn write_released(&self, lineage: Option<Lineage>) {
        if let Err(error) = release::write_released(&self.state, lineage) {
            tracing::error!(%error, "cannot write down which epoch is released");
        }
    }

    /// Takes in what the cluster says that it is.
    pub(super) fn member(&mut self, answer: Membership) {
        let Membership { asked, position, joined } = answer;
        let JoinAnswer { cluster, epoch, decision_head } = joined;
        let known = self.joined.replace(joined);
        if known.as_ref().is_none_or(|known| (known.cluster, known.epoch) != (cluster, epoch)) {
            tracing::info!(%cluster, %epoch, %decision_head, "joined");
            if let Err(error) = self.identity.note_joined(cluster) {
                tracing::warn!(error = %Causes(&error), "nobody who waits for this node to join is told");
            }
        }
        // The feed looks for changes only.
        self.shared.head.send_replace(decision_head);
        self.dirty = true;
        match &self.reading {
            Reading::Asking(question) if asked >= *question => self.read_anew(cluster),
            Reading::Anew(ledger) if ledger.lineage().cluster != cluster => self.read_anew(cluster),
            Reading::Anew(_) if self.catching_up.is_none() => self.adopt(),
            Reading::Ledger => {
                let seen = self.ledger.as_ref().map_or(Position::ZERO, |ledger| ledger.end().0).min(position);
                if let Some(changed) = self.changed(cluster, epoch, decision_head, seen) {
                    self.diverged(&changed);
                    self.read_anew(cluster);
                }
            }
            Reading::Asking(_) | Reading::Anew(_) | Reading::Nothing => {}
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

    /// What this node knows is not what happened, or not any more.
    fn diverged(&mut self, reason: &(dyn std::error::Error + 'static)) {
        self.following = None;
        self.shared.folded.send_replace(Position::ZERO);
        if matches!(self.reading, Reading::Anew(_)) {
            tracing::error!(reason = %Causes(reason), "the decisions contradict each other: reading them again");
            self.reading = Reading::Asking(u64::MAX);
            self.ask_at = Some(Instant::now() + REREAD);
            return;
        }
        tracing::error!(
            reason = %Causes(reason),
            "the decisions are not those that this node knew: reading all of them anew, holding all deletions back"
        );
        self.released = Released::Nothing;
        self.write_released(None);
        self.hold(Holding::Unknown);
        self.reading = Reading::Asking(self.shared.ask());
        self.dirty = true;
    }

    fn read_anew(&mut self, cluster: ClusterId) {
        let former = self.ledger.as_ref().map(Ledger::clusters).unwrap_or_default();
        self.reading = Reading::Anew(Box::new(Ledger::begin(cluster, former)));
        self.ask_at = None;
        self.follow(Position::ZERO, None);
    }
}
