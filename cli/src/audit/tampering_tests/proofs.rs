//! Files with a proof that an event is in the log.

use otherix_tlog::{EntryProof, Hash, InclusionProof};

use super::{Export, event, events, key, lines, note};
use crate::audit::prove::from_export;
use crate::audit::verify::Known;
use crate::audit::verify_proof::{VerifiedProof, verify_proof};
use crate::exit::Exit;
use crate::failure::Failure;

fn known() -> Known {
    Known::key_alone(key(1, 1).public_key().clone())
}

/// The proof of event 42 of 600.
fn proof() -> EntryProof {
    let export = Export::of(&events(600), &key(1, 1));
    from_export(&export.path(), key(1, 1).public_key().clone(), 42).unwrap()
}

fn verify(proof: &EntryProof, known: &Known) -> Result<VerifiedProof, Failure> {
    verify_proof(proof.to_string().as_bytes(), known)
}

#[track_caller]
fn refused(result: Result<VerifiedProof, Failure>, exit: Exit, text: &str) {
    let failure = result.unwrap_err();
    let message = &failure.body.error.message;
    assert_eq!(failure.exit, exit, "{message}");
    assert!(message.contains(text), "{message}");
}

#[test]
fn a_right_proof_and_what_it_does_not_prove() {
    let proof = proof();
    let verified = verify(&proof, &known()).unwrap();
    assert_eq!((verified.index, verified.size), (41, 600));
    assert_eq!(verified.event.as_bytes(), event(42, 1, "text"));
    assert!(verified.unproven.iter().any(|line| line.contains("written anew")), "{verified:?}");
    let kept = |bodies: &[Vec<u8>], key| vec![("kept".to_owned(), note(bodies, key).into_bytes())];
    let (all, key_1) = (events(600), key(1, 1));
    let with = |older| Known { older, ..known() };
    let verified = verify(&proof, &with(kept(&all[..500], &key_1))).unwrap();
    assert!(verified.unproven.iter().any(|line| line.contains("continues `kept`")), "{verified:?}");
    let same = verify(&proof, &with(kept(&all, &key_1))).unwrap();
    assert_eq!(same.unproven.len(), 1);
    // Somebody has kept another tree of the same size, or something of another key.
    let mut other = all.clone();
    other[599] = event(600, 1, "other");
    refused(verify(&proof, &with(kept(&other, &key_1))), Exit::Unexpected, "was written anew");
    refused(verify(&proof, &with(kept(&all, &key(1, 2)))), Exit::Unexpected, "`kept` cannot be used");
    let at_least = |min| Known { min_size: Some(min), ..known() };
    refused(verify(&proof, &at_least(601)), Exit::Unexpected, "has 600 events, and must have 601");
    verify(&proof, &at_least(600)).unwrap();
}

#[test]
fn proofs_that_are_false() {
    let proof = proof();
    let hashes = proof.inclusion.hashes().to_vec();
    let with = |hashes: Vec<Hash>| EntryProof { inclusion: InclusionProof::new(hashes).unwrap(), ..proof.clone() };
    let false_ones = [
        EntryProof { index: 42, ..proof.clone() },
        EntryProof { extra: Some(event(43, 1, "text")), ..proof.clone() },
        EntryProof { extra: None, ..proof.clone() },
        with(hashes[1..].to_vec()),
        with([vec![hashes[1], hashes[0]], hashes[2..].to_vec()].concat()),
    ];
    for proof in false_ones {
        assert_eq!(verify(&proof, &known()).unwrap_err().exit, Exit::Unexpected, "{proof:?}");
    }
    let other_key = Known::key_alone(key(1, 2).public_key().clone());
    assert_eq!(verify(&proof, &other_key).unwrap_err().exit, Exit::Unexpected);
}

#[test]
fn files_that_are_no_proofs() {
    let text = proof().to_string();
    let export = Export::of(&events(10), &key(1, 1));
    let checkpoint = std::fs::read(export.path().join("checkpoint")).unwrap();
    let files: [&[u8]; 8] = [
        b"",
        b"{}",
        b"\xff\xfe",
        &text.as_bytes()[..text.len() - 1],
        &text.as_bytes()[1..],
        &[text.as_bytes(), b"\n"].concat(),
        &text
            .as_bytes()
            .iter()
            .flat_map(|byte| if *byte == b'\n' { vec![13, 10] } else { vec![*byte] })
            .collect::<Vec<_>>(),
        &checkpoint,
    ];
    for file in files {
        let failure = verify_proof(file, &known()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{}", String::from_utf8_lossy(file));
        assert!(failure.body.error.message.starts_with("the file is no proof: "), "{}", failure.body.error.message);
    }
    let part = Known { is_part: true, ..known() };
    refused(verify_proof(text.as_bytes(), &part), Exit::Usage, "are for exports");
}

#[test]
fn no_proof_is_made_of_an_export_that_was_altered() {
    let made = |export: &Export, position| from_export(&export.path(), key(1, 1).public_key().clone(), position);
    let altered = lines(|bodies| bodies[41] = event(42, 1, "texT"));
    assert_eq!(made(&altered, 42).unwrap_err().exit, Exit::Unexpected);
    made(&altered, 43).unwrap();
    let foreign = Export::of(&events(10), &key(1, 2));
    assert_eq!(made(&foreign, 3).unwrap_err().exit, Exit::Unexpected);
    assert_eq!(made(&altered, 601).unwrap_err().exit, Exit::NotFound);
}
