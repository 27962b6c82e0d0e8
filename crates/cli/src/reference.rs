//! Reference values of hosts: made from the logs of good machines and from the digests of
//! components, written as drafts, signed by endorsers. A lab makes its own with the same functions.
//!
//! ```text
//!   logs of good machines ─► draft ◄─ components' digests
//!                              │ sign (each endorser, on a machine of its own)
//!                              ▼
//!                      envelope, m of n signatures ─► the authority's file
//! ```
//!
//! **Invariant:** nothing here makes a host trusted: the authority verifies the envelope by the
//! endorsers' keys of its configuration, and reads it again whenever the file changes.

mod document;
mod key;

use attest::{
    eventlog::{EventLog, EventType},
    reference::{ReferenceEvent, ReferenceValues},
};
use model::Digest;

pub use self::{
    document::{Document, trusted, verify},
    key::{make_key, open_key, write_public},
};

/// PCR of our own components.
pub const COMPONENTS_PCR: u8 = 14;

/// PCRs of the firmware, which are always appraised.
const FIRMWARE_PCRS: std::ops::Range<u8> = 0..8;

/// PCRs that loaders and kernels extend; appraised where the log has events of them.
const LOADER_PCRS: [u8; 6] = [8, 9, 11, 12, 13, COMPONENTS_PCR];

/// Name of a component's event.
#[must_use]
pub fn component_event(role: &str) -> String {
    format!("vouchsafe:{role}")
}

/// Joins a further PCR to the ones that are appraised.
fn appraise(values: &mut ReferenceValues, pcr: u8) {
    values.pcrs.push(pcr);
    values.pcrs.sort_unstable();
    values.pcrs.dedup();
}

/// The PCRs that are appraised unless the operator says otherwise.
#[must_use]
pub fn usual_pcrs(logs: &[EventLog<'_>]) -> Vec<u8> {
    let used = |pcr: &u8| logs.iter().any(|log| log.extends().any(|event| event.pcr == *pcr));
    FIRMWARE_PCRS.chain(LOADER_PCRS.into_iter().filter(used)).collect()
}

/// Reference values for machines whose logs these are. An event that is in all of them is required,
/// with the digests of all; one that is in some only is optional.
#[must_use]
pub fn from_logs(name: &str, now: u64, logs: &[EventLog<'_>], pcrs: &[u8]) -> ReferenceValues {
    let one = |log| ReferenceValues::from_log(name, now, log, pcrs);
    let mut documents = logs.iter().map(one);
    let mut all = documents.next().unwrap_or_else(|| ReferenceValues {
        issued: now,
        name: name.to_owned(),
        events: Vec::new(),
        pcrs: pcrs.to_vec(),
    });
    for document in documents {
        merge(&mut all.events, document.events);
    }
    all
}

/// The n-th event of one PCR, type and name is the same thing in each log.
fn merge(all: &mut Vec<ReferenceEvent>, further: Vec<ReferenceEvent>) {
    let mut seen = vec![false; all.len()];
    let same = |a: &ReferenceEvent, b: &ReferenceEvent| {
        (a.pcr, a.kind, &a.name) == (b.pcr, b.kind, &b.name)
    };
    for event in further {
        let there =
            all.iter_mut().zip(&mut seen).find(|(known, taken)| !**taken && same(known, &event));
        match there {
            Some((known, taken)) => {
                *taken = true;
                let new = event.digests.iter().filter(|digest| !known.digests.contains(digest));
                let new: Vec<Digest> = new.copied().collect();
                known.digests.extend(new);
            }
            None => {
                all.push(ReferenceEvent { optional: true, ..event });
                seen.push(true);
            }
        }
    }
    for (known, _) in all.iter_mut().zip(&seen).filter(|(_, taken)| !**taken) {
        known.optional = true;
    }
}

/// What became of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endorsed {
    /// The document did not name it before.
    Named,
    /// Its digests are good besides those that were.
    Joined,
    /// Its digests are good instead of those that were.
    Replaced,
}

/// Endorses a component: any of `digests` is good. With `replace` those that were good no longer are.
pub fn endorse_component(
    values: &mut ReferenceValues,
    role: &str,
    digests: &[Digest],
    replace: bool,
) -> Endorsed {
    let (name, kind) = (component_event(role), EventType::IPL.0);
    appraise(values, COMPONENTS_PCR);
    let there = values
        .events
        .iter_mut()
        .find(|event| (event.pcr, event.kind, &event.name) == (COMPONENTS_PCR, kind, &name));
    match there {
        None => {
            let digests = digests.to_vec();
            let optional = false;
            values.events.push(ReferenceEvent {
                pcr: COMPONENTS_PCR,
                kind,
                name,
                digests,
                optional,
            });
            Endorsed::Named
        }
        Some(event) if replace => {
            event.digests = digests.to_vec();
            Endorsed::Replaced
        }
        Some(event) => {
            let new = digests.iter().filter(|digest| !event.digests.contains(digest));
            let new: Vec<Digest> = new.copied().collect();
            event.digests.extend(new);
            Endorsed::Joined
        }
    }
}

#[cfg(test)]
mod tests;
