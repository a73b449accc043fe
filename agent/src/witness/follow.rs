//! Asks for the proofs, and measures how long there is none.

use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::LogLimit;
use otherix_schemas::error::Causes;
use otherix_schemas::log::{ConsistencyRange, ProveLogConsistency};
use otherix_schemas::node::CONDITION_DETAIL_MAX;
use otherix_schemas::timestamp::Timestamp;
use otherix_tlog::ConsistencyProof;
use otherix_transport::Connection;
use otherix_transport::request::{CallError, CallOptions};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Claim, Considered, LogAnswer, Witness};

/// How long a control plane may give no proof, whatever the reason, or repeat an older checkpoint.
pub(super) const PROOF_WITHIN: Duration = Duration::from_secs(60);

/// Time-out of a request for a proof.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What [`follow`] works with.
#[derive(Clone, Debug)]
pub struct WitnessInputs {
    pub connection: Connection,
    pub witness: Witness,
    /// What the last answer to a heartbeat told.
    pub answers: watch::Receiver<Option<LogAnswer>>,
    /// The control plane's key.
    pub trust: crate::trust::Trust,
    /// Has a heartbeat sent at once.
    pub heartbeat_wanted: Arc<Notify>,
}

/// Since when a control plane that answers heartbeats has not shown that the log goes on.
#[derive(Debug, Default)]
pub(super) struct ProofDeadlines {
    unproven_since: Option<Instant>,
    older_since: Option<Instant>,
}

impl ProofDeadlines {
    /// What is kept was told again, or a newer checkpoint was proven.
    pub(super) fn proven(&mut self, witness: &Witness) {
        *self = Self::default();
        if witness.unproven().take().is_some() {
            tracing::info!("the control plane proves again that the transparency log goes on");
        }
    }

    /// An answer has brought no proof.
    pub(super) fn unproven(&mut self, witness: &Witness, reason: &str, now: Instant) {
        let since = *self.unproven_since.get_or_insert(now);
        if now.saturating_duration_since(since) < PROOF_WITHIN {
            return;
        }
        let mut text = format!("the control plane gives no proof that it goes on: {reason}");
        text.truncate(text.floor_char_boundary(CONDITION_DETAIL_MAX));
        let mut told = witness.unproven();
        if told.is_none() {
            tracing::error!(%text, "the transparency log of the control plane is not proven any more");
        }
        // The reason that was told first: a changing one would be a change of the node's conditions each time.
        told.get_or_insert(text);
    }

    /// An answer has told of fewer events than are kept.
    pub(super) fn older(
        &mut self,
        witness: &Witness,
        (text, note): (&str, String),
        now: Instant,
        at: Option<Timestamp>,
    ) {
        let since = *self.older_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= PROOF_WITHIN {
            witness.contradict(text, Some(note), at);
        }
        self.unproven(witness, text, now);
    }
}

/// Witnesses the log until the connection is closed.
pub async fn follow(inputs: WitnessInputs) {
    let WitnessInputs { connection, witness, mut answers, trust, heartbeat_wanted } = inputs;
    let mut deadlines = ProofDeadlines::default();
    while answers.changed().await.is_ok() {
        let (answer, trusted) = (answers.borrow_and_update().clone(), trust.key());
        let Some((answer, trusted)) = answer.zip(trusted) else { continue };
        let (was_known, at) = (witness.contradiction().is_some(), connection.runtime().now().ok());
        match witness.consider(&answer, &trusted, at) {
            Considered::Nothing => {}
            Considered::Settled => deadlines.proven(&witness),
            Considered::Older { text, note } => deadlines.older(&witness, (&text, note), Instant::now(), at),
            Considered::Unusable(reason) => {
                static UNUSABLE: LogLimit = LogLimit::new();
                if let Some(hits) = UNUSABLE.hit() {
                    tracing::warn!(reason, hits, "a checkpoint of the transparency log cannot be used");
                }
                // A node that keeps nothing has nothing to be proven.
                if witness.checkpoint().is_some() {
                    deadlines.unproven(&witness, &reason, Instant::now());
                }
            }
            Considered::Claim(claim) => match prove(&connection, &claim).await {
                Ok(proof) => {
                    witness.judge(*claim, proof, at);
                    deadlines.proven(&witness);
                }
                Err(error) => {
                    tracing::debug!(error = %Causes(&error), "no proof that the transparency log goes on");
                    deadlines.unproven(&witness, &Causes(&error).to_string(), Instant::now());
                }
            },
        }
        if !was_known && witness.contradiction().is_some() {
            heartbeat_wanted.notify_one();
        }
    }
}

/// Asks for the proof; `None` if the answer is none.
async fn prove(connection: &Connection, claim: &Claim) -> Result<Option<ConsistencyProof>, CallError> {
    let range = ConsistencyRange { from: claim.older.size(), to: claim.newer.size() };
    let options = CallOptions { timeout: TIMEOUT, idempotency_key: None };
    let answer = connection.call::<ProveLogConsistency>(&range, options).await?.data;
    let hashes: Option<Vec<_>> = answer.hashes.iter().map(|hash| hash.parse().ok()).collect();
    Ok(hashes.and_then(ConsistencyProof::new))
}
