use otherix_schemas::decision_chain::DecisionSigner;
use otherix_testkit::TempDir;
use otherix_tlog::{Checkpoint, Hash, RightEdge, SignatureKind, SignerKey};
use tokio::time::Instant;
use uuid::Uuid;

use super::follow::{PROOF_WITHIN, ProofDeadlines};
use super::*;

const CLUSTER: ClusterId = ClusterId::new(Uuid::from_u128(1));

fn decision_signer() -> DecisionSigner {
    DecisionSigner::from_seed(&[1; 32])
}

fn assert_unusable(considered: &Considered) {
    assert!(matches!(considered, Considered::Unusable(_)), "{considered:?}");
}

/// A log with these events; those from `changed` on are others.
struct Log {
    key: SignerKey,
    leaves: Vec<Hash>,
    cluster: ClusterId,
    epoch: u32,
}

impl Log {
    fn new(epoch: u32, seed: u8, count: usize, changed: usize) -> Self {
        Self::of(CLUSTER, (epoch, seed), count, changed)
    }

    fn of(cluster: ClusterId, (epoch, seed): (u32, u8), count: usize, changed: usize) -> Self {
        let name = otherix_schemas::log::origin(cluster, otherix_schemas::position::Epoch::new(epoch));
        let key = SignerKey::from_seed(name.parse().unwrap(), SignatureKind::Note, &[seed; 32]);
        let content = |index: usize| if index < changed { format!("{index}") } else { format!("other {index}") };
        Self { key, cluster, epoch, leaves: (0..count).map(|index| Hash::of_leaf(content(index).as_bytes())).collect() }
    }

    fn edge(&self, size: usize) -> RightEdge {
        let mut edge = RightEdge::EMPTY;
        edge.append_all(self.leaves[..size].iter().copied()).unwrap();
        edge
    }

    fn note(&self, size: usize) -> String {
        let name = self.key.public_key().name().clone();
        Checkpoint::new(name, self.edge(size).head()).sign(&self.key).unwrap().to_string()
    }

    fn answer(&self, size: usize) -> LogAnswer {
        LogAnswer {
            checkpoint: Some(self.note(size)),
            key: Some(SignedLogKey::new(self.key.public_key().to_string(), &decision_signer())),
            contradiction: None,
            cluster: self.cluster,
            epoch: Epoch::new(self.epoch),
        }
    }

    fn proof(&self, from: u64, to: u64) -> ConsistencyProof {
        struct Leaves<'a>(&'a [Hash]);
        impl otherix_tlog::HashSource for Leaves<'_> {
            type Error = std::convert::Infallible;
            fn hash(&mut self, node: otherix_tlog::Node) -> Result<Hash, Self::Error> {
                let range = usize::try_from(node.first_leaf()).unwrap()..=usize::try_from(node.last_leaf()).unwrap();
                let mut edge = RightEdge::EMPTY;
                edge.append_all(self.0[range].iter().copied()).unwrap();
                Ok(edge.root())
            }
        }
        ConsistencyProof::make(from, to, &mut Leaves(&self.leaves)).unwrap()
    }
}

struct Node {
    folder: TempDir,
    witness: Witness,
}

impl Node {
    /// A node that keeps a checkpoint of so many events.
    fn with(log: &Log, size: usize) -> Self {
        let folder = otherix_testkit::tempdir().unwrap();
        let witness = Witness::load(folder.path()).unwrap();
        let node = Self { folder, witness };
        node.told(log, size);
        node.assert_keeps(log, size);
        node
    }

    /// The control plane tells of a checkpoint, and proves it by its own tree.
    fn told(&self, log: &Log, size: usize) {
        match self.consider(&log.answer(size)) {
            Considered::Claim(claim) => {
                let proof = log.proof(claim.older.size(), claim.newer.size());
                self.witness.judge(*claim, Some(proof), None);
            }
            Considered::Settled => {}
            // It is told for a minute.
            Considered::Older { text, note } => {
                let (mut deadlines, now) = (ProofDeadlines::default(), Instant::now());
                deadlines.older(&self.witness, (&text, note.clone()), now, None);
                deadlines.older(&self.witness, (&text, note), now + PROOF_WITHIN, None);
            }
            other @ (Considered::Nothing | Considered::Unusable(_)) => panic!("{other:?}"),
        }
    }

    fn consider(&self, answer: &LogAnswer) -> Considered {
        self.witness.consider(answer, &decision_signer().public(), None)
    }

    fn claim(&self, log: &Log, size: usize) -> Claim {
        let Considered::Claim(claim) = self.consider(&log.answer(size)) else { panic!("no claim of {size} events") };
        *claim
    }

