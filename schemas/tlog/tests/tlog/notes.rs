//! Signed notes and keys: the examples of the specification and of the reference implementation, and strictness.

use otherix_tlog::note::{KeyError, NoteError, SIGNATURES_MAX, VerifyNoteError};
use otherix_tlog::{KeyName, Note, SignatureKind, SignerKey, VerifierKey};

use crate::common::{key, witness};

/// C2SP signed-note, "Example".
const SPECIFICATION_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const SPECIFICATION_NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
    Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

/// golang.org/x/mod/sumdb/note, package documentation.
const GO_PRIVATE_KEY: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_TEXT: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n";
const GO_SIGNATURE: &str = "\u{2014} PeterNeumann \
    x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn example_of_the_specification() {
    let key: VerifierKey = SPECIFICATION_KEY.parse().unwrap();
    assert_eq!(key.to_string(), SPECIFICATION_KEY);
    let note = Note::parse(SPECIFICATION_NOTE.as_bytes()).unwrap();
    assert_eq!(note.to_string(), SPECIFICATION_NOTE);
    let signed = note.verify(std::slice::from_ref(&key)).unwrap();
    assert_eq!((signed.len(), &signed[0].key, signed[0].timestamp), (1, &key, None));
}

#[test]
fn example_of_the_reference_implementation() {
    let key = SignerKey::from_text(GO_PRIVATE_KEY).unwrap();
    assert_eq!(*key.to_text(), GO_PRIVATE_KEY);
    assert_eq!(key.public_key().to_string(), GO_KEY);
    let mut note = Note::new(GO_TEXT.to_owned()).unwrap();
    note.add(key.sign(&note).unwrap()).unwrap();
    assert_eq!(note.to_string(), format!("{GO_TEXT}\n{GO_SIGNATURE}"));
    assert!(!format!("{key:?}").contains("AYEK"), "{key:?}");
}

#[test]
fn notes_with_blank_lines_and_unknown_signatures() {
    let text = "a\n\n\u{2014} not a signature\n\n\u{e8} subito sera\n\n";
    let key = key("example.com/log", SignatureKind::Note, 7);
    let mut note = Note::new(text.to_owned()).unwrap();
    let signature = key.sign(&note).unwrap();
    note.add("\u{2014} example.com/other AAAAAQI=".parse().unwrap()).unwrap();
    note.add(signature.clone()).unwrap();
    let parsed = Note::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!((parsed.text(), &parsed), (text, &note));
    assert_eq!(parsed.signatures()[0].to_string(), "\u{2014} example.com/other AAAAAQI=");
    assert_eq!(parsed.verify(&[key.public_key().clone()]).unwrap().len(), 1);
    // Signatures that share the name or the id of a known key, but not both, are of unknown keys.
    let blob = signature.to_string();
    let blob = blob.split(' ').nth(2).unwrap();
    for line in [format!("\u{2014} example.com/log2 {blob}"), "\u{2014} example.com/log AAAAAQI=".to_owned()] {
        let mut note = Note::new(text.to_owned()).unwrap();
        note.add(line.parse().unwrap()).unwrap();
        assert_eq!(note.verify(&[key.public_key().clone()]), Err(VerifyNoteError::Unsigned));
    }
}

#[test]
fn a_wrong_signature_beside_a_right_one_is_refused() {
    let (key, other) = (key("example.com/log", SignatureKind::Note, 7), Note::new("other\n".to_owned()).unwrap());
    let mut note = Note::new("text\n".to_owned()).unwrap();
    note.add(key.sign(&note).unwrap()).unwrap();
    note.verify(&[key.public_key().clone()]).unwrap();
    note.add(key.sign(&other).unwrap()).unwrap();
    let wrong = VerifyNoteError::Wrong("example.com/log".parse().unwrap());
    assert_eq!(note.verify(&[key.public_key().clone()]), Err(wrong));
    assert_eq!(note.verify(&[]), Err(VerifyNoteError::Unsigned));
}

#[test]
fn an_id_that_collides_authenticates_nothing() {
    // A signature with the name and the id of a known key, made with another key.
    let (ours, theirs) =
        (key("example.com/log", SignatureKind::Note, 7), key("example.com/log", SignatureKind::Note, 8));
    let mut note = Note::new("text\n".to_owned()).unwrap();
    let signature = theirs.sign(&note).unwrap();
    let blob = [&ours.public_key().id().to_be_bytes()[..], signature.signature()].concat();
    let blob = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, blob);
    note.add(format!("\u{2014} example.com/log {blob}").parse().unwrap()).unwrap();
    assert!(matches!(note.verify(&[ours.public_key().clone()]), Err(VerifyNoteError::Wrong(_))));
}

#[test]
fn every_changed_bit_is_found() {
    let key: VerifierKey = SPECIFICATION_KEY.parse().unwrap();
    let bytes = SPECIFICATION_NOTE.as_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        let verified = Note::parse(&altered).is_ok_and(|note| note.verify(std::slice::from_ref(&key)).is_ok());
        assert!(!verified, "bit {bit}");
    }
    for end in 0..bytes.len() {
        let verified = Note::parse(&bytes[..end]).is_ok_and(|note| note.verify(std::slice::from_ref(&key)).is_ok());
        assert!(!verified, "byte {end}");
    }
}

