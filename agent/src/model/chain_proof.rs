//! Which of the decisions that were received are those of the control plane: those up to a head that it has signed.
//!
//! Decisions are received in order, from whoever has the connection; heads arrive with some of them, and in answers to
//! heartbeats, before or after the decisions that they cover.

use std::collections::VecDeque;

use otherix_schemas::decision_chain::{ChainDigest, DecisionHead};
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};

/// Most heads that are kept until the decisions up to them arrive. Each later one covers what an earlier one covers.
const HEADS_MAX: usize = 16;

/// The end of a chain of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    pub position: Position,
    pub digest: ChainDigest,
}

impl ChainEnd {
    /// Before the first decision.
    pub const START: Self = Self { position: Position::ZERO, digest: ChainDigest::START };

    /// The end after a decision that is stored as `body`.
    #[must_use]
    pub fn after(self, position: Position, body: &[u8]) -> Self {
        Self { position, digest: self.digest.after(body) }
    }
}

/// What was received is not what the control plane has signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainMismatch {
    #[error("the control plane has signed a head of cluster {found}, and this node follows cluster {known}")]
    Cluster { found: ClusterId, known: ClusterId },
    #[error("the control plane has signed a head of epoch {found}, and this node is in the later epoch {known}")]
    Epoch { found: Epoch, known: Epoch },
    #[error(
        "the decisions up to position {} that this node has received are not those that the control plane has signed \
        (its digest is {}, in epoch {})", .head.position, .head.digest, .head.epoch
    )]
    Digest { head: DecisionHead },
}

impl ChainMismatch {
    /// The epoch of the head that does not match.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Cluster { .. } => None,
            Self::Epoch { found, .. } => Some(*found),
            Self::Digest { head } => Some(head.epoch),
        }
    }
}

/// Matches decisions with signed heads.
#[derive(Clone, Debug)]
pub struct ChainProof {
    cluster: ClusterId,
    /// The last decision that is covered by a head, or that was trusted before.
    verified: ChainEnd,
    /// The ends of the chain after each decision that is not covered yet.
    pending: VecDeque<ChainEnd>,
    /// Heads of decisions that have not arrived, oldest first.
    heads: VecDeque<DecisionHead>,
    /// The ends up to here are no longer known: heads up to it cannot be matched, and are ignored.
    forgotten: Position,
    /// A head has matched.
    is_proven: bool,
}

impl ChainProof {
    /// Begins after decisions that were verified before.
    pub fn new(cluster: ClusterId, verified: ChainEnd) -> Self {
        let (pending, heads) = (VecDeque::new(), VecDeque::new());
        Self { cluster, verified, pending, heads, forgotten: Position::ZERO, is_proven: false }
    }

    /// The last verified decision.
    pub fn verified(&self) -> ChainEnd {
        self.verified
    }

    /// The last decision that was received.
    pub fn end(&self) -> ChainEnd {
        self.pending.back().copied().unwrap_or(self.verified)
    }

    /// The number of decisions that no head covers.
    pub fn unverified(&self) -> usize {
        self.pending.len()
    }

    /// Whether a head has matched, and no decision is unverified.
    pub fn is_proven(&self) -> bool {
        self.is_proven && self.pending.is_empty()
    }

    /// Forgets all but the last ends of the chain, so that memory stays bounded while many decisions are read.
    pub fn keep_last(&mut self, count: usize) {
        while self.pending.len() > count {
            self.forgotten = self.pending.pop_front().map_or(self.forgotten, |end| end.position);
        }
    }

    /// A decision was received.
    pub fn received(&mut self, position: Position, body: &[u8]) {
        self.pending.push_back(self.end().after(position, body));
    }

    /// A signed head was received.
    pub fn signed(&mut self, head: DecisionHead) {
        if self.heads.iter().any(|known| *known == head) {
            return;
        }
        if self.heads.len() == HEADS_MAX {
            self.heads.pop_front();
        }
        self.heads.push_back(head);
    }

