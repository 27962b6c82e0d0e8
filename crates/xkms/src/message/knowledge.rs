//! What an answer rests on, as a message extension of our own namespace: the one extension that is
//! read, and only in results.
//!
//! ```xml
//! <Knowledge xmlns="urn:vouchsafe:xkms:1" Anchor="ca" AsOf="2026-11-22T08:00:00.000Z" PkiCalls="1">
//!   <Name>CN=Vouchsafe centre</Name>
//! </Knowledge>
//! ```
//! `Anchor` is `trust-service` (no `Name`), `ca` (one) or `bridge` (the path, leaf's issuer first).
//! `schema/knowledge.xsd` declares it as a member of the substitution group of `MessageExtension`.

use model::keys::{Anchor, Knowledge};
use time::OffsetDateTime;

use super::{Fields, MessageRejection, fields};
use crate::{
    text, uri,
    xml::{ElementRef, Sink},
};

/// Most names on a path that is read.
const MAX_PATH: usize = 16;

/// Reads the extension.
pub(super) fn read(element: ElementRef<'_>) -> Result<Knowledge, MessageRejection> {
    let mut inner = Fields::of(element, &["Anchor", "AsOf", "PkiCalls"])?;
    let at = inner.instant("AsOf")?.ok_or(MessageRejection::Attribute)?;
    let as_of = u64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000));
    let calls = inner.integer("PkiCalls")?.ok_or(MessageRejection::Attribute)?;
    let mut names = Vec::new();
    while let Some(name) = inner.optional_of(uri::VOUCHSAFE, "Name") {
        if names.len() == MAX_PATH {
            return Err(MessageRejection::Element);
        }
        names.push(fields::characters(name)?.to_owned());
    }
    let anchor = match (inner.needed("Anchor")?, names.len()) {
        ("trust-service", 0) => Anchor::TrustService,
        ("ca", 1) => Anchor::Ca(names.pop().unwrap_or_default()),
        ("bridge", 1..) => Anchor::Bridge { path: names },
        _ => return Err(MessageRejection::Value),
    };
    inner.end()?;
    Ok(Knowledge {
        anchor,
        as_of: as_of.map_err(|_| MessageRejection::Value)?,
        pki_calls: u32::try_from(calls).map_err(|_| MessageRejection::Value)?,
    })
}

/// Writes it.
pub(super) fn put(knowledge: &Knowledge, to: &mut impl Sink) {
    let (anchor, names) = match &knowledge.anchor {
        Anchor::TrustService => ("trust-service", &[][..]),
        Anchor::Ca(name) => ("ca", std::slice::from_ref(name)),
        Anchor::Bridge { path } => ("bridge", path.as_slice()),
    };
    let (as_of, calls) = (instant(knowledge.as_of), knowledge.pki_calls.to_string());
    let attributes =
        [("Anchor", Some(anchor)), ("AsOf", Some(&*as_of)), ("PkiCalls", Some(&*calls))];
    to.open(uri::VOUCHSAFE, "Knowledge", &attributes);
    names.iter().for_each(|name| to.value(uri::VOUCHSAFE, "Name", name));
    to.close();
}

/// `xs:dateTime` to the millisecond.
fn instant(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let text = text::to_date_time(at);
    format!("{}.{:03}Z", text.trim_end_matches('Z'), ms % 1000)
}
