//! CRLs: which of them speak about a certificate, whether they may be believed, and what they say
//! (RFC 5280, section 6.3.3).
//!
//! Stricter than the RFC: a delta counts only on a full CRL that is itself in date, and the path of
//! a CRL's signer must end in the same anchor and be known not to be revoked. The list on which the
//! signer itself would be named may be its own in two cases: the certificate is self-issued (the
//! roll-over of a CA's key), or its CA says in it that this signer issues that list.

use time::OffsetDateTime;
use x509_cert::ext::pkix::name::GeneralName;

use super::{CrlMark, Evidence, Failure};
use crate::{
    Refusal, RevocationGround, RevocationReason,
    cert::Cert,
    crl::{ALL_REASONS, CrlRejection, Entry, List, point_names, point_reasons},
    dn::Dn,
    path::{Search, Usage},
};

/// How deep the question who signed a CRL may lead to CRLs of that signer.
const MAX_NESTED: usize = 4;

/// A distribution point, as a certificate names it.
struct Point {
    names: Vec<Vec<u8>>,
    reasons: u16,
    /// The issuers of the CRL, if not the certificate's own.
    issuers: Option<Vec<Vec<u8>>>,
}

impl Point {
    /// Those that `cert` names, and the one that is always there.
    fn all(cert: &Cert) -> Vec<Self> {
        let mut points = Vec::new();
        for point in &cert.ext().crl_points {
            let mut issuers = None;
            let mut names = Vec::new();
            let mut base = None;
            for name in point.crl_issuer.iter().flatten() {
                let GeneralName::DirectoryName(name) = name else { continue };
                let Ok(name) = Dn::new(name) else { continue };
                issuers.get_or_insert_with(Vec::new).push(name.key());
                names.push([b"dn".as_slice(), &name.key()].concat());
                base.get_or_insert(name);
            }
            if let Some(name) = &point.distribution_point {
                let issuer = base.as_ref().unwrap_or(cert.issuer());
                names = point_names(name, issuer).unwrap_or_default();
            }
            points.push(Self { names, reasons: point_reasons(point), issuers });
        }
        let own = [b"dn".as_slice(), cert.issuer_key()].concat();
        points.push(Self { names: vec![own], reasons: ALL_REASONS, issuers: None });
        points
    }

    /// Whether `list` speaks about `cert` at this point.
    fn fits(&self, list: &List, cert: &Cert) -> bool {
        let scope = &list.scope;
        let issued = match &self.issuers {
            Some(issuers) => scope.indirect && issuers.contains(&list.issuer_key),
            None => list.issuer_key == cert.issuer_key(),
        };
        let named = scope
            .points
            .as_ref()
            .is_none_or(|points| points.iter().any(|point| self.names.contains(point)));
        let kind = !(scope.attributes_only || scope.users_only && cert.is_ca())
            && (!scope.cas_only || cert.is_ca());
        issued && named && kind
    }
}

/// The best that can be said of the CRLs that did not help: what was noted first counts, unless it
/// was only that there is none.
struct Excuse(CrlRejection);

impl Excuse {
    fn note(&mut self, rejection: CrlRejection) {
        if self.0 == CrlRejection::Missing {
            self.0 = rejection;
        }
    }
}

pub(super) fn of_cert<'a>(
    search: &mut Search<'a, '_>,
    path: &[&'a Cert],
    depth: usize,
) -> Result<RevocationGround, Failure> {
    let (Some(cert), Some(evidence)) = (path.get(depth).copied(), search.context().evidence) else {
        return Err(Failure::Open(Refusal::NotChecked));
    };
    let mut covered = 0;
    let (mut newest, mut grace) = (OffsetDateTime::UNIX_EPOCH, false);
    let mut excuse = Excuse(CrlRejection::Missing);
    for point in Point::all(cert) {
        for list in candidates(evidence, &point, cert) {
            let reasons = list.scope.reasons & point.reasons;
            if reasons & !covered == 0 {
                continue;
            }
            if list.base.is_some() {
                excuse.note(CrlRejection::BaseMissing);
                continue;
            }
            match consult(search, path, depth, list) {
                Ok(said) => {
                    if let Some(Entry { at, reason }) = said.entry {
                        return Err(Failure::Revoked { at, reason });
                    }
                    covered |= reasons;
                    newest = newest.max(said.at);
                    grace |= said.grace;
                }
                Err(rejection) => excuse.note(rejection),
            }
        }
    }
    match (covered, grace) {
        (ALL_REASONS, false) => Ok(RevocationGround::Crl(newest)),
        (ALL_REASONS, true) => Ok(RevocationGround::CrlInGrace(newest)),
        (0, _) => Err(Failure::Open(Refusal::Crl(excuse.0))),
        (_, _) => {
            excuse.note(CrlRejection::ReasonsUncovered);
            Err(Failure::Open(Refusal::Crl(excuse.0)))
        }
    }
}

/// The CRLs, newest first, full ones before deltas, that speak about `cert` at `point`.
fn candidates<'a>(evidence: &'a Evidence, point: &Point, cert: &Cert) -> Vec<&'a List> {
    let own = [cert.issuer_key().to_vec()];
    let issuers = point.issuers.as_deref().unwrap_or(&own);
    let lists = issuers.iter().flat_map(|issuer| evidence.of_issuer(issuer));
    let mut lists: Vec<&List> = lists.filter(|list| point.fits(list, cert)).collect();
    lists.sort_by_key(|list| list.base.is_some());
    lists
}

