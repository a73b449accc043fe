//! Events that are not those that were signed, and stored hashes that are not theirs.

use std::fs;

use super::{Export, event, events, key, lines, note};

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
fn stored_hashes_are_not_trusted() {
    let (all, key) = (events(600), key(1, 1));
    let mut other = all.clone();
    other[299] = event(300, 1, "other");
    // Tiles that fit to changed events do not fit to the root, and the events are found out without them.
    let export = Export::with(&other, &other, &note(&all, &key), key.public_key().clone(), None);
    export.assert_fault(None, "not those that were signed; which one cannot be told");
    // One that only fits below the right ones is named.
    let export = Export::with(&other, &all, &note(&all, &key), key.public_key().clone(), None);
    let forged = fs::read(Export::of(&other, &key).path().join("tile/0/001")).unwrap();
    fs::write(export.path().join("tile/0/001"), forged).unwrap();
    export.assert_fault(None, "which one cannot be told, as `tile/0/001` is not a tile of the tree");
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
fn times_that_go_back() {
    let mut bodies = events(10);
    let earlier = String::from_utf8(bodies[4].clone()).unwrap().replace("T00:00:05", "T00:00:03");
    bodies[4] = earlier.into_bytes();
    Export::of(&bodies, &key(1, 1)).assert_fault(Some(5), "before that of the event before it");
    let malformed = String::from_utf8(bodies[4].clone()).unwrap().replace("T00:00:03", "T00:00:63");
    bodies[4] = malformed.into_bytes();
    Export::of(&bodies, &key(1, 1)).assert_fault(Some(5), "its time is malformed");
}
