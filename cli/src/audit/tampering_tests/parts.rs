//! Exports that do not have all events, and say so or not.

use std::fs;
use std::path::Path;

use otherix_testkit::tempdir;
use otherix_tlog::{SignatureKind, SignerKey};

use super::{Export, event, events, key, note, origin, restored};
use crate::audit::folder::{ExportFolder, NewExport};

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

/// 300 signed events, of which an export has the positions 100 to 200, with kept checkpoints and tiles of others.
fn part_of(selected: &[Vec<u8>], signed: &[Vec<u8>], range: (u64, u64), epochs: &[String]) -> Export {
    let key = key(1, 1);
    let note = note(signed, &key);
    Export::with(selected, signed, &note, key.public_key().clone(), Some((range.0, range.1, epochs)))
}

#[test]
fn a_part_beyond_the_checkpoint_before_an_epoch_or_of_another_log() {
    let all = events(300);
    part_of(&all[99..200], &all, (100, 200), &[]).assert_right();
    // The checkpoint covers 150 events only.
    part_of(&all[99..200], &all[..150], (100, 200), &[]).assert_fault(Some(151), "does not cover the event");
    // The log was written anew since somebody has kept a checkpoint.
    let mut other = all.clone();
    other[9] = event(10, 1, "other");
    let export = || part_of(&all[99..200], &all, (100, 200), &[]);
    export().older("kept", &note(&other[..20], &key(1, 1))).assert_fault(None, "first 20 events are others than in");
    assert_eq!(export().older("kept", &note(&all[..20], &key(1, 1))).assert_right().continued, ["kept"]);
    // The range begins before the epoch that is said to have begun before it.
    let mut two = events(300);
    two.push(restored(1311, 2, 300));
    two.extend((1312..=1400).map(|position| event(position, 2, "text")));
    let (epochs, key) = ([String::from_utf8(two[300].clone()).unwrap()], key(2, 1));
    let range = Some((1311, 1320, epochs.as_slice()));
    Export::with(&two[300..310], &two, &note(&two, &key), key.public_key().clone(), range)
        .assert_fault(None, "begins before an epoch");
}

#[test]
fn a_part_with_damaged_tiles() {
    let all = events(600);
    let damaged = |tile: &str| {
        let export = part_of(&all[299..310], &all, (300, 310), &[]);
        let path = export.path().join(tile);
        let mut content = fs::read(&path).unwrap();
        content[40] ^= 1;
        fs::write(&path, content).unwrap();
        export
    };
    damaged("tile/1/000.p/2").assert_fault(None, "takes all tiles");
    damaged("tile/0/001").assert_fault(Some(300), "the event cannot be verified");
    damaged("tile/0/000").assert_right();
}

#[test]
fn a_folder_that_is_no_complete_export() {
    let export = Export::of(&events(10), &key(1, 1));
    let renamed = export.folder.path().join("export.incomplete");
    fs::rename(export.path(), &renamed).unwrap();
    ExportFolder::open(&renamed).unwrap_err();
    fs::rename(&renamed, export.path()).unwrap();
    for file in ["checkpoint", "events.jsonl"] {
        let aside = export.folder.path().join(file);
        fs::rename(export.path().join(file), &aside).unwrap();
        ExportFolder::open(&export.path()).unwrap_err();
        fs::rename(&aside, export.path().join(file)).unwrap();
    }
    export.assert_right();
}
