//! What comes before the work on a request: whether it is for this service, whether it is to be
//! presented again with a nonce, and whether the signature over the whole is good.
//!
//! **Invariant:** before the nonce has come back nothing is remembered of a request, and its
//! signature is not looked at.

use super::{Refused, TwoPhase, Work};
use crate::{
    c14n::{Context, Method, canonicalize},
    dsig::{DigestAlgorithm, Place, verify},
    message::{KeyInfo, Major, Mechanism, Minor, Request, RequestBody, signature_of},
    nonce::{FirstRequest, NonceBook, NonceRejection},
    uri,
    xml::ElementRef,
};

/// A request that may be worked on, or must be presented again.
pub(super) enum Admitted {
    /// With the verified value of the signature over the whole, if there is one.
    Signed(Option<Vec<u8>>),
    /// With this nonce.
    Represent(Vec<u8>),
}

/// Whether `request`, which is `message`, is for this service, has its nonce and a good signature.
pub(super) fn admit(
    nonces: &NonceBook,
    message: ElementRef<'_>,
    request: &Request,
    work: &mut Work<'_>,
) -> Result<Admitted, Refused> {
    if request.head.service != work.policy.service {
        return Err(Refused::sender(Minor::Failure, "service-uri"));
    }
    if let Some(nonce) = two_phase(nonces, message, request, work)? {
        return Ok(Admitted::Represent(nonce));
    }
    let signature = signature_of(message);
    let hint = signature.and_then(|s| s.children().find(|child| child.is(uri::DS, "KeyInfo")));
    let hint = hint.and_then(|info| KeyInfo::read(info).ok());
    let key = signature.and_then(|_| work.service.message_key(hint.as_ref()));
    let value = match (signature, &key) {
        (Some(signature), Some(key)) => {
            let place = Place { message, target: message };
            let signed = verify(signature, place, key.verifying(), work.policy.signatures);
            let signed = signed.map_err(|r| Refused::sender(Minor::NoAuthentication, r.code()))?;
            Some(signed.value().to_vec())
        }
        _ => None,
    };
    let anonymous = value.is_none() && !work.circumstances.proven;
    if anonymous && work.policy.signed_questions && asks(request) {
        return Err(Refused::sender(Minor::NoAuthentication, "signature-missing"));
    }
    Ok(Admitted::Signed(value))
}

/// Whether `request` is a question, or has one in it.
fn asks(request: &Request) -> bool {
    match &request.body {
        RequestBody::Locate(_) | RequestBody::Validate(_) => true,
        RequestBody::Compound(all) => all.iter().any(asks),
        RequestBody::Register { .. }
        | RequestBody::Reissue { .. }
        | RequestBody::Revoke { .. }
        | RequestBody::Recover { .. }
        | RequestBody::Pending { .. }
        | RequestBody::Status { .. } => false,
    }
}

/// The nonce to present the request with, if it takes two phases and this is the first.
fn two_phase(
    nonces: &NonceBook,
    message: ElementRef<'_>,
    request: &Request,
    work: &mut Work<'_>,
) -> Result<Option<Vec<u8>>, Refused> {
    let takes_two = |operation| work.policy.two_phase.contains(&operation);
    let inner = if let RequestBody::Compound(all) = &request.body {
        all.iter().any(|inner| takes_two(inner.operation()))
    } else {
        false
    };
    let head = &request.head;
    let wanted = match work.policy.when {
        TwoPhase::Always => true,
        TwoPhase::UnderLoad => {
            work.circumstances.under_load
                || head.offers(&Mechanism::Represent)
                || head.nonce.is_some()
        }
        TwoPhase::Never => false,
    };
    if !wanted || (!takes_two(request.operation()) && !inner) {
        return Ok(None);
    }
    let (now, requester) = (work.circumstances.now, work.circumstances.requester);
    let content = content(message);
    let first = |id| FirstRequest { id, content: &content, requester };
    let again = |work: &mut Work<'_>, code| {
        if head.offers(&Mechanism::Represent) {
            Ok(Some(nonces.issue(&first(&head.id), now, (work.random)())))
        } else {
            Err(Refused::sender(Minor::RepresentRequired, code))
        }
    };
    let (Some(nonce), Some(original)) = (&head.nonce, &head.original_request_id) else {
        return again(work, "nonce-missing");
    };
    match nonces.redeem(nonce, &first(original), now) {
        Ok(()) => Ok(None),
        Err(NonceRejection::Expired) if head.offers(&Mechanism::Represent) => {
            Ok(Some(nonces.issue(&first(&head.id), now, (work.random)())))
        }
        Err(NonceRejection::WindowFull) => Err(Refused {
            major: Major::Receiver,
            minor: Minor::Refused,
            code: NonceRejection::WindowFull.code(),
        }),
        Err(r) => Err(Refused::sender(Minor::Refused, r.code())),
    }
}

/// A digest of the key bindings that a request is about: the same in both phases.
fn content(message: ElementRef<'_>) -> Vec<u8> {
    fn add(element: ElementRef<'_>, text: &mut String) {
        text.push_str(element.name().1);
        for child in element.children() {
            let local = child.name().1;
            if local.ends_with("KeyBinding") {
                let form = canonicalize(child, None, &Method::EXCLUSIVE, Context::InPlace);
                text.push_str(&form.unwrap_or_default());
            } else if local.ends_with("Request") {
                add(child, text);
            }
        }
    }
    let mut text = String::new();
    add(message, &mut text);
    DigestAlgorithm::Sha256.of(text.as_bytes()).as_ref().to_vec()
}
