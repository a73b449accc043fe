//! The feed of decisions as this node follows it: nothing is carried out that the control plane has not signed,
//! whatever the messaging system delivers.
//!
//! Live decisions come with signed heads; for others, a heartbeat is sent at once, whose answer has one. Decisions wait
//! until a head covers them. If they are not what was signed, they are discarded and read again; if that does not help,
//! the feed returns an error, and tries again later.
//!
//! Cancel-safety: [`follow`] may be dropped at any await.

use std::collections::VecDeque;
use std::time::Duration;

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::decision_chain::DecisionHead;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Epoch;
use otherix_transport::Connection;
use otherix_transport::feed::{Feed, FeedError, FeedItem, FeedScope};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::control::SharedState;
use crate::model::chain_proof::{ChainEnd, ChainMismatch, ChainProof};

/// Delay after an error of the feed.
const FEED_RETRY: Duration = Duration::from_secs(5);

/// Most decisions that are queued for the main loop; the feed reads no further meanwhile.
pub const DECISIONS: usize = 1024;

/// How long a decision waits for a signed head that follows it, before one is asked for: the last decision of a batch
/// has one.
const ASK_AFTER: Duration = Duration::from_millis(50);

/// How often a head is asked for.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Most decisions that wait for a head: some 20 MB. A node that is further behind applies them to a copy of its ledger.
const WAITING_MAX: usize = 20_000;

/// Ends of the chain that are kept while decisions are read that nothing waits for: as many as may be recorded between
/// a head and its arrival.
const ENDS_KEPT: usize = 4096;

/// What the feed returns.
#[derive(Debug)]
pub enum VerifiedItem {
    Decision {
        envelope: Box<EventEnvelope>,
        /// The end of the chain after it.
        end: ChainEnd,
    },
    /// All decisions that the control plane had when they were read have been returned, and are verified.
    Current,
}

/// Why the next decision cannot be returned.
#[derive(Debug, thiserror::Error)]
pub enum VerifiedFeedError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Mismatch(#[from] ChainMismatch),
    #[error("more than {WAITING_MAX} decisions wait for a signed head")]
    TooMany,
}

/// A decision, or the error that prevents the feed from returning the next one.
pub type FeedResult = Result<VerifiedItem, VerifiedFeedError>;

/// When decisions are returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedMode {
    /// Once they are verified.
    Verified,
    /// As they arrive, for a ledger that is not in use before [`VerifiedItem::Current`]; afterwards as `Verified`.
    Provisional,
}

/// Where the feed starts.
#[derive(Clone, Copy, Debug)]
pub struct FeedStart {
    pub cluster: ClusterId,
    pub epoch: Epoch,
    /// The end of the chain of the decisions that are known.
    pub end: ChainEnd,
    pub mode: FeedMode,
}

struct VerifiedFeed {
    connection: Connection,
    shared: SharedState,
    cluster: ClusterId,
    epoch: Epoch,
    mode: FeedMode,
    feed: Feed,
    proof: ChainProof,
    /// Decisions that are not verified, with the end of the chain after each.
    waiting: VecDeque<VerifiedItem>,
    ready: VecDeque<VerifiedItem>,
    /// The feed has returned all decisions that there were.
    is_current: bool,
    heads: watch::Receiver<Option<DecisionHead>>,
    /// When a head is asked for.
    ask_at: Option<Instant>,
    /// The decisions were read again since some were verified.
    was_reset: bool,
}

/// Sends the decisions from `start` on to the main loop until the connection is closed; errors too, and then tries
/// again.
pub async fn follow(
    connection: Connection,
    start: FeedStart,
    shared: SharedState,
    decisions: mpsc::Sender<FeedResult>,
) {
    let mut feed = VerifiedFeed::new(connection, start, shared).await;
    loop {
        let item = feed.next().await;
        let (failed, closed) = (item.is_err(), matches!(item, Err(VerifiedFeedError::Feed(FeedError::Closed))));
        if decisions.send(item).await.is_err() || closed {
            return;
        }
        if failed {
            sleep(FEED_RETRY).await;
        }
    }
}

/// Subscribes, however long it takes.
async fn subscribe(connection: &Connection, end: ChainEnd, shared: &SharedState) -> Feed {
    loop {
        let head = shared.head.subscribe();
        match Feed::new(connection.clone(), FeedScope::Decisions, end.position, head).await {
            Ok(feed) => return feed,
            Err(error) => {
                tracing::warn!(error = %error, "cannot read the decisions yet");
                sleep(FEED_RETRY).await;
            }
        }
    }
}