    fn assert_keeps(&self, log: &Log, size: usize) {
        assert_eq!(self.witness.checkpoint(), Some(log.note(size)));
        // What counts is what is on disk.
        assert_eq!(read(self.folder.path()).unwrap().unwrap().checkpoint, Some(log.note(size)));
        assert_eq!(self.witness.contradiction(), None);
    }

    fn assert_contradicts(&self, expected: &str) {
        let text = self.witness.contradiction().unwrap_or_default();
        assert!(text.contains(expected), "{text}");
        let again = Witness::load(self.folder.path()).unwrap();
        assert_eq!(again.contradiction(), Some(text));
    }
}

#[test]
fn a_log_that_grows_is_followed() {
    let log = Log::new(1, 7, 20, 20);
    let node = Node::with(&log, 5);
    for size in [5, 6, 13, 13, 20] {
        node.told(&log, size);
        node.assert_keeps(&log, size);
    }
}

#[test]
fn a_log_that_was_rewritten_or_cut_back_is_a_contradiction() {
    let log = Log::new(1, 7, 20, 20);
    // From every event on, told at every size.
    for changed in 0..10 {
        let other = Log::new(1, 7, 20, changed);
        for size in [changed + 1, 9, 10, 11, 16, 20] {
            let node = Node::with(&log, 10);
            node.told(&other, size);
            let text = match size {
                10 => "the first 10 events have the root",
                0..10 => "events now, and had 10",
                _ => "do not begin with the 10 that this node has kept",
            };
            node.assert_contradicts(text);
            assert_eq!(node.witness.checkpoint(), Some(log.note(10)), "the evidence is kept");
            let file = read(node.folder.path()).unwrap().unwrap();
            assert_eq!(file.contradiction.unwrap().checkpoint, Some(other.note(size)));
            // It lasts, whatever is told later.
            node.told(&log, 12);
            node.assert_contradicts(text);
        }
    }
    let same = Log::new(1, 7, 20, 10);
    let node = Node::with(&log, 10);
    node.told(&same, 20);
    node.assert_keeps(&same, 20);
}

#[test]
fn no_proof_or_that_of_another_size_is_not_accepted() {
    let log = Log::new(1, 7, 20, 20);
    let node = Node::with(&log, 10);
    let claim = node.claim(&log, 15);
    node.assert_keeps(&log, 10);
    node.witness.judge(claim, Some(log.proof(10, 16)), None);
    node.assert_contradicts("do not begin with");
    let node = Node::with(&log, 10);
    let claim = node.claim(&log, 15);
    node.witness.judge(claim, None, None);
    node.assert_contradicts("do not begin with");
}

#[test]
fn only_a_key_that_the_decision_key_vouches_for_is_pinned_and_none_after_it() {
    let log = Log::new(1, 7, 20, 20);
    let folder = otherix_testkit::tempdir().unwrap();
    let witness = Witness::load(folder.path()).unwrap();
    let stranger = DecisionSigner::from_seed(&[2; 32]).public();
    assert_unusable(&witness.consider(&log.answer(5), &stranger, None));
    assert_eq!(witness.checkpoint(), None);
    // A note that the key has not signed, of another cluster, or not signed at all.
    let other_key = Log::new(1, 8, 20, 20);
    let mut forged = log.answer(5);
    forged.checkpoint = Some(other_key.note(5));
    assert_unusable(&witness.consider(&forged, &decision_signer().public(), None));
    let elsewhere = LogAnswer { cluster: ClusterId::new(Uuid::from_u128(2)), ..log.answer(5) };
    assert_unusable(&witness.consider(&elsewhere, &decision_signer().public(), None));
    assert_eq!((witness.checkpoint(), witness.contradiction()), (None, None));
    // Another key later, although the decision key vouches for it.
    let node = Node::with(&log, 5);
    node.told(&other_key, 6);
    node.assert_contradicts("its key is");
}

#[test]
fn a_new_epoch_may_give_events_up_and_the_node_tells_of_it_until_an_operator_accepts_it() {
    let log = Log::new(1, 7, 20, 20);
    let node = Node::with(&log, 10);
    // All events that the node knows were kept.
    let next = Log::new(2, 7, 20, 12);
    node.told(&next, 15);
    node.assert_keeps(&next, 15);
    assert_eq!(read(node.folder.path()).unwrap().unwrap().earlier, Vec::<String>::new());
    // Some were not.
    for size in [7, 15] {
        let node = Node::with(&log, 10);
        let next = Log::new(2, 7, 20, 6);
        node.told(&next, size);
        let lost = "a new epoch does not have all of the 10 events";
        node.assert_contradicts(lost);
        assert_eq!(node.witness.checkpoint(), Some(next.note(size)));
        assert_eq!(read(node.folder.path()).unwrap().unwrap().earlier, [log.note(10)]);
        // It goes on with the new epoch, and tells of the old one.
        node.told(&next, 18);
        node.assert_contradicts(lost);
        assert_eq!(node.witness.checkpoint(), Some(next.note(18)));
        node.told(&log, 12);
        node.assert_contradicts("it is of epoch 1 again, after epoch 2");
        assert!(accept(node.folder.path()).unwrap().is_some());
        assert_eq!(node.witness.contradiction(), None);
    }
}

