//! What a VM's vault volumes count, as the host that holds them reported it: the anchor across
//! hosts, and above a host whose whole machine could be put back.
//!
//! The rules are [`model::anchor::record`]'s, which is model-checked; here they meet the VM's home,
//! epoch and operations.
//!
//! **Invariants:** only the VM's home in its epoch reports; a holder is a host *with its TPM*, so
//! that one whose TPM was replaced is another; a fence, which ends the epoch and its keys, is the
//! only thing that makes a record be forgotten while the VM lives.

use http::StatusCode;
use model::{
    HostId, OperationId,
    anchor::record::{self, Entry, Start},
    api::{
        anchor::{Anchor, AnchorReport},
        grant::GrantPurpose,
        vm::{VmState, VolumeFormat},
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{VmRecord, VmRejection};
use crate::{record::host::HostRecord, refusal::Rejection};

/// A host with the TPM that it has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Holder {
    host: HostId,
    /// Name of its AK, hexadecimal.
    ak_name: String,
}

impl From<&HostRecord> for Holder {
    fn from(host: &HostRecord) -> Self {
        Self { host: host.name.clone(), ak_name: host.identity.ak_name.clone() }
    }
}

/// What is recorded of one volume: [`Entry`] as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Anchored {
    count: u64,
    head: model::Digest,
    holder: Holder,
    run: Option<Holder>,
    at: u64,
}

impl Anchored {
    fn new(entry: Entry<Holder>, at: u64) -> Self {
        let Entry { count, head, holder, run } = entry;
        Self { count, head, holder, run, at }
    }

    fn entry(&self) -> Entry<Holder> {
        let (holder, run) = (self.holder.clone(), self.run.clone());
        Entry { count: self.count, head: self.head, holder, run }
    }

    fn view(&self, volume: GrantPurpose) -> Anchor {
        let (host, in_use) = (self.holder.host.clone(), self.run.as_ref());
        let in_use = in_use.map(|run| run.host.clone());
        Anchor { volume, count: self.count, head: self.head, host, at: self.at, in_use }
    }
}

/// Why a report of a count is refused, or a volume's key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum AnchorRejection {
    /// Only vault volumes count.
    #[error("volumes of this VM's format do not count")]
    NotAnchored,
    /// By the record.
    #[error("volume {volume:?}: {why}; the record counts {recorded}, by {}", .holder.host)]
    Record {
        /// Which volume.
        volume: GrantPurpose,
        /// Why.
        why: record::Rejection,
        /// The record's count.
        recorded: u64,
        /// Whose it is.
        holder: Holder,
    },
    /// The VM.
    #[error(transparent)]
    Vm(#[from] VmRejection),
}

impl Rejection for AnchorRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::NotAnchored => "volume-not-anchored",
            Self::Record { why, .. } => why.code(),
            Self::Vm(rejection) => rejection.name(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::NotAnchored => "only volumes of the format vault are reported",
            Self::Record { why: record::Rejection::NotHandedOver, .. } => {
                "let its last holder report; if that is gone for good, two operators have the \
                 volume taken as it is: `vouchsafe vm reanchor NAME --reason WHY`"
            }
            Self::Record { .. } => {
                "the machine was put back or copied; put its latest state back, or restore a \
                 backup: `vouchsafe vm reanchor NAME --reason WHY`"
            }
            Self::Vm(rejection) => rejection.hint(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotAnchored => StatusCode::CONFLICT,
            Self::Record { .. } => StatusCode::FORBIDDEN,
            Self::Vm(rejection) => rejection.status(),
        }
    }
}

/// What a report changed that is worth an entry in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The audit log's word.
    pub(crate) event: &'static str,
    /// From what to what.
    pub(crate) detail: String,
}

impl VmRecord {
    /// After `by` reported a count.
    ///
    /// # Errors
    /// [`AnchorRejection`].
    pub(crate) fn counted(
        &self,
        by: &HostRecord,
        report: &AnchorReport,
        now: u64,
    ) -> Result<(Self, Option<Moved>), AnchorRejection> {
        if self.state == VmState::Retired && self.home.as_ref() == Some(&by.name) {
            // The last word about what is gone.
            return Ok((self.clone(), None));
        }
        self.is_homed(&by.name, report.epoch)?;
        if self.spec.format != VolumeFormat::Vault {
            return Err(AnchorRejection::NotAnchored);
        }
        let holder = Holder::from(by);
        let before = self.anchors.get(&report.volume);
        let idle = self.open.is_none() && self.state == VmState::Stopped;
        let entry = before.map(Anchored::entry);
        let after = record::reported(entry.as_ref(), &holder, &report.report(), idle)
            .map_err(|why| by_record(report.volume, before, why))?;
        if entry.as_ref() == Some(&after) {
            return Ok((self.clone(), None));
        }
        let moved = before.and_then(|before| self.moved(before, &after));
        let mut vm = self.clone();
        vm.anchors.insert(report.volume, Anchored::new(after, now));
        Ok((vm, moved))
    }

    /// After a grant of this volume's key to `to` for the operation `id`, and what the grant says.
    ///
    /// # Errors
    /// [`AnchorRejection::Record`].
    pub(crate) fn opens(
        &self,
        volume: GrantPurpose,
        to: &HostRecord,
        id: OperationId,
    ) -> Result<(Self, Option<Start>), AnchorRejection> {
        let Some(before) = self.anchors.get(&volume) else { return Ok((self.clone(), None)) };
        let (after, start) =
            record::granted(&before.entry(), &Holder::from(to), self.reanchors_in(id))
                .map_err(|why| by_record(volume, Some(before), why))?;
        let mut vm = self.clone();
        vm.anchors.insert(volume, Anchored::new(after, before.at));
        Ok((vm, Some(start)))
    }

    /// As operators see it.
    pub(super) fn anchors_view(&self) -> Vec<Anchor> {
        self.anchors.iter().map(|(volume, anchored)| anchored.view(*volume)).collect()
    }

    /// What a fence gives up, in words.
    pub(crate) fn anchors_words(&self) -> String {
        let word = |(volume, anchored): (&GrantPurpose, &Anchored)| {
            let how = if anchored.run.is_some() { "its end not reported" } else { "at rest" };
            format!("; volume {volume:?} last counted {}, {how}", anchored.count)
        };
        self.anchors.iter().map(word).collect()
    }

    fn moved(&self, before: &Anchored, after: &Entry<Holder>) -> Option<Moved> {
        let handed_over = before.holder != after.holder;
        let insisted = self.open.is_some_and(|open| self.reanchors_in(open.id));
        let event = match (insisted, handed_over) {
            (true, _) => "volume-reanchored",
            (false, true) => "volume-handed-over",
            (false, false) => return None,
        };
        let approved = self.reanchor.as_ref().filter(|_| insisted).map(|of| {
            let by = of.view.approved_by.as_deref().unwrap_or_default();
            format!("; proposed by {}, approved by {by}", of.view.proposed_by)
        });
        let (from, to) = (&before.holder.host, &after.holder.host);
        let approved = approved.unwrap_or_default();
        let detail =
            format!("count {} by {from} -> {} by {to}{approved}", before.count, after.count);
        Some(Moved { event, detail })
    }
}

fn by_record(
    volume: GrantPurpose,
    before: Option<&Anchored>,
    why: record::Rejection,
) -> AnchorRejection {
    // Without a record nothing is refused by it.
    before.map_or(AnchorRejection::Vm(VmRejection::Unknown), |before| {
        let (recorded, holder) = (before.count, before.holder.clone());
        AnchorRejection::Record { volume, why, recorded, holder }
    })
}

#[cfg(test)]
mod tests;
