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

use otherix_runtime::{LogLimit, files};
use otherix_schemas::decision_chain::DecisionKey;
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::log::{CHECKPOINT_MAX, SignedLogKey};
use otherix_schemas::node::CONDITION_DETAIL_MAX;
use otherix_schemas::position::Epoch;
use otherix_schemas::timestamp::Timestamp;
use otherix_tlog::{ConsistencyProof, Policy, TreeHead, VerifierKey};
use serde::{Deserialize, Serialize};

pub use self::follow::{WitnessInputs, follow};

mod follow;

const FILE: &str = "witness.json";

/// What [`accept`] renames the file to.
const ACCEPTED: &str = "witness-before-release.json";

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
    /// Which events a new epoch does not have. The node follows that, and tells of it until an operator accepts it.
    #[serde(default)]
    pub given_up: Option<LogContradiction>,
}

/// What the answer to a heartbeat tells of the log.
#[derive(Clone, Debug)]
pub struct LogAnswer {
    pub checkpoint: Option<String>,
    pub key: Option<SignedLogKey>,
    pub contradiction: Option<String>,
    /// The cluster of the answer's signed head.
    pub cluster: ClusterId,
    /// The epoch of the answer's signed head.
    pub epoch: Epoch,
}

/// How an answer compares with what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Considered {
    /// It told of no checkpoint, and none is kept.
    Nothing,
    /// It told of what is kept now, or contradicts it.
    Settled,
    /// It cannot be used, for this reason.
    Unusable(String),
    /// A checkpoint of fewer events than are kept: whoever carries messages can repeat one.
    Older { text: String, note: String },
    /// This has to be proven.
    Claim(Box<Claim>),
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
    /// Why the control plane has not proven for a minute that the log goes on.
    unproven: Arc<Mutex<Option<String>>>,
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
    let contradiction = read(folder)?.and_then(|file| file.contradiction.or(file.given_up));
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
        Ok(Self { path: folder.join(FILE), state: Arc::new(Mutex::new(state)), unproven: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, WitnessFile> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest checkpoint.
    pub fn checkpoint(&self) -> Option<String> {
        self.lock().checkpoint.clone()
    }

    /// What contradicts it, or is not proven. Forgets all if an operator has accepted the other log.
    pub fn contradiction(&self) -> Option<String> {
        let mut state = self.lock();
        let is_told = state.contradiction.is_some() || state.given_up.is_some();
        if is_told && matches!(files::read(&self.path), Ok(None)) {
            tracing::warn!("an operator has accepted another transparency log than the one that this node knew");
            *state = WitnessFile::default();
        }
        let told = state.contradiction.as_ref().or(state.given_up.as_ref());
        told.map(|told| told.text.clone()).or_else(|| self.unproven().clone())
    }

    fn unproven(&self) -> MutexGuard<'_, Option<String>> {
        self.unproven.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Compares what an answer tells with what is kept.
    fn consider(&self, answer: &LogAnswer, trusted: &DecisionKey, now: Option<Timestamp>) -> Considered {
        self.compare(answer, trusted, now).unwrap_or_else(Considered::Unusable)
    }

    fn compare(&self, answer: &LogAnswer, trusted: &DecisionKey, at: Option<Timestamp>) -> Result<Considered, String> {
        let kept = self.lock().clone();
        if let Some(text) = answer.contradiction.as_ref().filter(|_| kept.checkpoint.is_some()) {
            self.contradict(&format!("the control plane says so: {text}"), None, at);
        }
        let Some((note, signed)) = answer.checkpoint.as_ref().zip(answer.key.as_ref()) else {
            let missing = Considered::Unusable("it tells of no checkpoint".to_owned());
            return Ok(if kept.checkpoint.is_some() { missing } else { Considered::Nothing });
        };
        if note.len() > CHECKPOINT_MAX {
            return Err("it is too long".to_owned());
        }
        let told = signed.verify(trusted).map_err(|error| error.to_string())?;
        let newer = believe(told, note)?;
        if newer.cluster != answer.cluster.to_string() {
            return Err(format!("it is of cluster {}", newer.cluster));
        }
        // What is told of the epoch counts only as signed for this heartbeat.
        if newer.epoch != answer.epoch.get() {
            return Err(format!("it is of epoch {}, and the control plane of epoch {}", newer.epoch, answer.epoch));
        }
        let Some((key, checkpoint)) = kept.key.as_ref().zip(kept.checkpoint.as_ref()) else {
            tracing::info!(key = told, events = newer.head.size(), "this node is a witness of the transparency log");
            self.keep(&newer.key, note.clone());
            return Ok(Considered::Settled);
        };
        let older = believe(key, checkpoint).map_err(|error| format!("`{FILE}` is damaged: {error}"))?;
        let contradict = |text: String| {
            self.contradict(&text, Some(note.clone()), at);
            Ok(Considered::Settled)
        };
        if older.cluster != newer.cluster {
            return contradict(format!("it is of cluster {}, and was of {}", newer.cluster, older.cluster));
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
            let text = format!("it has {now} events now, and had {before}");
            return Ok(Considered::Older { text, note: note.clone() });
        }
        if !is_new_epoch && now == before {
            if newer.head == older.head {
                return Ok(Considered::Settled);
            }
            let (new, old) = (newer.head.root(), older.head.root());
            return contradict(format!("the first {now} events have the root {new} now, and had {old}"));
        }
        let claim = Claim { note: note.clone(), older: older.head, newer: newer.head, key: newer.key, is_new_epoch };
        if is_new_epoch && now < before {
            self.lost(claim, at);
            return Ok(Considered::Settled);
        }
        Ok(Considered::Claim(Box::new(claim)))
    }

    /// Follows a new epoch that does not continue what is kept, and tells of it: only an operator knows whether so many
    /// events were given up.
    fn lost(&self, claim: Claim, at: Option<Timestamp>) {
        let before = claim.older.size();
        let text = format!(
            "a new epoch does not have all of the {before} events that this node has a checkpoint of: if they were \
             given up by a restore, run `otherix-agent release`"
        );
        tracing::error!(%text, "the transparency log of the control plane has lost events");
        let mut state = self.lock();
        let mut earlier = state.earlier.clone();
        earlier.extend(state.checkpoint.clone());
        let first = earlier.len().saturating_sub(EARLIER_MAX);
        let earlier = earlier.split_off(first);
        let lost = LogContradiction { at, text, checkpoint: Some(claim.note.clone()) };
        let given_up = state.given_up.clone().or(Some(lost));
        let (key, checkpoint) = (Some(claim.key.to_string()), Some(claim.note));
        let new = WitnessFile { key, checkpoint, earlier, given_up, ..state.clone() };
        self.write(&mut state, new);
    }

    /// Keeps a checkpoint if the proof shows that it goes on from the one that is kept.
    fn judge(&self, claim: Claim, proof: Option<ConsistencyProof>, now: Option<Timestamp>) {
        let verified = proof.map(|proof| proof.verify(&claim.older, &claim.newer));
        match verified {
            Some(Ok(())) => self.keep(&claim.key, claim.note),
            _ if claim.is_new_epoch => self.lost(claim, now),
            _ => {
                let Claim { note, older, newer, .. } = claim;
                let (size, before) = (newer.size(), older.size());
                let text = format!("its {size} events do not begin with the {before} that this node has kept");
                self.contradict(&text, Some(note), now);
            }
        }
    }
}

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
