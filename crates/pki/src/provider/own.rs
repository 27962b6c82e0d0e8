//! Our own CA as a provider, over a ledger that the caller keeps durably.

use thiserror::Error;
use time::OffsetDateTime;

use super::{
    Ask, Enrolment, Outcome, Progress, Provider, ProviderError, Renewal, RequestId, RevocationAsk,
    busy::Busy, digest,
};
use crate::{
    Ca, CertRejection, IssueError, Profile, Revocation, Validity, ca::random_serial, cert::Cert,
};

/// The ledger could not be read or written.
#[derive(Debug, Error)]
#[error("the ledger of certificates cannot be used")]
pub struct LedgerError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What is written about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerEntry {
    /// A serial number is reserved for it; the certificate may not have been made yet.
    Issuing {
        /// Digest of what was asked.
        ask: [u8; 32],
        /// The serial number.
        serial: [u8; 16],
    },
    /// The certificate was made.
    Issued {
        /// Digest of what was asked.
        ask: [u8; 32],
        /// The serial number.
        serial: [u8; 16],
        /// The certificate, DER.
        certificate: Vec<u8>,
    },
    /// A certificate was revoked.
    Revoked {
        /// Digest of what was asked.
        ask: [u8; 32],
        /// What goes on the CRL.
        revocation: Revocation,
    },
}

impl LedgerEntry {
    const fn ask(&self) -> &[u8; 32] {
        match self {
            Self::Issuing { ask, .. } | Self::Issued { ask, .. } | Self::Revoked { ask, .. } => ask,
        }
    }
}

/// Where requests and certificates are recorded. What `record` returned for is there after a crash.
pub trait Ledger {
    /// What is recorded about a request.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn find(&self, id: RequestId) -> Result<Option<LedgerEntry>, LedgerError>;

    /// Records what became of a request, instead of what was recorded before.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn record(&self, id: RequestId, entry: &LedgerEntry) -> Result<(), LedgerError>;

    /// The revocation of a certificate of this CA.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn revocation(&self, serial: &[u8; 16]) -> Result<Option<Revocation>, LedgerError>;
}

/// Our own CA.
#[derive(Debug)]
pub struct OwnCa<L> {
    ca: Ca,
    own: Cert,
    chain: Vec<Vec<u8>>,
    ledger: L,
    busy: Busy,
}

impl<L: Ledger> OwnCa<L> {
    /// A provider that issues with `ca`; `chain` are the certificates (DER) that go with what it
    /// issues, nearest first.
    ///
    /// # Errors
    /// [`IssueError::CaCertificate`].
    pub fn new(ca: Ca, chain: Vec<Vec<u8>>, ledger: L) -> Result<Self, IssueError> {
        let own = Cert::parse(ca.certificate()).map_err(IssueError::CaCertificate)?;
        Ok(Self { ca, own, chain, ledger, busy: Busy::default() })
    }

    /// The CA.
    pub const fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The ledger.
    pub const fn ledger(&self) -> &L {
        &self.ledger
    }

    /// What is recorded about `id`, if it is about the same request.
    fn known(&self, id: RequestId, ask: &[u8; 32]) -> Result<Option<LedgerEntry>, ProviderError> {
        match self.ledger.find(id)? {
            Some(entry) if entry.ask() != ask => Err(ProviderError::IdReused),
            entry => Ok(entry),
        }
    }

    fn issue(
        &self,
        id: RequestId,
        ask: [u8; 32],
        (profile, spki, validity): (&Profile, &[u8], Validity),
    ) -> Result<Progress, ProviderError> {
        let serial = match self.known(id, &ask)? {
            Some(LedgerEntry::Issued { certificate, .. }) => return Ok(self.done(certificate)),
            Some(LedgerEntry::Revoked { .. }) => return Err(ProviderError::IdReused),
            // Half done: whether it was signed or not, it is this one.
            Some(LedgerEntry::Issuing { serial, .. }) => serial,
            None => {
                let serial = random_serial().map_err(ProviderError::Issue)?;
                self.ledger.record(id, &LedgerEntry::Issuing { ask, serial })?;
                serial
            }
        };
        let issued = self.ca.issue_as(serial, profile, spki, validity);
        let certificate = issued.map_err(refused)?.der;
        let entry = LedgerEntry::Issued { ask, serial, certificate: certificate.clone() };
        self.ledger.record(id, &entry)?;
        Ok(self.done(certificate))
    }

