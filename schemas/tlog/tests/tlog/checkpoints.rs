//! Checkpoints, cosignatures and policies.

use otherix_tlog::checkpoint::{CheckpointFormatError, SignCheckpointError};
use otherix_tlog::note::{KeyError, TIMESTAMP_MAX};
use otherix_tlog::{
    Checkpoint, CheckpointError, Hash, KeyName, Note, Policy, SignatureKind, SignerKey, TreeHead, VerifierKey,
};

use crate::common::{ORIGIN, key, log_key, signed_checkpoint, witness};

/// C2SP tlog-cosignature.
const SPECIFICATION: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zy\
    WE+xeMcTOAYQ8=\n\u{2014} witness.example.com/w1 \
    jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

fn public(key: &SignerKey) -> VerifierKey {
    key.public_key().clone()
}

fn policy() -> Policy {
    Policy::of_log(public(&log_key())).unwrap()
}

fn verify(policy: &Policy, note: &Note) -> Result<u64, CheckpointError> {
    policy.verify(note.to_string().as_bytes()).map(|verified| verified.checkpoint().head().size())
}

#[test]
fn example_of_the_specification() {
    let note = Note::parse(SPECIFICATION.as_bytes()).unwrap();
    assert_eq!(note.to_string(), SPECIFICATION);
    let checkpoint: Checkpoint = note.text().parse().unwrap();
    assert_eq!((checkpoint.origin().as_str(), checkpoint.head().size()), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.head().root().to_string(), "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=");
    assert_eq!(checkpoint.to_string(), note.text());
    let w1 = &note.signatures()[1];
    assert_eq!((w1.name().as_str(), w1.key_id()), ("witness.example.com/w1", 0x8d66_cf3f));
    assert_eq!(w1.signature()[..8], 1_679_315_147_u64.to_be_bytes());
}

#[test]
fn malformed_checkpoints_are_refused() {
    let good = "example.com/log\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let parse = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1).parse::<Checkpoint>()
    };
    assert_eq!(parse("7", "7").unwrap().to_string(), good);
    for size in ["07", "+7", "-7", "7 ", " 7", "", "7.0", "0x7", "18446744073709551616", "\u{667}"] {
        assert_eq!(parse("7", size), Err(CheckpointFormatError::Size), "{size}");
    }
    assert_eq!(parse("7", "18446744073709551615").unwrap().head().size(), u64::MAX);
    assert!(matches!(parse("7", "0"), Err(CheckpointFormatError::Empty(_))));
    for root in ["q2J=", "q2I", "q2I= ", "q2I=\r", "2I=="] {
        assert!(matches!(parse("q2I=", root), Err(CheckpointFormatError::Root(_))), "{root}");
    }
    for (from, to) in
        [("example.com/log\n", ""), ("I=\n", "I="), ("I=\n", "I=\n\n"), ("I=\n", "I=\nx\n\n"), ("I=\n", "")]
    {
        assert!(parse(from, to).is_err(), "{to:?}");
    }
    for origin in ["", "example com", "a+b"] {
        assert_eq!(parse("example.com/log", origin), Err(CheckpointFormatError::Origin), "{origin}");
    }
    let extended = parse("I=\n", "I=\none\ntwo three\n").unwrap();
    assert_eq!(extended.extensions(), ["one", "two three"]);
    assert!(extended.to_string().ends_with("I=\none\ntwo three\n"));
    let empty = Checkpoint::new("example.com/log".parse().unwrap(), TreeHead::EMPTY);
    assert_eq!(empty.to_string().parse(), Ok(empty));
}

#[test]
fn only_the_log_is_believed() {
    let note = signed_checkpoint(10);
    assert_eq!(verify(&policy(), &note), Ok(10));
    // A log of the same key in another epoch, and one of another key with the same name.
    let next = ORIGIN.replace("/1", "/2");
    for other in [key(&next, SignatureKind::Note, 1), key(ORIGIN, SignatureKind::Note, 2)] {
        let policy = Policy::of_log(public(&other)).unwrap();
        assert!(matches!(verify(&policy, &note), Err(CheckpointError::Signatures(_))), "{other:?}");
    }
    // Signed by the right key, as the checkpoint of another log.
    let origin: KeyName = next.parse().unwrap();
    let checkpoint = Checkpoint::new(origin, TreeHead::EMPTY);
    assert_eq!(checkpoint.sign(&log_key()), Err(SignCheckpointError::Origin));
    let mut note = Note::new(checkpoint.to_string()).unwrap();
    note.add(log_key().sign(&note).unwrap()).unwrap();
    assert!(matches!(verify(&policy(), &note), Err(CheckpointError::OtherOrigin { .. })));
    // Signed by the right key, but no checkpoint.
    let mut note = Note::new("text\n".to_owned()).unwrap();
    note.add(log_key().sign(&note).unwrap()).unwrap();
    assert!(matches!(verify(&policy(), &note), Err(CheckpointError::Format(_))));
}

