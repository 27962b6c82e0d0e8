//! OCSP (RFC 6960, nonces by RFC 9654): requests, answers as evidence, and a responder.
//!
//! Sans-IO: bytes and the time come in. An answer is believed by [`crate::validate`] only if it is
//! about the very certificate and issuer, in date, and signed by that issuer, or by a responder
//! that the issuer itself certified for this, and that is not revoked.

mod answer;
mod respond;
mod wire;

use thiserror::Error;

pub(crate) use answer::{Answer, Single, State};
pub use respond::{OcspReply, OcspStatus, Responder};

use crate::cert::Cert;

/// Longest request and longest response, in bytes.
const MAX_REQUEST: usize = 16 << 10;
const MAX_RESPONSE: usize = 256 << 10;
/// Most certificates in one request, and answers in one response.
const MAX_SINGLES: usize = 32;

/// The rule that an OCSP request or response broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OcspRejection {
    /// A critical extension that is not known.
    #[error("the OCSP message has a critical extension that is not known here")]
    ExtensionUnknown,
    /// It is about a certificate of another issuer.
    #[error("the OCSP answer is about another issuer's certificate")]
    Issuer,
    /// It cannot be read.
    #[error("the OCSP message is malformed")]
    Malformed,
    /// Another nonce than that of the request, or none.
    #[error("the OCSP answer does not have the nonce of the request")]
    Nonce,
    /// The responder said that it cannot answer.
    #[error("the OCSP responder gave no answer")]
    Refused,
    /// The signer is neither the issuer nor certified by it for this, or may be revoked.
    #[error("the OCSP answer's signer is not proven")]
    Responder,
    /// It is about another serial number.
    #[error("the OCSP answer is about another certificate")]
    Serial,
    /// The signature does not verify.
    #[error("the OCSP answer's signature does not verify")]
    Signature,
    /// Its next update is due, or it comes from the future.
    #[error("the OCSP answer is out of date")]
    Stale,
    /// It is longer than is read.
    #[error("the OCSP message is too large")]
    TooLarge,
    /// More certificates, or answers, than are looked at.
    #[error("there are too many OCSP answers")]
    TooMany,
    /// The responder does not know the certificate.
    #[error("the OCSP responder does not know the certificate")]
    Unknown,
}

impl OcspRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ExtensionUnknown => "ocsp-extension-unknown",
            Self::Issuer => "ocsp-issuer",
            Self::Malformed => "ocsp-malformed",
            Self::Nonce => "ocsp-nonce",
            Self::Refused => "ocsp-refused",
            Self::Responder => "ocsp-responder",
            Self::Serial => "ocsp-serial",
            Self::Signature => "ocsp-signature",
            Self::Stale => "ocsp-stale",
            Self::TooLarge => "ocsp-too-large",
            Self::TooMany => "ocsp-too-many",
            Self::Unknown => "ocsp-unknown",
        }
    }
}

/// A request (DER) for the status of `certificate`, issued by `issuer` (both DER), with a `nonce`
/// of 1 to 128 bytes (32 are usual) that the answer must repeat.
///
/// # Errors
/// [`OcspRejection::Malformed`] if one of them is no certificate, [`OcspRejection::Nonce`] if the
/// nonce has another length.
pub fn ocsp_request(
    certificate: &[u8],
    issuer: &[u8],
    nonce: Option<&[u8]>,
) -> Result<Vec<u8>, OcspRejection> {
    if nonce.is_some_and(|nonce| !(1..=128).contains(&nonce.len())) {
        return Err(OcspRejection::Nonce);
    }
    let parse = |der| Cert::parse(der).map_err(|_| OcspRejection::Malformed);
    let (certificate, issuer) = (parse(certificate)?, parse(issuer)?);
    wire::request(&certificate, &issuer, nonce).map_err(|_| OcspRejection::Malformed)
}
