//! Whether the certificates of a path were revoked, by CRLs and OCSP answers that the caller
//! brings.
//!
//! A certificate is not revoked if an OCSP answer, or CRLs that together speak about every reason,
//! say so; whatever is proven to say that it is revoked wins. What is not proven says nothing: then
//! the status is open, with the rule that the best piece of evidence broke.

mod crls;
mod marks;
mod ocsp;

use std::{collections::HashMap, time::Duration};

use time::OffsetDateTime;

pub use marks::CrlMarks;

use crate::{
    Finding, Ground, OcspRejection, Refusal, RevocationGround, Revoked,
    cert::Cert,
    crl::{CrlRejection, List, Number},
    ocsp::Answer,
    path::Search,
};

/// Most CRLs, and most OCSP answers.
const MAX_PIECES: usize = 20_000;

/// How far a series of CRLs has come: remembered, so that an older CRL is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlMark {
    /// Which series: issuer, key, scope, full or delta.
    pub series: [u8; 32],
    /// The highest number that was proven, big-endian without leading zeros.
    pub number: Vec<u8>,
}

/// CRLs and OCSP answers; none of them is believed for being here.
#[derive(Debug, Default)]
pub struct Evidence {
    /// By issuer; newest number first.
    crls: HashMap<Vec<u8>, Vec<List>>,
    answers: Vec<Answer>,
    marks: HashMap<[u8; 32], Number>,
    grace: Duration,
    pieces: usize,
}

impl Evidence {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a CRL count for `grace` after its next update was due; the ground says that it did.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Adds a CRL, DER.
    ///
    /// # Errors
    /// [`CrlRejection`] if it cannot be read or there are too many.
    pub fn add_crl(&mut self, der: &[u8]) -> Result<(), CrlRejection> {
        self.pieces = self.pieces.saturating_add(1);
        if self.pieces > MAX_PIECES {
            return Err(CrlRejection::TooMany);
        }
        let list = List::parse(der)?;
        let lists = self.crls.entry(list.issuer_key.clone()).or_default();
        let rank = |list: &List| (list.number.clone(), list.this_update);
        let at = lists.partition_point(|one| rank(one) > rank(&list));
        lists.insert(at, list);
        Ok(())
    }

    /// Adds an OCSP response, DER.
    ///
    /// # Errors
    /// [`OcspRejection`] if it cannot be read, is no answer, or there are too many.
    pub fn add_ocsp(&mut self, der: &[u8]) -> Result<(), OcspRejection> {
        self.pieces = self.pieces.saturating_add(1);
        if self.pieces > MAX_PIECES {
            return Err(OcspRejection::TooMany);
        }
        self.answers.push(Answer::parse(der)?);
        Ok(())
    }

    /// Adds the OCSP response (DER) to a request that had this nonce.
    ///
    /// # Errors
    /// As [`Evidence::add_ocsp`], and [`OcspRejection::Nonce`] if it does not repeat the nonce.
    pub fn add_ocsp_with_nonce(&mut self, der: &[u8], nonce: &[u8]) -> Result<(), OcspRejection> {
        if Answer::parse(der)?.nonce.as_deref() != Some(nonce) {
            return Err(OcspRejection::Nonce);
        }
        self.add_ocsp(der)
    }

    /// Remembers how far series of CRLs had come; a lower number is refused from then on.
    pub fn remember(&mut self, marks: impl IntoIterator<Item = CrlMark>) {
        for mark in marks {
            let number = Number::new(&mark.number);
            let known = self.marks.entry(mark.series).or_insert_with(|| number.clone());
            if *known < number {
                *known = number;
            }
        }
    }

    fn of_issuer(&self, issuer: &[u8]) -> &[List] {
        self.crls.get(issuer).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Why a certificate is not known to be good.
enum Failure {
    Revoked { at: OffsetDateTime, reason: Option<crate::RevocationReason> },
    Open(Refusal),
}

/// What is known about the certificates of `path` (leaf first, anchor last).
pub(crate) fn of_path<'a>(search: &mut Search<'a, '_>, path: &[&'a Cert]) -> Finding {
    let (mut grounds, mut open) = (Vec::new(), None);
    for depth in 0..path.len().saturating_sub(1) {
        match of_cert(search, path, depth) {
            Ok(ground) => grounds.push(ground),
            Err(Failure::Revoked { at, reason }) => {
                return Finding::Bad(Refusal::Revoked(Revoked { depth, at, reason }));
            }
            Err(Failure::Open(refusal)) => open = open.or(Some(refusal)),
        }
    }
    open.map_or(Finding::Good(Ground::NotRevoked(grounds)), Finding::Open)
}

fn of_cert<'a>(
    search: &mut Search<'a, '_>,
    path: &[&'a Cert],
    depth: usize,
) -> Result<RevocationGround, Failure> {
    let by_ocsp = ocsp::of_cert(search, path, depth);
    if let Some(Err(revoked @ Failure::Revoked { .. })) = by_ocsp {
        return Err(revoked);
    }
    let by_crl = crls::of_cert(search, path, depth);
    match (by_ocsp, by_crl) {
        (_, Err(revoked @ Failure::Revoked { .. })) => Err(revoked),
        (Some(Ok(ground)), _) | (_, Ok(ground)) => Ok(ground),
        // What is wrong with an answer that is there tells more than that there is no CRL.
        (Some(Err(wrong)), Err(Failure::Open(Refusal::Crl(CrlRejection::Missing)))) => Err(wrong),
        (_, Err(open)) => Err(open),
    }
}
