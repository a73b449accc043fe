//! Every kind of tampering that a verifier must find, and with which position. Each export is written as `otherix audit
//! export` does, from a log whose tree, tiles and signature are the code's that the control plane uses.
//!
//! Beside these: columns and digests of the journal are compared by `otherixd journal verify`, and what the control
//! plane never signs is in `commands/tests/write_side/log.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use otherix_schemas::position::Position;
use otherix_testkit::{TempDir, tempdir};
use otherix_tlog::{
    Checkpoint, EntryProof, Hash, InclusionProof, Policy, RightEdge, SignatureKind, SignerKey, TileBuilder, TreeHead,
    VerifierKey,
};

use super::folder::{ExportFolder, NewExport};
use super::prove::from_export;
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

/// The file `range` is part of the export: whoever cuts events off can add it.
#[test]
fn events_cut_off_with_a_file_that_says_so() {
    let (all, key) = (events(600), key(1, 1));
    let export = |bodies: &[Vec<u8>], from, to| {
        let range = Some((from, to, [].as_slice()));
        Export::with(bodies, &all, &note(&all, &key), key.public_key().clone(), range)
    };
    let mut cut = export(&all[..500], 1, 500);
    let report = cut.assert_right();
    assert!(report.unproven.iter().any(|line| line.contains("after 500, which are not in the export")));
    cut.known.is_part = false;
    cut.assert_fault(None, "alone: that takes --part");
    export(&[], 1, 0).assert_fault(None, "no positions");
    export(&[], 0, 0).assert_fault(None, "no positions");
    // A checkpoint of another epoch is not compared with a part, which is said.
    let key = SignerKey::from_seed(origin(2).parse().unwrap(), SignatureKind::Note, &[1; 32]);
    let mut bodies = events(300);
    bodies.push(restored(1311, 2, 300));
    let epochs = [String::from_utf8(bodies[300].clone()).unwrap()];
    bodies.extend((1312..=1400).map(|position| event(position, 2, "text")));
    let range = Some((1312, 1400, epochs.as_slice()));
    let part = Export::with(&bodies[301..], &bodies, &note(&bodies, &key), key.public_key().clone(), range);
    let mut other = events(200);
    other[9] = event(10, 1, "other");
    let report = part.older("old", &note(&other, &self::key(1, 1))).assert_right();
    assert_eq!(report.continued, Vec::<String>::new());
    assert!(report.unproven.iter().any(|line| line.contains("`old` of epoch 1: that takes all events")), "{report:?}");
}

#[test]
fn a_body_changed_by_one_byte() {
    for position in [1, 256, 257, 600] {
        let index = usize::try_from(position).unwrap() - 1;
        let export = lines(|bodies| bodies[index] = event(position, 1, "texT"));
        export.assert_fault(Some(position), "not the one that was signed");
    }
}

#[test]
fn a_row_deleted_inserted_swapped_or_doubled() {
    lines(|bodies| drop(bodies.remove(299))).assert_fault(Some(300), "the event is missing, and no epoch began");
    lines(|bodies| bodies.insert(299, event(300, 1, "other"))).assert_fault(Some(300), "not the one that was signed");
    lines(|bodies| bodies.swap(299, 300)).assert_fault(Some(300), "the event is missing");
    lines(|bodies| bodies.insert(300, event(300, 1, "text"))).assert_fault(Some(301), "in its place is the event");
    // Numbered anew, so that only the tree tells.
    let renumbered = |bodies: &mut Vec<Vec<u8>>| {
        bodies.truncate(299);
        bodies.extend((300..=600).map(|position| event(position, 1, if position == 300 { "other" } else { "text" })));
    };
    lines(renumbered).assert_fault(Some(300), "not the one that was signed");
}

