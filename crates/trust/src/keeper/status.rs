//! What is known of a binding. Nothing is called good that was not checked: of our own
//! certificates the library knows everything at first hand; of others' only what [`pki::validate`]
//! finds over the configured anchors.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use model::{
    api::Bytes,
    keys::{
        KeyAspects, KeyBinding, KeyExample, KeyFinding,
        KeyFinding::{Bad, Good, Open},
        KeyStatus, KeyUse,
    },
};
use pki::{
    Anchors, Aspect, CertFacts, CrlMark, Evidence, Finding, KeyUses, Pool, Status, Terms, Usage,
    validate,
};
use serve::pem;
use time::OffsetDateTime;

use super::{
    names,
    record::{Entry, EntryId},
    refusal::{Fault, Refusal, Why},
    settings::Settings,
};

/// Foreign chains that are judged at once.
const FOREIGN_AT_ONCE: u32 = 4;
/// Longest CRL file.
const MAX_CRL: usize = 8 << 20;
/// Series of CRLs that are remembered.
const MAX_SERIES: usize = 1024;
/// Most certificates and CRLs that come with a question.
const MAX_OFFERED: usize = 16;

/// What is known of an entry at `instant`, from the library at `now` (Unix milliseconds).
pub(crate) fn of_entry(entry: &Entry, instant: i64, now: u64) -> KeyStatus {
    let inside = entry.not_before <= instant && instant < entry.not_on_or_after;
    let moment = u64::try_from(instant).unwrap_or(0);
    let revoked = entry.revoked_at.is_some_and(|at| at <= moment);
    // What will be revoked later nobody knows.
    let revocation = if revoked {
        Bad
    } else if moment > now {
        Open
    } else {
        Good
    };
    let validity = if inside { Good } else { Bad };
    let refusal = if !inside {
        Some(if instant < entry.not_before {
            "certificate-not-yet-valid"
        } else {
            "certificate-expired"
        })
    } else if revoked {
        Some("certificate-revoked")
    } else {
        Some("instant-in-the-future")
    };
    let aspects = KeyAspects {
        revocation_status: revocation,
        validity_interval: validity,
        ..KeyAspects::all(Good)
    };
    KeyStatus::judged(aspects, refusal)
}

/// An entry as it is answered.
pub(crate) fn binding(
    id: EntryId,
    entry: Entry,
    ca: &[u8],
    status: Option<KeyStatus>,
) -> KeyBinding {
    KeyBinding {
        id: id.public(),
        key: entry.key,
        name: Some(entry.name),
        certificates: vec![entry.certificate, Bytes(ca.to_vec())],
        uses: entry.uses,
        use_with: entry.use_with,
        not_before: entry.not_before,
        not_on_or_after: entry.not_on_or_after,
        status,
    }
}

/// Uses in the words of the wire.
pub(crate) fn uses(uses: KeyUses) -> Vec<KeyUse> {
    let all = [
        (uses.encryption, KeyUse::Encryption),
        (uses.exchange, KeyUse::Exchange),
        (uses.signature, KeyUse::Signature),
    ];
    all.into_iter().filter(|(allowed, _)| *allowed).map(|(_, one)| one).collect()
}

/// Unix milliseconds.
pub(crate) fn millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().saturating_mul(1000)
}

/// Judges certificates of others.
#[derive(Debug)]
pub(crate) struct Foreign {
    anchors: Anchors,
    intermediates: Vec<Vec<u8>>,
    crls: Vec<PathBuf>,
    marks: Mutex<Vec<CrlMark>>,
    read: Mutex<Option<(Stamps, Arc<Evidence>)>>,
    running: AtomicU32,
}

/// What the configured CRLs were when they were read: how long, and since when.
type Stamps = Vec<Option<(u64, SystemTime)>>;