    /// Returns how many further decisions are verified. They are no longer counted as unverified.
    ///
    /// # Errors
    /// If the decisions that were received are not those of a head.
    pub fn verify(&mut self) -> Result<usize, ChainMismatch> {
        let mut count = 0;
        let mut later = VecDeque::new();
        while let Some(head) = self.heads.pop_front() {
            if head.cluster != self.cluster {
                return Err(ChainMismatch::Cluster { found: head.cluster, known: self.cluster });
            }
            if head.position < self.verified.position || (head.position <= self.forgotten && !self.pending.is_empty()) {
                continue;
            }
            if head.position > self.end().position {
                later.push_back(head);
                continue;
            }
            let index = self.pending.iter().position(|end| end.position >= head.position);
            let found = match index {
                Some(index) if head.position > self.verified.position => self.pending.get(index).copied(),
                Some(_) | None => Some(self.verified),
            };
            match found {
                Some(end) if (end.position, end.digest) == (head.position, head.digest) => {
                    self.is_proven = true;
                    if head.position > self.verified.position {
                        let covered = index.map_or(0, |index| index + 1);
                        self.pending.drain(..covered);
                        count += covered;
                        self.verified = end;
                    }
                }
                Some(_) | None => return Err(ChainMismatch::Digest { head }),
            }
        }
        self.heads = later;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(number: u128) -> ClusterId {
        ClusterId::new(uuid::Uuid::from_u128(number))
    }

    fn body(position: u64) -> String {
        format!("decision {position}")
    }

    /// The head of the control plane's chain after these positions.
    fn head(positions: impl IntoIterator<Item = u64>) -> DecisionHead {
        let end = positions
            .into_iter()
            .fold(ChainEnd::START, |end, position| end.after(Position::new(position), body(position).as_bytes()));
        DecisionHead { cluster: cluster(1), epoch: Epoch::FIRST, position: end.position, digest: end.digest }
    }

    fn proof(received: impl IntoIterator<Item = u64>) -> ChainProof {
        let mut proof = ChainProof::new(cluster(1), ChainEnd::START);
        for position in received {
            proof.received(Position::new(position), body(position).as_bytes());
        }
        proof
    }

    #[test]
    fn a_head_covers_all_decisions_up_to_it_in_any_order_of_arrival() {
        let mut proof = proof([1, 2, 5]);
        assert_eq!(proof.verify(), Ok(0));
        proof.signed(head([1, 2]));
        assert_eq!((proof.verify(), proof.unverified(), proof.verified().position), (Ok(2), 1, Position::new(2)));
        proof.signed(head([1, 2, 5, 9]));
        proof.signed(head([1]));
        assert_eq!((proof.verify(), proof.unverified()), (Ok(0), 1));
        proof.received(Position::new(9), body(9).as_bytes());
        assert_eq!((proof.verify(), proof.unverified()), (Ok(2), 0));
        assert_eq!(proof.end().digest, head([1, 2, 5, 9]).digest);
        proof.signed(head([1, 2, 5, 9]));
        assert_eq!(proof.verify(), Ok(0), "the same head again");
    }

    #[test]
    fn what_is_not_signed_is_not_verified() {
        for (received, signed, why) in [
            (vec![1, 3], head([1, 2]), "another decision, and the head's is missing"),
            (vec![1, 2, 3], head([2, 1, 3]), "another order"),
            (vec![1, 2, 9], head([1, 2, 3]), "a forged one that is far ahead"),
            (vec![1], head([2]).at(1), "another content"),
            (vec![2], head([1, 2]), "one is withheld"),
        ] {
            let mut proof = proof(received);
            proof.signed(signed);
            assert_eq!(proof.verify(), Err(ChainMismatch::Digest { head: signed }), "{why}");
            assert_eq!(proof.verified(), ChainEnd::START);
        }
        let mut another = proof([1]);
        another.signed(DecisionHead { cluster: cluster(2), ..head([1]) });
        assert!(matches!(another.verify(), Err(ChainMismatch::Cluster { .. })));
    }

    #[test]
    fn another_past_is_noticed_without_a_new_decision() {
        let mut proof =
            ChainProof::new(cluster(1), ChainEnd::START.after(Position::new(1), b"what it was told before"));
        proof.signed(head([1]));
        assert!(proof.verify().is_err());
    }

    trait At {
        fn at(self, position: u64) -> Self;
    }

    impl At for DecisionHead {
        fn at(self, position: u64) -> Self {
            Self { position: Position::new(position), ..self }
        }
    }
}
