//! What a quote is bound to: purpose, nonce, and session key or VM. qualifyingData is always
//! recomputed; a quote that was made for another purpose is recognised as such.

use model::{Epoch, Nonce, VmId};
use tpm::{Attest, Purpose, QualifyingData};

use crate::Rejection;

/// A nonce as the verifier gave it out, taken from its own records (never from the evidence).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The nonce.
    pub nonce: Nonce,
    /// When it stops working, Unix milliseconds.
    pub expires_at: u64,
}

impl Challenge {
    /// That the evidence answers this nonce, in time.
    ///
    /// # Errors
    /// [`Rejection::NonceUnknown`], [`Rejection::NonceExpired`].
    pub fn check(&self, answered: &Nonce, now: u64) -> Result<(), Rejection> {
        if self.nonce != *answered {
            return Err(Rejection::NonceUnknown);
        }
        if now >= self.expires_at {
            return Err(Rejection::NonceExpired { expired_at: self.expires_at, now });
        }
        Ok(())
    }
}

const PURPOSES: [Purpose; 5] = [
    Purpose::HostAttest,
    Purpose::GuestAttest,
    Purpose::Enrol,
    Purpose::VtpmBinding,
    Purpose::GuestChannel,
];

/// qualifyingData of a host's evidence: bound to its TLS session key and its grant key.
#[must_use]
pub fn host(nonce: &Nonce, session_key: &[u8], grant_key: &[u8]) -> QualifyingData {
    QualifyingData::bind(Purpose::HostAttest, nonce, &[session_key, grant_key])
}

/// qualifyingData of a guest's evidence: bound to VM and epoch.
#[must_use]
pub fn guest(nonce: &Nonce, vm: &VmId, epoch: Epoch) -> QualifyingData {
    QualifyingData::bind(
        Purpose::GuestAttest,
        nonce,
        &[vm.as_str().as_bytes(), &epoch.0.to_be_bytes()],
    )
}

/// That the attestation was made for `wanted` with this nonce and these parts.
///
/// # Errors
/// [`Rejection::QuoteWrongPurpose`] if it was made for another purpose, else
/// [`Rejection::QuoteNotBound`].
pub fn check(
    attest: &Attest,
    wanted: Purpose,
    nonce: &Nonce,
    parts: &[&[u8]],
) -> Result<(), Rejection> {
    if attest.is_for(&QualifyingData::bind(wanted, nonce, parts)) {
        return Ok(());
    }
    let other = PURPOSES.into_iter().filter(|purpose| *purpose != wanted).find(|purpose| {
        attest.is_for(&QualifyingData::bind(*purpose, nonce, parts))
            || attest.is_for(&QualifyingData::bind(*purpose, nonce, &[]))
    });
    Err(other.map_or(Rejection::QuoteNotBound, |made_for| Rejection::QuoteWrongPurpose {
        made_for,
        wanted,
    }))
}