struct Place<'a>(&'a AtomicU32);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Foreign {
    /// With the configured anchors and our own CA.
    ///
    /// # Errors
    /// [`Fault::Ca`] if a file cannot be read or is no CA's certificate.
    pub(crate) fn new(settings: &Settings, ca: &[u8]) -> Result<Self, Fault> {
        let read = |paths: &[PathBuf]| -> Result<Vec<Vec<u8>>, Fault> {
            let each = paths.iter().map(|path| pem::read_certificates(path).map_err(Fault::ca));
            Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        let mut anchors = read(&settings.anchors)?;
        anchors.push(ca.to_vec());
        Ok(Self {
            anchors: Anchors::new(&anchors).map_err(Fault::ca)?,
            intermediates: read(&settings.intermediates)?,
            crls: settings.crls.clone(),
            marks: Mutex::default(),
            read: Mutex::default(),
            running: AtomicU32::new(0),
        })
    }

    /// The binding that a foreign certificate says, with what is known of it at `instant` if that
    /// is `wanted`.
    ///
    /// # Errors
    /// [`Refusal::ForeignUnreadable`], [`Refusal::ForeignBusy`].
    pub(crate) fn judge(
        &self,
        example: &KeyExample,
        instant: OffsetDateTime,
        wanted: bool,
    ) -> Result<Option<KeyBinding>, Why> {
        let Some(leaf) = example.certificates.first() else { return Ok(None) };
        let offered = example.certificates.len().max(example.crls.len());
        if offered > MAX_OFFERED {
            return Err(Refusal::ForeignUnreadable.into());
        }
        let facts = CertFacts::read(&leaf.0).map_err(|_| Refusal::ForeignUnreadable)?;
        let mut found = said(&facts, example);
        if !agrees(&found, example) || !is_named(&facts, example) {
            return Ok(None);
        }
        if wanted {
            let (status, path) = self.validate(&leaf.0, example, instant)?;
            if !path.is_empty() {
                found.certificates = path;
            }
            found.status = Some(status);
        }
        Ok(Some(found))
    }

    fn validate(
        &self,
        leaf: &[u8],
        example: &KeyExample,
        instant: OffsetDateTime,
    ) -> Result<(KeyStatus, Vec<Bytes>), Why> {
        let place = Place(&self.running);
        if self.running.fetch_add(1, Ordering::AcqRel) >= FOREIGN_AT_ONCE {
            return Err(Refusal::ForeignBusy.into());
        }
        let offered = example.certificates.iter().skip(1).map(|der| der.0.as_slice());
        let pool = Pool::new(offered.chain(self.intermediates.iter().map(Vec::as_slice)));
        let pool = pool.map_err(|_| Refusal::ForeignUnreadable)?;
        let terms = Terms::new(instant, Usage::Any);
        let evidence = match example.crls.as_slice() {
            [] => self.configured(),
            came => Arc::new(self.evidence(came)),
        };
        let validation = validate(leaf, &pool, &self.anchors, Some(&evidence), &terms);
        let validation = validation.map_err(|_| Refusal::ForeignUnreadable)?;
        self.remember(validation.crl_marks());
        drop(place);
        let path = validation.path().iter().cloned().map(Bytes);
        Ok((status(validation.status()), path.collect()))
    }

    /// The configured CRLs, as long as they stay the same, and no others.
    fn configured(&self) -> Arc<Evidence> {
        let stamp = |path: &PathBuf| {
            let facts = std::fs::metadata(path).ok()?;
            Some((facts.len(), facts.modified().ok()?))
        };
        let stamps: Stamps = self.crls.iter().map(stamp).collect();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, evidence)) = read.as_ref()
            && *known == stamps
        {
            return Arc::clone(evidence);
        }
        let evidence = Arc::new(self.evidence(&[]));
        *read = Some((stamps, Arc::clone(&evidence)));
        evidence
    }

    /// The configured CRLs and those that came with the question; none is believed for being here.
    fn evidence(&self, came: &[Bytes]) -> Evidence {
        let mut evidence = Evidence::new();
        for path in &self.crls {
            let read = serve::fsfile::read_limited(path, MAX_CRL).map_err(|e| e.to_string());
            let added = read.and_then(|der| evidence.add_crl(&der).map_err(|e| e.to_string()));
            if let Err(error) = added {
                tracing::warn!(path = %path.display(), error, "a CRL cannot be used");
            }
        }
        for der in came {
            // One that cannot be read says nothing, and so leaves the status open.
            let _ = evidence.add_crl(&der.0);
        }
        evidence.remember(self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone());
        evidence
    }

    fn remember(&self, marks: &[CrlMark]) {
        let mut known = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SERIES {
            return;
        }
        for mark in marks.iter().take(MAX_SERIES) {
            let rank = |mark: &CrlMark| (mark.number.len(), mark.number.clone());
            match known.iter_mut().find(|one| one.series == mark.series) {
                Some(one) if rank(one) < rank(mark) => one.clone_from(mark),
                Some(_) => {}
                None => known.push(mark.clone()),
            }
        }
    }
}

