//! Who may give an order, and whether the key is theirs.

use super::{Refused, Work};
use crate::{
    dsig::{Place, PublicKey, VerifyingKey, verify},
    message::{Authentication, Binding, Minor, Operation, Request},
    service::Requester,
    xml::{Element, ElementRef},
};

/// At most so many keys are tried for one signature.
const KEYS: usize = 4;

/// A requester whose authentication was verified.
#[derive(Debug)]
pub(super) enum Authenticated {
    Key(String),
    NotBound { protocol: String, value: Vec<u8> },
}

impl Authenticated {
    pub(super) fn requester(&self) -> Requester<'_> {
        match self {
            Self::Key(name) => Requester::Key(name),
            Self::NotBound { protocol, value } => Requester::NotBound { protocol, value },
        }
    }
}

/// Verifies the authentication of an order about `binding`. A signature over the binding counts
/// before anything that is not bound to it.
pub(super) fn authenticate(
    element: ElementRef<'_>,
    operation: Operation,
    binding: &Binding,
    claim: &Authentication,
    work: &mut Work<'_>,
) -> Result<Authenticated, Refused> {
    if claim.key_binding.is_some() {
        return by_signature(element, operation, binding, work).map(Authenticated::Key);
    }
    match &claim.not_bound {
        Some(claim) if work.circumstances.confidential => Ok(Authenticated::NotBound {
            protocol: claim.protocol.clone(),
            value: claim.value.clone(),
        }),
        Some(_) => Err(Refused::sender(Minor::NoAuthentication, "authentication-channel")),
        None => Err(Refused::sender(Minor::NoAuthentication, "authentication-missing")),
    }
}

fn by_signature(
    element: ElementRef<'_>,
    operation: Operation,
    binding: &Binding,
    work: &mut Work<'_>,
) -> Result<String, Refused> {
    let refused = |code| Refused::sender(Minor::NoAuthentication, code);
    let signature = Request::authentication_of(element).ok_or(refused("authentication-missing"))?;
    let target = Request::binding_of(element).ok_or(refused("authentication-missing"))?;
    let place = Place { message: element, target };
    let mut outcome = refused("authentication-key-unknown");
    let keys = match work.service.authentication_keys(operation, binding) {
        Ok(keys) => keys,
        Err(failure) => {
            work.service.authentication_failed(operation, binding);
            return Err(failure.into());
        }
    };
    for (name, key) in keys.into_iter().take(KEYS) {
        match verify(signature, place, key.verifying(), work.policy.signatures) {
            Ok(_) => return Ok(name),
            Err(r) => outcome = refused(r.code()),
        }
    }
    work.service.authentication_failed(operation, binding);
    Err(outcome)
}

/// Verifies the proof of possession: by the very key that the binding names, and no other. `None`
/// if the binding names no key, so that the service is to make one.
pub(super) fn possession<'b>(
    element: ElementRef<'_>,
    binding: &'b Binding,
    proof: Option<&Element>,
    work: &Work<'_>,
) -> Result<Option<&'b PublicKey>, Refused> {
    let key = binding.key_info.as_ref().and_then(|info| info.key_value());
    match (key, proof) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Refused::sender(Minor::Failure, "possession-of-no-key")),
        (Some(_), None) => {
            Err(Refused::sender(Minor::ProofOfPossessionRequired, "possession-missing"))
        }
        (Some(key), Some(_)) => {
            let missing = Refused::sender(Minor::ProofOfPossessionRequired, "possession-missing");
            let signature = Request::possession_of(element).ok_or(missing.clone())?;
            let target = Request::binding_of(element).ok_or(missing)?;
            let place = Place { message: element, target };
            verify(signature, place, VerifyingKey::Public(key), work.policy.signatures)
                .map_err(|r| Refused::sender(Minor::ProofOfPossessionRequired, r.code()))?;
            Ok(Some(key))
        }
    }
}
