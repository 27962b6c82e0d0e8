//! Providers: PKIs that certify for us, behind one trait.
//!
//! | provider | the PKI behind it | what makes a repeated request the same request |
//! |---|---|---|
//! | [`OwnCa`] | our own CA, its key here or in a token ([`crate::CaSigner`]) | the serial number, reserved in the [`Ledger`] |
//! | [`Cmp`] | a CA that speaks CMP (RFC 4210, 9483) | the transaction id, and the confirmation of one certificate |
//! | [`Acme`] | a CA that speaks ACME (RFC 8555) | the order, which issues one certificate |
//!
//! **Invariant:** a request is known by its [`RequestId`], which the caller stores before the first
//! try. Whatever was lost on the way, asking again under the same id leads to the same certificate
//! or to a refusal, and never to a second certificate. What goes over a network goes through the
//! caller's [`Transport`].

mod acme;
mod busy;
mod cmp;
mod digest;
mod job;
mod own;
mod refusal;
mod remote;
mod template;
mod transport;

use time::OffsetDateTime;

pub use acme::{Acme, AcmeConfig, Challenge, ChallengeKind, Challenger};
pub use cmp::{Cmp, CmpConfig, CmpCredential, LostAnswer};
pub use job::{Job, Patience, Step};
pub use own::{Ledger, LedgerEntry, LedgerError, OwnCa};
pub use refusal::{AnswerRejection, ProviderError};
pub use remote::Journal;
pub use transport::{HttpAnswer, HttpRequest, Method, Transport, TransportError};

use crate::{Profile, RevocationReason, Validity};

/// What a request is known by: random, chosen by the caller, never used for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

/// Asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// What is to be in it. The caller knows that the subject may have it.
    pub profile: Profile,
    /// The key (SubjectPublicKeyInfo, DER). The caller knows that the subject holds it.
    pub spki: Vec<u8>,
    /// When it is to be valid. A foreign CA may decide otherwise.
    pub validity: Validity,
    /// The subject's own request (PKCS #10, DER), for a provider that wants one: [`Acme`].
    pub request: Option<Vec<u8>>,
}

/// Asks for a new certificate for the key of an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The old certificate, DER.
    pub certificate: Vec<u8>,
    /// What is to be in the new one.
    pub profile: Profile,
    /// When it is to be valid. A foreign CA may decide otherwise.
    pub validity: Validity,
    /// The subject's own request (PKCS #10, DER), for a provider that wants one: [`Acme`].
    pub request: Option<Vec<u8>>,
}

/// Asks that a certificate be revoked. One that is revoked stays so, with its first date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationAsk {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Why.
    pub reason: RevocationReason,
}

/// Any of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A certificate.
    Enrol(Enrolment),
    /// A new certificate for the same key.
    Renew(Renewal),
    /// A revocation.
    Revoke(RevocationAsk),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A certificate and those of the CAs above it but the root, each DER. It is for the key that
    /// was asked for; whom it leads to is for [`crate::validate`] to say.
    Issued {
        /// The certificate.
        certificate: Vec<u8>,
        /// The CAs, nearest first.
        chain: Vec<Vec<u8>>,
    },
    /// It was revoked at this moment.
    Revoked(OffsetDateTime),
}

/// How far a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At its end.
    Done(Outcome),
    /// The provider has it and is not done.
    Pending,
}

/// A PKI that certifies for us. Each call may be repeated: the id makes it one request.
pub trait Provider {
    /// Submits a request, or says how far the one is that was submitted under this id.
    ///
    /// # Errors
    /// [`ProviderError`]; after [`ProviderError::Unavailable`] it may be repeated.
    fn submit(
        &self,
        id: RequestId,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError>;

    /// How far a request is.
    ///
    /// # Errors
    /// [`ProviderError::UnknownRequest`] if it never arrived.
    fn poll(&self, id: RequestId, now: OffsetDateTime) -> Result<Progress, ProviderError>;
}
