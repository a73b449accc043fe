//! `.tlog-proof` files.

use otherix_tlog::entry_proof::{ENTRY_PROOF_MAX, EXTRA_MAX, EntryProofFormatError};
use otherix_tlog::note::NOTE_MAX;
use otherix_tlog::{CheckpointError, EntryProof, EntryProofError, Hash, Note, Policy, ProofError};

use crate::common::{entry, entry_proof, log_key, signed_checkpoint, witness};

fn policy() -> Policy {
    Policy::of_log(log_key().public_key().clone()).unwrap()
}

#[test]
fn proofs_print_parse_and_verify() {
    for (index, size) in [(0, 1), (0, 2), (6, 7), (3, 8), (255, 256), (299, 300)] {
        let proof = entry_proof(index, size);
        let text = proof.to_string();
        assert_eq!(EntryProof::parse(text.as_bytes()), Ok(proof.clone()));
        let verified = proof.verify_extra(&policy()).unwrap();
        assert_eq!(verified.checkpoint().head().size(), size as u64);
        let bare = EntryProof { extra: None, ..proof.clone() };
        assert_eq!(EntryProof::parse(bare.to_string().as_bytes()), Ok(bare.clone()));
        bare.verify(&Hash::of_leaf(entry(index).as_bytes()), &policy()).unwrap();
        assert_eq!(bare.verify_extra(&policy()), Err(EntryProofError::NoEntry));
        let other = bare.verify(&Hash::of_leaf(b"another"), &policy());
        assert_eq!(other, Err(EntryProofError::Inclusion(ProofError::Leaf)));
        let empty = EntryProof { extra: Some(Vec::new()), ..proof };
        assert_eq!(EntryProof::parse(empty.to_string().as_bytes()), Ok(empty));
    }
}

#[test]
fn the_format_is_that_of_the_specification() {
    let text = entry_proof(2, 3).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["c2sp.org/tlog-proof@v1", "extra ZW50cnkgMg==", "index 2"]);
    assert_eq!((lines[3].len(), lines[4]), (44, ""));
    assert_eq!(lines[5..].join("\n") + "\n", signed_checkpoint(3).to_string());
}

#[test]
fn every_changed_bit_is_found() {
    let policy = policy().with_witnesses(vec![witness(1).public_key().clone()], 1);
    let text = entry_proof(4, 7).to_string();
    EntryProof::parse(text.as_bytes()).unwrap().verify_extra(&policy).unwrap();
    let verified = |bytes: &[u8]| EntryProof::parse(bytes).is_ok_and(|proof| proof.verify_extra(&policy).is_ok());
    for bit in 0..text.len() * 8 {
        let mut altered = text.as_bytes().to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!verified(&altered), "bit {bit}");
    }
    for end in 0..text.len() {
        assert!(!verified(&text.as_bytes()[..end]), "byte {end}");
    }
}

#[test]
fn malformed_proofs_are_refused() {
    let text = entry_proof(4, 7).to_string();
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        EntryProof::parse(text.replacen(from, to, 1).as_bytes()).map(|_| ())
    };
    let hash = Hash::EMPTY_ROOT.to_string();
    for (from, to, error) in [
        ("proof@v1", "proof@v2", EntryProofFormatError::Header),
        ("c2sp", "\u{feff}c2sp", EntryProofFormatError::Header),
        ("extra ZW50cnkgNA==", "extra ZW50cnkgNA=", EntryProofFormatError::Extra),
        ("extra ZW50cnkgNA==", "extra  ZW50cnkgNA==", EntryProofFormatError::Extra),
        ("extra ZW50cnkgNA==", "extra", EntryProofFormatError::Index),
        ("extra ZW50cnkgNA==", "extra eA==\nextra eA==", EntryProofFormatError::Index),
        ("index 4", "index 04", EntryProofFormatError::Index),
        ("index 4", "index -4", EntryProofFormatError::Index),
        ("index 4", "index 18446744073709551616", EntryProofFormatError::Index),
        ("index 4\n", "", EntryProofFormatError::Index),
        ("index 4\n", "index 4\nindex 4\n", EntryProofFormatError::Hashes),
        ("index 4\n", "index 4\r\n", EntryProofFormatError::Index),
        ("index 4\n", "index 4\nx\n", EntryProofFormatError::Hashes),
    ] {
        assert_eq!(parse(from, to), Err(error), "{to}");
    }
    // A blank line ends the hashes: what follows is no checkpoint, but may be a note.
    let note = EntryProof::parse(text.replacen("index 4\n", "index 4\n\n", 1).as_bytes()).unwrap();
    assert!(matches!(note.verify_extra(&policy()), Err(EntryProofError::Checkpoint(_))));
    // At most 64 hashes are read.
    let many = |count: usize| format!("index 4\n{}", format!("{hash}\n").repeat(count));
    assert_eq!(parse("index 4\n", &many(64 - 3)), Ok(()));
    assert_eq!(parse("index 4\n", &many(64 - 2)), Err(EntryProofFormatError::Hashes));
    assert_eq!(parse("index 4\n", &many(10_000)), Err(EntryProofFormatError::Hashes));
    assert_eq!(EntryProof::parse(&vec![b'a'; ENTRY_PROOF_MAX + 1]), Err(EntryProofFormatError::Length));
    let large = |len| EntryProof { extra: Some(vec![0; len]), ..entry_proof(0, 1) }.to_string();
    assert!(EntryProof::parse(large(EXTRA_MAX).as_bytes()).is_ok());
    assert_eq!(EntryProof::parse(large(EXTRA_MAX + 1).as_bytes()), Err(EntryProofFormatError::Extra));
    // The longest of all fits.
    let longest = text.replace("ZW50cnkgNA==", &"A".repeat(EXTRA_MAX.div_ceil(3) * 4)).len() + NOTE_MAX;
    assert!(longest + 64 * 45 < ENTRY_PROOF_MAX + text.len());
}

#[test]
fn entries_do_not_change_places() {
    let (four, five) = (entry_proof(4, 7), entry_proof(5, 7));
    let index = EntryProof { index: 5, ..four.clone() };
    assert_eq!(index.verify_extra(&policy()), Err(EntryProofError::Inclusion(ProofError::Leaf)));
    let extra = EntryProof { extra: five.extra.clone(), ..four.clone() };
    assert_eq!(extra.verify_extra(&policy()), Err(EntryProofError::Inclusion(ProofError::Leaf)));
    // The path is the same in a tree of another size; its root is not.
    let size = EntryProof { checkpoint: signed_checkpoint(8), ..four.clone() };
    assert_eq!(size.verify_extra(&policy()), Err(EntryProofError::Inclusion(ProofError::Leaf)));
    // The size is covered by the signature.
    let size = Note::parse(four.checkpoint.to_string().replacen("\n7\n", "\n8\n", 1).as_bytes()).unwrap();
    let size = EntryProof { checkpoint: size, ..four };
    assert!(matches!(size.verify_extra(&policy()), Err(EntryProofError::Checkpoint(CheckpointError::Signatures(_)))));
}
