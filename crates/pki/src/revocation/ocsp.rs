//! OCSP answers: which of them is about a certificate, and whether it may be believed (RFC 6960,
//! sections 3.2 and 4.2.2.2).

use time::{Duration, OffsetDateTime};

use super::{Failure, crls};
use crate::{
    OcspRejection, Refusal, RevocationGround,
    cert::Cert,
    ocsp::{Answer, Single, State},
    path::Search,
    verify::ocsp_signing,
};

/// By how much a responder's clock may be ahead.
const SKEW: Duration = Duration::minutes(1);
/// How long an answer counts that does not say when the next is due.
const UNDATED: Duration = Duration::minutes(10);

/// `None` if there is no answer about this certificate.
pub(super) fn of_cert<'a>(
    search: &mut Search<'a, '_>,
    path: &[&'a Cert],
    depth: usize,
) -> Option<Result<RevocationGround, Failure>> {
    let evidence = search.context().evidence?;
    let (cert, issuer) = (path.get(depth).copied()?, path.get(depth.checked_add(1)?).copied()?);
    let (mut good, mut excuse) = (None::<OffsetDateTime>, None);
    for answer in &evidence.answers {
        let about = answer.singles.iter().filter(|single| single.has_serial_of(cert));
        let mut none = true;
        for single in about {
            none = false;
            match consult(search, path, depth, (answer, single, issuer)) {
                // A later answer may know more.
                Ok(State::Good) => good = good.max(Some(single.this_update)),
                Ok(State::Revoked(at, reason)) => {
                    return Some(Err(Failure::Revoked { at, reason }));
                }
                Ok(State::Unknown) => excuse = Some(OcspRejection::Unknown),
                Err(rejection) => excuse = excuse.or(Some(rejection)),
            }
        }
        if none && depth == 0 {
            excuse = excuse.or(Some(OcspRejection::Serial));
        }
    }
    if let Some(at) = good {
        return Some(Ok(RevocationGround::Ocsp(at)));
    }
    excuse.map(|rejection| Err(Failure::Open(Refusal::Ocsp(rejection))))
}

fn consult<'a>(
    search: &mut Search<'a, '_>,
    path: &[&'a Cert],
    depth: usize,
    (answer, single, issuer): (&'a Answer, &Single, &'a Cert),
) -> Result<State, OcspRejection> {
    let cert = path.get(depth).ok_or(OcspRejection::Serial)?;
    if !single.has_issuer_of(cert, issuer) {
        return Err(OcspRejection::Issuer);
    }
    current(answer, single, search.context().terms.at)?;
    search.sign().map_err(|_| OcspRejection::TooMany)?;
    if answer.is_by(issuer) {
        return if answer.signed_by(issuer) {
            Ok(single.state)
        } else {
            Err(OcspRejection::Signature)
        };
    }
    let above = path.get(depth.saturating_add(1)..).unwrap_or_default();
    let responder = answer.certs.iter().find(|cert| answer.is_by(cert));
    let responder = responder.ok_or(OcspRejection::Responder)?;
    if !answer.signed_by(responder) {
        return Err(OcspRejection::Signature);
    }
    if !delegated(search, responder, above) {
        return Err(OcspRejection::Responder);
    }
    Ok(single.state)
}

fn current(answer: &Answer, single: &Single, at: OffsetDateTime) -> Result<(), OcspRejection> {
    let until = single.next_update.unwrap_or(single.this_update.saturating_add(UNDATED));
    let begun = single.this_update <= at.saturating_add(SKEW);
    if begun && answer.produced_at <= at.saturating_add(SKEW) && at <= until {
        Ok(())
    } else {
        Err(OcspRejection::Stale)
    }
}

/// Whether the first of `above` itself certified `responder` to answer for it.
fn delegated<'a>(search: &mut Search<'a, '_>, responder: &'a Cert, above: &[&'a Cert]) -> bool {
    let Some(issuer) = above.first() else { return false };
    let usages = responder.ext().extended_usage.as_deref().unwrap_or_default();
    let fit = responder.issuer_key() == issuer.subject_key()
        && responder.fits_key_of(issuer)
        && usages.contains(&ocsp_signing())
        && !responder.ext().unknown_critical
        && responder.ext().key_usage.is_none_or(|usage| usage.digital_signature())
        && responder.check_time(search.context().terms.at).is_ok();
    if !fit || search.signed_by(responder, issuer).is_err() {
        return false;
    }
    if responder.ext().ocsp_no_check {
        return true;
    }
    let mut path = vec![responder];
    path.extend_from_slice(above);
    crls::of_cert(search, &path, 0).is_ok()
}
