//! Questions that trust services cannot answer from their own libraries.
//!
//! | mode | the certificate | anchor | how |
//! |---|---|---|---|
//! | 2, same PKI | from the tenant's PKI, ordered by another trust service | its CA | library and CRL |
//! | 3, other PKI | from another PKI | the tenant's CA, over cross-certificates | path over a bridge |
//!
//! **Invariant:** what is called good was validated here, to an anchor of the tenant's own PKI, with
//! the CRLs of every PKI on the way; what is not known stays open.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use model::{
    Domain, HostId,
    api::Bytes,
    centre::CentreQuestion,
    keys::{Anchor, Found, KeyAspects, KeyBinding, KeyExample, KeyFinding, KeyStatus, Knowledge},
};
use pki::{CertFacts, Evidence, Pool, Terms, Usage, Validation, binding, validate};
use time::OffsetDateTime;

use super::{
    Centre,
    domain::{Pki, PkiDomain},
    library,
    record::BoundRecord,
    refusal::{Refusal, Why},
};

/// Questions that are answered at once.
const AT_ONCE: u32 = 32;
/// Most bindings in an answer.
const MAX_ANSWERS: usize = 64;
/// Most certificates and CRLs that come with a question.
const MAX_OFFERED: usize = 16;

/// A binding that fits, and where it is from.
struct Candidate {
    binding: KeyBinding,
    known: Option<BoundRecord>,
}

impl Centre {
    /// Answers a question; the answer says what it rests on.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn question(&self, host: &HostId, asked: &CentreQuestion) -> Result<Found, Why> {
        let _place = Place::take(&self.questions)?;
        let home = &*self.allowed(&asked.tenant, host, &asked.domain)?.domain;
        let example = &asked.query.binding;
        if example.is_empty() {
            return Err(Refusal::ExampleEmpty.into());
        }
        if example.certificates.len().max(example.crls.len()) > MAX_OFFERED {
            return Err(Refusal::CertificateUnreadable.into());
        }
        let limit = usize::try_from(asked.query.limit).unwrap_or(MAX_ANSWERS).clamp(1, MAX_ANSWERS);
        let (found, more) = library::find(&self.records, example, limit)?;
        let mut candidates: Vec<Candidate> = found
            .into_iter()
            .map(|(known, binding)| Candidate { binding, known: Some(known) })
            .collect();
        if candidates.is_empty() {
            candidates.extend(foreign(example)?);
        }
        // The tenant's own PKI first.
        candidates.sort_by_key(|one| one.domain() != Some(home.name()));
        let instant = self.instant(asked.query.instant)?;
        let evidence = self.evidence(example);
        let mut anchors = Vec::new();
        for one in candidates.iter_mut().filter(|_| asked.validate) {
            anchors.push(self.judge(home, one, (example, instant), &evidence)?);
            let wrong = one.binding.status.as_ref().and_then(|status| status.refusal.as_deref());
            if let Some(wrong) = wrong {
                let (by, subject) = (format!("trust:{host}"), format!("key:{}", one.binding.id));
                self.journal.judged(&by, "question", &subject, wrong)?;
            }
        }
        let anchor = anchors.into_iter().next().unwrap_or_else(|| Anchor::Ca(ca_name(home)));
        let knowledge = self.knowledge(home, &candidates, anchor);
        let bindings = candidates.into_iter().map(|one| one.binding).collect();
        Ok(Found { bindings, more, knowledge: Some(knowledge) })
    }

    fn instant(&self, asked: Option<i64>) -> Result<OffsetDateTime, Refusal> {
        let Some(ms) = asked else { return Ok(self.clock.now()) };
        let at = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000));
        at.map_err(|_| Refusal::IntervalEmpty)
    }

    /// Our CRLs, and those that came with the question; none is believed for being here.
    fn evidence(&self, example: &KeyExample) -> Arc<Evidence> {
        if example.crls.is_empty() {
            return self.lists.evidence();
        }
        Arc::new(self.lists.build(&example.crls))
    }

    /// Says what is known of a candidate, and whose word that rests on.
    fn judge(
        &self,
        home: &PkiDomain,
        one: &mut Candidate,
        (example, instant): (&KeyExample, OffsetDateTime),
        evidence: &Evidence,
    ) -> Result<Anchor, Why> {
        let Some(leaf) = one.binding.certificates.first().cloned() else {
            return Ok(Anchor::Ca(ca_name(home)));
        };
        let offered = example.certificates.iter().skip(1).chain(&one.binding.certificates);
        let ours = self.pkis.iter().flat_map(|pki| {
            pki.domain.intermediates.iter().chain(&pki.domain.cross).map(Vec::as_slice)
        });
        let pool: Vec<&[u8]> = offered.map(|der| der.0.as_slice()).chain(ours).collect();
        let pool = Pool::new(pool).map_err(|_| Refusal::CertificateUnreadable)?;
        let terms = Terms::new(instant, Usage::Any);
        let validation = validate(&leaf.0, &pool, &home.trusted, Some(evidence), &terms);
        let validation = validation.map_err(|_| Refusal::CertificateUnreadable)?;
        self.lists.keep(&self.records, validation.crl_marks())?;
        let mut status = binding::status(validation.status());
        // Our own order to revoke is known before the CRL says so.
        let moment = u64::try_from(binding::millis(instant)).unwrap_or(0);
        let revoked_at = one.known.as_ref().and_then(|known| known.revoked_at);
        if revoked_at.is_some_and(|at| at <= moment) {
            let aspects = KeyAspects { revocation_status: KeyFinding::Bad, ..status.aspects };
            status = KeyStatus::judged(aspects, Some("certificate-revoked"));
        }
        one.binding.status = Some(status);
        if validation.path().is_empty() {
            return Ok(Anchor::Ca(ca_name(home)));
        }
        one.binding.certificates = validation.path().iter().cloned().map(Bytes).collect();
        Ok(self.anchor(home, &validation))
    }

    /// The tenant's CA, and how the path leads to it.
    fn anchor(&self, home: &PkiDomain, validation: &Validation) -> Anchor {
        let crosses = |der: &Vec<u8>| self.pkis.iter().any(|pki| pki.domain.cross.contains(der));
        if !validation.path().iter().any(crosses) {
            let last = validation.path().last().map(|der| name_of(der));
            return Anchor::Ca(last.unwrap_or_else(|| ca_name(home)));
        }
        let path = validation.path().iter().skip(1).map(|der| name_of(der)).collect();
        Anchor::Bridge { path }
    }

    /// What the answer rests on: each PKI that was asked counts, and the oldest list of a foreign
    /// one says how old the answer is.
    fn knowledge(&self, home: &PkiDomain, candidates: &[Candidate], anchor: Anchor) -> Knowledge {
        let mut asked: Vec<&Domain> = vec![home.name()];
        asked.extend(candidates.iter().filter_map(Candidate::domain));
        asked.sort();
        asked.dedup();
        let foreign = self.pkis.iter().filter(|pki| {
            asked.contains(&pki.domain.name()) && !matches!(pki.domain.pki, Pki::Own(_))
        });
        let oldest = foreign.map(|pki| self.lists.of(pki.domain.name()).at).min();
        Knowledge {
            anchor,
            as_of: oldest.unwrap_or_else(|| self.now()),
            pki_calls: u32::try_from(asked.len()).unwrap_or(u32::MAX),
        }
    }
}

