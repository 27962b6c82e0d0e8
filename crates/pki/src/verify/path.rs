//! The search for a path: depth first, anchors before intermediates, bounded.

use time::OffsetDateTime;

use super::{CertRejection, Purpose};
use crate::cert::Cert;

/// Most CAs on a path, the anchor included.
const MAX_CAS: usize = 5;
/// Most signature checks in one search.
const MAX_CHECKS: u32 = 32;

struct Search<'a> {
    offered: &'a [Cert],
    anchors: &'a [Cert],
    now: OffsetDateTime,
    purpose: Purpose,
    checks_left: u32,
    /// The failure of the path that came furthest, and how far that was.
    best: (usize, CertRejection),
}

/// A verified path from `leaf` to an anchor, each DER.
pub(super) fn find(
    leaf: &Cert,
    offered: &[Cert],
    anchors: &[Cert],
    now: OffsetDateTime,
    purpose: Purpose,
) -> Result<Vec<Vec<u8>>, CertRejection> {
    let best = (0, CertRejection::IssuerUnknown);
    let mut search = Search { offered, anchors, now, purpose, checks_left: MAX_CHECKS, best };
    let mut path = vec![leaf];
    if search.extend(&mut path)? {
        Ok(path.into_iter().map(|cert| cert.der().to_vec()).collect())
    } else {
        Err(search.best.1)
    }
}

impl<'a> Search<'a> {
    /// Extends `path` to an anchor; `false` if that is not possible.
    fn extend(&mut self, path: &mut Vec<&'a Cert>) -> Result<bool, CertRejection> {
        let Some(last) = path.last().copied() else { return Ok(false) };
        let (anchors, offered) = (self.anchors, self.offered);
        for anchor in anchors.iter().filter(|anchor| last.may_be_issued_by(anchor)) {
            if self.step(path, last, anchor)? {
                path.push(anchor);
                return Ok(true);
            }
        }
        for issuer in offered.iter().filter(|issuer| last.may_be_issued_by(issuer)) {
            let known = path.iter().any(|cert| {
                cert.subject_der() == issuer.subject_der() && cert.spki() == issuer.spki()
            });
            if known || !self.step(path, last, issuer)? {
                continue;
            }
            path.push(issuer);
            if self.extend(path)? {
                return Ok(true);
            }
            path.pop();
        }
        Ok(false)
    }

    /// Whether `issuer` may stand above `last`, the end of `path`. The error ends the search.
    fn step(&mut self, path: &[&Cert], last: &Cert, issuer: &Cert) -> Result<bool, CertRejection> {
        // CAs between the leaf and this issuer; self-issued ones count too, which is stricter than
        // RFC 5280.
        let below = path.len().saturating_sub(1);
        match self.check(below, last, issuer) {
            Ok(()) => Ok(true),
            Err(CertRejection::SearchTooLong) => Err(CertRejection::SearchTooLong),
            Err(rejection) => {
                if path.len() > self.best.0 {
                    self.best = (path.len(), rejection);
                }
                Ok(false)
            }
        }
    }

    fn check(&mut self, below: usize, last: &Cert, issuer: &Cert) -> Result<(), CertRejection> {
        let limit = issuer.issuing()?;
        let allowed = limit.is_none_or(|limit| below <= usize::from(limit));
        if !allowed || below >= MAX_CAS {
            return Err(CertRejection::PathTooLong);
        }
        issuer.check_time(self.now)?;
        self.purpose.check_issuer(issuer)?;
        self.checks_left = self.checks_left.checked_sub(1).ok_or(CertRejection::SearchTooLong)?;
        last.verify_signature(issuer)
    }
}
