//! A file with the proof that an event is in the log.

use otherix_schemas::error::ErrorCode;
use otherix_schemas::violations::Violations;
use otherix_tlog::{EntryProof, Policy};

use super::sequence::Fault;
use super::verify::{Known, head_of};
use crate::exit::Exit;
use crate::failure::{self, Failure};

/// An event that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VerifiedProof {
    pub(super) index: u64,
    /// The events that the checkpoint covers.
    pub(super) size: u64,
    pub(super) event: String,
    pub(super) unproven: Vec<String>,
}

/// Verifies a proof.
pub(super) fn verify_proof(file: &[u8], known: &Known) -> Result<VerifiedProof, Failure> {
    let refused = |text: String| Failure::from(Fault::somewhere(text));
    let Known { key, older, min_size, newest_since, given_up, is_part } = known;
    if newest_since.is_some() || !given_up.is_empty() || *is_part {
        let text = "--max-age, --given-up and --part are for exports, not for a file with a proof";
        return Err(Violations::one("path", text).into());
    }
    let proof = EntryProof::parse(file).map_err(|error| {
        let text = format!("the file is no proof: {}", failure::causes(&error));
        Failure::new(Exit::Usage, ErrorCode::ValidationFailed, text)
            .hint("a proof is a file as `otherix audit prove` writes it, byte for byte; an export is a folder")
    })?;
    let policy = Policy::of_log(key.clone()).map_err(|error| refused(error.to_string()))?;
    let verified = proof.verify_extra(&policy).map_err(|error| refused(failure::causes(&error)))?;
    let head = verified.checkpoint().head();
    if let Some(min) = min_size.filter(|min| head.size() < *min) {
        return Err(refused(format!("the log has {} events, and must have {min}", head.size())));
    }
    let mut unproven = vec!["that the log has not been written anew since by whoever has the key".to_owned()];
    for (name, note) in older {
        let older = head_of(note, key).map_err(|text| refused(format!("`{name}` cannot be used: {text}")))?;
        if older.size() != head.size() {
            unproven.push(format!("that the log continues `{name}`: that takes an export"));
        } else if older.root() != head.root() {
            return Err(refused(format!("the log was written anew: its events are others than in `{name}`")));
        }
    }
    let event = proof.extra.as_deref().and_then(|event| std::str::from_utf8(event).ok()).unwrap_or_default();
    Ok(VerifiedProof { index: proof.index, size: head.size(), event: event.to_owned(), unproven })
}
