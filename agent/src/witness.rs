//! This node as a witness of the control plane's transparency log (docs/adr/0032): it keeps the newest checkpoint that
//! it has seen, and demands a proof of consistency for every newer one. What does not go on from there is a
//! contradiction, which lasts until an operator accepts it with `otherix-agent release`.
//!
//! `witness.json` in the state folder has the key, which is pinned at the first checkpoint, what is kept, and what
//! contradicts it. `otherix-agent release` renames the file; the agent then begins again.
//!
//! Cancel-safety: [`follow`] may be dropped at any await.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_runtime::{LogLimit, files};
use otherix_schemas::decision_chain::DecisionKey;
use otherix_schemas::error::{Causes, ErrorCode};
use otherix_schemas::id::ClusterId;
use otherix_schemas::log::{CHECKPOINT_MAX, ConsistencyRange, ProveLogConsistency, SignedLogKey};
use otherix_schemas::node::CONDITION_DETAIL_MAX;
use otherix_schemas::timestamp::Timestamp;
use otherix_tlog::{ConsistencyProof, Policy, TreeHead, VerifierKey};
use otherix_transport::Connection;
use otherix_transport::request::{CallError, CallOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

const FILE: &str = "witness.json";

/// What [`accept`] renames the file to.
const ACCEPTED: &str = "witness-before-release.json";

/// How long a control plane may refuse to prove that the log goes on.
const PROOF_WITHIN: Duration = Duration::from_secs(60);

/// Time-out of a request for a proof.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Checkpoints of earlier epochs that are kept.
const EARLIER_MAX: usize = 16;

/// What contradicts the log as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogContradiction {
    /// When it was noticed; `None` if the clock was not set.
    pub at: Option<Timestamp>,
    pub text: String,
    /// The checkpoint that contradicts the one that is kept, as evidence; `None` if the control plane said so itself.
    pub checkpoint: Option<String>,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessFile {
    /// The public key of the log, of the epoch of the newest checkpoint.
    pub key: Option<String>,
    /// The newest checkpoint, a signed note.
    pub checkpoint: Option<String>,
    /// The last checkpoints of earlier epochs whose continuation could not be proven: their end was given up.
    #[serde(default)]
    pub earlier: Vec<String>,
    pub contradiction: Option<LogContradiction>,
}

/// What the answer to a heartbeat tells of the log.
#[derive(Clone, Debug)]
pub struct LogAnswer {
    pub checkpoint: Option<String>,
    pub key: Option<SignedLogKey>,
    pub contradiction: Option<String>,
    /// The cluster of the answer's signed head.
    pub cluster: ClusterId,
}

/// What has to be proven before a checkpoint is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    note: String,
    key: VerifierKey,
    older: TreeHead,
    newer: TreeHead,
    /// The older checkpoint is of an earlier epoch, whose end may have been given up.
    is_new_epoch: bool,
}

/// A checkpoint that is believed to be the log's.
#[derive(Clone, Debug)]
struct Believed {
    key: VerifierKey,
    epoch: u32,
    cluster: String,
    head: TreeHead,
}

/// The epoch and cluster that a log's origin names.
fn parse_origin(origin: &str) -> Option<(&str, u32)> {
    let mut parts = origin.rsplitn(3, '/');
    let epoch = parts.next()?.parse().ok()?;
    Some((parts.next()?, epoch))
}

fn believe(key: &str, note: &str) -> Result<Believed, String> {
    let key: VerifierKey = key.parse().map_err(|error| format!("its key is malformed: {error}"))?;
    let policy = Policy::of_log(key.clone()).map_err(|error| error.to_string())?;
    let verified = policy.verify(note.as_bytes()).map_err(|error| Causes(&error).to_string())?;
    let (cluster, epoch) = parse_origin(key.name().as_str()).ok_or("its origin has no cluster and epoch")?;
    Ok(Believed { epoch, cluster: cluster.to_owned(), head: *verified.checkpoint().head(), key })
}

/// What this node keeps of the log. Clones share it.
#[derive(Clone, Debug)]
pub struct Witness {
    path: PathBuf,
    state: Arc<Mutex<WitnessFile>>,
}

/// Reads the file of a state folder.
///
/// # Errors
/// If it cannot be read or parsed.
pub fn read(folder: &Path) -> io::Result<Option<WitnessFile>> {
    let text = files::read(&folder.join(FILE))?;
    Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
}

