//! A log in a folder, as C2SP tlog-tiles has it: `checkpoint`, `tile/…`, `tile/entries/…`. Beside them `vkey` and
//! `witness-vkey`, `proof/INDEX.tlog-proof` for some entries, and for each checkpoint `consistency/SIZE` with that
//! checkpoint, a blank line, and a line for each hash of the proof from there to the newest.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use otherix_tlog::tile::{Resource, TileHashes, new_bundles};
use otherix_tlog::{
    Checkpoint, ConsistencyProof, EntryProof, Hash, InclusionProof, Note, SignatureKind, SignerKey, Tile, TileBuilder,
    TileSource, VerifiedTiles,
};

const ORIGIN: &str = "otherix.example/5f7c1c9e-0b3e-7d51-8d7f-2f9a1f6d0c11/1";
const WITNESS: &str = "node-1.otherix.example";

/// The first cosignature's time; each checkpoint is a second later.
const TIME: u64 = 1_796_000_000;

/// Tiles in a folder.
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<(), Box<dyn Error>> {
        let path: PathBuf = self.0.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(fs::write(path, content)?)
    }
}

impl TileSource for Folder<'_> {
    type Error = std::io::Error;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Self::Error> {
        match fs::read(self.0.join(tile.to_string())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            content => content.map(Some),
        }
    }
}

/// The entry with this index: some are empty, some long.
fn entry(index: u64) -> Vec<u8> {
    match index % 7 {
        3 => Vec::new(),
        5 => format!("{{\"sequence\":\"{index:020}\"}}").repeat(30).into_bytes(),
        _ => format!("entry {index}").into_bytes(),
    }
}

/// Writes a log that was signed at each of these sizes, which must increase.
pub(crate) fn write(folder: &Path, sizes: &[u64]) -> Result<(), Box<dyn Error>> {
    let mut folder = Folder(folder);
    let log = SignerKey::from_seed(ORIGIN.parse()?, SignatureKind::Note, &[1; 32]);
    let witness = SignerKey::from_seed(WITNESS.parse()?, SignatureKind::Cosignature, &[2; 32]);
    folder.write("vkey", format!("{}\n", log.public_key()))?;
    folder.write("witness-vkey", format!("{}\n", witness.public_key()))?;

    let (mut builder, mut checkpoints) = (TileBuilder::default(), Vec::new());
    for (size, time) in sizes.iter().zip(TIME..) {
        let old = builder.head().size();
        builder.append_all((old..*size).map(|index| Hash::of_leaf(&entry(index))))?;
        let complete = builder.take_complete();
        for tile in complete.into_iter().chain(builder.partial()) {
            folder.write(tile.tile().to_string(), TileHashes::to_bytes(&tile))?;
        }
        for bundle in new_bundles(old, *size) {
            let first = bundle.first_leaf();
            let entries = (first..first + u64::from(bundle.width())).map(entry);
            folder.write(bundle.to_string(), bundle.encode(entries)?)?;
        }
        let checkpoint = Checkpoint::new(ORIGIN.parse()?, builder.head());
        let mut note = checkpoint.sign(&log)?;
        Checkpoint::cosign(&mut note, &witness, time)?;
        folder.write(Resource::Checkpoint.to_string(), note.to_string())?;
        checkpoints.push((*size, note));
    }

    let Some((size, newest)) = checkpoints.last().cloned() else { return Err("no size".into()) };
    let head = builder.head();
    let mut tiles = VerifiedTiles::open(&head, Folder(folder.0))?;
    for (older, note) in &checkpoints {
        let proof = ConsistencyProof::make(*older, size, &mut tiles)?;
        let hashes: String = proof.hashes().iter().map(|hash| format!("{hash}\n")).collect();
        folder.write(format!("consistency/{older}"), format!("{note}\n{hashes}"))?;
    }
    for index in [0, 1, size / 2, size - 1].into_iter().filter(|index| *index < size) {
        let proof = proof_of(index, size, &newest, &mut tiles)?;
        folder.write(format!("proof/{index}.tlog-proof"), proof.to_string())?;
    }
    // The first tile is read back as others will.
    folder.tile(Tile::new(0, 0, u16::try_from(size.min(256))?).ok_or("no tile")?)?.ok_or("no tile")?;
    Ok(())
}

fn proof_of(
    index: u64,
    size: u64,
    checkpoint: &Note,
    tiles: &mut VerifiedTiles<Folder<'_>>,
) -> Result<EntryProof, Box<dyn Error>> {
    let inclusion = InclusionProof::make(index, size, tiles)?;
    Ok(EntryProof { index, inclusion, checkpoint: checkpoint.clone(), extra: Some(entry(index)) })
}
