//! Who certifies: our own CA (manner `full`), or the PKI of the key-management centre (`hybrid`,
//! `proxy`). **Invariant:** in the latter no key of a CA is in this process or in its store.

use std::sync::Arc;

use pki::OwnCa;
use time::OffsetDateTime;

use super::{
    centre::Line,
    ledger::StoreLedger,
    publish::Publisher,
    refusal::{Refusal, Why},
};

/// Who certifies.
#[derive(Debug)]
pub(super) enum Issuer {
    /// We do.
    Own(Box<Own>),
    /// The centre's PKI.
    Centre(Arc<Line>),
}

/// Our own CA and what it publishes.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) ca: OwnCa<StoreLedger>,
    pub(super) ledger: StoreLedger,
    pub(super) publisher: Publisher,
}

impl Issuer {
    /// The certificate of the CA, DER.
    pub(super) fn certificate(&self) -> &[u8] {
        match self {
            Self::Own(own) => own.ca.ca().certificate(),
            Self::Centre(line) => line.anchor(),
        }
    }

    /// Certificates that paths may lead over, besides the configured ones.
    pub(super) fn intermediates(&self) -> &[Vec<u8>] {
        match self {
            Self::Own(_) => &[],
            Self::Centre(line) => line.intermediates(),
        }
    }

    /// Our own CA.
    ///
    /// # Errors
    /// [`Refusal::IssuedElsewhere`].
    pub(super) fn own(&self) -> Result<&Own, Refusal> {
        match self {
            Self::Own(own) => Ok(own),
            Self::Centre(_) => Err(Refusal::IssuedElsewhere),
        }
    }

    /// The line to the centre, if there is one.
    pub(super) fn line(&self) -> Option<&Arc<Line>> {
        match self {
            Self::Own(_) => None,
            Self::Centre(line) => Some(line),
        }
    }

    /// Since when the CA is.
    pub(super) fn began(&self) -> OffsetDateTime {
        match self {
            Self::Own(own) => own.ca.ca().validity().not_before,
            Self::Centre(line) => line.began(),
        }
    }

    /// Until when certificates may last, as far as it is known here.
    pub(super) fn ends(&self) -> Option<OffsetDateTime> {
        match self {
            Self::Own(own) => Some(own.ca.ca().validity().not_after),
            Self::Centre(_) => None,
        }
    }

    /// Up to when what the library says of revocation holds, and since when it is known, both Unix
    /// milliseconds.
    pub(super) fn knowledge(&self, now: u64) -> Known {
        match self {
            Self::Own(_) => Known { as_of: now, until: now },
            Self::Centre(line) => line.known(now),
        }
    }

    /// Something was revoked: what is published is out of date.
    pub(super) fn outdated(&self) {
        if let Self::Own(own) = self {
            own.publisher.outdated();
        }
    }

    /// The newest CRL of the centre's PKI, DER.
    pub(super) fn foreign_crl(&self) -> Result<Option<Vec<u8>>, Why> {
        match self {
            Self::Own(_) => Ok(None),
            Self::Centre(line) => Ok(Some(line.crl().ok_or(Refusal::CrlNotThere)?)),
        }
    }
}

/// How far the library's knowledge of revocations goes, Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// It was complete then.
    pub(crate) as_of: u64,
    /// It is taken as complete up to then.
    pub(crate) until: u64,
}