#[test]
fn the_tail_cut_off_with_and_without_an_older_checkpoint() {
    lines(|bodies| bodies.truncate(500)).assert_fault(Some(501), "the checkpoint covers 600 events");
    let (all, key) = (events(600), key(1, 1));
    let cut = || Export::of(&all[..500], &key);
    let report = cut().assert_right();
    assert!(report.unproven.iter().any(|line| line.contains("cut it off")), "the key alone does not show it");
    cut().older("kept", &note(&all, &key)).assert_fault(None, "was cut off: it has 500 events, and had 600 in `kept`");
    let mut export = cut();
    export.known.min_size = Some(501);
    export.assert_fault(None, "has 500 events, and must have 501");
    export.known.min_size = Some(500);
    export.assert_right();
    export.known.newest_since = Some("2026-11-30T00:09:00Z".parse().unwrap());
    export.assert_fault(Some(500), "too old");
    export.known.newest_since = Some("2026-11-30T00:08:20Z".parse().unwrap());
    export.assert_right();
}

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
fn stored_hashes_are_not_trusted() {
    let (all, key) = (events(600), key(1, 1));
    let mut other = all.clone();
    other[299] = event(300, 1, "other");
    // Tiles that fit to changed events do not fit to the root, and the events are found out without them.
    let export = Export::with(&other, &other, &note(&all, &key), key.public_key().clone(), None);
    export.assert_fault(None, "not those that were signed; which one cannot be told");
    // Damaged tiles with the right events are no proof of damage to the events, and are said.
    for tile in ["tile/0/000", "tile/0/001", "tile/1/000.p/2", "tile/0/002.p/88"] {
        let export = Export::of(&all, &key);
        let path = export.path().join(tile);
        let mut content = fs::read(&path).unwrap();
        content[40] ^= 1;
        fs::write(&path, content).unwrap();
        export.assert_fault(None, "the events are those that were signed, but a tile");
        fs::remove_file(&path).unwrap();
        export.assert_fault(None, "the events are those that were signed, but a tile");
    }
}

#[test]
fn undeclared_gaps() {
    let mut bodies = events(300);
    bodies.extend((311..=320).map(|position| event(position, 1, "text")));
    Export::of(&bodies, &key(1, 1)).assert_fault(Some(301), "missing, and no epoch began: the next is at 311");
    // One that a new epoch declares, and one that it does not.
    let mut declared = events(300);
    declared.push(restored(1311, 2, 300));
    declared.extend((1312..=1400).map(|position| event(position, 2, "text")));
    let report = Export::of(&declared, &key(2, 1)).assert_right();
    assert_eq!((report.events, report.last.get()), (390, 1400));
    let mut wrong = events(300);
    wrong.push(restored(1311, 2, 299));
    Export::of(&wrong, &key(2, 1)).assert_fault(Some(301), "kept the events up to 299");
}

#[test]
fn given_up_events_have_to_give_the_old_root() {
    let (before, kept) = (events(350), 300);
    let mut after = before[..kept].to_vec();
    after.push(restored(1311, 2, 300));
    after.extend((1312..=1400).map(|position| event(position, 2, "text")));
    let old = note(&before, &key(1, 1));
    let export = || Export::of(&after, &key(2, 1)).older("old", &old);
    let report = export().assert_right();
    assert!(report.unproven.iter().any(|line| line.contains("declared loss")), "{report:?}");
    assert_eq!(report.continued, Vec::<String>::new());
    let with_file = |bodies: &[Vec<u8>]| {
        let mut export = export();
        let path = export.folder.path().join("given-up.jsonl");
        let lines: Vec<u8> = bodies.iter().flat_map(|body| [body.as_slice(), b"\n"].concat()).collect();
        fs::write(&path, lines).unwrap();
        export.known.given_up.push(path);
        export
    };
    assert_eq!(with_file(&before[kept..]).assert_right().continued, ["old"]);
    with_file(&before[kept..349]).assert_fault(None, "are not those of `old`");
    let mut changed = before[kept..].to_vec();
    changed[7] = event(308, 1, "other");
    with_file(&changed).assert_fault(None, "are not those of `old`");
    // What was kept must be what it was.
    let mut rewritten = after.clone();
    rewritten[9] = event(10, 1, "other");
    let export = Export::of(&rewritten, &key(2, 1)).older("old", &note(&before[..200], &key(1, 1)));
    export.assert_fault(None, "was written anew");
    assert_eq!(
        Export::of(&after, &key(2, 1)).older("o", &note(&before[..200], &key(1, 1))).assert_right().continued,
        ["o"]
    );
}

