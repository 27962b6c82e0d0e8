//! Reference values as they lie in a file: a draft (the document itself, as JSON) or an envelope
//! with signatures.

use std::path::{Path, PathBuf};

use attest::{
    envelope::{Envelope, EnvelopeRejection, Kind, Sign, Signed, TrustedKeys},
    reference::{HostReference, ReferenceValues},
};
use serve::{fsfile, pem};

use crate::output::Failure;

/// Longest key file.
const MAX_KEY: usize = 16 << 10;

/// A document; nothing of it is verified.
#[derive(Clone, Debug)]
pub struct Document {
    /// What it says.
    pub values: ReferenceValues,
    /// Its envelope, if it was signed.
    pub envelope: Option<Envelope>,
}

impl Document {
    /// An unsigned document.
    #[must_use]
    pub const fn draft(values: ReferenceValues) -> Self {
        Self { values, envelope: None }
    }

    /// Reads a draft or an envelope.
    ///
    /// # Errors
    /// [`Failure::Error`] if it is neither; [`Failure::Refused`] for an envelope of something else.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fsfile::read_limited(path, attest::envelope::MAX_ENVELOPE)?;
        let wrong = |error: serde_json::Error| {
            Failure::error(
                format!("{}: {error}", path.display()),
                "`vouchsafe reference from-log` makes a draft; \
                 docs/formats/reference-values.md says what is in it",
            )
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(wrong)?;
        if value.get("payloadType").is_none() {
            return Ok(Self::draft(serde_json::from_value(value).map_err(wrong)?));
        }
        let envelope = Envelope::from_value(&value).map_err(|error| refused(&error))?;
        let wanted = Kind::ReferenceValues.payload_type();
        if envelope.payload_type != wanted {
            let found = envelope.payload_type.chars().take(80).collect();
            return Err(refused(&EnvelopeRejection::WrongKind { found, wanted }));
        }
        let values = serde_json::from_slice(&envelope.payload.0)
            .map_err(|error| refused(&EnvelopeRejection::PayloadMalformed(error.to_string())))?;
        Ok(Self { values, envelope: Some(envelope) })
    }

    /// Writes it: a draft for people to read, an envelope for the authority.
    ///
    /// # Errors
    /// [`Failure::Error`].
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = match &self.envelope {
            Some(envelope) => envelope.to_json(),
            None => serde_json::to_vec_pretty(&self.values)?,
        };
        Ok(fsfile::write_atomic(path, &text, 0o644)?)
    }

    /// Adds a signature; the first one makes the envelope.
    ///
    /// # Errors
    /// [`Failure::Refused`] if the key has signed already, or no authority could use the document.
    pub fn sign(&mut self, key: &dyn Sign, spki: &[u8]) -> Result<(), Failure> {
        let envelope = match self.envelope.take() {
            None => Envelope::sign(Kind::ReferenceValues, &self.values, &[key])?,
            Some(mut there) => {
                let payload = there.payload.0.clone();
                let more = Envelope::sign_bytes(Kind::ReferenceValues, payload, &[key])?;
                there.signatures.extend(more.signatures);
                there
            }
        };
        verify(&envelope, &TrustedKeys::new([spki])?, 1)?;
        self.envelope = Some(envelope);
        Ok(())
    }
}

/// Endorsers' public keys, from their files.
///
/// # Errors
/// [`Failure::Error`] naming the file that is none.
pub fn trusted(files: &[PathBuf]) -> Result<TrustedKeys, Failure> {
    let mut keys = Vec::new();
    for file in files {
        let text = fsfile::read_limited(file, MAX_KEY)?;
        keys.push(pem::parse_public_key(&text).ok_or_else(|| {
            Failure::error(
                format!("{} is not a P-256 public key in PEM", file.display()),
                "name the .pub file that `vouchsafe reference key` made",
            )
        })?);
    }
    Ok(TrustedKeys::new(keys)?)
}

/// Verifies as an authority with these endorsers does.
///
/// # Errors
/// [`Failure::Refused`] by the name of the rule.
pub fn verify(
    envelope: &Envelope,
    keys: &TrustedKeys,
    needed: usize,
) -> Result<Signed<ReferenceValues>, Failure> {
    let signed = envelope
        .verify::<ReferenceValues>(keys, Kind::ReferenceValues, needed)
        .map_err(|error| refused(&error))?;
    HostReference::new(std::slice::from_ref(&signed), &[]).map_err(|error| {
        Failure::refused(error.code(), error.to_string(), "mend the draft and have it signed again")
    })?;
    Ok(signed)
}

fn refused(error: &EnvelopeRejection) -> Failure {
    Failure::refused(error.code(), error.to_string(), error.hint())
}
