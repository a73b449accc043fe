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