/// Accepts another log than the one that this node knows: what was kept stays in another file, as evidence. Returns
/// the contradiction; `None` if there was none.
///
/// # Errors
/// If the file cannot be read or renamed.
pub fn accept(folder: &Path) -> io::Result<Option<LogContradiction>> {
    let contradiction = read(folder)?.and_then(|file| file.contradiction);
    if contradiction.is_some() {
        files::rename(&folder.join(FILE), &folder.join(ACCEPTED))?;
    }
    Ok(contradiction)
}

impl Witness {
    /// Loads what is kept.
    ///
    /// # Errors
    /// If the file cannot be read or parsed.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let state = read(folder)?.unwrap_or_default();
        Ok(Self { path: folder.join(FILE), state: Arc::new(Mutex::new(state)) })
    }

    fn lock(&self) -> MutexGuard<'_, WitnessFile> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest checkpoint.
    pub fn checkpoint(&self) -> Option<String> {
        self.lock().checkpoint.clone()
    }

    /// What contradicts it. Forgets all if an operator has accepted the other log.
    pub fn contradiction(&self) -> Option<String> {
        let mut state = self.lock();
        if state.contradiction.is_some() && matches!(files::read(&self.path), Ok(None)) {
            tracing::warn!("an operator has accepted another transparency log than the one that this node knew");
            *state = WitnessFile::default();
        }
        state.contradiction.as_ref().map(|contradiction| contradiction.text.clone())
    }

    fn write(&self, state: &mut WitnessFile, new: WitnessFile) {
        let written = serde_json::to_vec(&new).map_err(io::Error::from);
        match written.and_then(|text| files::replace(&self.path, &text)) {
            Ok(()) => *state = new,
            // What is not on disk is not kept: after a restart an older one would be.
            Err(error) => {
                static FAILED: LogLimit = LogLimit::new();
                if let Some(hits) = FAILED.hit() {
                    tracing::error!(error = %Causes(&error), hits, file = FILE, "cannot keep a checkpoint");
                }
            }
        }
    }

    fn keep(&self, key: &VerifierKey, note: String) {
        let mut state = self.lock();
        let new = WitnessFile { key: Some(key.to_string()), checkpoint: Some(note), ..state.clone() };
        self.write(&mut state, new);
    }

    fn keep_after_loss(&self, key: &VerifierKey, note: String) {
        let mut state = self.lock();
        let mut earlier = state.earlier.clone();
        earlier.extend(state.checkpoint.clone());
        let first = earlier.len().saturating_sub(EARLIER_MAX);
        let earlier = earlier.split_off(first);
        let new = WitnessFile { key: Some(key.to_string()), checkpoint: Some(note), earlier, ..state.clone() };
        self.write(&mut state, new);
    }

    fn contradict(&self, text: &str, checkpoint: Option<String>, at: Option<Timestamp>) {
        let mut state = self.lock();
        if state.contradiction.is_some() {
            return;
        }
        let mut text = text.to_owned();
        text.truncate(text.floor_char_boundary(CONDITION_DETAIL_MAX));
        tracing::error!(
            %text,
            hint = "keep `witness.json` in the state folder as evidence; if the journal was replaced on purpose, run \
                `otherix-agent release`",
            "the transparency log of the control plane contradicts what this node has kept of it"
        );
        let contradiction = Some(LogContradiction { at, text, checkpoint });
        let new = WitnessFile { contradiction, ..state.clone() };
        // Told even if it cannot be written.
        let told = new.contradiction.clone();
        self.write(&mut state, new);
        state.contradiction = told;
    }

    /// Compares what an answer tells with what is kept. Returns what has to be proven.
    fn consider(
        &self,
        answer: &LogAnswer,
        trusted: &DecisionKey,
        now: Option<Timestamp>,
    ) -> Result<Option<Claim>, String> {
        let kept = self.lock().clone();
        if let Some(text) = answer.contradiction.as_ref().filter(|_| kept.checkpoint.is_some()) {
            self.contradict(&format!("the control plane says so: {text}"), None, now);
        }
        let Some((note, signed)) = answer.checkpoint.as_ref().zip(answer.key.as_ref()) else { return Ok(None) };
        if note.len() > CHECKPOINT_MAX {
            return Err("it is too long".to_owned());
        }
        let told = signed.verify(trusted).map_err(|error| error.to_string())?;
        let newer = believe(told, note)?;
        if newer.cluster != answer.cluster.to_string() {
            return Err(format!("it is of cluster {}", newer.cluster));
        }
        let Some((key, checkpoint)) = kept.key.as_ref().zip(kept.checkpoint.as_ref()) else {
            tracing::info!(key = told, events = newer.head.size(), "this node is a witness of the transparency log");
            self.keep(&newer.key, note.clone());
            return Ok(None);
        };
        let older = believe(key, checkpoint).map_err(|error| format!("`{FILE}` is damaged: {error}"))?;
        let contradict = |text: String| {
            self.contradict(&text, Some(note.clone()), now);
            Ok(None)
        };
        if older.cluster != newer.cluster {
            tracing::warn!(before = older.cluster, now = newer.cluster, "this node is in another cluster now");
            self.keep_after_loss(&newer.key, note.clone());
            return Ok(None);
        }
        if older.key.as_bytes() != newer.key.as_bytes() {
            return contradict(format!("its key is {} now, and was {}", newer.key, older.key));
        }
        let (before, now) = (older.head.size(), newer.head.size());
        if newer.epoch < older.epoch {
            return contradict(format!("it is of epoch {} again, after epoch {}", newer.epoch, older.epoch));
        }
        let is_new_epoch = newer.epoch > older.epoch;
        if !is_new_epoch && now < before {
            return contradict(format!("it has {now} events now, and had {before}"));
        }
        if !is_new_epoch && now == before {
            if newer.head == older.head {
                return Ok(None);
            }
            let (new, old) = (newer.head.root(), older.head.root());
            return contradict(format!("the first {now} events have the root {new} now, and had {old}"));
        }
        if is_new_epoch && now < before {
            self.lost(&newer.key, note.clone(), before);
            return Ok(None);
        }
        Ok(Some(Claim { note: note.clone(), older: older.head, newer: newer.head, key: newer.key, is_new_epoch }))
    }

    fn lost(&self, key: &VerifierKey, note: String, before: u64) {
        tracing::warn!(
            before,
            "a new epoch of the control plane does not have all events that this node has a checkpoint of: their end \
             was given up"
        );
        self.keep_after_loss(key, note);
    }

    /// Keeps a checkpoint if the proof shows that it goes on from the one that is kept.
    fn judge(&self, claim: Claim, proof: Option<ConsistencyProof>, now: Option<Timestamp>) {
        let Claim { note, key, older, newer, is_new_epoch } = claim;
        let verified = proof.map(|proof| proof.verify(&older, &newer));
        match verified {
            Some(Ok(())) => self.keep(&key, note),
            _ if is_new_epoch => self.lost(&key, note, older.size()),
            _ => {
                let (size, before) = (newer.size(), older.size());
                let text = format!("its {size} events do not begin with the {before} that this node has kept");
                self.contradict(&text, Some(note), now);
            }
        }
    }
}

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

