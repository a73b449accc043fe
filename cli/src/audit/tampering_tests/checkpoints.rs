//! Checkpoints, keys and proofs that are not of this log, and logs written anew.

use std::fs;

use otherix_tlog::{EntryProof, Hash, InclusionProof, Policy, SignatureKind, SignerKey, TreeHead};

use super::{Export, event, events, key, lines, note, origin};
use crate::audit::folder::ExportFolder;
use crate::audit::prove::from_export;
use crate::audit::verify::{Known, VerifyError, verify};

#[test]
fn the_log_written_anew_under_the_same_key() {
    let (all, key) = (events(600), key(1, 1));
    let mut other = all.clone();
    other[299] = event(300, 1, "other");
    let rewritten = || Export::of(&other, &key);
    rewritten().assert_right();
    rewritten().older("kept", &note(&all[..299], &key)).assert_right();
    for size in [300, 301, 599] {
        rewritten().older("kept", &note(&all[..size], &key)).assert_fault(None, "was written anew");
    }
}

#[test]
fn the_same_size_with_another_root() {
    let (all, key) = (events(600), key(1, 1));
    let mut other = all.clone();
    other[599] = event(600, 1, "other");
    Export::of(&other, &key).older("kept", &note(&all, &key)).assert_fault(None, "its first 600 events are others");
    let forged = Export::with(&other, &all, &note(&all, &key), key.public_key().clone(), None);
    forged.assert_fault(Some(600), "not the one that was signed");
}

#[test]
fn another_origin_cluster_or_epoch() {
    let all = events(10);
    let other = "otherix.dev/0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c12/1";
    let foreign = SignerKey::from_seed(other.parse().unwrap(), SignatureKind::Note, &[1; 32]);
    Export::of(&all, &foreign).assert_fault(Some(1), "is one of");
    Export::of(&all, &key(2, 1)).assert_fault(None, "of epoch 2, which none of its events begins");
    // The right key, with the checkpoint of another log.
    let export = Export::with(&all, &all, &note(&all, &foreign), key(1, 1).public_key().clone(), None);
    export.assert_fault(None, "not to be believed");
    let elsewhere = SignerKey::from_seed("elsewhere".parse().unwrap(), SignatureKind::Note, &[1; 32]);
    Export::of(&all, &elsewhere).assert_fault(None, "not the name of a log");
    Export::of(&all, &key(1, 1)).older("kept", &note(&all, &foreign)).assert_fault(None, "it is one of");
    Export::of(&all, &key(1, 1)).older("kept", &note(&all, &key(2, 1))).assert_fault(None, "of epoch 2");
    let mut wrong = all.clone();
    wrong[4] = event(5, 2, "text");
    Export::of(&wrong, &key(1, 1)).assert_fault(Some(5), "of epoch 2, not of epoch 1");
}

