//! Certificates as key bindings: what a certificate and its validation say, in the words of
//! [`model::keys`].

use aws_lc_rs::digest::{Context, SHA256};
use model::{
    api::Bytes,
    keys::{KeyAspects, KeyBinding, KeyExample, KeyFinding, KeyStatus, KeyUse},
};
use time::OffsetDateTime;

use crate::{Aspect, CertFacts, Finding, KeyUses, Refusal, Status, Validity, names};

/// The binding as a certificate (DER), with these facts, says it; nothing is said of its status.
#[must_use]
pub fn said(facts: &CertFacts, certificate: &Bytes) -> KeyBinding {
    KeyBinding {
        id: format!("f{}", short_name(facts)),
        key: Bytes(facts.spki.clone()),
        name: None,
        certificates: vec![certificate.clone()],
        uses: uses(facts.uses),
        use_with: names::of_certificate(&facts.names, &facts.subject),
        not_before: millis(facts.not_before),
        not_on_or_after: millis(facts.not_after).saturating_add(1000),
        status: None,
    }
}

/// 32 hexadecimal digits that stand for one certificate.
fn short_name(facts: &CertFacts) -> String {
    hex::encode(short_digest(&[&facts.spki, &facts.serial, facts.issuer.as_bytes()]))
}

/// SHA-256 over the parts, each after its length (8 octets, big-endian): what libraries of
/// certificates know their records by.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().unwrap_or_default()
}

/// The first 16 octets of it.
#[must_use]
pub fn short_digest(parts: &[&[u8]]) -> [u8; 16] {
    digest(parts).first_chunk().copied().unwrap_or_default()
}

/// A serial number without leading zeros: as it is compared.
#[must_use]
pub fn serial(octets: &[u8]) -> &[u8] {
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    octets.get(zeros..).unwrap_or_default()
}

/// Whether a binding has everything that the example says, but its name.
#[must_use]
pub fn agrees(binding: &KeyBinding, example: &KeyExample) -> bool {
    let named = |wanted| binding.use_with.iter().any(|one| names::same(one, wanted));
    example.key.as_ref().is_none_or(|key| *key == binding.key)
        && example.uses.iter().all(|one| binding.uses.contains(one))
        && example.use_with.iter().all(named)
}

/// Whether the certificate's issuer and serial number are those of the example, if that has any.
#[must_use]
pub fn is_named(facts: &CertFacts, example: &KeyExample) -> bool {
    example.issuer_serial.as_ref().is_none_or(|named| {
        serial(&named.serial.0) == serial(&facts.serial)
            && names::canonical_dn(&named.issuer) == names::canonical_dn(&facts.issuer)
    })
}

/// What a validation found, aspect by aspect.
#[must_use]
pub fn status(status: &Status) -> KeyStatus {
    let finding = |aspect: Aspect| match status.finding(aspect) {
        Finding::Good(_) => KeyFinding::Good,
        Finding::Bad(_) => KeyFinding::Bad,
        Finding::Open(_) => KeyFinding::Open,
    };
    let aspects = KeyAspects {
        issuer_trust: finding(Aspect::IssuerTrust),
        revocation_status: finding(Aspect::RevocationStatus),
        validity_interval: finding(Aspect::ValidityInterval),
        signature: finding(Aspect::Signature),
    };
    KeyStatus::judged(aspects, status.refusal().map(Refusal::code))
}

/// Uses in the words of the wire.
#[must_use]
pub fn uses(uses: KeyUses) -> Vec<KeyUse> {
    let all = [
        (uses.encryption, KeyUse::Encryption),
        (uses.exchange, KeyUse::Exchange),
        (uses.signature, KeyUse::Signature),
    ];
    all.into_iter().filter(|(allowed, _)| *allowed).map(|(_, one)| one).collect()
}

/// Unix milliseconds.
#[must_use]
pub fn millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().saturating_mul(1000)
}

/// The interval to certify: what was asked for (first moment, and the first one after it, Unix
/// milliseconds), as far as `allowed` and `last` allow it; none if nothing is left at `now`.
#[must_use]
pub fn interval(
    allowed: Validity,
    (not_before, not_on_or_after): (Option<i64>, Option<i64>),
    (now, last): (OffsetDateTime, Option<OffsetDateTime>),
) -> Option<Validity> {
    let instant = |ms: i64| OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok();
    let mut validity = allowed;
    if let Some(asked) = not_before {
        validity.not_before = instant(asked)?.max(allowed.not_before);
    }
    if let Some(asked) = not_on_or_after {
        // The end of an interval is outside of it, the last moment of a certificate inside.
        validity.not_after = instant(asked.saturating_sub(1))?.min(allowed.not_after);
    }
    if let Some(last) = last {
        validity.not_after = validity.not_after.min(last);
    }
    (validity.not_before < validity.not_after && validity.not_after > now).then_some(validity)
}
