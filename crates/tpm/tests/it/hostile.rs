//! Parsers on bytes that are cut, extended and altered: errors, never panics, and never a
//! different value than was written.

use proptest::prelude::*;
use tpm::{Attest, Credential, KeyBlob, Public, Signature, VerifyingKey, template};

/// A quote by swtpm, selection sha256:0.
fn attest() -> Vec<u8> {
    let mut bytes = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 34, 0, 0x0b];
    bytes.extend([7; 32]);
    bytes.extend([0, 32]);
    bytes.extend([8; 32]);
    bytes.extend([0; 16]);
    bytes.push(1);
    bytes.extend([0x20; 8]);
    bytes.extend([0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0, 0, 32]);
    bytes.extend([9; 32]);
    bytes
}

fn signature() -> Vec<u8> {
    Signature::from_p1363([3; 64]).to_bytes()
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        attest(),
        signature(),
        template::ek_p256().as_bytes().to_vec(),
        template::ek_rsa2048().as_bytes().to_vec(),
        template::sealed(&[1; 32]).as_bytes().to_vec(),
        VerifyingKey::P256 { x: [1; 32], y: [2; 32] }.spki_der(),
        VerifyingKey::Rsa { modulus: vec![0xff; 256], exponent: 65_537 }.spki_der(),
    ]
}

fn parse_all(bytes: &[u8]) {
    let _ = Attest::parse(bytes);
    let _ = Public::parse_sized(bytes);
    let _ = KeyBlob::parse(bytes);
    let _ = Credential::parse(bytes);
    if let Ok(public) = Public::parse(bytes) {
        assert_eq!(public.as_bytes(), bytes);
        let _ = (public.name(), public.spki_der(), public.is_attestation_key());
    }
    if let Ok(key) = VerifyingKey::from_spki_der(bytes) {
        assert_eq!(key.spki_der(), bytes);
    }
    if let Ok(signature) = Signature::parse(bytes) {
        assert_eq!(Signature::parse(&signature.to_bytes()), Ok(signature.clone()));
        let _ = signature.verify(&VerifyingKey::P256 { x: [1; 32], y: [2; 32] }, b"m");
    }
}

#[test]
fn the_seeds_are_what_they_seem() {
    assert!(Attest::parse(&attest()).is_ok());
    assert!(Signature::parse(&signature()).is_ok());
}

#[test]
fn every_cut_and_every_tail_is_refused() {
    for seed in seeds() {
        for cut in 0..seed.len() {
            parse_all(&seed[..cut]);
        }
    }
    for cut in 0..attest().len() {
        assert!(Attest::parse(&attest()[..cut]).is_err());
    }
    assert!(Attest::parse(&[attest(), vec![0]].concat()).is_err());
    assert!(Signature::parse(&[signature(), vec![0]].concat()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        parse_all(&bytes);
    }

    #[test]
    fn altered_structures_never_panic(
        which in 0..7_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        tail in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = seeds()[which].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.extend(tail);
        parse_all(&bytes);
    }
}
