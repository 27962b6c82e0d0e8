//! Envelopes are verified, and refused by name.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

fn key() -> SoftwareKey {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    SoftwareKey::from_pkcs8(pkcs8.unwrap().as_ref()).unwrap()
}

fn note() -> Note {
    Note { text: "a".to_owned() }
}

fn trusted(keys: &[&SoftwareKey]) -> TrustedKeys {
    TrustedKeys::new(keys.iter().map(|k| k.spki())).unwrap()
}

#[test]
fn what_was_signed_is_read_back_with_its_digest() {
    let key = key();
    let envelope = Envelope::sign(Kind::Grant, &note(), &[&key]).unwrap();
    let again = Envelope::parse(&envelope.to_json()).unwrap();
    let signed = again.verify::<Note>(&trusted(&[&key]), Kind::Grant, 1).unwrap();
    assert_eq!(*signed, note());
    assert_eq!(signed.signers(), [key.key_id()]);
    assert_eq!(signed.digest(), sha256(b"{\"text\":\"a\"}"));
    assert_eq!(Envelope::from_value(&envelope.to_value()).unwrap(), envelope);
}

#[test]
fn the_encoding_that_is_signed_is_that_of_dsse() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn a_grant_is_not_a_verdict() {
    let key = key();
    let mut envelope = Envelope::sign(Kind::Grant, &note(), &[&key]).unwrap();
    let keys = trusted(&[&key]);
    let refused = envelope.verify::<Note>(&keys, Kind::Verdict, 1).unwrap_err();
    assert_eq!(refused.code(), "envelope-wrong-kind");
    envelope.payload_type = Kind::Verdict.payload_type().to_owned();
    let refused = envelope.verify::<Note>(&keys, Kind::Verdict, 1).unwrap_err();
    assert_eq!(refused.code(), "envelope-signature-invalid");
}

#[test]
fn two_of_three_are_two_different_keys() {
    let (a, b, c) = (key(), key(), key());
    let keys = trusted(&[&a, &b]);
    let check = |signers: &[&dyn Sign]| {
        Envelope::sign(Kind::ReferenceValues, &note(), signers)
            .unwrap()
            .verify::<Note>(&keys, Kind::ReferenceValues, 2)
            .map(Signed::into_inner)
    };
    assert_eq!(check(&[&a, &b]), Ok(note()));
    assert_eq!(check(&[&a, &c]), Err(EnvelopeRejection::TooFewSigners { have: 1, need: 2 }));
    assert_eq!(check(&[&a, &a]), Err(EnvelopeRejection::SignerTwice(a.key_id())));
    assert_eq!(check(&[]), Err(EnvelopeRejection::TooFewSigners { have: 0, need: 2 }));
}

#[test]
fn no_policy_means_that_nobody_need_sign() {
    let envelope = Envelope::sign(Kind::Grant, &note(), &[]).unwrap();
    let refused = envelope.verify::<Note>(&TrustedKeys::default(), Kind::Grant, 0).unwrap_err();
    assert_eq!(refused, EnvelopeRejection::TooFewSigners { have: 0, need: 1 });
}

#[test]
fn unknown_fields_are_refused_in_envelope_and_payload() {
    let key = key();
    let json = br#"{"payloadType":"a","payload":"","signatures":[],"more":1}"#;
    assert_eq!(Envelope::parse(json).unwrap_err().code(), "envelope-malformed");
    let payload = br#"{"text":"a","more":1}"#.to_vec();
    let envelope = Envelope::sign_bytes(Kind::Grant, payload, &[&key]).unwrap();
    let refused = envelope.verify::<Note>(&trusted(&[&key]), Kind::Grant, 1).unwrap_err();
    assert_eq!(refused.code(), "envelope-payload-malformed");
    assert!(envelope.verify_bytes(&trusted(&[&key]), Kind::Grant, 1).is_ok());
}

#[test]
fn an_oversize_envelope_is_refused_unread() {
    let json = vec![b' '; MAX_ENVELOPE + 1];
    assert_eq!(Envelope::parse(&json), Err(EnvelopeRejection::TooLarge));
}

#[test]
fn a_bare_point_is_no_trusted_key() {
    let key = key();
    let point = &key.spki()[26..];
    assert_eq!(TrustedKeys::new([point]).err(), Some(KeyUnusable));
}

proptest! {
    #[test]
    fn a_flipped_bit_never_changes_what_is_verified(at in 0_usize..400, bit in 0_u8..8) {
        let key = key();
        let envelope = Envelope::sign(Kind::Grant, &note(), &[&key]).unwrap();
        let mut json = envelope.to_json();
        let at = at % json.len();
        json[at] ^= 1 << bit;
        let keys = trusted(&[&key]);
        let verified = Envelope::parse(&json)
            .and_then(|e| e.verify::<Note>(&keys, Kind::Grant, 1));
        // Only the case of a hexadecimal digit of the key id may change unnoticed.
        if let Ok(signed) = verified {
            prop_assert_eq!(signed.into_inner(), note());
            prop_assert!(json.eq_ignore_ascii_case(&envelope.to_json()));
        }
    }
}