#[test]
fn only_the_epoch_of_the_signed_head_counts_and_another_cluster_is_a_contradiction() {
    let log = Log::new(1, 7, 20, 20);
    let node = Node::with(&log, 10);
    // A fork that calls itself a new epoch.
    for size in [7, 15] {
        let fork = LogAnswer { epoch: Epoch::FIRST, ..Log::new(2, 7, 20, 3).answer(size) };
        assert_unusable(&node.consider(&fork));
        node.assert_keeps(&log, 10);
    }
    let other = ClusterId::new(Uuid::from_u128(2));
    let elsewhere = Log::of(other, (1, 7), 20, 20);
    node.told(&elsewhere, 12);
    node.assert_contradicts("it is of cluster");
    assert_eq!(node.witness.checkpoint(), Some(log.note(10)), "the evidence is kept");
}

#[test]
fn answers_that_prove_nothing_for_a_minute_are_told_whatever_the_reason() {
    let (log, start) = (Log::new(1, 7, 20, 20), Instant::now());
    let node = Node::with(&log, 10);
    let forged = LogAnswer { checkpoint: Some(Log::new(1, 8, 20, 20).note(12)), ..log.answer(12) };
    let silent = LogAnswer { checkpoint: None, ..log.answer(12) };
    let mut deadlines = ProofDeadlines::default();
    let seconds = |seconds| start + std::time::Duration::from_secs(seconds);
    // Each time for another reason.
    for (at, answer) in [(0, &forged), (20, &silent), (40, &forged)] {
        assert_unusable(&node.consider(answer));
        deadlines.unproven(&node.witness, "unusable", seconds(at));
        node.assert_keeps(&log, 10);
    }
    deadlines.unproven(&node.witness, "it is unavailable", seconds(59));
    assert_eq!(node.witness.contradiction(), None);
    deadlines.unproven(&node.witness, "it has not answered", seconds(60));
    let told = node.witness.contradiction().unwrap();
    assert_eq!(told, "the control plane gives no proof that it goes on: it has not answered");
    // The reason that was told first stays, and a proof ends it.
    deadlines.unproven(&node.witness, "another", seconds(70));
    assert_eq!(node.witness.contradiction(), Some(told));
    deadlines.proven(&node.witness);
    node.assert_keeps(&log, 10);
    deadlines.unproven(&node.witness, "again", seconds(100));
    assert_eq!(node.witness.contradiction(), None, "the minute begins again");
    // A node that keeps nothing has nothing to be proven.
    let folder = otherix_testkit::tempdir().unwrap();
    let witness = Witness::load(folder.path()).unwrap();
    assert_eq!(witness.consider(&silent, &decision_signer().public(), None), Considered::Nothing);
}

#[test]
fn a_repeated_older_checkpoint_is_a_contradiction_only_if_it_persists() {
    let (log, now) = (Log::new(1, 7, 20, 20), Instant::now());
    let node = Node::with(&log, 10);
    let mut deadlines = ProofDeadlines::default();
    let repeated = |after: u64, deadlines: &mut ProofDeadlines| {
        let Considered::Older { text, note } = node.consider(&log.answer(6)) else { panic!() };
        deadlines.older(&node.witness, (&text, note), now + std::time::Duration::from_secs(after), None);
    };
    repeated(0, &mut deadlines);
    repeated(59, &mut deadlines);
    node.assert_keeps(&log, 10);
    deadlines.proven(&node.witness);
    repeated(61, &mut deadlines);
    repeated(120, &mut deadlines);
    node.assert_keeps(&log, 10);
    repeated(121, &mut deadlines);
    node.assert_contradicts("it has 6 events now, and had 10");
}

#[test]
fn what_the_control_plane_says_itself_is_a_contradiction_and_an_operator_ends_it() {
    let log = Log::new(1, 7, 20, 20);
    let node = Node::with(&log, 10);
    let answer = LogAnswer { contradiction: Some("the journal is behind".to_owned()), ..log.answer(10) };
    assert_eq!(node.consider(&answer), Considered::Settled);
    node.assert_contradicts("the control plane says so: the journal is behind");
    assert!(accept(node.folder.path()).unwrap().is_some());
    assert_eq!((node.witness.contradiction(), node.witness.checkpoint()), (None, None));
    assert_eq!(accept(node.folder.path()).unwrap(), None);
    let other = Log::new(1, 7, 20, 3);
    node.told(&other, 4);
    node.assert_keeps(&other, 4);
    assert!(node.folder.path().join(ACCEPTED).exists());
}
