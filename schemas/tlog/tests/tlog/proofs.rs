//! Proofs of inclusion and consistency: those of RFC 6962 verify, and whatever is changed is refused.

use crate::common::{MemoryHashes, MemoryTiles, Uniform, head, leaves, path, subproof};
use otherix_tlog::proof::{CONSISTENCY_HASHES_MAX, INCLUSION_HASHES_MAX, MakeProofError};
use otherix_tlog::source::root;
use otherix_tlog::{ConsistencyProof, Hash, HashSource, InclusionProof, Node, ProofError, TreeHead, VerifiedTiles};
use proptest::prelude::*;

fn inclusion(hashes: Vec<Hash>) -> InclusionProof {
    InclusionProof::new(hashes).unwrap()
}

fn consistency(hashes: Vec<Hash>) -> ConsistencyProof {
    ConsistencyProof::new(hashes).unwrap()
}

/// The hash with one bit changed.
fn flip(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Hash::new(bytes)
}

/// All lists that differ from this one by a bit, a hash that is missing, doubled or extra, or two that are swapped.
fn altered(hashes: &[Hash]) -> Vec<Vec<Hash>> {
    let mut lists = Vec::new();
    for index in 0..hashes.len() {
        for bit in 0..256 {
            let mut list = hashes.to_vec();
            list[index] = flip(&list[index], bit);
            lists.push(list);
        }
        let mut missing = hashes.to_vec();
        missing.remove(index);
        lists.push(missing);
        let mut doubled = hashes.to_vec();
        doubled.insert(index, hashes[index]);
        lists.push(doubled);
        for other in index + 1..hashes.len() {
            let mut swapped = hashes.to_vec();
            swapped.swap(index, other);
            lists.push(swapped);
        }
    }
    lists.push([hashes, &[Hash::EMPTY_ROOT]].concat());
    lists.push([&[Hash::EMPTY_ROOT], hashes].concat());
    if hashes.len() > 1 {
        lists.push(hashes.iter().rev().copied().collect());
    }
    lists
}

