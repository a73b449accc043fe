//! The transparency log: leaves appended per second with their tiles, and the time that checkpoints and proofs take.
//!
//! In memory and in one thread: neither the journal nor a disk is measured.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

use otherix_tlog::{
    Checkpoint, ConsistencyProof, Hash, InclusionProof, Note, Policy, RightEdge, SignatureKind, SignerKey, Tile,
    TileBuilder, TileSource, TreeHead, VerifiedTiles,
};

use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Target: leaf hashes appended per second, with tiles.
const TARGET: f64 = 1_000_000.0;

/// Bytes of an entry, as of an event.
const ENTRY: usize = 700;

/// Checkpoints and proofs that are made and verified.
const TIMES: u32 = 2000;

const ORIGIN: &str = "otherix.example/bench/1";

/// Tiles in memory.
struct Tiles(HashMap<Tile, Vec<u8>>);

impl TileSource for Tiles {
    type Error = Infallible;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(&tile).cloned())
    }
}

/// Builds a log of `count` entries, and returns its figures.
pub(crate) fn run(count: u32) -> Result<String, BenchError> {
    report_progress(&format!("bench: transparency log of {count} entries"));
    let leaves: Vec<Hash> = (0..count).map(|index| Hash::of_leaf(&index.to_be_bytes())).collect();

    let begin = Instant::now();
    let mut edge = RightEdge::EMPTY;
    edge.append_all(leaves.iter().copied())?;
    let edge_rate = per_second(count, begin);

    let begin = Instant::now();
    let (mut builder, mut tiles) = (TileBuilder::default(), Tiles(HashMap::new()));
    for leaf in &leaves {
        builder.append(*leaf)?;
        tiles.0.extend(builder.take_complete().into_iter().map(|tile| (tile.tile(), tile.to_bytes())));
    }
    tiles.0.extend(builder.partial().map(|tile| (tile.tile(), tile.to_bytes())));
    let rate = per_second(count, begin);
    if builder.head() != edge.head() {
        return Err("tiles and right edge differ".into());
    }

    let begin = Instant::now();
    let (mut hashed, mut entry) = (TileBuilder::default(), [0; ENTRY]);
    for index in 0..count {
        if let Some(number) = entry.first_chunk_mut() {
            *number = index.to_be_bytes();
        }
        hashed.append(Hash::of_leaf(&entry))?;
    }
    black_box(hashed.take_complete());
    let entry_rate = per_second(count, begin);

    let bytes: usize = tiles.0.values().map(Vec::len).sum();
    let size = format!("{} tiles, {:.1} bytes an entry", tiles.0.len(), bytes as f64 / f64::from(count));
    let result = target_result(rate >= TARGET);
    let mut lines = vec![
        format!("leaf hashes appended, with tiles: {rate:.0}/s (target {TARGET:.0}: {result}); {size}"),
        format!("leaf hashes appended, right edge alone: {edge_rate:.0}/s"),
        format!("entries of {ENTRY} bytes hashed and appended, with tiles: {entry_rate:.0}/s"),
    ];
    lines.push(checkpoints(&edge.head())?);
    lines.push(proofs(&leaves, &edge.head(), tiles)?);
    Ok(lines.join("\n"))
}

/// Signs and verifies checkpoints.
fn checkpoints(head: &TreeHead) -> Result<String, BenchError> {
    let key = SignerKey::from_seed(ORIGIN.parse()?, SignatureKind::Note, &[1; 32]);
    let policy = Policy::of_log(key.public_key().clone())?;
    let checkpoint = Checkpoint::new(ORIGIN.parse()?, *head);
    let begin = Instant::now();
    let mut note: Note = checkpoint.sign(&key)?;
    for _ in 1..TIMES {
        note = checkpoint.sign(&key)?;
    }
    let sign = microseconds(begin);
    let note = note.to_string();
    let begin = Instant::now();
    for _ in 0..TIMES {
        black_box(policy.verify(note.as_bytes())?);
    }
    let verify = microseconds(begin);
    Ok(format!("checkpoint of {} bytes: signed in {sign:.1} us, verified in {verify:.1} us", note.len()))
}

/// Makes proofs out of tiles that are verified first, and verifies them.
fn proofs(leaves: &[Hash], head: &TreeHead, tiles: Tiles) -> Result<String, BenchError> {
    let size = head.size();
    let step = (size / u64::from(TIMES)).max(1);
    let mut source = VerifiedTiles::open(head, tiles)?;
    let indices: Vec<u64> = (0..u64::from(TIMES)).map(|number| number * step % size).collect();

    let begin = Instant::now();
    let made = indices.iter().map(|index| InclusionProof::make(*index, size, &mut source));
    let inclusion = made.collect::<Result<Vec<_>, _>>()?;
    let make = microseconds(begin);
    let begin = Instant::now();
    for (index, proof) in indices.iter().zip(&inclusion) {
        let leaf = usize::try_from(*index).ok().and_then(|index| leaves.get(index)).ok_or("no such leaf")?;
        proof.verify(leaf, *index, head)?;
    }
    let verify = microseconds(begin);
    let inclusion = format!("inclusion made in {make:.1} us, verified in {verify:.1} us");

    let sizes = indices.iter().map(|index| index + 1);
    let older: Vec<TreeHead> =
        sizes.map(|old| RightEdge::from_source(old, &mut source).map(|edge| edge.head())).collect::<Result<_, _>>()?;
    let begin = Instant::now();
    let made = older.iter().map(|older| ConsistencyProof::make(older.size(), size, &mut source));
    let consistency = made.collect::<Result<Vec<_>, _>>()?;
    let make = microseconds(begin);
    let begin = Instant::now();
    for (older, proof) in older.iter().zip(&consistency) {
        proof.verify(older, head)?;
    }
    let verify = microseconds(begin);
    Ok(format!("{inclusion}; consistency made in {make:.1} us, verified in {verify:.1} us (tiles in memory)"))
}

fn per_second(count: u32, begin: Instant) -> f64 {
    f64::from(count) / begin.elapsed().as_secs_f64()
}

/// The time of one of [`TIMES`], in microseconds.
fn microseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
}