/// Witnesses the log until the connection is closed.
pub async fn follow(inputs: WitnessInputs) {
    let WitnessInputs { connection, witness, mut answers, trust, heartbeat_wanted } = inputs;
    let mut refused_since: Option<Instant> = None;
    while answers.changed().await.is_ok() {
        let (answer, trusted) = (answers.borrow_and_update().clone(), trust.key());
        let Some((answer, trusted)) = answer.zip(trusted) else { continue };
        let (was_known, now) = (witness.contradiction().is_some(), connection.runtime().now().ok());
        match witness.consider(&answer, &trusted, now) {
            Ok(Some(claim)) => match prove(&connection, &claim).await {
                Ok(proof) => {
                    refused_since = None;
                    witness.judge(claim, proof, now);
                }
                Err(error) => {
                    tracing::debug!(error = %Causes(&error), "no proof that the transparency log goes on");
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if is_answer(&error) && since.elapsed() > PROOF_WITHIN {
                        let text = format!("the control plane does not prove that it goes on: {}", Causes(&error));
                        witness.contradict(&text, Some(claim.note), now);
                    }
                }
            },
            Ok(None) => refused_since = None,
            Err(error) => {
                static UNUSABLE: LogLimit = LogLimit::new();
                if let Some(hits) = UNUSABLE.hit() {
                    tracing::warn!(error, hits, "a checkpoint of the transparency log cannot be used");
                }
            }
        }
        if !was_known && witness.contradiction().is_some() {
            heartbeat_wanted.notify_one();
        }
    }
}

/// Whether the control plane has answered, and not only failed.
fn is_answer(error: &CallError) -> bool {
    match error {
        CallError::Refused(body) => body.error.code != ErrorCode::Unavailable,
        CallError::Malformed(_) => true,
        CallError::NoService { .. } | CallError::TimedOut { .. } | CallError::Transport { .. } => false,
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

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