/// A size of a tree, often near powers of two.
fn size(max: usize) -> impl Strategy<Value = usize> {
    let near = (0_u32..max.ilog2(), 0_usize..3).prop_map(|(level, offset)| (1 << level) + offset - 1);
    prop_oneof![1..=max, near.prop_map(move |size| size.clamp(1, max))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn inclusion_is_proven_and_nothing_else(size in size(520), choice: prop::sample::Index) {
        let leaves = leaves(size);
        let (tree, index) = (head(&leaves), choice.index(size));
        let proof = InclusionProof::make(index as u64, size as u64, &mut MemoryHashes::of(&leaves)).unwrap();
        prop_assert_eq!(proof.hashes(), path(index, &leaves));
        let mut tiles = VerifiedTiles::open(&tree, MemoryTiles::of(&leaves, &[size])).unwrap();
        prop_assert_eq!(&InclusionProof::make(index as u64, size as u64, &mut tiles).unwrap(), &proof);
        prop_assert_eq!(proof.verify(&leaves[index], index as u64, &tree), Ok(()));
        for list in altered(proof.hashes()) {
            prop_assert!(inclusion(list).verify(&leaves[index], index as u64, &tree).is_err());
        }
        for bit in 0..256 {
            prop_assert!(proof.verify(&flip(&leaves[index], bit), index as u64, &tree).is_err());
            let other = TreeHead::new(size as u64, flip(tree.root(), bit)).unwrap();
            prop_assert_eq!(proof.verify(&leaves[index], index as u64, &other), Err(ProofError::Leaf));
        }
        for other in 0..size + 2 {
            let same = other == index;
            prop_assert_eq!(proof.verify(&leaves[index], other as u64, &tree).is_ok(), same, "{}", other);
            let leaf = leaves.get(other).unwrap_or(&Hash::EMPTY_ROOT);
            prop_assert_eq!(proof.verify(leaf, index as u64, &tree).is_ok(), same, "{}", other);
        }
        // The path of a leaf does not determine the size; a tree whose path has another length is refused.
        for other in (0..size + 70).filter(|other| path_len(index, *other) != Some(proof.hashes().len())) {
            let tree = TreeHead::new(other as u64, if other == 0 { Hash::EMPTY_ROOT } else { *tree.root() }).unwrap();
            prop_assert!(proof.verify(&leaves[index], index as u64, &tree).is_err(), "{}", other);
        }
    }

    #[test]
    fn consistency_is_proven_and_nothing_else(new in size(520), choice: prop::sample::Index) {
        let leaves = leaves(new);
        let old = choice.index(new + 1);
        let (older, newer) = (head(&leaves[..old]), head(&leaves));
        let proof = ConsistencyProof::make(old as u64, new as u64, &mut MemoryHashes::of(&leaves)).unwrap();
        let expected = if old == 0 { Vec::new() } else { subproof(old, &leaves, true) };
        prop_assert_eq!(proof.hashes(), expected);
        let mut tiles = VerifiedTiles::open(&newer, MemoryTiles::of(&leaves, &[new])).unwrap();
        prop_assert_eq!(&ConsistencyProof::make(old as u64, new as u64, &mut tiles).unwrap(), &proof);
        prop_assert_eq!(proof.verify(&older, &newer), Ok(()));
        prop_assert_eq!(proof.verify(&newer, &older).is_ok(), old == new);
        for list in altered(proof.hashes()) {
            prop_assert!(consistency(list).verify(&older, &newer).is_err());
        }
        for bit in 0..256 {
            if old > 0 {
                let other = TreeHead::new(old as u64, flip(older.root(), bit)).unwrap();
                prop_assert_eq!(proof.verify(&other, &newer), Err(ProofError::Inconsistent));
                let other = TreeHead::new(new as u64, flip(newer.root(), bit)).unwrap();
                prop_assert_eq!(proof.verify(&older, &other), Err(ProofError::Inconsistent));
            }
        }
        // Heads of other prefixes, and a history that differs in one leaf.
        for other in (1..=new).filter(|other| *other != old && old > 0) {
            prop_assert!(proof.verify(&head(&leaves[..other]), &newer).is_err(), "{}", other);
        }
        if old > 0 {
            let mut forked = leaves.clone();
            forked[choice.index(old)] = Hash::of_leaf(b"another");
            let forked_head = head(&forked);
            prop_assert_eq!(proof.verify(&older, &forked_head), Err(ProofError::Inconsistent));
            let proof = ConsistencyProof::make(old as u64, new as u64, &mut MemoryHashes::of(&forked)).unwrap();
            prop_assert_eq!(proof.verify(&older, &forked_head), Err(ProofError::Inconsistent));
        }
    }

    #[test]
    fn trees_of_any_size_have_proofs(old: u64, new: u64, index: u64, bit in 0_usize..256) {
        let (old, new) = (old.min(new).max(1), old.max(new).max(1));
        check_proofs(old, new, index % new, bit);
    }
}

/// The length of a path, by the definition.
fn path_len(index: usize, size: usize) -> Option<usize> {
    match size {
        _ if index >= size => None,
        1 => Some(0),
        _ => {
            let k = size.next_power_of_two() / 2;
            let below = if index < k { path_len(index, k) } else { path_len(index - k, size - k) };
            below.map(|len| len + 1)
        }
    }
}

/// Makes, verifies and falsifies proofs in a tree whose leaves are all the same.
fn check_proofs(old: u64, new: u64, index: u64, bit: usize) {
    let mut uniform = Uniform::new();
    let leaf = uniform.leaf();
    let older = TreeHead::new(old, root(old, &mut uniform).unwrap()).unwrap();
    let newer = TreeHead::new(new, root(new, &mut uniform).unwrap()).unwrap();
    let proof = ConsistencyProof::make(old, new, &mut uniform).unwrap();
    assert_eq!(proof.verify(&older, &newer), Ok(()), "{old} {new}");
    assert!(proof.hashes().len() <= CONSISTENCY_HASHES_MAX);
    for at in 0..proof.hashes().len() {
        let mut list = proof.hashes().to_vec();
        list[at] = flip(&list[at], bit);
        assert_eq!(consistency(list).verify(&older, &newer), Err(ProofError::Inconsistent), "{old} {new} {at}");
    }
    let proof = InclusionProof::make(index, new, &mut uniform).unwrap();
    assert_eq!(proof.verify(&leaf, index, &newer), Ok(()), "{index} {new}");
    assert!(proof.hashes().len() <= INCLUSION_HASHES_MAX);
    for at in 0..proof.hashes().len() {
        let mut list = proof.hashes().to_vec();
        list[at] = flip(&list[at], bit);
        assert_eq!(inclusion(list).verify(&leaf, index, &newer), Err(ProofError::Leaf), "{index} {new} {at}");
    }
}

#[test]
fn proofs_at_the_limits_of_64_bits() {
    let sizes = [1, 2, 3, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX];
    for new in sizes {
        for old in sizes.into_iter().filter(|old| *old <= new) {
            for index in [0, new / 2, new - 1] {
                check_proofs(old, new, index, 0);
            }
        }
    }
    let longest = |old, new| ConsistencyProof::make(old, new, &mut Uniform::new()).unwrap().hashes().len();
    assert_eq!(longest(3, u64::MAX), 65);
    assert_eq!(InclusionProof::make(0, u64::MAX, &mut Uniform::new()).unwrap().hashes().len(), INCLUSION_HASHES_MAX);
    assert_eq!(InclusionProof::new(vec![Hash::EMPTY_ROOT; 65]), None);
    assert_eq!(ConsistencyProof::new(vec![Hash::EMPTY_ROOT; 66]), None);
}

#[test]
fn small_and_equal_trees() {
    let leaves = leaves(2);
    let [empty, one, two] = [0, 1, 2].map(|size| head(&leaves[..size]));
    let none = inclusion(Vec::new());
    assert_eq!(none.verify(&leaves[0], 0, &one), Ok(()));
    assert_eq!(none.verify(&leaves[1], 0, &one), Err(ProofError::Leaf));
    assert_eq!(none.verify(&leaves[0], 0, &empty), Err(ProofError::IndexOutside { index: 0, size: 0 }));
    assert_eq!(none.verify(&leaves[0], u64::MAX, &one), Err(ProofError::IndexOutside { index: u64::MAX, size: 1 }));
    assert_eq!(none.verify(&leaves[0], 0, &two), Err(ProofError::Length { expected: 1, found: 0 }));
    // A hash too many, within the tree and along its border.
    let (three, two_hashes) = (head(&crate::common::leaves(3)), inclusion(vec![leaves[0]; 2]));
    let too_many = Err(ProofError::Length { expected: 1, found: 2 });
    assert_eq!(two_hashes.verify(&leaves[0], 0, &two), too_many);
    assert_eq!(two_hashes.verify(&leaves[0], 2, &three), too_many);
    assert_eq!(consistency(vec![leaves[0]; 2]).verify(&one, &two), too_many);
    let none = consistency(Vec::new());
    for (older, newer) in [(empty, empty), (empty, one), (empty, two), (one, one), (two, two)] {
        assert_eq!(none.verify(&older, &newer), Ok(()));
    }
    assert_eq!(none.verify(&one, &empty), Err(ProofError::Smaller { old: 1, new: 0 }));
    assert_eq!(none.verify(&one, &two), Err(ProofError::Length { expected: 1, found: 0 }));
    let other = TreeHead::new(1, leaves[1]).unwrap();
    assert_eq!(none.verify(&one, &other), Err(ProofError::Inconsistent));
    let needless = consistency(vec![leaves[0]]);
    for (older, newer) in [(empty, two), (one, one)] {
        assert_eq!(needless.verify(&older, &newer), Err(ProofError::Length { expected: 0, found: 1 }));
    }
}

#[test]
fn proofs_that_cannot_be_made() {
    let mut hashes = MemoryHashes::of(&leaves(5));
    for (index, size) in [(0, 0), (5, 5), (u64::MAX, u64::MAX)] {
        let error = InclusionProof::make(index, size, &mut hashes).unwrap_err();
        assert_eq!(error, MakeProofError::Range(ProofError::IndexOutside { index, size }));
    }
    let error = ConsistencyProof::make(5, 4, &mut hashes).unwrap_err();
    assert_eq!(error, MakeProofError::Range(ProofError::Smaller { old: 5, new: 4 }));
    // Beyond the tree the source has no hashes; the error of the source is passed on.
    assert_eq!(InclusionProof::make(0, 8, &mut hashes).unwrap_err(), MakeProofError::Source(Node::new(2, 1).unwrap()));
    assert!(hashes.hash(Node::leaf(5)).is_err());
}
