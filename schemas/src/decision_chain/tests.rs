use uuid::Uuid;

use super::*;
use crate::id::ClusterId;
use crate::position::{Epoch, Position};

fn head(position: u64) -> DecisionHead {
    let digest = ChainDigest::START.after(b"a decision");
    DecisionHead {
        cluster: ClusterId::new(Uuid::from_u128(1)),
        epoch: Epoch::FIRST,
        position: Position::new(position),
        digest,
    }
}

#[test]
fn digests_are_sha256_of_the_digest_before_and_the_bytes() {
    // printf '\0%.0s' {1..32} | cat - <(printf first) | sha256sum
    let first = ChainDigest::START.after(b"first");
    let text = first.to_string();
    assert_eq!(text.parse::<ChainDigest>(), Ok(first));
    assert_ne!(first.after(b"second"), ChainDigest::START.after(b"firstsecond"));
    for bad in ["", "0", &text[1..], &text.to_uppercase(), &format!("{text}0"), &format!("ä{}", &text[2..])] {
        assert!(bad.parse::<ChainDigest>().is_err(), "{bad}");
    }
}

#[test]
fn only_the_key_and_the_nonce_verify_a_head() {
    let (signer, other) = (DecisionSigner::from_seed(&[1; 32]), DecisionSigner::from_seed(&[2; 32]));
    let nonce = Nonce::new([7; 16]);
    let signed = head(3).sign(&signer, Some(nonce));
    assert_eq!(signed.verify(&signer.public(), Some(nonce)), Ok(head(3)));
    for refused in [
        signed.verify(&other.public(), Some(nonce)),
        signed.verify(&signer.public(), Some(Nonce::new([8; 16]))),
        signed.verify(&signer.public(), None),
        SignedHead { head: head(4), ..signed.clone() }.verify(&signer.public(), Some(nonce)),
    ] {
        assert_eq!(refused, Err(HeadError::Signature));
    }
    for form in ["", "AAAA", "*"] {
        let signed = SignedHead { signature: form.to_owned(), ..signed.clone() };
        assert_eq!(signed.verify(&signer.public(), Some(nonce)), Err(HeadError::Form));
    }
}

#[test]
fn the_json_form_is_flat_and_round_trips() {
    let signer = DecisionSigner::from_seed(&[1; 32]);
    let signed = head(3).sign(&signer, None);
    let json = serde_json::to_value(&signed).unwrap();
    assert_eq!(json["position"], 3);
    assert_eq!(json.as_object().unwrap().len(), 5);
    assert_eq!(serde_json::from_value::<SignedHead>(json).unwrap(), signed);
    let key = signer.public().to_string();
    assert_eq!(key.parse::<DecisionKey>().unwrap(), signer.public());
    // A point of small order, with which a signature of anything can be made.
    assert!("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse::<DecisionKey>().is_err());
    assert!(!format!("{signer:?}").contains("0101"), "the seed is not printed");
}

#[test]
fn a_rotation_is_signed_with_the_old_key() {
    let (old, new) = (DecisionSigner::from_seed(&[1; 32]), DecisionSigner::from_seed(&[2; 32]));
    let rotation = old.succeeded_by(new.public());
    assert_eq!(rotation.verify(), Ok(new.public()));
    let forged = KeyRotation { old: old.public(), ..new.succeeded_by(new.public()) };
    assert!(forged.verify().is_err());
    // A head is no rotation, and a rotation no head.
    let signature = head(1).sign(&old, None).signature;
    assert!(KeyRotation { signature, ..rotation }.verify().is_err());
}