/// What a CRL that is believed says.
struct Said {
    entry: Option<Entry>,
    at: OffsetDateTime,
    grace: bool,
}

/// Consults a full CRL, with the newest delta that adds to it.
fn consult<'a>(
    search: &mut Search<'a, '_>,
    path: &[&'a Cert],
    depth: usize,
    list: &'a List,
) -> Result<Said, CrlRejection> {
    let (Some(cert), Some(evidence)) = (path.get(depth), search.context().evidence) else {
        return Err(CrlRejection::Missing);
    };
    let at = search.context().terms.at;
    let mut grace = current(list, evidence, at)?;
    let signer = signer(search, path, depth, list)?;
    search.mark(list);
    let mut said = Said { entry: list.entry(cert), at: list.this_update, grace };
    let adds = |delta: &&List| {
        delta.base.is_some()
            && delta.base <= list.number
            && delta.number > list.number
            && delta.scope.der == list.scope.der
            && delta.authority_key == list.authority_key
    };
    for delta in evidence.of_issuer(&list.issuer_key).iter().filter(adds) {
        let Ok(late) = current(delta, evidence, at) else { continue };
        search.sign().map_err(|_| CrlRejection::TooMany)?;
        if !delta.signed_by(signer) {
            continue;
        }
        search.mark(delta);
        grace |= late;
        match delta.entry(cert) {
            Some(entry) if entry.reason == Some(RevocationReason::RemoveFromCrl) => {
                said.entry = None;
            }
            Some(entry) => said.entry = Some(entry),
            None => {}
        }
        (said.at, said.grace) = (delta.this_update, grace);
        break;
    }
    Ok(said)
}

/// Whether a CRL may be used now by its form, dates and number; true if only by grace.
fn current(list: &List, evidence: &Evidence, at: OffsetDateTime) -> Result<bool, CrlRejection> {
    if list.unknown_critical {
        return Err(CrlRejection::ExtensionUnknown);
    }
    let next = list.next_update.ok_or(CrlRejection::Stale)?;
    if at < list.this_update || at > next.saturating_add(seconds(evidence)) {
        return Err(CrlRejection::Stale);
    }
    let known = evidence.marks.get(&list.series());
    if known.is_some_and(|known| list.number.as_ref().is_none_or(|number| number < known)) {
        return Err(CrlRejection::RolledBack);
    }
    Ok(at > next)
}

fn seconds(evidence: &Evidence) -> time::Duration {
    time::Duration::seconds(i64::try_from(evidence.grace.as_secs()).unwrap_or(i64::MAX))
}

/// Who signed `list`: a CA on the path above the certificate, or one with a path of its own.
fn signer<'a>(
    search: &mut Search<'a, '_>,
    path: &[&'a Cert],
    depth: usize,
    list: &List,
) -> Result<&'a Cert, CrlRejection> {
    let above = path.get(depth.saturating_add(1)..).unwrap_or_default();
    let context = search.context();
    let named = above.iter().copied().filter(|cert| cert.subject_key() == list.issuer_key);
    let anchors = context.anchors.with_subject(&list.issuer_key);
    let others = context.pool.with_subject(&list.issuer_key);
    let mut rejection = CrlRejection::Issuer;
    let mut rank = 0;
    let mut note = |level: u8, why: CrlRejection| {
        if level > rank {
            (rank, rejection) = (level, why);
        }
    };
    for cert in named.chain(anchors).chain(others) {
        let key = (&list.authority_key, &cert.ext().subject_key);
        if let (Some(wanted), Some(own)) = key
            && wanted != own
        {
            continue;
        }
        search.sign().map_err(|_| CrlRejection::TooMany)?;
        if !list.signed_by(cert) {
            note(1, CrlRejection::Signature);
        } else if !cert.ext().key_usage.is_none_or(|usage| usage.crl_sign()) {
            note(3, CrlRejection::IssuerKeyUsage);
        } else if above.iter().any(|one| one.der() == cert.der()) || proven(search, path, cert) {
            return Ok(cert);
        } else {
            note(2, CrlRejection::IssuerUnproven);
        }
    }
    Err(rejection)
}

/// Whether `cert` has a path of its own to the anchor of `path`, with nothing revoked on it.
fn proven<'a>(search: &mut Search<'a, '_>, path: &[&'a Cert], cert: &'a Cert) -> bool {
    let own = std::ptr::from_ref(cert);
    let Some(anchor) = path.last() else { return false };
    if anchor.der() == cert.der() {
        return true;
    }
    if search.asked.contains(&own) {
        return cert.is_self_issued() || answers_for_itself(cert);
    }
    if search.asked.len() >= MAX_NESTED {
        return false;
    }
    search.asked.push(own);
    let found = search.aside(cert, Usage::CrlSigning);
    search.asked.pop();
    found.is_ok_and(|found| {
        let same = found.path.last().is_some_and(|last| last.der() == anchor.der());
        same && matches!(found.revocation, crate::Finding::Good(_))
    })
}

/// Whether the CA that issued `cert` names it as the issuer of the CRL on which it would be.
fn answers_for_itself(cert: &Cert) -> bool {
    let own = cert.subject_key().to_vec();
    Point::all(cert)
        .iter()
        .any(|point| point.issuers.as_ref().is_some_and(|all| all.contains(&own)))
}

impl Search<'_, '_> {
    /// Notes how far the series of a CRL that was proven has come.
    fn mark(&mut self, list: &List) {
        if let Some(number) = &list.number {
            self.marks.push(CrlMark { series: list.series(), number: number.0.clone() });
        }
    }
}
