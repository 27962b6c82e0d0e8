//! What the answers of the CA lead to, once they are known to be its.

use der::{Decode as _, Encode as _};
use time::OffsetDateTime;

use super::{
    super::{
        AnswerRejection, Outcome, ProviderError,
        remote::{Bytes, Next, accept},
    },
    State,
    message::Reply,
    wire::{CertRep, ErrorMessage, PollRep, RevRep, StatusInfo, body},
};

/// Most CA certificates in an answer that are looked at.
const MAX_AUTHORITIES: usize = 16;

pub(super) fn done(certificate: Bytes, chain: Vec<Bytes>) -> Next<State> {
    let chain = chain.into_iter().map(|one| one.0).collect();
    Next::Done(Outcome::Issued { certificate: certificate.0, chain })
}

fn malformed(_: der::Error) -> AnswerRejection {
    AnswerRejection::Malformed
}

pub(super) fn status(reply: &Reply) -> Result<StatusInfo, AnswerRejection> {
    Ok(ErrorMessage::from_der(&reply.body).map_err(malformed)?.status)
}

/// What an error message says.
pub(super) fn refused(reply: &Reply) -> Result<ProviderError, AnswerRejection> {
    Ok(said_no(&status(reply)?))
}

fn said_no(status: &StatusInfo) -> ProviderError {
    if status.has(StatusInfo::SYSTEM_UNAVAILABLE) {
        ProviderError::Unavailable(status.words().into())
    } else {
        ProviderError::Refused(status.words())
    }
}

pub(super) fn wait(
    reply: &Reply,
    spki: Bytes,
    now: OffsetDateTime,
) -> Result<Next<State>, ProviderError> {
    let all = Vec::<PollRep>::from_der(&reply.body).map_err(malformed)?;
    let [one] = all.as_slice() else { return Err(AnswerRejection::Unexpected.into()) };
    if one.request != 0 {
        return Err(AnswerRejection::Unexpected.into());
    }
    let not_before = now.unix_timestamp().saturating_add(i64::from(one.after));
    Ok(Next::Wait(State::Waiting { spki, theirs: Bytes(reply.nonce.clone()), not_before }))
}

/// Reads an answer that should have a certificate.
pub(super) fn certified(
    reply: &Reply,
    spki: Bytes,
    now: OffsetDateTime,
) -> Result<Next<State>, ProviderError> {
    if reply.kind == body::ERROR {
        return Err(refused(reply)?);
    }
    if ![body::IP, body::CP, body::KUP].contains(&reply.kind) {
        return Err(AnswerRejection::Unexpected.into());
    }
    let CertRep { authorities, responses } = CertRep::from_der(&reply.body).map_err(malformed)?;
    let [response] = responses.as_slice() else {
        return Err(AnswerRejection::Unexpected.into());
    };
    let theirs = Bytes(reply.nonce.clone());
    match (response.status.status, &response.pair) {
        // Accepted, also with changes: what counts is checked on the certificate.
        (0 | 1, Some(pair)) if response.request == 0 => {
            let mut offered = reply.extra.clone();
            for authority in authorities.iter().flatten().take(MAX_AUTHORITIES) {
                offered.push(authority.to_der().map_err(malformed)?);
            }
            let certificate = pair.certificate.to_der().map_err(malformed)?;
            let accepted = accept(&certificate, &offered, &spki.0);
            let chain = match &accepted {
                Ok(Outcome::Issued { chain, .. }) => chain.iter().cloned().map(Bytes).collect(),
                Ok(Outcome::Revoked(_)) | Err(_) => Vec::new(),
            };
            let (certificate, accepted) = (Bytes(certificate), accepted.is_ok());
            let sent = false;
            Ok(Next::On(State::Confirming { certificate, chain, theirs, accepted, sent }))
        }
        (2, _) => Err(said_no(&response.status)),
        (3, None) => {
            let not_before = now.unix_timestamp();
            Ok(Next::Go(State::Waiting { spki, theirs, not_before }))
        }
        (_, _) => Err(AnswerRejection::Unexpected.into()),
    }
}

pub(super) fn revoked(reply: &Reply, now: OffsetDateTime) -> Result<Next<State>, ProviderError> {
    let answer = RevRep::from_der(&reply.body).map_err(malformed)?;
    let [status] = answer.status.as_slice() else {
        return Err(AnswerRejection::Unexpected.into());
    };
    // Accepted, or said to be revoked, or so before.
    if matches!(status.status, 0 | 1 | 5) || status.has(StatusInfo::CERT_REVOKED) {
        Ok(Next::Done(Outcome::Revoked(now)))
    } else {
        Err(said_no(status))
    }
}