#[test]
fn malformed_notes_are_refused() {
    let replaced = |from: &str, to: &str| {
        assert!(SPECIFICATION_NOTE.contains(from), "{from}");
        Note::parse(SPECIFICATION_NOTE.replacen(from, to, 1).as_bytes())
    };
    assert_eq!(replaced("\n\n", "\n"), Err(NoteError::NoSeparator));
    assert_eq!(replaced("is an", "is\tan"), Err(NoteError::ControlCharacter));
    assert_eq!(replaced(".\n", ".\r\n"), Err(NoteError::ControlCharacter));
    for (from, to) in [
        ("\u{2014} ", "- "),            // another dash
        ("\u{2014} ", "\u{2014}"),      // no space
        ("foo ", "foo  "),              // two spaces
        ("example.com/foo", ""),        // no name
        ("example.com", "example+com"), // a plus
        ("example.com", "example\u{a0}com"),
        ("QM=", "QN="),    // bits set that are not used
        ("QM=\n", "QM\n"), // no padding
        ("QM=\n", "QM="),  // no final newline
        ("QM=\n", "QM= \n"),
        ("QM=\n", "QM=\nx\n"),
        ("Uw2Q", "Uw2Q\r"),
    ] {
        assert!(replaced(from, to).is_err(), "{from:?} {to:?}");
    }
    assert!(Note::parse(b"text\n\n\xe2\x80\x94 a AAAAAQ==\n").is_err(), "an id without a signature");
    assert!(Note::parse(b"text\n\n").is_err(), "no signature");
    assert!(Note::parse(b"text\n\n\n").is_err(), "an empty signature line");
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::Encoding));
    assert_eq!(Note::parse(&[b'a'; 1_000_001]), Err(NoteError::Length));
    assert_eq!(Note::new("text".to_owned()), Err(NoteError::UnfinishedText));
    assert_eq!(Note::new("te\0xt\n".to_owned()), Err(NoteError::ControlCharacter));
}

#[test]
fn notes_are_limited() {
    let mut note = Note::new("text\n".to_owned()).unwrap();
    let line = "\u{2014} a AAAAAQI=".to_owned();
    for _ in 0..SIGNATURES_MAX {
        note.add(line.parse().unwrap()).unwrap();
    }
    assert_eq!(note.add(line.parse().unwrap()), Err(NoteError::TooManySignatures));
    let text = note.to_string();
    assert_eq!(Note::parse(text.as_bytes()).unwrap(), note);
    assert_eq!(Note::parse(format!("{text}{line}\n").as_bytes()), Err(NoteError::TooManySignatures));
    // The longest note that can be made can be parsed.
    let room = 1_000_000 - 1 - line.len() - 1;
    let mut longest = Note::new("x".repeat(room - 1) + "\n").unwrap();
    longest.add(line.parse().unwrap()).unwrap();
    assert_eq!(longest.to_string().len(), 1_000_000);
    assert_eq!(Note::parse(longest.to_string().as_bytes()), Ok(longest.clone()));
    assert_eq!(longest.add(line.parse().unwrap()), Err(NoteError::Length));
}

#[test]
fn malformed_keys_are_refused() {
    for (text, error) in [
        ("", KeyError::Format),
        ("example.com/foo", KeyError::Format),
        ("example.com/foo+530d903a", KeyError::Format),
        ("example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        ("example.com/foo+0530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        ("example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        ("example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        // Of type 0x04, with the id of the key of type 0x01.
        ("example.com/foo+530d903a+BOkyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Id),
        ("example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", KeyError::Kind),
        ("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U0=", KeyError::Kind),
        ("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2", KeyError::Format),
        ("example.com/foo+530d903a+", KeyError::Format),
    ] {
        assert_eq!(text.parse::<VerifierKey>(), Err(error), "{text}");
    }
    assert!(matches!(" +530d903a+AekyeRrm".parse::<VerifierKey>(), Err(KeyError::Name(_))));
    // The identity point verifies signatures that anybody can make.
    let mut identity = [0; 32];
    identity[0] = 1;
    let name: KeyName = "a".parse().unwrap();
    assert_eq!(VerifierKey::new(name.clone(), SignatureKind::Note, &identity), Err(KeyError::Weak));
    // No point has this coordinate.
    let none = [&[2][..], &[0; 31]].concat().try_into().unwrap();
    assert_eq!(VerifierKey::new(name, SignatureKind::Note, &none), Err(KeyError::Kind));
    for text in [GO_KEY, &GO_PRIVATE_KEY.replace("c74f20a3", "c74f20a4"), &GO_PRIVATE_KEY.replace("+AY", "+BI")] {
        assert!(SignerKey::from_text(text).is_err(), "{text}");
    }
    let witness = witness(1);
    assert_eq!(SignerKey::from_text(&witness.to_text()).unwrap().public_key(), witness.public_key());
    assert_eq!(witness.public_key().to_string().parse(), Ok(witness.public_key().clone()));
}