/// One of the questions that are answered at once.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(all: &'a AtomicU32) -> Result<Self, Refusal> {
        let place = Self(all);
        if all.fetch_add(1, Ordering::AcqRel) >= AT_ONCE {
            return Err(Refusal::QuestionBusy);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Candidate {
    fn domain(&self) -> Option<&Domain> {
        self.known.as_ref().map(|known| &known.domain)
    }
}

/// The certificate of the question, if the centre never ordered it.
fn foreign(example: &KeyExample) -> Result<Option<Candidate>, Why> {
    let Some(leaf) = example.certificates.first() else { return Ok(None) };
    let facts = CertFacts::read(&leaf.0).map_err(|_| Refusal::CertificateUnreadable)?;
    let said = binding::said(&facts, leaf);
    let fits = example.name.is_none()
        && binding::agrees(&said, example)
        && binding::is_named(&facts, example);
    Ok(fits.then_some(Candidate { binding: said, known: None }))
}

/// What a CA is called.
fn name_of(der: &[u8]) -> String {
    let facts = CertFacts::read(der).ok();
    facts.map(|facts| facts.common_name.unwrap_or(facts.subject)).unwrap_or_default()
}

fn ca_name(domain: &PkiDomain) -> String {
    domain.anchors.first().map(|der| name_of(der)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_questions_than_are_answered_at_once_are_refused_and_give_their_places_back() {
        let all = AtomicU32::new(0);
        let places: Vec<_> = (0..AT_ONCE).map(|_| Place::take(&all).ok().unwrap()).collect();
        assert_eq!(Place::take(&all).err(), Some(Refusal::QuestionBusy));
        drop(places);
        assert_eq!(all.load(Ordering::Acquire), 0);
    }
}
