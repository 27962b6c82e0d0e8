//! qualifyingData: what a quote is *for*. It always binds a purpose, the verifier's nonce and what
//! else the purpose needs, so that no quote made for one protocol can serve in another.

use std::fmt;

use model::Nonce;

use crate::crypt;

/// What an attestation is made for; part of the bytes that are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A host proves its state to the authority. Parts: session SPKI, HPKE public key.
    HostAttest,
    /// The host quotes a VM's vTPM. Parts: VM id bytes, epoch as u64 big-endian.
    GuestAttest,
    /// A host enrols its AK.
    Enrol,
    /// The host binds a vTPM's AK to itself.
    VtpmBinding,
    /// A guest's client proves its VM and itself to a trust service. Parts: digest of the TLS
    /// connection's exporter.
    GuestChannel,
    /// A host shows the parent under which it takes a key from another host's TPM. Parts: both
    /// hosts' names.
    KeyParent,
}

impl Purpose {
    /// The purpose's name in the tag `vouchsafe:<name>:v1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostAttest => "host-attest",
            Self::GuestAttest => "guest-attest",
            Self::Enrol => "enrol",
            Self::VtpmBinding => "vtpm-binding",
            Self::GuestChannel => "guest-channel",
            Self::KeyParent => "key-parent",
        }
    }
}

/// The 32 bytes that a TPM signs as qualifyingData.
///
/// **Invariant:** [`Self::bind`] is the only constructor; nobody passes bytes of their choice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QualifyingData([u8; 32]);

impl QualifyingData {
    /// `SHA-256(len32 || "vouchsafe:<purpose>:v1" || len32 || nonce || len32 || part ..)`, lengths
    /// as big-endian u32.
    #[must_use]
    pub fn bind(purpose: Purpose, nonce: &Nonce, parts: &[&[u8]]) -> Self {
        let tag = format!("vouchsafe:{}:v1", purpose.name());
        let mut input = Vec::with_capacity(256);
        for part in [tag.as_bytes(), &nonce.0].into_iter().chain(parts.iter().copied()) {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            input.extend_from_slice(&length.to_be_bytes());
            input.extend_from_slice(part);
        }
        Self(crypt::sha256(&[&input]))
    }

    /// The bytes, to compare with an attestation's extraData.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for QualifyingData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QualifyingData({})", model::Digest::sha256(self.0).hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_purposes_and_no_two_splits_give_the_same_bytes() {
        let nonce = Nonce([1; 32]);
        let host = QualifyingData::bind(Purpose::HostAttest, &nonce, &[b"ab", b"c"]);
        assert_ne!(host, QualifyingData::bind(Purpose::GuestAttest, &nonce, &[b"ab", b"c"]));
        assert_ne!(host, QualifyingData::bind(Purpose::HostAttest, &nonce, &[b"a", b"bc"]));
        assert_ne!(host, QualifyingData::bind(Purpose::HostAttest, &nonce, &[b"abc"]));
    }
}
