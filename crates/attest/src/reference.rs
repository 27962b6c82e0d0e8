//! Reference values: which named events a host may and must have measured. Signed by endorsers
//! offline; the verifier only reads them.

use std::{collections::BTreeMap, fmt::Write as _};

use model::{Digest, HashAlg};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Rejection,
    appraised::Rejections,
    envelope::Signed,
    eventlog::{EventLog, EventType},
};

/// Most events in one document.
pub const MAX_REFERENCES: usize = 16_384;

/// Beginning of the names of our own components.
const COMPONENT: &str = "vouchsafe:";

const MAX_REJECTIONS: usize = 32;

/// The document that endorsers sign (envelope kind `reference-values`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// When it was made, Unix milliseconds.
    pub issued: u64,
    /// What it is for, in words.
    pub name: String,
    /// The events.
    pub events: Vec<ReferenceEvent>,
    /// PCRs that are appraised: each must be quoted, and each of its events must be known.
    pub pcrs: Vec<u8>,
}

/// One event that may be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceEvent {
    /// The PCR.
    pub pcr: u8,
    /// The TCG event type.
    #[serde(rename = "type")]
    pub kind: u32,
    /// The event's description, as [`crate::eventlog::Event::description`] gives it.
    pub name: String,
    /// SHA-256 digests, any of which is good.
    pub digests: Vec<Digest>,
    /// Whether a host without the event is good too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Why reference values cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceUnusable {
    /// A digest of another bank.
    #[error("the event `{0}` has no digest, or one that is not SHA-256")]
    Digest(String),
    /// No document, or none that names an event and a PCR.
    #[error("the reference values name no event or no PCR")]
    Empty,
    /// An index that no PC has, or an event in a PCR that is not appraised.
    #[error("the reference values name PCR {0}, which does not exist or is not appraised")]
    Pcr(u8),
    /// Over the limit.
    #[error("more than {MAX_REFERENCES} reference events")]
    TooMany,
}

impl ReferenceUnusable {
    /// The refusal's name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Digest(_) => "reference-digest-unusable",
            Self::Empty => "reference-empty",
            Self::Pcr(_) => "reference-pcr-unusable",
            Self::TooMany => "reference-too-many",
        }
    }
}

impl ReferenceValues {
    /// Takes a log of a machine in its good state as the reference: each of its events in these
    /// PCRs, required.
    #[must_use]
    pub fn from_log(name: &str, issued: u64, log: &EventLog<'_>, pcrs: &[u8]) -> Self {
        let mut events: Vec<ReferenceEvent> = Vec::new();
        for event in log.extends().filter(|event| pcrs.contains(&event.pcr)) {
            let Some(digest) = event.digest(HashAlg::Sha256) else { continue };
            let reference = ReferenceEvent {
                pcr: event.pcr,
                kind: event.kind.0,
                name: event.description(),
                digests: vec![digest],
                optional: false,
            };
            if !events.contains(&reference) {
                events.push(reference);
            }
        }
        Self { issued, name: name.to_owned(), events, pcrs: pcrs.to_vec() }
    }
}

/// Verified reference values, indexed once and used for many appraisals.
#[derive(Debug)]
pub struct HostReference {
    events: Vec<ReferenceEvent>,
    /// (digest, PCR, event), sorted.
    index: Vec<([u8; 32], u8, usize)>,
    pcrs: Vec<u8>,
    digest: Digest,
}

/// The events that are endorsed.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// How many.
    pub(crate) count: usize,
    /// Names of our own components among them.
    pub(crate) components: Vec<String>,
}

impl Matched {
    fn add(&mut self, name: &str) {
        self.count = self.count.saturating_add(1);
        if name.starts_with(COMPONENT) {
            self.components.push(name.to_owned());
        }
    }
}

