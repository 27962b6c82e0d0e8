//! Grants: signed by the authority, sealed to this session, used once.
//!
//! Order of the checks: signature, host, VM, purpose, the request it answers, epoch, KMI, expiry,
//! incarnation, use; then the id is written down durably, and only then is the grant opened. So a
//! grant whose keys were ever in memory cannot be opened again, not even after a crash.

mod ledger;

use attest::envelope::{Envelope, Kind, TrustedKeys};
use model::{
    Epoch, GrantId, HostId, Incarnation, Kmi, Secret, VmId,
    api::grant::{Grant, GrantInfo, GrantPurpose},
};
use serve::{
    fsfile::FileError,
    hpke::{self, HpkePrivate},
};
use thiserror::Error;

pub(crate) use self::ledger::Ledger;

/// Why a grant is not used.
#[derive(Debug, Error)]
pub(crate) enum GrantRejection {
    /// It was made for an earlier or later epoch.
    #[error("the grant is for epoch {}, the VM is in {}", .granted.0, .expected.0)]
    EpochMoved {
        /// Of the grant.
        granted: Epoch,
        /// Of the VM.
        expected: Epoch,
    },
    /// It was made before the authority's store was last restored.
    #[error("the grant is of incarnation {}, this host has seen {}", .granted.0, .seen.0)]
    IncarnationOld {
        /// Of the grant.
        granted: Incarnation,
        /// The newest that a grant had.
        seen: Incarnation,
    },
    /// Its keys are found by another KMI than the VM's here.
    #[error("the grant's key-management information is not the VM's on this host")]
    OtherKmi,
    /// It has expired.
    #[error("the grant expired at {expires_at}, it is {now}")]
    Expired {
        /// When.
        expires_at: u64,
        /// Now.
        now: u64,
    },
    /// It answers another request.
    #[error("the grant answers another request")]
    OtherRequest,
    /// It is for another host.
    #[error("the grant is for host {0}")]
    OtherHost(HostId),
    /// It is for another VM or purpose.
    #[error("the grant is for other keys than were asked for")]
    OtherKeys,
    /// It cannot be opened with the key of this session.
    #[error("the grant is not sealed to this session, or was altered")]
    Sealed,
    /// It is not signed by the authority that this host enrolled with.
    #[error("the grant is not signed by this host's authority")]
    Signature,
    /// It was used before.
    #[error("the grant was used before")]
    Used,
    /// Its keys do not have the length that they must have.
    #[error("the grant's keys are malformed")]
    Malformed,
    /// The list of used grants cannot be kept.
    #[error("the list of used grants cannot be kept")]
    Ledger(#[source] FileError),
}

impl GrantRejection {
    /// The refusal's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::EpochMoved { .. } => "grant-epoch-moved",
            Self::Expired { .. } => "grant-expired",
            Self::IncarnationOld { .. } => "grant-incarnation-old",
            Self::OtherKmi => "grant-other-kmi",
            Self::OtherRequest | Self::Used => "grant-used",
            Self::OtherHost(_) => "grant-other-host",
            Self::OtherKeys => "grant-other-vm",
            Self::Sealed => "grant-not-sealed-to-session",
            Self::Signature => "grant-signature-invalid",
            Self::Malformed => "grant-malformed",
            Self::Ledger(_) => "grant-ledger",
        }
    }
}

/// What this host expects of a grant.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    /// The host.
    pub(crate) host: &'a HostId,
    /// The VM.
    pub(crate) vm: &'a VmId,
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// What finds the VM's key on this host.
    pub(crate) kmi: &'a Kmi,
    /// The purpose.
    pub(crate) purpose: GrantPurpose,
    /// The request that it answers.
    pub(crate) request: GrantId,
    /// Now, Unix milliseconds.
    pub(crate) now: u64,
}

/// An opened grant.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What it was bound to.
    pub(crate) info: GrantInfo,
    /// The keys.
    pub(crate) keys: Secret<Vec<u8>>,
}

/// Checks and opens a grant; its id is in `ledger` afterwards.
///
/// # Errors
/// [`GrantRejection`].
pub(crate) fn open(
    answer: &serde_json::Value,
    signer: &[u8],
    session: &HpkePrivate,
    expected: &Expected<'_>,
    ledger: &Ledger,
) -> Result<Opened, GrantRejection> {
    let signed = TrustedKeys::new([signer])
        .ok()
        .zip(Envelope::from_value(answer).ok())
        .and_then(|(keys, envelope)| envelope.verify::<Grant>(&keys, Kind::Grant, 1).ok())
        .ok_or(GrantRejection::Signature)?;
    let grant: Grant = signed.into_inner();
    check(&grant.info, expected)?;
    ledger.spend(grant.info.id, grant.info.incarnation)?;
    let info = serde_json::to_vec(&grant.info).map_err(|_| GrantRejection::Sealed)?;
    let sealed = hpke::Sealed { enc: grant.enc.0, ciphertext: grant.sealed.0 };
    let keys = hpke::open(session, &sealed, &info, word(expected.purpose).as_bytes())
        .map_err(|_| GrantRejection::Sealed)?;
    let length = match expected.purpose {
        GrantPurpose::Boot => 128,
        GrantPurpose::Data => 32,
    };
    if keys.expose().len() != length {
        return Err(GrantRejection::Malformed);
    }
    Ok(Opened { info: grant.info, keys })
}

fn check(info: &GrantInfo, expected: &Expected<'_>) -> Result<(), GrantRejection> {
    if info.host != *expected.host {
        return Err(GrantRejection::OtherHost(info.host.clone()));
    }
    if info.vm != *expected.vm || info.purpose != expected.purpose {
        return Err(GrantRejection::OtherKeys);
    }
    if info.id != expected.request {
        return Err(GrantRejection::OtherRequest);
    }
    if info.epoch != expected.epoch {
        return Err(GrantRejection::EpochMoved { granted: info.epoch, expected: expected.epoch });
    }
    if info.kmi != *expected.kmi {
        return Err(GrantRejection::OtherKmi);
    }
    if info.expires_at <= expected.now {
        return Err(GrantRejection::Expired { expires_at: info.expires_at, now: expected.now });
    }
    Ok(())
}

/// The word of a purpose, HPKE's associated data.
pub(crate) const fn word(purpose: GrantPurpose) -> &'static str {
    match purpose {
        GrantPurpose::Boot => "boot",
        GrantPurpose::Data => "data",
    }
}

#[cfg(test)]
mod tests;
