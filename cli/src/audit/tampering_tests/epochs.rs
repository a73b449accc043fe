//! Gaps, epochs, and the events that they gave up.

use std::fs;

use super::{Export, event, events, key, note, restored};

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
fn an_epoch_that_does_not_come_after_what_it_kept() {
    // It begins at a position that another event has.
    let mut bodies = events(300);
    bodies.push(restored(300, 2, 300));
    Export::of(&bodies, &key(2, 1)).assert_fault(Some(301), "an epoch begins here that kept the events up to 300");
    // A checkpoint is of an epoch that none of the events ended.
    let export = Export::of(&events(300), &key(2, 1)).older("kept", &note(&events(200), &key(1, 1)));
    export.assert_fault(None, "of epoch 1, which the log does not have");
}
