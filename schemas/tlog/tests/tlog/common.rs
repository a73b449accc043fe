//! Trees to test with: the definitions of RFC 6962, word by word, and hashes and tiles in memory.

use std::collections::HashMap;
use std::convert::Infallible;

use otherix_tlog::tile::new_tiles;
use otherix_tlog::{
    Checkpoint, EntryProof, Hash, HashSource, InclusionProof, Node, Note, RightEdge, SignatureKind, SignerKey, Tile,
    TileBuilder, TileSource, TreeHead,
};

/// Distinct contents of leaves.
pub(crate) fn entry(index: usize) -> String {
    format!("entry {index}")
}

/// The hashes of the first entries.
pub(crate) fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|index| Hash::of_leaf(entry(index).as_bytes())).collect()
}

/// A key pair that is the same in every run.
pub(crate) fn key(name: &str, kind: SignatureKind, seed: u8) -> SignerKey {
    SignerKey::from_seed(name.parse().unwrap(), kind, &[seed; 32])
}

/// The name of the log in tests: domain, cluster and epoch.
pub(crate) const ORIGIN: &str = "otherix.example/5f7c1c9e-0b3e-7d51-8d7f-2f9a1f6d0c11/1";

/// The key of the log in tests.
pub(crate) fn log_key() -> SignerKey {
    key(ORIGIN, SignatureKind::Note, 1)
}

/// A witness.
pub(crate) fn witness(number: u8) -> SignerKey {
    key(&format!("node-{number}.otherix.example"), SignatureKind::Cosignature, 100 + number)
}

/// The log's checkpoint of the first `size` entries, with the cosignature of one witness.
pub(crate) fn signed_checkpoint(size: usize) -> Note {
    let mut edge = RightEdge::EMPTY;
    edge.append_all(leaves(size)).unwrap();
    let mut note = Checkpoint::new(ORIGIN.parse().unwrap(), edge.head()).sign(&log_key()).unwrap();
    Checkpoint::cosign(&mut note, &witness(1), 1_796_000_000).unwrap();
    note
}

/// The proof that an entry is among the first `size`, with the entry.
pub(crate) fn entry_proof(index: usize, size: usize) -> EntryProof {
    let mut hashes = MemoryHashes::of(&leaves(size));
    EntryProof {
        index: index as u64,
        inclusion: InclusionProof::make(index as u64, size as u64, &mut hashes).unwrap(),
        checkpoint: signed_checkpoint(size),
        extra: Some(entry(index).into_bytes()),
    }
}

/// RFC 6962, 2.1: the Merkle tree hash of a list.
pub(crate) fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let k = largest_power_of_two_below(leaves.len());
            Hash::of_node(&mth(&leaves[..k]), &mth(&leaves[k..]))
        }
    }
}

fn largest_power_of_two_below(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// RFC 6962, 2.1.1: PATH(m, D[n]).
pub(crate) fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = largest_power_of_two_below(leaves.len());
    let (mut path, sibling) =
        if m < k { (path(m, &leaves[..k]), mth(&leaves[k..])) } else { (path(m - k, &leaves[k..]), mth(&leaves[..k])) };
    path.push(sibling);
    path
}

/// RFC 6962, 2.1.2: SUBPROOF(m, D[n], b).
pub(crate) fn subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = largest_power_of_two_below(leaves.len());
    let (mut proof, sibling) = if m <= k {
        (subproof(m, &leaves[..k], whole), mth(&leaves[k..]))
    } else {
        (subproof(m - k, &leaves[k..], false), mth(&leaves[..k]))
    };
    proof.push(sibling);
    proof
}

/// The head of the tree of these leaves.
pub(crate) fn head(leaves: &[Hash]) -> TreeHead {
    TreeHead::new(leaves.len() as u64, mth(leaves)).unwrap()
}

/// All hashes of complete subtrees.
#[derive(Default)]
pub(crate) struct MemoryHashes(pub(crate) HashMap<Node, Hash>);

impl MemoryHashes {
    pub(crate) fn of(leaves: &[Hash]) -> Self {
        let (mut hashes, mut edge) = (HashMap::new(), RightEdge::EMPTY);
        for leaf in leaves {
            edge.append_with(*leaf, |node, hash| assert_eq!(hashes.insert(node, *hash), None)).unwrap();
        }
        Self(hashes)
    }
}

impl HashSource for MemoryHashes {
    type Error = Node;

    fn hash(&mut self, node: Node) -> Result<Hash, Node> {
        self.0.get(&node).copied().ok_or(node)
    }
}

/// Tiles by position.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryTiles(pub(crate) HashMap<Tile, Vec<u8>>);

impl MemoryTiles {
    /// The tiles that a log writes that publishes a checkpoint at each of these sizes.
    pub(crate) fn of(leaves: &[Hash], checkpoints: &[usize]) -> Self {
        let (mut builder, mut tiles, mut old) = (TileBuilder::default(), HashMap::new(), 0);
        for size in checkpoints {
            builder.append_all(leaves[old..*size].iter().copied()).unwrap();
            let written: Vec<_> = builder.take_complete().into_iter().chain(builder.partial()).collect();
            let mut announced: Vec<Tile> = new_tiles(old as u64, *size as u64).collect();
            let mut positions: Vec<Tile> = written.iter().map(|tile| tile.tile()).collect();
            positions.retain(|tile| announced.contains(tile));
            announced.sort();
            positions.sort();
            assert_eq!(positions, announced, "{old} {size}");
            tiles.extend(written.into_iter().map(|tile| (tile.tile(), tile.to_bytes())));
            old = *size;
        }
        Self(tiles)
    }
}

impl TileSource for MemoryTiles {
    type Error = Infallible;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(&tile).cloned())
    }
}

/// A tree of any size whose leaves are all the same.
pub(crate) struct Uniform(Vec<Hash>);

impl Uniform {
    pub(crate) fn new() -> Self {
        let mut levels = vec![Hash::of_leaf(b"x")];
        for level in 0..63 {
            levels.push(Hash::of_node(&levels[level], &levels[level]));
        }
        Self(levels)
    }

    pub(crate) fn leaf(&self) -> Hash {
        self.0[0]
    }
}

impl HashSource for Uniform {
    type Error = Infallible;

    fn hash(&mut self, node: Node) -> Result<Hash, Infallible> {
        Ok(self.0[usize::from(node.level())])
    }
}

impl TileSource for Uniform {
    type Error = Infallible;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(Some(self.0[usize::from(tile.level()) * 8].as_bytes().repeat(usize::from(tile.width()))))
    }
}
