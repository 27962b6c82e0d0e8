//! Signed documents: DSSE v1 envelopes (ECDSA P-256 with SHA-256 over the pre-authentication
//! encoding), and [`Signed`], the proof that one was verified.
//!
//! **Invariants:** [`Signed`] is made only by [`Envelope::verify`] and [`Envelope::verify_bytes`];
//! the payload is looked at only after its signatures hold; the kind is part of what is signed, so
//! that a document of one kind never serves as another; one key counts once.
//! Deliberately absent: other algorithms, keys carried by the envelope, URL-safe base64.

mod key;

use std::{ops::Deref, sync::Arc};

use aws_lc_rs::digest;
use model::{Digest, api::Bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

pub use self::key::{KeyId, KeyUnusable, Sign, SigningError, SoftwareKey, TrustedKeys};

/// The largest envelope that is read, in bytes of JSON.
pub const MAX_ENVELOPE: usize = 2 * 1024 * 1024;

const MAX_SIGNATURES: usize = 16;

/// What a document is; becomes its DSSE payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A signed head of the store or of the audit log.
    Checkpoint,
    /// A grant of VM keys.
    Grant,
    /// Reference values.
    ReferenceValues,
    /// An attestation result.
    Verdict,
}

impl Kind {
    /// `application/vnd.vouchsafe.<kind>+json`.
    #[must_use]
    pub const fn payload_type(self) -> &'static str {
        match self {
            Self::Checkpoint => "application/vnd.vouchsafe.checkpoint+json",
            Self::Grant => "application/vnd.vouchsafe.grant+json",
            Self::ReferenceValues => "application/vnd.vouchsafe.reference-values+json",
            Self::Verdict => "application/vnd.vouchsafe.verdict+json",
        }
    }
}

/// Why an envelope is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeRejection {
    /// Not the JSON of an envelope.
    #[error("this is not a DSSE envelope: {0}")]
    Malformed(String),
    /// The signatures hold, but the payload is not a document of this kind.
    #[error("the signed payload is not what its kind says: {0}")]
    PayloadMalformed(String),
    /// A trusted key's signature does not verify.
    #[error("the signature of key {0} does not verify")]
    SignatureInvalid(KeyId),
    /// The same key signed twice.
    #[error("key {0} signed twice")]
    SignerTwice(KeyId),
    /// Fewer trusted keys signed than the policy wants.
    #[error("{have} trusted keys signed, {need} are needed")]
    TooFewSigners {
        /// Valid signatures by distinct trusted keys.
        have: usize,
        /// The policy's number.
        need: usize,
    },
    /// Over the size limit.
    #[error("the envelope exceeds {MAX_ENVELOPE} bytes or {MAX_SIGNATURES} signatures")]
    TooLarge,
    /// A document of another kind.
    #[error("the envelope holds {found}, not {wanted}")]
    WrongKind {
        /// Its payload type.
        found: String,
        /// What was to be read.
        wanted: &'static str,
    },
}

impl EnvelopeRejection {
    /// The refusal's name on the wire and in the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "envelope-malformed",
            Self::PayloadMalformed(_) => "envelope-payload-malformed",
            Self::SignatureInvalid(_) => "envelope-signature-invalid",
            Self::SignerTwice(_) => "envelope-signer-twice",
            Self::TooFewSigners { .. } => "envelope-too-few-signers",
            Self::TooLarge => "envelope-too-large",
            Self::WrongKind { .. } => "envelope-wrong-kind",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::TooLarge => "check that this file or answer is the document",
            Self::PayloadMalformed(_) => {
                "the document was signed by another version of the program: sign it again"
            }
            Self::SignatureInvalid(_) | Self::SignerTwice(_) => {
                "the document was altered after it was signed: fetch it again from its signer"
            }
            Self::TooFewSigners { .. } => {
                "have more of the configured keys sign it, or configure the keys that did"
            }
            Self::WrongKind { .. } => "pass the document of the kind that is asked for",
        }
    }
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// SHA-256 of the signer's SubjectPublicKeyInfo.
    pub keyid: KeyId,
    /// ECDSA-Sig-Value, DER.
    pub sig: Bytes,
}

/// A DSSE v1 envelope, nothing of it verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The payload type; see [`Kind::payload_type`].
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The document.
    pub payload: Bytes,
    /// Signatures over type and payload.
    pub signatures: Vec<EnvelopeSignature>,
}

/// Signs checkpoints with a key, for logs that know of no envelopes: a payload becomes an envelope's
/// JSON.
pub fn checkpoints(
    key: impl Into<Arc<SoftwareKey>>,
) -> impl Fn(Vec<u8>) -> Result<Vec<u8>, SigningError> {
    let key = key.into();
    move |payload| Ok(Envelope::sign_bytes(Kind::Checkpoint, payload, &[&*key])?.to_json())
}

/// Verifies what [`checkpoints`] signed: an envelope's JSON becomes its payload.
pub fn checkpoints_of(keys: TrustedKeys) -> impl Fn(Vec<u8>) -> Result<Vec<u8>, EnvelopeRejection> {
    move |json| Ok(Envelope::parse(&json)?.verify_bytes(&keys, Kind::Checkpoint, 1)?.to_vec())
}

