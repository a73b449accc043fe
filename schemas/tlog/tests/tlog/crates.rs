//! Other implementations in Rust: `tlog_tiles` and `signed_note` (Cloudflare), `ct-merkle`.

use std::collections::HashMap;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use otherix_tlog::proof::MakeProofError;
use otherix_tlog::tile::{TILE_WIDTH, TileError, new_tiles};
use otherix_tlog::{
    Checkpoint, ConsistencyProof, Hash, HashSource, InclusionProof, Node, Note, Policy, SignatureKind, SignerKey, Tile,
    TreeHead, VerifiedTiles,
};
use proptest::prelude::*;
use sha2::Sha256;
use signed_note::{Signer, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{HashReader, TileHashReader, TileReader};

use crate::common::{MemoryTiles, ORIGIN, entry, head, leaves, log_key, signed_checkpoint};

/// Their tile for one of ours.
fn their_tile(tile: Tile) -> tlog_tiles::Tile {
    tlog_tiles::Tile::new(8, tile.level(), tile.index(), u32::from(tile.width()), false)
}

fn their_hash(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash.as_bytes())
}

/// Our tiles, for their reader.
struct Tiles(HashMap<tlog_tiles::Tile, Vec<u8>>);

impl TileReader for Tiles {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        Ok(tiles.iter().map(|tile| self.0[tile].clone()).collect())
    }

    fn save_tiles(&self, _tiles: &[tlog_tiles::Tile], _data: &[Vec<u8>]) {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn tlog_tiles_reads_our_tiles_and_makes_our_proofs(
        size in 1_usize..3000, old: prop::sample::Index, index: prop::sample::Index
    ) {
        let leaves = leaves(size);
        let (tree, old, index) = (head(&leaves), old.index(size) + 1, index.index(size));
        let tiles = MemoryTiles::of(&leaves, &[size]);
        let theirs = Tiles(tiles.0.iter().map(|(tile, bytes)| (their_tile(*tile), bytes.clone())).collect());
        let reader = TileHashReader::new(size as u64, their_hash(tree.root()), &theirs);
        let mut ours = VerifiedTiles::open(&tree, tiles).unwrap();
        let (size, old, index) = (size as u64, old as u64, index as u64);

        let stored = reader.read_hashes(&[tlog_tiles::stored_hash_index(0, index)]).unwrap();
        prop_assert_eq!(stored[0].0, *leaves[index as usize].as_bytes());
        let proof = InclusionProof::make(index, size, &mut ours).unwrap();
        let path: Vec<_> = proof.hashes().iter().map(their_hash).collect();
        prop_assert_eq!(&tlog_tiles::prove_record(size, index, &reader).unwrap(), &path);
        let leaf = their_hash(&leaves[index as usize]);
        prop_assert!(tlog_tiles::check_record(&path, size, their_hash(tree.root()), index, leaf).is_ok());

        let older = head(&leaves[..old as usize]);
        let proof = ConsistencyProof::make(old, size, &mut ours).unwrap();
        let hashes: Vec<_> = proof.hashes().iter().map(their_hash).collect();
        prop_assert_eq!(&tlog_tiles::prove_tree(size, old, &reader).unwrap(), &hashes);
        let roots = [tree, older].map(|head| their_hash(head.root()));
        prop_assert!(tlog_tiles::check_tree(&hashes, size, roots[0], old, roots[1]).is_ok());
    }

    #[test]
    fn tlog_tiles_has_the_same_tiles_and_paths(old in 0_u64..1 << 40, new in 0_u64..100_000) {
        let new = old + new;
        // Their paths have the height.
        let path = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        let mut theirs: Vec<String> = tlog_tiles::Tile::new_tiles(8, old, new).iter().map(path).collect();
        let mut ours: Vec<String> = new_tiles(old, new).map(|tile| tile.to_string()).collect();
        theirs.sort();
        ours.sort();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn ct_merkle_has_the_same_roots_and_proofs(size in 1_usize..600, choice: prop::sample::Index) {
        let mut tree = MemoryBackedTree::<Sha256, String>::new();
        (0..size).for_each(|index| tree.push(entry(index)));
        let leaves = leaves(size);
        let (ours, index) = (head(&leaves), choice.index(size));
        let root = tree.root();
        prop_assert_eq!(&root.as_bytes()[..], ours.root().as_bytes());
        let mut tiles = VerifiedTiles::open(&ours, MemoryTiles::of(&leaves, &[size])).unwrap();
        let proof = InclusionProof::make(index as u64, size as u64, &mut tiles).unwrap();
        let bytes: Vec<u8> = proof.hashes().iter().flat_map(|hash| *hash.as_bytes()).collect();
        prop_assert_eq!(tree.prove_inclusion(index).as_bytes().to_vec(), bytes);
        let proof = ConsistencyProof::make(index as u64 + 1, size as u64, &mut tiles).unwrap();
        let bytes: Vec<u8> = proof.hashes().iter().flat_map(|hash| *hash.as_bytes()).collect();
        prop_assert_eq!(tree.prove_consistency(size - index - 1).as_bytes().to_vec(), bytes);
    }

    #[test]
    fn proofs_that_one_refuses_the_other_refuses(
        size in 1_u64..40, index in 0_u64..45, len in 0_usize..7, path in prop::collection::vec(0_usize..40, 7)
    ) {
        // Paths made of hashes of the tree, so that some are right.
        let leaves = leaves(size as usize);
        let tree = head(&leaves);
        let mut tiles = VerifiedTiles::open(&tree, MemoryTiles::of(&leaves, &[size as usize])).unwrap();
        let right = InclusionProof::make(index.min(size - 1), size, &mut tiles).unwrap();
        let mut hashes = right.hashes().to_vec();
        hashes.resize(len.max(hashes.len().saturating_sub(1)), leaves[path[0] % leaves.len()]);
        let leaf = leaves[index.min(size - 1) as usize];
        let theirs: Vec<_> = hashes.iter().map(their_hash).collect();
        let theirs = index < size
            && tlog_tiles::check_record(&theirs, size, their_hash(tree.root()), index, their_hash(&leaf)).is_ok();
        let ours = InclusionProof::new(hashes).unwrap().verify(&leaf, index, &tree).is_ok();
        prop_assert_eq!(ours, theirs);
    }
}

#[test]
fn a_tile_that_tlog_tiles_does_not_verify_is_refused() {
    // The root of this tree follows from three hashes of one tile. tlog_tiles (like Go's x/mod, which it is a port of)
    // takes the number of hashes for that of tiles, and does not compare the first ones that it reads with their
    // parents.
    let size = 7 * 256;
    let leaves = leaves(size);
    let tree = head(&leaves);
    let mut tiles = MemoryTiles::of(&leaves, &[size]);
    let tile = Tile::new(0, 0, TILE_WIDTH).unwrap();
    tiles.0.get_mut(&tile).unwrap()[0] ^= 1;

    let theirs = Tiles(tiles.0.iter().map(|(tile, bytes)| (their_tile(*tile), bytes.clone())).collect());
    let reader = TileHashReader::new(size as u64, their_hash(tree.root()), &theirs);
    let stored = reader.read_hashes(&[tlog_tiles::stored_hash_index(0, 0)]);
    let forged = stored.expect("tlog_tiles verifies the tile now: adapt docs/adr/0031")[0];
    assert_ne!(forged.0, *leaves[0].as_bytes());

    let mut ours = VerifiedTiles::open(&tree, tiles).unwrap();
    assert_eq!(ours.hash(Node::leaf(0)), Err(TileError::Tile(tile)));
    let error = InclusionProof::make(0, size as u64, &mut ours).unwrap_err();
    assert_eq!(error, MakeProofError::Source(TileError::Tile(tile)));
}

#[test]
fn signed_note_verifies_our_checkpoints() {
    let note = signed_checkpoint(300);
    let vkey = log_key().public_key().to_string();
    let known = VerifierList::new(vec![Box::new(StandardVerifier::new(&vkey).unwrap())]);
    let theirs = signed_note::Note::from_bytes(note.to_string().as_bytes()).unwrap();
    let (verified, unverified) = theirs.verify(&known).unwrap();
    assert_eq!((verified.len(), unverified.len()), (1, 1));
    assert_eq!(theirs.to_bytes(), note.to_string().as_bytes());
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(theirs.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, 300));
    assert_eq!(checkpoint.hash().0, *head(&leaves(300)).root().as_bytes());
    let altered = note.to_string().replacen("\n300\n", "\n301\n", 1);
    assert!(signed_note::Note::from_bytes(altered.as_bytes()).unwrap().verify(&known).is_err());
}

#[test]
fn we_verify_notes_of_signed_note() {
    let key = log_key();
    let signer = StandardSigner::new(&key.to_text()).unwrap();
    assert_eq!(signer.key_id(), key.public_key().id());
    let head = TreeHead::new(5, Hash::of_leaf(b"x")).unwrap();
    let text = tlog_tiles::Checkpoint::new(ORIGIN, 5, their_hash(head.root()), "").unwrap().to_bytes();
    let mut theirs = signed_note::Note::new(&text, &[]).unwrap();
    theirs.add_sigs(&[&signer]).unwrap();
    let verified = Policy::of_log(key.public_key().clone()).unwrap().verify(&theirs.to_bytes()).unwrap();
    assert_eq!(verified.checkpoint().head(), &head);
    let ours: Note = Checkpoint::new(ORIGIN.parse().unwrap(), head).sign(&key).unwrap();
    assert_eq!(ours.to_string().as_bytes(), theirs.to_bytes());
    // Their key file is ours.
    let skey = SignerKey::from_seed(ORIGIN.parse().unwrap(), SignatureKind::Note, &[1; 32]);
    assert_eq!(*skey.to_text(), *key.to_text());
}
