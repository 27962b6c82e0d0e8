//! The password-based MAC (RFC 4211, section 4.4): a secret that both sides know, hashed many times
//! with a salt.
//!
//! **Invariants:** the secret is hashed by SHA-256 alone, by us 10,000 times, and never more often
//! than is bounded because a message says so; our salt is random and ours for as long as the provider
//! lives, so that what makes guessing slow for others is done once by us and not for each message.
//! What was hashed lately is kept as the secret itself is; what a message is known by (nonces,
//! transaction) is in the message, and not in the key.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use der::{
    Any,
    asn1::{ObjectIdentifier as Oid, OctetString},
};
use model::Secret;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{
    super::{AnswerRejection, ProviderError},
    message::{encoding, nonce},
    wire::PasswordMac,
};

/// How often the shared secret is hashed: by us, and at most by the other side.
const ITERATIONS: u32 = 10_000;
const MAX_ITERATIONS: u32 = 100_000;
const MAX_SALT: usize = 128;
/// Salts whose keys are kept: ours, and the other side's if it has one for a while too.
const MOST_KEPT: usize = 4;

const PASSWORD_MAC: Oid = Oid::new_unwrap("1.2.840.113533.7.66.13");
const SHA256_ID: Oid = Oid::new_unwrap("2.16.840.1.101.3.4.2.1");
const HMAC_SHA256_ID: Oid = Oid::new_unwrap("1.2.840.113549.2.9");
/// HMAC with SHA-1, which RFC 4210 makes everybody's default, under its two names. Nobody forges
/// it; it is understood and never sent.
const HMAC_SHA1_IDS: [Oid; 2] =
    [Oid::new_unwrap("1.3.6.1.5.5.8.1.2"), Oid::new_unwrap("1.2.840.113549.2.7")];

/// A secret that both sides know.
#[derive(Debug)]
pub(super) struct Password {
    reference: Vec<u8>,
    secret: Secret<Vec<u8>>,
    /// Ours, once it was needed.
    salt: Mutex<Option<Vec<u8>>>,
    kept: Mutex<Vec<Derived>>,
}

/// What the secret is after hashing.
#[derive(Clone, Debug)]
struct Derived {
    salt: Vec<u8>,
    iterations: u32,
    key: Arc<Secret<Vec<u8>>>,
}

impl Password {
    /// `reference` is what the CA knows the secret by.
    pub(super) fn new(reference: Vec<u8>, secret: Secret<Vec<u8>>) -> Self {
        Self { reference, secret, salt: Mutex::default(), kept: Mutex::default() }
    }

    /// What the CA knows it by.
    pub(super) fn reference(&self) -> &[u8] {
        &self.reference
    }

    /// The algorithm of our messages.
    pub(super) fn algorithm(&self) -> Result<AlgorithmIdentifierOwned, ProviderError> {
        let plain = |oid| AlgorithmIdentifierOwned { oid, parameters: None };
        let parameters = PasswordMac {
            salt: OctetString::new(self.salt()?).map_err(encoding)?,
            owf: plain(SHA256_ID),
            iterations: ITERATIONS,
            mac: plain(HMAC_SHA256_ID),
        };
        let parameters = Some(Any::encode_from(&parameters).map_err(encoding)?);
        Ok(AlgorithmIdentifierOwned { oid: PASSWORD_MAC, parameters })
    }

    fn salt(&self) -> Result<Vec<u8>, ProviderError> {
        let mut salt = self.salt.lock().unwrap_or_else(PoisonError::into_inner);
        match &*salt {
            Some(salt) => Ok(salt.clone()),
            None => Ok(salt.insert(nonce()?).clone()),
        }
    }

    /// The MAC of a message of ours.
    pub(super) fn sign(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        part: &[u8],
    ) -> Result<Vec<u8>, AnswerRejection> {
        let (mac, derived) = self.key(algorithm)?;
        let tag = hmac::sign(&hmac::Key::new(mac, derived.key.expose()), part).as_ref().to_vec();
        self.keep(derived);
        Ok(tag)
    }

    /// Whether it is the MAC of a message that came. Only then is what was hashed for it kept: what
    /// strangers send displaces nothing.
    pub(super) fn verify(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        (part, tag): (&[u8], &[u8]),
    ) -> Result<(), AnswerRejection> {
        let (mac, derived) = self.key(algorithm)?;
        let verified = hmac::verify(&hmac::Key::new(mac, derived.key.expose()), part, tag);
        verified.map_err(|_| AnswerRejection::Protection)?;
        self.keep(derived);
        Ok(())
    }

