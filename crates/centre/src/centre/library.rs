//! The centre's library: every certificate that it ordered, found by certificate, issuer and serial
//! number, key, name, or use-with.
//!
//! **Invariant:** a row only leads somewhere: what is answered was checked against the record.

use model::{
    api::Bytes,
    keys::{KeyBinding, KeyExample},
};
use pki::{CertFacts, binding, names};
use store::{
    typed::{RecordError, Records, Versioned, Write},
    wait,
};

use super::{
    record::{self, BoundId, BoundRecord, digest},
    refusal::{Refusal, Why},
};

/// Rows that one question looks at.
const MAX_ROWS: usize = 256;

/// Where a certificate leads from, besides itself.
fn digests(facts: &CertFacts, one: &BoundRecord) -> Vec<[u8; 16]> {
    let mut all = vec![of_key(&facts.spki), of_serial(&facts.issuer, &facts.serial)];
    all.extend(one.name.as_deref().map(of_name));
    all.extend(one.use_with.iter().map(of_use));
    all.sort_unstable();
    all.dedup();
    all
}

fn of_key(key: &[u8]) -> [u8; 16] {
    digest(&[b"key", key])
}

fn of_name(name: &str) -> [u8; 16] {
    digest(&[b"name", name.as_bytes()])
}

fn of_use(one: &model::keys::UseWith) -> [u8; 16] {
    digest(&[b"use", one.application.as_bytes(), names::canonical(one).as_bytes()])
}

fn of_serial(issuer: &str, serial: &[u8]) -> [u8; 16] {
    digest(&[b"serial", names::canonical_dn(issuer).as_bytes(), binding::serial(serial)])
}

/// Adds a binding and its rows to a write.
///
/// # Errors
/// [`Refusal::CertificateUnreadable`].
pub(crate) fn add(mut write: Write, one: &BoundRecord) -> Result<Write, Why> {
    let facts = CertFacts::read(&one.certificate.0);
    let facts = facts.map_err(|_| Refusal::CertificateUnreadable)?;
    let id = BoundId::of(&one.certificate.0);
    let digests = digests(&facts, one);
    write = write.put(record::bound(id)?, one, 0)?;
    for digest in digests {
        write = write.put(record::row(digest, id)?, &(), 0)?;
    }
    Ok(write)
}

/// The binding of this certificate.
pub(crate) fn of_certificate(
    records: &Records,
    certificate: &[u8],
) -> Result<Option<Versioned<BoundRecord>>, RecordError> {
    wait(records.get(&record::bound(BoundId::of(certificate))?))
}

/// What fits the example, at most `limit`, and whether there is more.
///
/// # Errors
/// [`Refusal::ExampleEmpty`].
pub(crate) fn find(
    records: &Records,
    example: &KeyExample,
    limit: usize,
) -> Result<(Vec<(BoundRecord, KeyBinding)>, bool), Why> {
    let ids = match example.certificates.first() {
        Some(certificate) => vec![BoundId::of(&certificate.0)],
        None => led(records, example)?,
    };
    let (mut all, mut more) = (Vec::new(), false);
    for id in ids {
        let Some(known) = wait(records.get(&record::bound(id)?))? else { continue };
        let Some(binding) = like(&known.value, example) else { continue };
        if all.len() >= limit {
            more = true;
            break;
        }
        all.push((known.value, binding));
    }
    Ok((all, more))
}

fn led(records: &Records, example: &KeyExample) -> Result<Vec<BoundId>, Why> {
    let serial = example.issuer_serial.as_ref().map(|one| of_serial(&one.issuer, &one.serial.0));
    let key = || example.key.as_ref().map(|key| of_key(&key.0));
    let name = || example.name.as_deref().map(of_name);
    let used = || example.use_with.first().map(of_use);
    let digest = serial.or_else(key).or_else(name).or_else(used).ok_or(Refusal::ExampleEmpty)?;
    let prefix = record::rows(digest);
    let (rows, _) = wait(records.page::<()>(&prefix, None, MAX_ROWS))?;
    let id = |key: &store::Key| BoundId::from_hex(key.as_str().strip_prefix(&prefix)?);
    Ok(rows.iter().filter_map(|(key, _)| id(key)).collect())
}

/// The binding as it is answered, if it has everything that the example says.
fn like(known: &BoundRecord, example: &KeyExample) -> Option<KeyBinding> {
    let facts = CertFacts::read(&known.certificate.0).ok()?;
    let binding = said(known, &facts);
    let named = example.name.is_none() || example.name == known.name;
    let fits = named && binding::agrees(&binding, example) && binding::is_named(&facts, example);
    fits.then_some(binding)
}

fn said(known: &BoundRecord, facts: &CertFacts) -> KeyBinding {
    let mut said = binding::said(facts, &known.certificate);
    said.name.clone_from(&known.name);
    if !known.use_with.is_empty() {
        said.use_with.clone_from(&known.use_with);
    }
    said.certificates.extend(known.chain.iter().map(|der| Bytes(der.0.clone())));
    said
}