impl HostReference {
    /// Joins verified documents. Events of the same PCR, type and name are joined in order: the
    /// digests of both are good, and the event is optional if it is so in one. `required_pcrs` are appraised besides those that the documents name.
    ///
    /// # Errors
    /// [`ReferenceUnusable`].
    pub fn new(
        documents: &[Signed<ReferenceValues>],
        required_pcrs: &[u8],
    ) -> Result<Self, ReferenceUnusable> {
        let mut pcrs: Vec<u8> =
            documents.iter().flat_map(|d| d.pcrs.iter()).chain(required_pcrs).copied().collect();
        pcrs.sort_unstable();
        pcrs.dedup();
        let events = join(documents);
        if events.len() > MAX_REFERENCES {
            return Err(ReferenceUnusable::TooMany);
        }
        if events.is_empty() || pcrs.is_empty() {
            return Err(ReferenceUnusable::Empty);
        }
        if let Some(pcr) = pcrs.iter().find(|pcr| **pcr >= tpm::PCR_COUNT) {
            return Err(ReferenceUnusable::Pcr(*pcr));
        }
        let mut index = Vec::new();
        for (at, event) in events.iter().enumerate() {
            if !pcrs.contains(&event.pcr) {
                return Err(ReferenceUnusable::Pcr(event.pcr));
            }
            let unusable = || ReferenceUnusable::Digest(event.name.clone());
            if event.digests.is_empty() {
                return Err(unusable());
            }
            for digest in &event.digests {
                let value = digest.as_bytes().try_into().map_err(|_| unusable())?;
                index.push((value, event.pcr, at));
            }
        }
        index.sort_unstable();
        let digest = policy_digest(documents, &pcrs);
        Ok(Self { events, index, pcrs, digest })
    }

    /// The PCRs that are appraised, in order.
    #[must_use]
    pub fn pcrs(&self) -> &[u8] {
        &self.pcrs
    }

    /// Names this policy: SHA-256 over the documents' digests and the PCRs.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Compares every event of the appraised PCRs, by PCR, type, name and digest.
    pub(crate) fn compare(&self, log: &EventLog<'_>) -> Result<Matched, Rejections> {
        let mut seen = vec![false; self.events.len()];
        let mut rejections = Vec::new();
        let mut name = String::with_capacity(192);
        let mut matched = Matched::default();
        for event in log.extends().filter(|event| self.pcrs.contains(&event.pcr)) {
            name.clear();
            event.describe(&mut name);
            let digest = event.sha256().copied().unwrap_or_default();
            let mut known = false;
            for at in self.candidates(&digest, event.pcr) {
                let same = |r: &&ReferenceEvent| r.kind == event.kind.0 && r.name == name;
                if self.events.get(at).filter(same).is_some()
                    && let Some(seen) = seen.get_mut(at)
                {
                    *seen = true;
                    known = true;
                }
            }
            if known {
                matched.add(&name);
            } else if rejections.len() < MAX_REJECTIONS {
                rejections.push(Rejection::EventUnknown {
                    pcr: event.pcr,
                    kind: event.kind,
                    name: name.clone(),
                    digest: Digest::sha256(digest),
                });
            }
        }
        let missing =
            self.events.iter().zip(&seen).filter(|(event, seen)| !**seen && !event.optional);
        rejections.extend(missing.take(MAX_REJECTIONS).map(|(event, _)| Rejection::EventMissing {
            pcr: event.pcr,
            kind: EventType(event.kind),
            name: event.name.clone(),
        }));
        Rejections::of(rejections).map_or(Ok(matched), Err)
    }

    fn candidates(&self, digest: &[u8; 32], pcr: u8) -> impl Iterator<Item = usize> + '_ {
        let key = (*digest, pcr);
        let start = self.index.partition_point(|(d, p, _)| (d, p) < (&key.0, &key.1));
        let rest = self.index.get(start..).unwrap_or_default();
        rest.iter().take_while(move |(d, p, _)| (*d, *p) == key).map(|(_, _, at)| *at)
    }
}

/// The n-th event of one PCR, type and name joins the n-th such event of the other documents.
fn join(documents: &[Signed<ReferenceValues>]) -> Vec<ReferenceEvent> {
    let mut places: BTreeMap<(u8, u32, &str, usize), usize> = BTreeMap::new();
    let mut joined: Vec<ReferenceEvent> = Vec::new();
    for document in documents {
        let mut counts: BTreeMap<(u8, u32, &str), usize> = BTreeMap::new();
        for event in &document.events {
            let count = counts.entry((event.pcr, event.kind, &event.name)).or_default();
            let key = (event.pcr, event.kind, event.name.as_str(), *count);
            *count = count.saturating_add(1);
            let place = *places.entry(key).or_insert(joined.len());
            match joined.get_mut(place) {
                Some(there) => {
                    there.digests.extend_from_slice(&event.digests);
                    there.optional |= event.optional;
                }
                None => joined.push(event.clone()),
            }
        }
    }
    joined
}

fn policy_digest(documents: &[Signed<ReferenceValues>], pcrs: &[u8]) -> Digest {
    let mut text = String::from("vouchsafe:host-policy:v1");
    for document in documents {
        let _ = write!(text, "\n{}", document.digest());
    }
    let _ = write!(text, "\n{pcrs:?}");
    crate::envelope::sha256(text.as_bytes())
}
