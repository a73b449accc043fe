//! All text formats: whatever is done to a valid text, it is refused, or prints as it was. So no two texts mean the
//! same.

use otherix_tlog::tile::Resource;
use otherix_tlog::{AddCheckpoint, Checkpoint, ConsistencyProof, EntryProof, Hash, Note, SignerKey, VerifierKey};
use proptest::prelude::*;

use crate::common::{MemoryHashes, entry_proof, leaves, log_key, signed_checkpoint, witness};

/// A valid text of each format.
fn valid() -> Vec<String> {
    let consistency = ConsistencyProof::make(5, 7, &mut MemoryHashes::of(&leaves(7))).unwrap();
    let request = AddCheckpoint { old: 5, consistency, checkpoint: signed_checkpoint(7) };
    vec![
        entry_proof(4, 7).to_string(),
        request.to_string(),
        signed_checkpoint(7).to_string(),
        signed_checkpoint(7).text().to_owned(),
        log_key().public_key().to_string(),
        witness(1).to_text().to_string(),
        "tile/3/x001/x234/067.p/255".to_owned(),
        "tile/entries/x001/000".to_owned(),
        Hash::EMPTY_ROOT.to_string(),
    ]
}

/// What each parser that accepts the text prints, with the parser's name.
fn printed(text: &str) -> Vec<(&'static str, String)> {
    let bytes = text.as_bytes();
    let all = [
        ("note", Note::parse(bytes).ok().map(|note| note.to_string())),
        ("entry proof", EntryProof::parse(bytes).ok().map(|proof| proof.to_string())),
        ("request", AddCheckpoint::parse(bytes).ok().map(|request| request.to_string())),
        ("checkpoint", text.parse::<Checkpoint>().ok().map(|checkpoint| checkpoint.to_string())),
        ("public key", text.parse::<VerifierKey>().ok().map(|key| key.to_string())),
        ("private key", SignerKey::from_text(text).ok().map(|key| key.to_text().to_string())),
        ("path", text.parse::<Resource>().ok().map(|resource| resource.to_string())),
        ("hash", text.parse::<Hash>().ok().map(|hash| hash.to_string())),
    ];
    all.into_iter().filter_map(|(name, printed)| printed.map(|printed| (name, printed))).collect()
}

#[test]
fn valid_texts_are_accepted() {
    let names: Vec<&str> = valid().iter().flat_map(|text| printed(text)).map(|(name, _)| name).collect();
    // A proof and a request are also notes, whose text is all before the last blank line.
    let expected = ["note", "entry proof", "note", "request", "note", "checkpoint", "public key", "private key"];
    assert_eq!(names, [&expected[..], &["path", "path", "hash"]].concat());
}

/// Replaces, inserts or removes a character, or doubles or removes a line.
fn edit(text: &mut String, kind: u8, at: prop::sample::Index, character: char) {
    let mut characters: Vec<char> = text.chars().collect();
    let position = at.index(characters.len() + 1);
    match kind {
        0 if position < characters.len() => characters[position] = character,
        1 if position < characters.len() => drop(characters.remove(position)),
        2 => characters.insert(position, character),
        _ => {
            let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
            if !lines.is_empty() {
                let line = at.index(lines.len());
                if kind == 3 { lines.insert(line, lines[line].clone()) } else { drop(lines.remove(line)) }
            }
            characters = lines.concat().chars().collect();
        }
    }
    *text = characters.into_iter().collect();
}

fn one_edit() -> impl Strategy<Value = (u8, prop::sample::Index, String)> {
    (0_u8..5, any::<prop::sample::Index>(), "[A-Za-z0-9+/=. \n\r\u{2014}\0-]")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_parses_prints_as_it_was(
        text in prop::sample::select(valid()),
        edits in prop::collection::vec(one_edit(), 1..4),
    ) {
        let mut text = text;
        for (kind, at, character) in edits {
            edit(&mut text, kind, at, character.chars().next().unwrap());
        }
        for (name, printed) in printed(&text) {
            prop_assert_eq!(printed, text.clone(), "{}", name);
        }
    }
}
