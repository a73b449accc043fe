//! Checkpoints that somebody has kept, and whether the log continues them.

use otherix_schemas::error::Causes;
use otherix_tlog::{Hash, KeyName, Policy, RightEdge, SignatureKind, TreeHead, VerifierKey};

use super::{Origin, Verification, VerifyError};
use crate::audit::folder::Lines;
use crate::audit::sequence::Fault;

/// A checkpoint that somebody has kept.
pub(in crate::audit) struct Kept {
    pub(super) name: String,
    pub(in crate::audit) epoch: u32,
    pub(in crate::audit) head: TreeHead,
    pub(super) is_continued: bool,
}

/// Verifies a checkpoint with a key.
pub(in crate::audit) fn head_of(checkpoint: &[u8], key: &VerifierKey) -> Result<TreeHead, String> {
    let policy = Policy::of_log(key.clone()).map_err(|error| error.to_string())?;
    let verified = policy.verify(checkpoint).map_err(|error| Causes(&error).to_string())?;
    Ok(*verified.checkpoint().head())
}

/// Verifies a checkpoint of the same cluster and key, of any epoch.
pub(in crate::audit) fn kept(name: &str, checkpoint: &[u8], key: &VerifierKey, origin: &Origin) -> Result<Kept, Fault> {
    let fault = |text: String| Fault::somewhere(format!("the checkpoint `{name}` cannot be used: {text}"));
    let first_line = checkpoint.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let of: KeyName = String::from_utf8_lossy(first_line).parse().map_err(|_| fault("it has no origin".to_owned()))?;
    let its = Origin::parse(&of)?;
    if (&its.domain, &its.cluster) != (&origin.domain, &origin.cluster) {
        return Err(fault(format!("it is one of `{of}`")));
    }
    let key = VerifierKey::new(of, SignatureKind::Note, key.as_bytes()).map_err(|error| fault(error.to_string()))?;
    let head = head_of(checkpoint, &key).map_err(fault)?;
    Ok(Kept { name: name.to_owned(), epoch: its.epoch, head, is_continued: false })
}

impl Verification<'_> {
    /// Compares kept checkpoints of as many events as there are so far.
    pub(super) fn compare_kept(&mut self) -> Result<(), Fault> {
        let (epoch, size) = (self.origin.epoch, self.edge.size());
        for kept in self.kept.iter_mut().filter(|kept| kept.head.size() == size && kept.epoch == epoch) {
            if self.edge.root() != *kept.head.root() {
                let name = &kept.name;
                let text = format!("the log was written anew: its first {size} events are others than in `{name}`");
                return Err(Fault::somewhere(text));
            }
            kept.is_continued = true;
        }
        Ok(())
    }

    /// Kept checkpoints of earlier epochs: their events are the first ones, or were given up.
    pub(super) fn earlier_epochs(&mut self) -> Result<(), VerifyError> {
        let (epochs, given_up) = (std::mem::take(&mut self.epochs), &self.known.given_up);
        for kept in self.kept.iter_mut().filter(|kept| kept.epoch < self.origin.epoch) {
            let (name, size) = (&kept.name, kept.head.size());
            let Some((_, edge, position)) = epochs.iter().find(|(epoch, ..)| *epoch == kept.epoch) else {
                let text = format!("the checkpoint `{name}` is of epoch {}, which the log does not have", kept.epoch);
                return Err(Fault::somewhere(text).into());
            };
            if size <= edge.size() {
                let tiles = self.leaves.tiles.as_mut().map(|tiles| RightEdge::from_source(size, tiles));
                let is_same = matches!(tiles, Some(Ok(edge)) if edge.head() == kept.head);
                if !is_same {
                    let text = format!("the log was written anew: its first events are others than in `{name}`");
                    return Err(Fault::somewhere(text).into());
                }
                kept.is_continued = true;
                continue;
            }
            let mut is_given_up = false;
            for path in given_up {
                let (mut edge, mut lines) = (edge.clone(), Lines::open(path)?);
                while let Some(body) = lines.next()? {
                    if edge.size() == size {
                        break;
                    }
                    edge.append(Hash::of_leaf(body)).map_err(|error| Fault::somewhere(error.to_string()))?;
                }
                is_given_up |= edge.head() == kept.head;
            }
            if is_given_up {
                kept.is_continued = true;
                self.unproven.push(format!(
                    "declared loss: epoch {} gave up the events after position {position}; the given-up file has \
                     those of `{name}`",
                    kept.epoch + 1
                ));
            } else if given_up.is_empty() {
                self.unproven.push(format!(
                    "declared loss: epoch {} gave up the events after position {position}, of which `{name}` covers \
                     {}: what they were, and that those before are the same, takes --given-up with the file that \
                     `otherixd restore` wrote",
                    kept.epoch + 1,
                    size - edge.size()
                ));
            } else {
                let text = format!("the kept events with those of the given-up file are not those of `{name}`");
                return Err(Fault::somewhere(text).into());
            }
        }
        Ok(())
    }
}
