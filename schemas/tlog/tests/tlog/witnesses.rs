//! What a witness accepts and refuses.

use otherix_tlog::witness::{ADD_CHECKPOINT_MAX, AddCheckpointFormatError, WitnessError};
use otherix_tlog::{
    AddCheckpoint, Checkpoint, CheckpointError, ConsistencyProof, Hash, Policy, ProofError, SignatureKind, TreeHead,
};

use crate::common::{MemoryHashes, ORIGIN, head, key, leaves, log_key, signed_checkpoint};

/// C2SP tlog-witness, with the newer signature left out.
const SPECIFICATION: &str = "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
    jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
    /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\nexample.com/behind-the-sofa\n20852163\n\
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5I\
    ZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

fn policy() -> Policy {
    Policy::of_log(log_key().public_key().clone()).unwrap()
}

/// The request that proves consistency of the first `new` leaves with the first `old`.
fn request(old: usize, new: usize) -> AddCheckpoint {
    let mut hashes = MemoryHashes::of(&leaves(new));
    let consistency = ConsistencyProof::make(old as u64, new as u64, &mut hashes).unwrap();
    AddCheckpoint { old: old as u64, consistency, checkpoint: signed_checkpoint(new) }
}

#[test]
fn a_log_that_grows_is_accepted() {
    let mut kept = TreeHead::EMPTY;
    for (old, new) in [(0, 0), (0, 1), (1, 5), (5, 5), (5, 8), (8, 300)] {
        let request = request(old, new);
        assert_eq!(AddCheckpoint::parse(request.to_string().as_bytes()), Ok(request.clone()));
        kept = *request.accept(&kept, &policy()).unwrap().checkpoint().head();
        assert_eq!(kept, head(&leaves(new)));
    }
}

#[test]
fn what_does_not_go_on_is_refused() {
    let kept = head(&leaves(7));
    let (right, root) = (request(7, 12), *head(&leaves(7)).root());
    right.accept(&kept, &policy()).unwrap();
    // The log has to begin at what the witness has kept.
    let other = request(6, 12).accept(&kept, &policy());
    assert_eq!(other, Err(WitnessError::OtherSize { kept: 7, found: 6 }));
    // A log that was cut back, or written anew, by whoever has the key.
    let back = AddCheckpoint { checkpoint: signed_checkpoint(5), ..right.clone() };
    let expected = WitnessError::Inconsistent(ProofError::Smaller { old: 7, new: 5 });
    assert_eq!(back.accept(&kept, &policy()), Err(expected));
    let forked = TreeHead::new(7, Hash::of_leaf(b"another")).unwrap();
    let inconsistent = Err(WitnessError::Inconsistent(ProofError::Inconsistent));
    assert_eq!(right.accept(&forked, &policy()), inconsistent);
    assert_eq!(request(7, 7).accept(&forked, &policy()), inconsistent);
    // The same history, signed with another key, and a signature that is wrong.
    let stranger = key(ORIGIN, SignatureKind::Note, 77);
    let checkpoint = Checkpoint::new(ORIGIN.parse().unwrap(), TreeHead::new(7, root).unwrap()).sign(&stranger).unwrap();
    let unsigned = AddCheckpoint { checkpoint, ..request(7, 7) };
    assert!(matches!(unsigned.accept(&kept, &policy()), Err(WitnessError::Checkpoint(CheckpointError::Signatures(_)))));
    // An empty tree needs no proof, and must not have one.
    let needless = AddCheckpoint { old: 0, ..right };
    let expected =
        WitnessError::Inconsistent(ProofError::Length { expected: 0, found: needless.consistency.hashes().len() });
    assert_eq!(needless.accept(&TreeHead::EMPTY, &policy()), Err(expected));
}

#[test]
fn requests_are_parsed_strictly() {
    let parsed = AddCheckpoint::parse(SPECIFICATION.as_bytes()).unwrap();
    assert_eq!((parsed.old, parsed.consistency.hashes().len()), (20_852_014, 4));
    assert_eq!(parsed.to_string(), SPECIFICATION);
    let parse = |from: &str, to: &str| {
        assert!(SPECIFICATION.contains(from), "{from}");
        AddCheckpoint::parse(SPECIFICATION.replacen(from, to, 1).as_bytes()).map(|_| ())
    };
    for (from, to, error) in [
        ("old 2", "old 02", AddCheckpointFormatError::Old),
        ("old 2", "old  2", AddCheckpointFormatError::Old),
        ("old 2", "Old 2", AddCheckpointFormatError::Old),
        ("old 20852014\n", "", AddCheckpointFormatError::Old),
        ("old 20852014\n", "old 20852014\r\n", AddCheckpointFormatError::Old),
        ("old 20852014\n", "old 20852014\nx\n", AddCheckpointFormatError::Hashes),
        ("kaw=", "kax=", AddCheckpointFormatError::Hashes),
    ] {
        assert_eq!(parse(from, to), Err(error), "{to}");
    }
    let many = |count: usize| format!("old 20852014\n{}", format!("{}\n", Hash::EMPTY_ROOT).repeat(count));
    assert_eq!(parse("old 20852014\n", &many(63 - 4)), Ok(()));
    assert_eq!(parse("old 20852014\n", &many(63 - 3)), Err(AddCheckpointFormatError::Hashes));
    assert_eq!(AddCheckpoint::parse(&vec![b'a'; ADD_CHECKPOINT_MAX + 1]), Err(AddCheckpointFormatError::Length));
    let bytes = request(7, 12).to_string().into_bytes();
    let kept = head(&leaves(7));
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let accepted = AddCheckpoint::parse(&altered).is_ok_and(|request| request.accept(&kept, &policy()).is_ok());
        // Only signatures of keys that the policy does not know may be any: here the witness's, which comes last.
        let text = String::from_utf8_lossy(&bytes).rfind('\u{2014}').unwrap();
        assert!(!accepted || bit / 8 > text, "bit {bit}");
    }
}
