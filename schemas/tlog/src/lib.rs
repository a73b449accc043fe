//! A transparency log: a Merkle tree over entries, of which anybody can verify that it only grew. Pure: no I/O, no
//! clock, no random numbers.
//!
//! | module | what | specification |
//! |---|---|---|
//! | [`hash`], [`node`], [`edge`], [`source`] | the tree | [RFC 6962](https://www.rfc-editor.org/rfc/rfc6962) 2.1 |
//! | [`proof`] | proofs of inclusion and consistency | RFC 6962 2.1.1, 2.1.2; verified as in RFC 9162 2.1.3, 2.1.4 |
//! | [`tile`] | the tree as files | [C2SP tlog-tiles](https://c2sp.org/tlog-tiles) |
//! | [`note`] | signed texts and their keys | [C2SP signed-note](https://c2sp.org/signed-note) |
//! | [`checkpoint`], [`policy`] | signed heads of a tree | [C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint) |
//! | [`note`] | signatures of witnesses, Ed25519 | [C2SP tlog-cosignature](https://c2sp.org/tlog-cosignature) |
//! | [`witness`] | what a witness is sent, and accepts | [C2SP tlog-witness](https://c2sp.org/tlog-witness) |
//! | [`entry_proof`] | the file format `.tlog-proof` | [C2SP tlog-proof](https://c2sp.org/tlog-proof) |
//!
//! A log keeps a [`TileBuilder`], appends the hash of each entry, writes the tiles that became full, and before it
//! signs a [`Checkpoint`] the partial ones. A reader has a [`Policy`], which turns a checkpoint into a believed
//! [`TreeHead`], and verifies proofs against that, or makes them itself from [`VerifiedTiles`].
//!
//! What a public key alone cannot show: that the log was cut back to an older checkpoint, or written anew by whoever
//! has the key. That needs a newer checkpoint that somebody kept, and a [`ConsistencyProof`] from there: a witness
//! demands one of every [`AddCheckpoint`].

pub mod checkpoint;
pub mod edge;
pub mod entry_proof;
pub mod hash;
pub mod head;
pub mod node;
pub mod note;
pub mod policy;
pub mod proof;
pub mod source;
mod text;
pub mod tile;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use edge::RightEdge;
pub use entry_proof::{EntryProof, EntryProofError};
pub use hash::Hash;
pub use head::TreeHead;
pub use node::Node;
pub use note::{KeyName, Note, SignatureKind, SignerKey, VerifierKey};
pub use policy::{Policy, VerifiedCheckpoint};
pub use proof::{ConsistencyProof, InclusionProof, ProofError};
pub use source::HashSource;
pub use tile::{Bundle, Tile, TileBuilder, TileSource, VerifiedTiles};
pub use witness::{AddCheckpoint, WitnessError};