    fn done(&self, certificate: Vec<u8>) -> Progress {
        Progress::Done(Outcome::Issued { certificate, chain: self.chain.clone() })
    }

    /// A certificate that this CA signed, and its serial number.
    fn ours(&self, certificate: &[u8]) -> Result<(Cert, [u8; 16]), ProviderError> {
        let cert = Cert::parse(certificate).map_err(ProviderError::NotOurs)?;
        if cert.issuer_key() != self.own.subject_key() {
            return Err(ProviderError::NotOurs(CertRejection::IssuerUnknown));
        }
        cert.verify_signature(&self.own).map_err(ProviderError::NotOurs)?;
        let serial = cert.serial().try_into();
        let serial = serial.map_err(|_| ProviderError::NotOurs(CertRejection::Malformed))?;
        Ok((cert, serial))
    }
}

impl<L: Ledger> OwnCa<L> {
    fn renew(
        &self,
        id: RequestId,
        digest: [u8; 32],
        ask: &Renewal,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError> {
        let (old, serial) = self.ours(&ask.certificate)?;
        // A renewal that was answered before is answered again, whatever happened since.
        if !matches!(self.known(id, &digest)?, Some(LedgerEntry::Issued { .. })) {
            old.check_time(now).map_err(ProviderError::NotOurs)?;
            if self.ledger.revocation(&serial)?.is_some() {
                return Err(ProviderError::Revoked);
            }
        }
        self.issue(id, digest, (&ask.profile, old.spki(), ask.validity))
    }

    fn revoke(
        &self,
        id: RequestId,
        digest: [u8; 32],
        ask: &RevocationAsk,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError> {
        let (_, serial) = self.ours(&ask.certificate)?;
        let known = match self.known(id, &digest)? {
            Some(LedgerEntry::Revoked { revocation, .. }) => Some(revocation),
            Some(LedgerEntry::Issuing { .. } | LedgerEntry::Issued { .. }) => {
                return Err(ProviderError::IdReused);
            }
            None => self.ledger.revocation(&serial)?,
        };
        let revocation = known.unwrap_or(Revocation { serial, at: now, reason: ask.reason });
        self.ledger.record(id, &LedgerEntry::Revoked { ask: digest, revocation })?;
        Ok(Progress::Done(Outcome::Revoked(revocation.at)))
    }
}

impl<L: Ledger> Provider for OwnCa<L> {
    fn submit(
        &self,
        id: RequestId,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError> {
        let Some(_turn) = self.busy.take(id) else { return Ok(Progress::Pending) };
        let digest = digest::of(ask);
        match ask {
            Ask::Enrol(Enrolment { profile, spki, validity, request: _ }) => {
                self.issue(id, digest, (profile, spki, *validity))
            }
            Ask::Renew(ask) => self.renew(id, digest, ask, now),
            Ask::Revoke(ask) => self.revoke(id, digest, ask, now),
        }
    }

    fn poll(&self, id: RequestId, _now: OffsetDateTime) -> Result<Progress, ProviderError> {
        match self.ledger.find(id)? {
            Some(LedgerEntry::Issued { certificate, .. }) => Ok(self.done(certificate)),
            Some(LedgerEntry::Revoked { revocation, .. }) => {
                Ok(Progress::Done(Outcome::Revoked(revocation.at)))
            }
            // A crash came between: only the request itself, asked again, finishes it.
            Some(LedgerEntry::Issuing { .. }) | None => Err(ProviderError::UnknownRequest),
        }
    }
}

/// A key that cannot sign now may sign later.
fn refused(error: IssueError) -> ProviderError {
    if matches!(error, IssueError::Signer) {
        ProviderError::Unavailable(Box::new(error))
    } else {
        ProviderError::Issue(error)
    }
}