#[test]
fn json_that_was_encoded_again() {
    lines(|bodies| {
        let value: serde_json::Value = serde_json::from_slice(&bodies[6]).unwrap();
        bodies[6] = serde_json::to_string(&value).unwrap().into_bytes();
    })
    .assert_fault(Some(7), "not the one that was signed, byte for byte");
    lines(|bodies| bodies[6].push(b' ')).assert_fault(Some(7), "byte for byte");
    lines(|bodies| bodies[6] = [b"\xef\xbb\xbf", bodies[6].as_slice()].concat()).assert_fault(Some(7), "not an event");
}

#[test]
fn an_entry_over_65535_bytes() {
    let mut bodies = events(10);
    let base = event(5, 1, "").len();
    bodies[4] = event(5, 1, &"x".repeat(65_535 - base));
    Export::of(&bodies, &key(1, 1)).assert_right();
    bodies[4] = event(5, 1, &"x".repeat(65_536 - base));
    Export::of(&bodies, &key(1, 1)).assert_fault(Some(5), "has 65536 bytes");
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

#[test]
fn a_checkpoint_ahead_of_the_events_and_events_ahead_of_the_checkpoint() {
    let (all, key) = (events(600), key(1, 1));
    let ahead = Export::with(&all[..590], &all, &note(&all, &key), key.public_key().clone(), None);
    ahead.assert_fault(Some(591), "the event is missing");
    let behind = Export::with(&all, &all[..590], &note(&all[..590], &key), key.public_key().clone(), None);
    let report = behind.assert_right();
    assert_eq!((report.events, report.size, report.last.get()), (590, 590, 590));
    let tail = report.unproven.iter().find(|line| line.contains("unsigned tail")).unwrap();
    assert!(tail.contains("10 events from position 591 to 600"), "{tail}");
}

#[test]
fn a_part_is_verified_against_the_tree_and_is_not_taken_for_all() {
    let key = key(2, 1);
    let mut all = events(300);
    all.push(restored(1311, 2, 300));
    all.extend((1312..=1700).map(|position| event(position, 2, "text")));
    let epochs = [String::from_utf8(restored(1311, 2, 300)).unwrap()];
    let part = |bodies: &[Vec<u8>], epochs: &[String]| {
        Export::with(bodies, &all, &note(&all, &key), key.public_key().clone(), Some((1400, 1500, epochs)))
    };
    let selected = &all[389..490];
    let report = part(selected, &epochs).assert_right();
    assert_eq!((report.events, report.first.get(), report.last.get()), (101, 1400, 1500));
    assert!(report.unproven.iter().any(|line| line.contains("before position 1400 and after 1500")));
    part(&selected[..100], &epochs).assert_fault(Some(1500), "is to end at 1500");
    part(&selected[1..], &epochs).assert_fault(Some(1400), "missing");
    // Without the epoch, or with another, the events are other leaves.
    assert!(part(selected, &[]).verify().is_err());
    let moved = [String::from_utf8(restored(1310, 2, 300)).unwrap()];
    part(selected, &moved).assert_fault(Some(1310), "not the one that was signed");
    let mut changed = selected.to_vec();
    changed[5] = event(1405, 2, "other");
    part(&changed, &epochs).assert_fault(Some(1405), "not the one that was signed");
}

#[test]
fn an_export_that_was_not_completed_is_none() {
    let folder = tempdir().unwrap();
    let to = folder.path().join("export");
    let mut export = NewExport::begin(&to).unwrap();
    export.event(&event(1, 1, "text")).unwrap();
    // The process is killed here.
    drop(export);
    ExportFolder::open(&to).unwrap_err();
    let is_incomplete = |path: &Path| path.extension().is_some_and(|extension| extension == "incomplete");
    let left = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    assert!(is_incomplete(&left));
    ExportFolder::open(&left).unwrap_err();
    // The next one replaces it, and does not replace a complete one.
    let export = NewExport::begin(&to).unwrap();
    export.finish(b"note").unwrap();
    ExportFolder::open(&to).unwrap();
    assert!(NewExport::begin(&to).is_err());
}
