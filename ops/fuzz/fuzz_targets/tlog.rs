//! The formats of the transparency log, as a verifier reads them from files and messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otherix_tlog::tile::Resource;
use otherix_tlog::{
    AddCheckpoint, Bundle, Checkpoint, ConsistencyProof, EntryProof, Hash, InclusionProof, Note, Policy, RightEdge,
    SignatureKind, SignerKey, TreeHead, VerifierKey,
};

/// The key of a log that has signed nothing.
fn policy() -> Policy {
    let key = SignerKey::from_seed("fuzz.example/log".parse().unwrap(), SignatureKind::Note, &[9; 32]);
    Policy::of_log(key.public_key().clone()).unwrap()
}

fn texts(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        assert!(policy().verify_note(&note).is_err());
    }
    if let Ok(proof) = EntryProof::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
        assert!(proof.verify_extra(&policy()).is_err());
    }
    if let Ok(request) = AddCheckpoint::parse(bytes) {
        assert_eq!(request.to_string().as_bytes(), bytes);
        assert!(request.accept(&TreeHead::EMPTY, &policy()).is_err());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(resource) = text.parse::<Resource>() {
        assert_eq!(resource.to_string(), text);
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = SignerKey::from_text(text) {
        assert_eq!(key.to_text().as_str(), text);
    }
}

/// Proofs in trees of any size: the root is one that no path leads to.
fn proofs(one: u64, other: u64, bytes: &[u8]) {
    let (chunks, _) = bytes.as_chunks::<32>();
    let hashes: Vec<Hash> = chunks.iter().copied().map(Hash::new).collect();
    let tree = |size| TreeHead::new(size, Hash::of_leaf(b"fuzz"));
    let (Ok(older), Ok(newer)) = (tree(one), tree(other)) else { return };
    if let Some(proof) = InclusionProof::new(hashes.clone()) {
        assert!(proof.verify(&Hash::EMPTY_ROOT, one, &newer).is_err());
    }
    if let Some(proof) = ConsistencyProof::new(hashes) {
        assert_eq!(proof.verify(&older, &newer).is_ok(), one == other && proof.hashes().is_empty());
    }
}

fuzz_target!(|bytes: &[u8]| {
    texts(bytes);
    if let Ok(edge) = RightEdge::from_bytes(bytes) {
        assert_eq!(edge.to_bytes(), bytes);
        let _root = edge.root();
    }
    if let Some((numbers, rest)) = bytes.split_first_chunk::<16>() {
        let (one, other) = numbers.split_at(8);
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        proofs(number(one), number(other), rest);
    }
    if let Some((width, rest)) = bytes.split_first()
        && let Some(bundle) = Bundle::new(0, u16::from(*width))
        && let Ok(entries) = bundle.decode(rest)
    {
        assert_eq!(bundle.encode(entries).as_deref(), Ok(rest));
    }
});