/// The binding as a certificate says it.
fn said(facts: &CertFacts, example: &KeyExample) -> KeyBinding {
    let serial =
        super::record::short_digest(&[&facts.spki, &facts.serial, facts.issuer.as_bytes()]);
    KeyBinding {
        id: format!("f{serial}"),
        key: Bytes(facts.spki.clone()),
        name: None,
        certificates: example.certificates.iter().take(1).cloned().collect(),
        uses: uses(facts.uses),
        use_with: names::of_certificate(&facts.names, &facts.subject),
        not_before: millis(facts.not_before),
        not_on_or_after: millis(facts.not_after).saturating_add(1000),
        status: None,
    }
}

/// Whether it has everything that the example says.
fn agrees(binding: &KeyBinding, example: &KeyExample) -> bool {
    example.key.as_ref().is_none_or(|key| *key == binding.key)
        && example.name.is_none()
        && example.uses.iter().all(|one| binding.uses.contains(one))
        && example
            .use_with
            .iter()
            .all(|wanted| binding.use_with.iter().any(|one| names::same(one, wanted)))
}

/// Whether its issuer and serial number are those of the example, if that has any.
fn is_named(facts: &CertFacts, example: &KeyExample) -> bool {
    let serial =
        |bytes: &[u8]| bytes.iter().copied().skip_while(|octet| *octet == 0).collect::<Vec<u8>>();
    example.issuer_serial.as_ref().is_none_or(|named| {
        serial(&named.serial.0) == serial(&facts.serial)
            && names::canonical_dn(&named.issuer) == names::canonical_dn(&facts.issuer)
    })
}

fn status(status: &Status) -> KeyStatus {
    let finding = |aspect: Aspect| -> KeyFinding {
        match status.finding(aspect) {
            Finding::Good(_) => Good,
            Finding::Bad(_) => Bad,
            Finding::Open(_) => Open,
        }
    };
    let aspects = KeyAspects {
        issuer_trust: finding(Aspect::IssuerTrust),
        revocation_status: finding(Aspect::RevocationStatus),
        validity_interval: finding(Aspect::ValidityInterval),
        signature: finding(Aspect::Signature),
    };
    KeyStatus::judged(aspects, status.refusal().map(pki::Refusal::code))
}

#[cfg(test)]
mod tests {
    use model::keys::StatusValue;

    use super::*;

    fn entry() -> Entry {
        Entry {
            certificate: Bytes::default(),
            key: Bytes::default(),
            name: "n".to_owned(),
            uses: Vec::new(),
            use_with: Vec::new(),
            not_before: 1_000,
            not_on_or_after: 9_000,
            revoked_at: Some(5_000),
            replaced_by: None,
            replaces: None,
            revocation_code: None,
            escrowed: false,
        }
    }

    #[test]
    fn more_foreign_chains_than_are_judged_at_once_are_refused() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let validity = pki::Validity::new(now, std::time::Duration::from_secs(60));
        let spec = pki::CaSpec { common_name: "x".to_owned(), path_length: 0, validity };
        let (ca, _) = pki::Ca::create_root(&spec).unwrap();
        let foreign = Foreign::new(&Settings::default(), ca.certificate()).unwrap();
        let certificates = vec![Bytes(ca.certificate().to_vec())];
        let example = KeyExample { certificates, ..KeyExample::default() };
        foreign.running.store(FOREIGN_AT_ONCE, Ordering::Release);
        let busy = foreign.judge(&example, now, true);
        assert!(matches!(busy, Err(Why::Refused(Refusal::ForeignBusy))));
        foreign.running.store(FOREIGN_AT_ONCE - 1, Ordering::Release);
        assert!(foreign.judge(&example, now, true).unwrap().is_some());
        assert_eq!(foreign.running.load(Ordering::Acquire), FOREIGN_AT_ONCE - 1);
    }

    #[test]
    fn an_entry_is_judged_at_the_instant_asked_about() {
        let value = |instant, now| of_entry(&entry(), instant, now).value;
        assert_eq!(value(999, 4_000), StatusValue::Invalid);
        assert_eq!(value(4_999, 6_000), StatusValue::Valid);
        assert_eq!(value(5_000, 6_000), StatusValue::Invalid);
        assert_eq!(value(9_000, 9_500), StatusValue::Invalid);
        let mut alive = entry();
        alive.revoked_at = None;
        assert_eq!(of_entry(&alive, 8_999, 8_999).value, StatusValue::Valid);
        let later = of_entry(&alive, 8_000, 7_999);
        assert_eq!(later.value, StatusValue::Indeterminate);
        assert_eq!(later.aspects.revocation_status, Open);
    }
}
