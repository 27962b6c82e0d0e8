//! The guest's own logs: descriptions for what was observed, and nothing more. Both must agree with
//! the observed list entry by entry as far as they describe it.
//!
//! The event log is complete when the boot is over: it must describe every extend of the observed
//! list but IMA's, and those of PCRs above 9 that policy leaves open (running software may extend
//! them). IMA's list grows: it may be longer than what was observed when the quote was taken, never
//! shorter.

use model::api::{Bytes, vm::GuestEvidence};

use super::GuestPolicy;
use crate::{
    Rejection,
    eventlog::EventLog,
    ima::ImaList,
    predict::Extend,
    rejection::{EVENT_LOG, IMA_LIST},
};

const IMA_PCR: u8 = 10;

/// What came of the comparison.
#[derive(Debug)]
pub(super) struct OwnLog {
    /// What the logs say of each observed extend, as far as they agree.
    pub(super) descriptions: Vec<Option<String>>,
    /// Where they do not.
    pub(super) rejections: Vec<Rejection>,
    /// For the claim.
    pub(super) summary: &'static str,
}

/// Compares what the guest sent.
pub(super) fn compare(
    extends: &[Extend],
    policy: &GuestPolicy<'_>,
    evidence: &GuestEvidence,
) -> OwnLog {
    let mut own = OwnLog {
        descriptions: vec![None; extends.len()],
        rejections: Vec::new(),
        summary: match (&evidence.guest_log, &evidence.ima_log) {
            (None, None) => "the guest sent no log; none is needed",
            (Some(_), None) => "the guest's event log agrees with what was observed",
            (None, Some(_)) => "the guest's IMA list agrees with what was observed",
            (Some(_), Some(_)) => "the guest's logs agree with what was observed",
        },
    };
    if let Some(Bytes(log)) = &evidence.guest_log {
        let found = event_log(log, extends, policy, &mut own.descriptions);
        own.rejections.extend(found.err());
    }
    if let Some(Bytes(list)) = &evidence.ima_log {
        let found = ima_list(list, extends, &mut own.descriptions);
        own.rejections.extend(found.err());
    }
    own
}

fn event_log(
    log: &[u8],
    extends: &[Extend],
    policy: &GuestPolicy<'_>,
    descriptions: &mut [Option<String>],
) -> Result<(), Rejection> {
    let whole = extends.iter().filter(|extend| extend.pcr != IMA_PCR).count();
    let log = EventLog::parse(log).map_err(|reason| Rejection::event_log(reason, whole))?;
    let mut observed = extends.iter().enumerate().filter(|(_, extend)| extend.pcr != IMA_PCR);
    let mut entries: usize = 0;
    for event in log.extends() {
        let disagrees = Rejection::GuestLogDisagrees { log: EVENT_LOG, entry: entries };
        let (index, extend) = observed.next().ok_or(disagrees.clone())?;
        if event.pcr != extend.pcr || event.sha256() != Some(&extend.digest) {
            return Err(disagrees);
        }
        if let Some(place) = descriptions.get_mut(index) {
            *place = Some(format!("{} {}", event.kind, event.description()).trim_end().to_owned());
        }
        entries = entries.saturating_add(1);
    }
    let by_running_software = |pcr: u8| pcr > 9 && policy.may_be_unpredicted.contains(&pcr);
    let left = observed.filter(|(_, extend)| !by_running_software(extend.pcr)).count();
    if left > 0 {
        let observed = entries.saturating_add(left);
        return Err(Rejection::GuestLogTruncated { log: EVENT_LOG, entries, observed });
    }
    Ok(())
}

fn ima_list(
    list: &[u8],
    extends: &[Extend],
    descriptions: &mut [Option<String>],
) -> Result<(), Rejection> {
    let whole = extends.iter().filter(|extend| extend.pcr == IMA_PCR).count();
    let list = ImaList::parse(list).map_err(|reason| Rejection::ima_list(reason, whole))?;
    let mut observed = extends.iter().enumerate().filter(|(_, extend)| extend.pcr == IMA_PCR);
    for (entry, measured) in list.entries.iter().enumerate() {
        let disagrees = Rejection::GuestLogDisagrees { log: IMA_LIST, entry };
        if measured.pcr != IMA_PCR {
            return Err(disagrees);
        }
        // What was measured after the quote is not yet in the observed list.
        let Some((index, extend)) = observed.next() else { return Ok(()) };
        if measured.extended != extend.digest {
            return Err(disagrees);
        }
        if let Some(place) = descriptions.get_mut(index) {
            *place = Some(format!("IMA {}", measured.description()));
        }
    }
    let left = observed.count();
    if left > 0 {
        let entries = list.entries.len();
        let observed = entries.saturating_add(left);
        return Err(Rejection::GuestLogTruncated { log: IMA_LIST, entries, observed });
    }
    Ok(())
}
