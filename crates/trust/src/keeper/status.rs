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
        Anchor, KeyAspects, KeyBinding, KeyExample,
        KeyFinding::{Bad, Good, Open},
        KeyStatus,
    },
};
use pki::{
    Anchors, CertFacts, CrlMarks, Evidence, Pool, Terms, Usage, Validation, binding, validate,
};
use serve::pem;
use time::OffsetDateTime;

use super::{
    record::{Entry, EntryId},
    refusal::{Fault, Refusal, Why},
    settings::Settings,
};

/// Foreign chains that are judged at once.
const FOREIGN_AT_ONCE: u32 = 4;
/// Longest CRL file.
const MAX_CRL: usize = 8 << 20;
/// Most certificates and CRLs that come with a question.
const MAX_OFFERED: usize = 16;

/// What is known of an entry at `instant`, from the library at `now` (Unix milliseconds), which knows
/// of revocations up to `until`.
pub(crate) fn of_entry(entry: &Entry, instant: i64, now: u64, until: u64) -> KeyStatus {
    let inside = entry.not_before <= instant && instant < entry.not_on_or_after;
    let moment = u64::try_from(instant).unwrap_or(0);
    let revoked = entry.revoked_at.is_some_and(|at| at <= moment);
    // What will be revoked later nobody knows.
    let revocation = if revoked {
        Bad
    } else if moment > until {
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
    } else if moment > now {
        Some("instant-in-the-future")
    } else {
        Some("knowledge-too-old")
    };
    let aspects = KeyAspects {
        revocation_status: revocation,
        validity_interval: validity,
        ..KeyAspects::all(Good)
    };
    KeyStatus::judged(aspects, refusal)
}

fn chain_of(certificate: Bytes, chain: Vec<Bytes>, ca: &[u8]) -> Vec<Bytes> {
    let above = if chain.is_empty() { vec![Bytes(ca.to_vec())] } else { chain };
    std::iter::once(certificate).chain(above).collect()
}

/// An entry as it is answered.
pub(crate) fn answered(
    id: EntryId,
    entry: Entry,
    ca: &[u8],
    status: Option<KeyStatus>,
) -> KeyBinding {
    KeyBinding {
        id: id.public(),
        key: entry.key,
        name: Some(entry.name),
        certificates: chain_of(entry.certificate, entry.chain, ca),
        uses: entry.uses,
        use_with: entry.use_with,
        not_before: entry.not_before,
        not_on_or_after: entry.not_on_or_after,
        status,
    }
}

/// Judges certificates of others.
#[derive(Debug)]
pub(crate) struct Foreign {
    anchors: Anchors,
    intermediates: Vec<Vec<u8>>,
    crls: Vec<PathBuf>,
    marks: Mutex<CrlMarks>,
    read: Mutex<Option<(Stamps, Arc<Evidence>)>>,
    running: AtomicU32,
}

/// A foreign certificate's binding, and where trust in it begins.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) binding: KeyBinding,
    /// This service, if no path was found or none was looked for.
    pub(crate) anchor: Anchor,
}

/// Where the path of these subjects, leaf first, ends; over more than two CAs, the path.
fn anchor_of(subjects: &[String]) -> Anchor {
    match subjects {
        [] | [_] => Anchor::TrustService,
        [_, ca] | [_, _, ca] => Anchor::Ca(ca.clone()),
        [_, path @ ..] => Anchor::Bridge { path: path.to_vec() },
    }
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
    /// With the configured anchors and our CA, and what lies between and is known besides.
    ///
    /// # Errors
    /// [`Fault::Ca`] if a file cannot be read or is no CA's certificate.
    pub(crate) fn new(settings: &Settings, ca: &[u8], above: &[Vec<u8>]) -> Result<Self, Fault> {
        let read = |paths: &[PathBuf]| -> Result<Vec<Vec<u8>>, Fault> {
            let each = paths.iter().map(|path| pem::read_certificates(path).map_err(Fault::ca));
            Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        let mut anchors = read(&settings.anchors)?;
        anchors.push(ca.to_vec());
        Ok(Self {
            anchors: Anchors::new(&anchors).map_err(Fault::ca)?,
            intermediates: [read(&settings.intermediates)?, above.to_vec()].concat(),
            crls: settings.crls.clone(),
            marks: Mutex::default(),
            read: Mutex::default(),
            running: AtomicU32::new(0),
        })
    }

    /// The anchors.
    pub(super) const fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// What lies between.
    pub(super) fn between(&self) -> &[Vec<u8>] {
        &self.intermediates
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
    ) -> Result<Option<Judged>, Why> {
        let Some(leaf) = example.certificates.first() else { return Ok(None) };
        let offered = example.certificates.len().max(example.crls.len());
        if offered > MAX_OFFERED {
            return Err(Refusal::ForeignUnreadable.into());
        }
        let facts = CertFacts::read(&leaf.0).map_err(|_| Refusal::ForeignUnreadable)?;
        let mut found = binding::said(&facts, leaf);
        let like = example.name.is_none() && binding::agrees(&found, example);
        if !like || !binding::is_named(&facts, example) {
            return Ok(None);
        }
        let mut anchor = Anchor::TrustService;
        if wanted {
            let validation = self.validate(&leaf.0, example, instant)?;
            anchor = anchor_of(validation.subjects());
            if !validation.path().is_empty() {
                found.certificates = validation.path().iter().cloned().map(Bytes).collect();
            }
            found.status = Some(binding::status(validation.status()));
        }
        Ok(Some(Judged { binding: found, anchor }))
    }

    fn validate(
        &self,
        leaf: &[u8],
        example: &KeyExample,
        instant: OffsetDateTime,
    ) -> Result<Validation, Why> {
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
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).keep(validation.crl_marks());
        drop(place);
        Ok(validation)
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
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        evidence.remember(marks.all().to_vec());
        drop(marks);
        evidence
    }
}

#[cfg(test)]
mod tests {
    use model::keys::StatusValue;

    use super::*;

    fn entry() -> Entry {
        Entry {
            not_before: 1_000,
            not_on_or_after: 9_000,
            revoked_at: Some(5_000),
            ..crate::keeper::record::tests::entry("n")
        }
    }

    #[test]
    fn more_foreign_chains_than_are_judged_at_once_are_refused() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let validity = pki::Validity::new(now, std::time::Duration::from_secs(60));
        let spec = pki::CaSpec { common_name: "x".to_owned(), path_length: 0, validity };
        let (ca, _) = pki::Ca::create_root(&spec).unwrap();
        let foreign = Foreign::new(&Settings::default(), ca.certificate(), &[]).unwrap();
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
        let value = |instant, now| of_entry(&entry(), instant, now, now).value;
        assert_eq!(value(999, 4_000), StatusValue::Invalid);
        assert_eq!(value(4_999, 6_000), StatusValue::Valid);
        assert_eq!(value(5_000, 6_000), StatusValue::Invalid);
        assert_eq!(value(9_000, 9_500), StatusValue::Invalid);
        let mut alive = entry();
        alive.revoked_at = None;
        assert_eq!(of_entry(&alive, 8_999, 8_999, 8_999).value, StatusValue::Valid);
        let later = of_entry(&alive, 8_000, 7_999, 7_999);
        assert_eq!(later.value, StatusValue::Indeterminate);
        assert_eq!(later.aspects.revocation_status, Open);
        let old = of_entry(&alive, 8_000, 8_000, 7_999);
        assert_eq!(old.value, StatusValue::Indeterminate);
        assert_eq!(old.refusal.as_deref(), Some("knowledge-too-old"));
    }
}