    fn key(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
    ) -> Result<(hmac::Algorithm, Derived), AnswerRejection> {
        let bad = AnswerRejection::Protection;
        let parameters = algorithm.parameters.as_ref().filter(|_| algorithm.oid == PASSWORD_MAC);
        let parameters: PasswordMac = parameters.ok_or(bad)?.decode_as().map_err(|_| bad)?;
        let PasswordMac { salt, owf, iterations, mac } = parameters;
        let bounded =
            (1..=MAX_ITERATIONS).contains(&iterations) && salt.as_bytes().len() <= MAX_SALT;
        if owf.oid != SHA256_ID || !bounded {
            return Err(bad);
        }
        let mac = match mac.oid {
            HMAC_SHA256_ID => hmac::HMAC_SHA256,
            oid if HMAC_SHA1_IDS.contains(&oid) => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            _ => return Err(bad),
        };
        Ok((mac, self.derived(salt.as_bytes(), iterations)))
    }

    fn derived(&self, salt: &[u8], iterations: u32) -> Derived {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().find(|one| one.salt == salt && one.iterations == iterations);
        if let Some(known) = known {
            return known.clone();
        }
        drop(kept);
        let start = Secret::new([self.secret.expose().as_slice(), salt].concat());
        let mut key = digest(&SHA256, start.expose());
        for _ in 1..iterations {
            key = digest(&SHA256, key.as_ref());
        }
        let key = Arc::new(Secret::new(key.as_ref().to_vec()));
        Derived { salt: salt.to_vec(), iterations, key }
    }

    /// The one used last comes last; the one not used for longest goes.
    fn keep(&self, derived: Derived) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one.salt != derived.salt || one.iterations != derived.iterations);
        if kept.len() >= MOST_KEPT {
            kept.remove(0);
        }
        kept.push(derived);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password() -> Password {
        Password::new(b"us".to_vec(), Secret::new(b"what both sides know".to_vec()))
    }

    /// As another side would ask for it: with a salt of its own.
    fn of(salt: &[u8], iterations: u32) -> AlgorithmIdentifierOwned {
        let plain = |oid| AlgorithmIdentifierOwned { oid, parameters: None };
        let parameters = PasswordMac {
            salt: OctetString::new(salt).unwrap(),
            owf: plain(SHA256_ID),
            iterations,
            mac: plain(HMAC_SHA256_ID),
        };
        let parameters = Some(Any::encode_from(&parameters).unwrap());
        AlgorithmIdentifierOwned { oid: PASSWORD_MAC, parameters }
    }

    #[test]
    fn a_key_that_was_kept_is_the_one_that_would_be_made() {
        let (ours, theirs) = (password(), password());
        let algorithm = ours.algorithm().unwrap();
        let first = ours.sign(&algorithm, b"one").unwrap();
        let second = ours.sign(&ours.algorithm().unwrap(), b"one").unwrap();
        assert_eq!(first, second);
        assert_eq!(ours.kept.lock().unwrap().len(), 1);
        for _ in 0..2 {
            theirs.verify(&algorithm, (b"one", &first)).unwrap();
        }
        assert_ne!(theirs.algorithm().unwrap(), algorithm);
    }

    #[test]
    fn what_does_not_verify_displaces_nothing() {
        let ours = password();
        let algorithm = ours.algorithm().unwrap();
        let tag = ours.sign(&algorithm, b"one").unwrap();
        for salt in 0..20 {
            let forged = ours.verify(&of(&[salt; 16], 2), (b"one", &tag));
            assert_eq!(forged, Err(AnswerRejection::Protection));
        }
        assert_eq!(ours.kept.lock().unwrap().len(), 1);
        for salt in 0..20 {
            let theirs = of(&[salt; 16], 2);
            ours.sign(&theirs, b"one").unwrap();
        }
        assert_eq!(ours.kept.lock().unwrap().len(), MOST_KEPT);
    }

    #[test]
    fn bounds_are_those_of_the_other_side_too() {
        let ours = password();
        for algorithm in [of(&[1; 16], 0), of(&[1; 16], MAX_ITERATIONS + 1), of(&[1; 129], 1)] {
            assert_eq!(ours.sign(&algorithm, b"one"), Err(AnswerRejection::Protection));
        }
    }
}