#[test]
fn unknown_keys_colliding_ids_and_wrong_signatures() {
    let (all, key, other) = (events(10), key(1, 1), key(1, 2));
    let with = |note: &str| Export::with(&all, &all, note, key.public_key().clone(), None);
    with(&note(&all, &other)).assert_fault(None, "not to be believed");
    // The id of the known key in the signature of another.
    let genuine = note(&all, &key);
    let (text, line) = genuine.split_once("\n\n").unwrap();
    let id = |line: &str| base64(line.rsplit(' ').next().unwrap())[..4].to_vec();
    let forged = note(&all, &other);
    let signature = base64(forged.trim_end().rsplit(' ').next().unwrap())[4..].to_vec();
    let colliding = format!("{text}\n\n— {} {}\n", origin(1), to_base64(&[id(line.trim_end()), signature].concat()));
    with(&colliding).assert_fault(None, "not to be believed");
    // Beside a good one.
    with(&format!("{genuine}{}", colliding.split_once("\n\n").unwrap().1)).assert_fault(None, "not to be believed");
    // A witness's key in place of the log's.
    let witness = SignerKey::from_seed(origin(1).parse().unwrap(), SignatureKind::Cosignature, &[1; 32]);
    let mut export = with(&genuine);
    export.known.key = witness.public_key().clone();
    export.assert_fault(None, "not to be believed");
    with(&genuine).assert_right();
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn to_base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn malformed_checkpoints() {
    let all = events(10);
    let edits: [fn(String) -> String; 6] = [
        |text| text.replace("\n10\n", "\n010\n"),
        |text| text.replace("\n10\n", "\r\n10\n"),
        |text| text.replace("\n10\n", "\n10\t\n"),
        |text| text.trim_end().to_owned(),
        |text| text.replace("=\n", "\n"),
        |text| text.replace("\n10\n", "\n11\n"),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let export = Export::of(&all, &key(1, 1));
        export.edit("checkpoint", edit);
        assert!(export.verify().is_err(), "{number}");
    }
}

#[test]
fn proofs_with_a_hash_missing_extra_or_reordered_or_another_index() {
    let (all, key) = (events(600), key(1, 1));
    let export = Export::of(&all, &key);
    let policy = Policy::of_log(key.public_key().clone()).unwrap();
    let proof = from_export(&export.path(), key.public_key().clone(), 42).unwrap();
    assert_eq!(EntryProof::parse(proof.to_string().as_bytes()).unwrap(), proof);
    assert_eq!((proof.index, proof.extra.as_deref()), (41, Some(all[41].as_slice())));
    proof.verify_extra(&policy).unwrap();
    let hashes = proof.inclusion.hashes().to_vec();
    let mut changed = vec![hashes[1..].to_vec(), [hashes.clone(), vec![hashes[0]]].concat()];
    changed.push([vec![hashes[1], hashes[0]], hashes[2..].to_vec()].concat());
    for hashes in changed {
        let inclusion = InclusionProof::new(hashes).unwrap();
        EntryProof { inclusion, ..proof.clone() }.verify_extra(&policy).unwrap_err();
    }
    for index in [40, 42, 600] {
        EntryProof { index, ..proof.clone() }.verify_extra(&policy).unwrap_err();
    }
    EntryProof { extra: Some(all[42].clone()), ..proof.clone() }.verify_extra(&policy).unwrap_err();
    from_export(&export.path(), key.public_key().clone(), 601).unwrap_err();
}

#[test]
fn a_size_that_is_not_signed_counts_for_nothing() {
    // The tiles of a larger tree, and the events of it: what is signed is the smaller one.
    let (all, key) = (events(600), key(1, 1));
    let export = Export::with(&all[..599], &all, &note(&all[..599], &key), key.public_key().clone(), None);
    assert!(export.verify().is_err(), "the partial tile is that of another size");
    let export = Export::of(&all, &key);
    export.edit("checkpoint", |text| text.replacen("\n600\n", "\n512\n", 1));
    export.assert_fault(None, "not to be believed");
}

#[test]
fn an_empty_log_has_one_root() {
    let key = key(1, 1);
    TreeHead::new(0, Hash::of_leaf(b"")).unwrap_err();
    let export = Export::of(&[], &key);
    export.edit("checkpoint", |text| text.replace(&Hash::EMPTY_ROOT.to_string(), &Hash::of_leaf(b"").to_string()));
    export.assert_fault(None, "not to be believed");
    Export::of(&[], &key).assert_right();
    lines(Vec::clear).assert_fault(Some(1), "there are no more");
}

#[test]
fn the_key_of_an_export_is_not_trusted() {
    let (all, forger) = (events(10), key(1, 9));
    let export = Export::of(&all, &forger);
    for name in ["key", "vkey", "log.vkey"] {
        fs::write(export.path().join(name), format!("{}\n", forger.public_key())).unwrap();
    }
    let known = Known { key: key(1, 1).public_key().clone(), ..export.known.clone() };
    let folder = ExportFolder::open(&export.path()).unwrap();
    assert!(matches!(verify(&folder, &known), Err(VerifyError::Fault(_))));
}
