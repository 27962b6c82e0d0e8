//! Pass phrases and the keys that XKMS derives from them.
//!
//! There is neither salt nor iteration in the protocol: a phrase must be long and random, for one
//! use and a short time, and attempts must be counted. All of that is the caller's.

use aws_lc_rs::{constant_time, hmac};
use model::Secret;
use thiserror::Error;
use zeroize::Zeroizing;

/// How a phrase becomes octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preparation {
    /// SASLprep (RFC 4013): what the protocol says since 2005.
    #[default]
    Saslprep,
    /// White space taken out and ASCII put in lower case: what older peers do.
    Legacy,
}

/// Why a phrase cannot be used. Alphabetical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PhraseRejection {
    /// Nothing is left of it.
    #[error("the pass phrase is empty")]
    Empty,
    /// It has characters that SASLprep prohibits.
    #[error("the pass phrase has characters that are not allowed")]
    Prohibited,
}

impl PhraseRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Empty => "phrase-empty",
            Self::Prohibited => "phrase-prohibited",
        }
    }
}

/// What a derived key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Purpose {
    Authentication = 1,
    RevocationCode = 2,
    RevocationCodeIdentifier = 3,
    PrivateKey = 4,
}

/// Octets of HMAC-SHA-1.
const BLOCK: usize = 20;

/// A prepared phrase.
#[derive(Clone, Debug)]
pub struct SharedSecret(Secret<Vec<u8>>);

impl SharedSecret {
    /// Prepares `phrase`.
    pub fn new(phrase: &str, preparation: Preparation) -> Result<Self, PhraseRejection> {
        let prepared = match preparation {
            Preparation::Saslprep => {
                let prepared =
                    stringprep::saslprep(phrase).map_err(|_| PhraseRejection::Prohibited)?;
                Zeroizing::new(prepared.into_owned())
            }
            Preparation::Legacy => {
                let kept = phrase.chars().filter(|c| !matches!(c, ' ' | '\r' | '\n' | '\t'));
                Zeroizing::new(kept.map(|c| c.to_ascii_lowercase()).collect())
            }
        };
        if prepared.is_empty() {
            return Err(PhraseRejection::Empty);
        }
        Ok(Self(Secret::new(prepared.as_bytes().to_vec())))
    }

    /// The key of the MAC that authenticates a registration: 20 octets.
    #[must_use]
    pub fn authentication_key(&self) -> Secret<Vec<u8>> {
        derive(Purpose::Authentication, self.0.expose(), BLOCK)
    }

    /// The key that a private key is encrypted under; 32 octets for AES-256.
    #[must_use]
    pub fn private_key_key(&self, octets: usize) -> Secret<Vec<u8>> {
        derive(Purpose::PrivateKey, self.0.expose(), octets)
    }

    /// The code that revokes: 20 octets, disclosed only to revoke.
    #[must_use]
    pub fn revocation_code(&self) -> Secret<Vec<u8>> {
        derive(Purpose::RevocationCode, self.0.expose(), BLOCK)
    }
}

/// By what a revocation code is known before it is disclosed.
#[must_use]
pub fn revocation_code_identifier(code: &[u8]) -> Vec<u8> {
    derive(Purpose::RevocationCodeIdentifier, code, BLOCK).expose().clone()
}

/// Whether `code` is the one that was registered under `identifier`.
#[must_use]
pub fn revocation_code_matches(code: &[u8], identifier: &[u8]) -> bool {
    let expected = revocation_code_identifier(code);
    constant_time::verify_slices_are_equal(&expected, identifier).is_ok()
}

/// `HMAC-SHA-1(purpose, data)`, and, for more, again under the block before with its first octet
/// changed by the purpose.
fn derive(purpose: Purpose, data: &[u8], octets: usize) -> Secret<Vec<u8>> {
    let mut out = Secret::new(Vec::with_capacity(octets.next_multiple_of(BLOCK)));
    let mut key = Zeroizing::new(vec![purpose as u8]);
    while out.expose().len() < octets {
        let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
        let block = hmac::sign(&mac, data);
        out.expose_mut().extend_from_slice(block.as_ref());
        key = Zeroizing::new(block.as_ref().to_vec());
        if let Some(first) = key.first_mut() {
            *first ^= purpose as u8;
        }
    }
    out.expose_mut().truncate(octets);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::to_base64;

    /// phrase, preparation, authentication key, code, identifier, 24 octets of the private-key key
    const VECTORS: &str = include_str!("../../../vectors/xkms/phrases.txt");

    #[test]
    fn the_known_vectors_come_out() {
        let mut count = 0;
        for line in VECTORS.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let preparation = match fields[1] {
                "legacy" => Preparation::Legacy,
                _ => Preparation::Saslprep,
            };
            let secret = SharedSecret::new(fields[0], preparation).unwrap();
            let code = secret.revocation_code();
            assert_eq!(hex::encode(secret.authentication_key().expose()), fields[2], "{line}");
            assert_eq!(to_base64(code.expose()), fields[3], "{line}");
            assert_eq!(to_base64(&revocation_code_identifier(code.expose())), fields[4], "{line}");
            assert_eq!(hex::encode(secret.private_key_key(24).expose()), fields[5], "{line}");
            count += 1;
        }
        assert_eq!(count, 5);
    }

    #[test]
    fn a_code_matches_its_own_identifier_only() {
        let secret = SharedSecret::new("Shared Secret", Preparation::Saslprep).unwrap();
        let code = secret.revocation_code();
        let identifier = revocation_code_identifier(code.expose());
        assert!(revocation_code_matches(code.expose(), &identifier));
        assert!(!revocation_code_matches(&identifier, &identifier));
        assert!(!revocation_code_matches(code.expose(), &[]));
    }

    #[test]
    fn phrases_that_cannot_be_prepared_are_refused() {
        let new = |phrase| SharedSecret::new(phrase, Preparation::Saslprep).err();
        assert_eq!(new(""), Some(PhraseRejection::Empty));
        assert_eq!(new("\u{ad}"), Some(PhraseRejection::Empty));
        assert_eq!(new("a\u{7}"), Some(PhraseRejection::Prohibited));
        assert_eq!(
            SharedSecret::new(" \t", Preparation::Legacy).err(),
            Some(PhraseRejection::Empty)
        );
    }

    #[test]
    fn compatible_characters_are_one_phrase() {
        let key = |phrase| {
            let secret = SharedSecret::new(phrase, Preparation::Saslprep).unwrap();
            secret.authentication_key().expose().clone()
        };
        assert_eq!(key("\u{2168}"), key("IX"));
        assert_eq!(key("a\u{a0}b"), key("a b"));
        assert_ne!(key("a b"), key("A b"));
    }
}