#[test]
fn kinds_of_keys_are_not_confused() {
    // The same seed and name, as a log's and as a witness's key.
    let (log, cosigner) = (log_key(), key(ORIGIN, SignatureKind::Cosignature, 1));
    assert_ne!(log.public_key().id(), cosigner.public_key().id());
    assert!(matches!(Policy::of_log(public(&cosigner)), Err(CheckpointError::Key)));
    let checkpoint = Checkpoint::new(ORIGIN.parse().unwrap(), TreeHead::EMPTY);
    assert_eq!(checkpoint.sign(&cosigner), Err(SignCheckpointError::Key(KeyError::OtherKind)));
    let mut note = Note::new(checkpoint.to_string()).unwrap();
    assert_eq!(Checkpoint::cosign(&mut note, &log, 1), Err(SignCheckpointError::Key(KeyError::OtherKind)));
    Checkpoint::cosign(&mut note, &cosigner, 1).unwrap();
    assert!(matches!(verify(&policy(), &note), Err(CheckpointError::Signatures(_))));
    let known = policy().with_witnesses(vec![public(&cosigner)], 1);
    assert_eq!(verify(&known, &note), Err(CheckpointError::NotOfLog));
    // A log's key among the witnesses does not count as one.
    let known = policy().with_witnesses(vec![public(&log)], 1);
    let expected = CheckpointError::Witnesses { needed: 1, found: 0 };
    assert_eq!(verify(&known, &checkpoint.sign(&log).unwrap()), Err(expected));
}

#[test]
fn witnesses_are_counted_once() {
    let witnesses: Vec<VerifierKey> = (1..=3).map(|number| public(&witness(number))).collect();
    let needs = |quorum| policy().with_witnesses(witnesses.clone(), quorum);
    let mut note = signed_checkpoint(10);
    assert_eq!(verify(&needs(1), &note), Ok(10));
    // The same witness again, at another time.
    Checkpoint::cosign(&mut note, &witness(1), 1_796_000_060).unwrap();
    assert_eq!(verify(&needs(2), &note), Err(CheckpointError::Witnesses { needed: 2, found: 1 }));
    // An unknown one.
    Checkpoint::cosign(&mut note, &witness(9), 1_796_000_060).unwrap();
    assert_eq!(verify(&needs(2), &note), Err(CheckpointError::Witnesses { needed: 2, found: 1 }));
    Checkpoint::cosign(&mut note, &witness(3), 1_796_000_061).unwrap();
    let verified = needs(2).verify_note(&note).unwrap();
    let times: Vec<u64> = verified.cosignatures().iter().map(|cosignature| cosignature.timestamp).collect();
    assert_eq!(times.len(), 2);
    assert!(times.contains(&1_796_000_061), "{times:?}");
    // The same key under another name.
    let alias = key("alias.example", SignatureKind::Cosignature, 101);
    Checkpoint::cosign(&mut note, &alias, 1_796_000_062).unwrap();
    let known = policy().with_witnesses([&witnesses[..1], &[public(&alias)]].concat(), 2);
    assert_eq!(verify(&known, &note), Err(CheckpointError::Witnesses { needed: 2, found: 1 }));
}

#[test]
fn cosignatures_are_of_checkpoints_at_a_time() {
    let note = signed_checkpoint(10);
    let known = policy().with_witnesses(vec![public(&witness(1))], 1);
    assert_eq!(known.verify_note(&note).unwrap().cosignatures()[0].timestamp, 1_796_000_000);
    // Of another checkpoint of the log.
    let other = signed_checkpoint(11);
    let mut mixed = Note::new(note.text().to_owned()).unwrap();
    mixed.add(note.signatures()[0].clone()).unwrap();
    mixed.add(other.signatures()[1].clone()).unwrap();
    assert!(matches!(verify(&known, &mixed), Err(CheckpointError::Signatures(_))));
    let mut text = Note::new("text\n".to_owned()).unwrap();
    assert!(matches!(Checkpoint::cosign(&mut text, &witness(1), 1), Err(SignCheckpointError::Format(_))));
    let mut last = signed_checkpoint(1);
    Checkpoint::cosign(&mut last, &witness(2), TIMESTAMP_MAX).unwrap();
    let too_late = Checkpoint::cosign(&mut last, &witness(2), TIMESTAMP_MAX + 1);
    assert_eq!(too_late, Err(SignCheckpointError::Key(KeyError::Timestamp)));
}

#[test]
fn every_changed_bit_is_found() {
    let note = signed_checkpoint(10).to_string();
    let known = policy().with_witnesses(vec![public(&witness(1))], 1);
    known.verify(note.as_bytes()).unwrap();
    for bit in 0..note.len() * 8 {
        let mut altered = note.as_bytes().to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(known.verify(&altered).is_err(), "bit {bit}");
    }
}

#[test]
fn one_size_has_one_root() {
    // What a log must never do: both are signed correctly, and only the comparison of the two shows it.
    let one = signed_checkpoint(10);
    let head = TreeHead::new(10, Hash::of_leaf(b"another")).unwrap();
    let two = Checkpoint::new(ORIGIN.parse().unwrap(), head).sign(&log_key()).unwrap();
    let heads = [one, two].map(|note| *policy().verify_note(&note).unwrap().checkpoint().head());
    let proof = otherix_tlog::ConsistencyProof::new(Vec::new()).unwrap();
    assert_eq!(proof.verify(&heads[0], &heads[1]), Err(otherix_tlog::ProofError::Inconsistent));
}