impl Envelope {
    /// Serialises and signs a document.
    ///
    /// # Errors
    /// [`SigningError`] if a signer fails, or the document has no JSON form.
    pub fn sign<T: Serialize>(
        kind: Kind,
        document: &T,
        signers: &[&dyn Sign],
    ) -> Result<Self, SigningError> {
        let payload =
            serde_json::to_vec(document).map_err(|e| SigningError::Document(e.to_string()))?;
        Self::sign_bytes(kind, payload, signers)
    }

    /// Signs a document that is already in its final form.
    ///
    /// # Errors
    /// [`SigningError`] if a signer fails.
    pub fn sign_bytes(
        kind: Kind,
        payload: Vec<u8>,
        signers: &[&dyn Sign],
    ) -> Result<Self, SigningError> {
        let message = pae(kind.payload_type(), &payload);
        let signatures = signers
            .iter()
            .map(|key| {
                let sig = key.sign(&message)?;
                Ok(EnvelopeSignature { keyid: key.key_id(), sig: sig.into() })
            })
            .collect::<Result<_, SigningError>>()?;
        let payload_type = kind.payload_type().to_owned();
        Ok(Self { payload_type, payload: payload.into(), signatures })
    }

    /// Reads an envelope. Nothing is verified yet.
    ///
    /// # Errors
    /// [`EnvelopeRejection::TooLarge`], [`EnvelopeRejection::Malformed`].
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeRejection> {
        if json.len() > MAX_ENVELOPE {
            return Err(EnvelopeRejection::TooLarge);
        }
        serde_json::from_slice(json).map_err(|e| EnvelopeRejection::Malformed(e.to_string()))
    }

    /// Reads an envelope that stands inside another JSON document.
    ///
    /// # Errors
    /// [`EnvelopeRejection::Malformed`].
    pub fn from_value(value: &serde_json::Value) -> Result<Self, EnvelopeRejection> {
        Self::deserialize(value).map_err(|e| EnvelopeRejection::Malformed(e.to_string()))
    }

    /// The envelope as JSON text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The envelope as a JSON value.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// What each signature is over: DSSE's pre-authentication encoding of type and payload.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload.0)
    }

    /// Verifies that at least `m_of_n` (never fewer than one) of the trusted keys signed a document
    /// of this kind, and reads it. Signatures of keys that are not trusted are ignored; a wrong one
    /// of a trusted key is not.
    ///
    /// # Errors
    /// [`EnvelopeRejection`].
    pub fn verify<T: DeserializeOwned>(
        &self,
        keys: &TrustedKeys,
        kind: Kind,
        m_of_n: usize,
    ) -> Result<Signed<T>, EnvelopeRejection> {
        let signers = self.check(keys, kind, m_of_n)?;
        let document = serde_json::from_slice(&self.payload.0)
            .map_err(|e| EnvelopeRejection::PayloadMalformed(e.to_string()))?;
        Ok(Signed { document, signers, digest: sha256(&self.payload.0) })
    }

    /// As [`Self::verify`], for payloads whose form their owner reads.
    ///
    /// # Errors
    /// [`EnvelopeRejection`].
    pub fn verify_bytes(
        &self,
        keys: &TrustedKeys,
        kind: Kind,
        m_of_n: usize,
    ) -> Result<Signed<Vec<u8>>, EnvelopeRejection> {
        let signers = self.check(keys, kind, m_of_n)?;
        let digest = sha256(&self.payload.0);
        Ok(Signed { document: self.payload.0.clone(), signers, digest })
    }

    fn check(
        &self,
        keys: &TrustedKeys,
        kind: Kind,
        m_of_n: usize,
    ) -> Result<Vec<KeyId>, EnvelopeRejection> {
        if self.payload.0.len() > MAX_ENVELOPE || self.signatures.len() > MAX_SIGNATURES {
            return Err(EnvelopeRejection::TooLarge);
        }
        if self.payload_type != kind.payload_type() {
            let found = self.payload_type.chars().take(80).collect();
            return Err(EnvelopeRejection::WrongKind { found, wanted: kind.payload_type() });
        }
        let message = pae(&self.payload_type, &self.payload.0);
        let mut signers = Vec::new();
        for signature in &self.signatures {
            let Some(key) = keys.find(&signature.keyid) else { continue };
            if signers.contains(&signature.keyid) {
                return Err(EnvelopeRejection::SignerTwice(signature.keyid));
            }
            key.verify_sig(&message, &signature.sig.0)
                .map_err(|_| EnvelopeRejection::SignatureInvalid(signature.keyid))?;
            signers.push(signature.keyid);
        }
        let need = m_of_n.max(1);
        if signers.len() < need {
            return Err(EnvelopeRejection::TooFewSigners { have: signers.len(), need });
        }
        Ok(signers)
    }
}

/// A document whose signatures were verified.
///
/// **Invariant:** only [`Envelope::verify`] and [`Envelope::verify_bytes`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    document: T,
    signers: Vec<KeyId>,
    digest: Digest,
}

impl<T> Signed<T> {
    /// The trusted keys that signed.
    #[must_use]
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// SHA-256 of the payload's bytes.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The document alone; the proof ends here.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.document
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.document
    }
}

/// Pre-authentication encoding of DSSE v1.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    Digest::sha256(out)
}

#[cfg(test)]
mod tests;