impl VerifiedFeed {
    async fn new(connection: Connection, start: FeedStart, shared: SharedState) -> Self {
        let FeedStart { cluster, epoch, end, mode } = start;
        let feed = subscribe(&connection, end, &shared).await;
        let heads = shared.signed_head.subscribe();
        Self {
            connection,
            shared,
            cluster,
            epoch,
            mode,
            feed,
            proof: ChainProof::new(cluster, end),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            is_current: false,
            heads,
            ask_at: None,
            was_reset: false,
        }
    }

    async fn next(&mut self) -> FeedResult {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            if self.is_current && !self.lacks_head() {
                self.is_current = false;
                self.mode = FeedMode::Verified;
                return Ok(VerifiedItem::Current);
            }
            self.ask_at = self.lacks_head().then(|| self.ask_at.unwrap_or_else(|| Instant::now() + self.patience()));
            let ask_at = self.ask_at;
            tokio::select! {
                biased;
                Ok(()) = self.heads.changed() => {
                    let head = *self.heads.borrow_and_update();
                    if let Some(head) = head {
                        self.check_epoch(head)?;
                        self.proof.signed(head);
                    }
                }
                () = sleep_until(ask_at.unwrap_or_else(Instant::now)), if ask_at.is_some() => {
                    self.shared.head_wanted.notify_one();
                    self.ask_at = Some(Instant::now() + ASK_AGAIN);
                }
                item = self.feed.next() => match item? {
                    FeedItem::Event { envelope, bytes, signed_head } => {
                        self.received(envelope, &bytes);
                        let head = signed_head.and_then(|signed| self.shared.trust.live_head(&signed));
                        // One of an earlier epoch may be a copy of what was valid once.
                        let head = head.filter(|head| head.epoch >= self.epoch);
                        head.into_iter().for_each(|head| self.proof.signed(head));
                    }
                    FeedItem::Current => self.is_current = true,
                },
            }
            self.verify().await?;
            if self.waiting.len() > WAITING_MAX {
                self.reset().await;
                return Err(VerifiedFeedError::TooMany);
            }
        }
    }

    /// Whether a signed head is needed to return what was received.
    fn lacks_head(&self) -> bool {
        match self.mode {
            FeedMode::Verified => self.proof.unverified() > 0,
            FeedMode::Provisional => self.is_current && !self.proof.is_proven(),
        }
    }

    /// How long a head is waited for before one is asked for.
    fn patience(&self) -> Duration {
        match self.mode {
            FeedMode::Verified => ASK_AFTER,
            FeedMode::Provisional => Duration::ZERO,
        }
    }

    /// Checks the epoch of a head that was signed just now.
    fn check_epoch(&self, head: DecisionHead) -> Result<(), ChainMismatch> {
        let (found, known) = (head.epoch, self.epoch);
        let is_earlier = head.cluster == self.cluster && found < known;
        if is_earlier { Err(ChainMismatch::Epoch { found, known }) } else { Ok(()) }
    }

    fn received(&mut self, envelope: Box<EventEnvelope>, body: &[u8]) {
        let epoch = envelope.header.epoch;
        self.proof.received(envelope.header.position, body);
        let item = VerifiedItem::Decision { envelope, end: self.proof.end() };
        match self.mode {
            FeedMode::Verified => self.waiting.push_back(item),
            FeedMode::Provisional => {
                self.epoch = self.epoch.max(epoch);
                self.proof.keep_last(ENDS_KEPT);
                self.ready.push_back(item);
            }
        }
    }

    /// Discards what is not verified, and reads it again.
    async fn reset(&mut self) {
        self.proof = ChainProof::new(self.cluster, self.proof.verified());
        self.waiting.clear();
        self.is_current = false;
        self.feed = subscribe(&self.connection, self.proof.verified(), &self.shared).await;
    }

    async fn verify(&mut self) -> Result<(), VerifiedFeedError> {
        let mismatch = match self.proof.verify() {
            Ok(count) => {
                let count = count.min(self.waiting.len());
                for item in self.waiting.drain(..count) {
                    if let VerifiedItem::Decision { envelope, .. } = &item {
                        self.epoch = self.epoch.max(envelope.header.epoch);
                    }
                    self.ready.push_back(item);
                }
                self.was_reset &= count == 0;
                return Ok(());
            }
            Err(mismatch) => mismatch,
        };
        if self.mode == FeedMode::Provisional {
            return Err(mismatch.into());
        }
        self.reset().await;
        self.shared.head_wanted.notify_one();
        // A single message may have been forged; what is read once more may not differ.
        if std::mem::replace(&mut self.was_reset, true) {
            return Err(mismatch.into());
        }
        tracing::warn!(reason = %mismatch, "reading decisions again");
        Ok(())
    }
}
