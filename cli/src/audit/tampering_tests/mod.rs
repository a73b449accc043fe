//! Every kind of tampering that a verifier must find, and with which position. Each export is written as `otherix audit
//! export` does, from a log whose tree, tiles and signature are the code's that the control plane uses.
//!
//! Beside these: columns and digests of the journal are compared by `otherixd journal verify`, and what the control
//! plane never signs is in `commands/tests/write_side/log.rs`.

mod checkpoints;
mod epochs;
mod events;
mod parts;
mod proofs;

use std::fs;
use std::path::PathBuf;

use otherix_schemas::position::Position;
use otherix_testkit::{TempDir, tempdir};
use otherix_tlog::{Checkpoint, Hash, RightEdge, SignatureKind, SignerKey, TileBuilder, VerifierKey};

use super::folder::{ExportFolder, NewExport};
use super::sequence::Fault;
use super::verify::{Known, Report, VerifyError, verify};

const CLUSTER: &str = "0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11";

fn origin(epoch: u32) -> String {
    format!("otherix.dev/{CLUSTER}/{epoch}")
}

fn key(epoch: u32, seed: u8) -> SignerKey {
    SignerKey::from_seed(origin(epoch).parse().unwrap(), SignatureKind::Note, &[seed; 32])
}

/// An event in the form of the stored ones.
fn event(position: u64, epoch: u32, text: &str) -> Vec<u8> {
    let time = format!("2026-11-30T00:{:02}:{:02}.000000Z", position / 60 % 60, position % 60);
    let head = format!(r#""specversion":"1.0","id":"x","source":"/otherix/{CLUSTER}","subject":"network/x""#);
    let kind = format!(r#""type":"dev.otherix.network.created.v1","time":"{time}","sequence":"{position:020}""#);
    format!(r#"{{{head},{kind},"epoch":{epoch},"data":{{"text":"{text}"}}}}"#).into_bytes()
}

fn restored(position: u64, epoch: u32, kept: u64) -> Vec<u8> {
    let event = String::from_utf8(event(position, epoch, "x")).unwrap();
    let event = event.replace("network.created.v1", "cluster.restored.v2");
    event.replace(r#"{"text":"x"}"#, &format!(r#"{{"kept":{kept}}}"#)).into_bytes()
}

fn events(count: u64) -> Vec<Vec<u8>> {
    (1..=count).map(|position| event(position, 1, "text")).collect()
}

fn edge(bodies: &[Vec<u8>]) -> RightEdge {
    let mut edge = RightEdge::EMPTY;
    edge.append_all(bodies.iter().map(|body| Hash::of_leaf(body))).unwrap();
    edge
}

fn note(bodies: &[Vec<u8>], key: &SignerKey) -> String {
    Checkpoint::new(key.public_key().name().clone(), edge(bodies).head()).sign(key).unwrap().to_string()
}

/// An export, and the key that is known from elsewhere.
struct Export {
    folder: TempDir,
    known: Known,
}

impl Export {
    /// The export of a log that signed these events, with its tiles.
    fn of(bodies: &[Vec<u8>], key: &SignerKey) -> Self {
        Self::with(bodies, bodies, &note(bodies, key), key.public_key().clone(), None)
    }

    /// An export of these events, with the tiles of others.
    fn with(
        bodies: &[Vec<u8>],
        signed: &[Vec<u8>],
        note: &str,
        key: VerifierKey,
        range: Option<(u64, u64, &[String])>,
    ) -> Self {
        let folder = tempdir().unwrap();
        let mut export = NewExport::begin(&folder.path().join("export")).unwrap();
        for body in bodies {
            export.event(body).unwrap();
        }
        let mut builder = TileBuilder::default();
        builder.append_all(signed.iter().map(|body| Hash::of_leaf(body))).unwrap();
        let complete = builder.take_complete();
        for tile in complete.into_iter().chain(builder.partial()) {
            export.tile(tile.tile(), &tile.to_bytes()).unwrap();
        }
        if let Some((from, to, epochs)) = range {
            export.range(from, to, epochs).unwrap();
        }
        export.finish(note.as_bytes()).unwrap();
        let known = Known {
            key,
            older: Vec::new(),
            min_size: None,
            newest_since: None,
            given_up: Vec::new(),
            is_part: range.is_some(),
        };
        Self { folder, known }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("export")
    }

    fn older(mut self, name: &str, note: &str) -> Self {
        self.known.older.push((name.to_owned(), note.as_bytes().to_vec()));
        self
    }

    fn verify(&self) -> Result<Report, Fault> {
        let folder = ExportFolder::open(&self.path()).unwrap();
        verify(&folder, &self.known).map_err(|error| match error {
            VerifyError::Fault(fault) => fault,
            VerifyError::Read(error) => panic!("{error}"),
        })
    }

    #[track_caller]
    fn assert_fault(&self, position: Option<u64>, text: &str) {
        let fault = self.verify().unwrap_err();
        assert_eq!(fault.position, position.map(Position::new), "{fault:?}");
        assert!(fault.text.contains(text), "{fault:?}");
    }

    #[track_caller]
    fn assert_right(&self) -> Report {
        self.verify().unwrap()
    }

    fn edit(&self, file: &str, edit: impl FnOnce(String) -> String) {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, edit(text)).unwrap();
    }
}

/// An export of 600 signed events, of which the lines are others.
fn lines(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Export {
    let (signed, key) = (events(600), key(1, 1));
    let mut bodies = signed.clone();
    change(&mut bodies);
    Export::with(&bodies, &signed, &note(&signed, &key), key.public_key().clone(), None)
}

#[test]
fn what_was_signed_is_right_and_what_it_does_not_prove_is_said() {
    for count in [1, 255, 256, 257, 600] {
        let report = Export::of(&events(count), &key(1, 1)).assert_right();
        assert_eq!((report.events, report.size, report.last.get()), (count, count, count));
        assert!(report.unproven.iter().any(|line| line.contains("has not written the log anew, or cut it off")));
        assert!(report.unproven.iter().any(|line| line.contains("no later events")));
    }
    let export = Export::of(&events(600), &key(1, 1)).older("old", &note(&events(300), &key(1, 1)));
    let report = export.assert_right();
    assert_eq!(report.continued, ["old"]);
    assert!(report.unproven.iter().any(|line| line.contains("what came after the first 300 events")), "{report:?}");
    assert!(report.unproven.iter().any(|line| line.contains("no later events")));
    let report = export.older("new", &note(&events(600), &key(1, 1))).assert_right();
    assert!(!report.unproven.iter().any(|line| line.contains("anew")), "{report:?}");
}
