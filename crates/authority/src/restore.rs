//! The explicit restore: an authority made valid again on the present TPM, from a backup with its
//! shares or, where it lies, with the shares of its root key.
//!
//! ```text
//! files, root key sealed to this TPM ─► incarnation + 1 ─► hosts pending, tokens and open
//!   operations gone ─► quiet until the old leases end ─► audit entry ─► counter, head ─► marker
//! ```
//! What happened after the backup is not known here: a host may have been revoked, a VM fenced, a
//! token used. Therefore every host waits for approval again, no token is taken, epochs of this
//! incarnation begin above any that was ever given out ([`Restored::epoch_floor`]), and nothing is
//! granted until every lease that the lost authority may have given has ended.
//!
//! **Invariants:** nothing but this begins an incarnation; a restore that was cut short leaves no
//! marker, so that nothing starts from it. Deliberately absent: a look at the lost authority. That
//! it is off for good is the operators' word, as with a fence.

use std::path::{Path, PathBuf};

use anchor::Anchored;
use model::{Epoch, HostId, Incarnation, api::enrol::HostMode, api::vm::VmState};
use serde::{Deserialize, Serialize};
use serve::{clock::SharedClock, fsfile};
use thiserror::Error;

use crate::{
    audit::{Actor, Auditor, Done},
    backup::{self, BackupError},
    config::Config,
    ground::{GroundError, Opened},
    init,
    paths::Paths,
    record::token::TokenRecord,
    records::{self, Kept, OrderRecord, RecordError, Records, Write},
    root::{RootError, RootKey},
    tpmlink::TpmLink,
};

/// What is restored.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A backup, into an empty state directory; the shares are the backup's.
    Backup(PathBuf),
    /// The state directory as it lies; the shares are the root key's.
    InPlace,
}

/// A restore did not happen.
#[derive(Debug, Error)]
pub(crate) enum RestoreError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] fsfile::FileError),
    /// The authority cannot stand up.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The state directory has an authority in it.
    #[error("{} has an authority in it", .0.display())]
    InUse(PathBuf),
}

impl RestoreError {
    /// The refusal's name and hint, if a rule said no.
    pub(crate) fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Backup(error) => error.refusal(),
            Self::Ground(GroundError::Root(RootError::Shares | RootError::Joining(_))) => {
                Some(("shares-wrong", "enter the shares that `init` showed, one a line"))
            }
            Self::Ground(error) => error.refusal(),
            Self::InUse(_) => Some(("state-in-use", "move the state directory out of the way")),
            Self::File(_) => None,
        }
    }
}

impl From<RootError> for RestoreError {
    fn from(error: RootError) -> Self {
        Self::Ground(error.into())
    }
}

impl From<RecordError> for RestoreError {
    fn from(error: RecordError) -> Self {
        Self::Ground(error.into())
    }
}

/// What an explicit restore left in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restored {
    /// When, Unix milliseconds.
    pub(crate) at: u64,
    /// Until when nothing is granted.
    pub(crate) quiet_until: u64,
}

impl Restored {
    /// Epochs that are made from now on are at least this: above those of every earlier
    /// incarnation, also of one that began from the same backup. 0: it was never restored.
    pub(crate) const fn epoch_floor(&self) -> Epoch {
        Epoch(self.at)
    }
}

/// What is told to the one who restores, as JSON on stdout.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    incarnation: u64,
    quiet_until: u64,
    /// Hosts that wait for approval.
    hosts: Vec<HostId>,
    audit_entries: u64,
    /// When the backup was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_of: Option<u64>,
}

/// Restores. `longest_lease_s`: the longest lease that the lost authority may have given, if that
/// is more than the restored policy says.
///
/// # Errors
/// [`RestoreError`].
pub(crate) async fn restore(
    config: &Config,
    clock: &SharedClock,
    source: &Source,
    shares: &[String],
    longest_lease_s: u64,
) -> Result<Report, RestoreError> {
    let paths = Paths::new(&config.state_dir);
    let tpm = TpmLink::new(config.tpm_address().map_err(GroundError::from)?);
    let tpm = tpm.map_err(GroundError::from)?;
    let (root, backup_of) = match source {
        Source::Backup(file) => {
            if paths.marker().exists() {
                return Err(RestoreError::InUse(config.state_dir.clone()));
            }
            let (header, content) = backup::open(file, shares)?;
            unpack(&paths, &content.files)?;
            content.root.seal(&paths.root(), &tpm, &config.seal_pcrs).await?;
            (content.root, Some(header.created_at))
        }
        Source::InPlace => {
            let (threshold, pcrs) = (config.recovery.threshold, &config.seal_pcrs);
            let root = RootKey::recover(&paths.root(), &tpm, pcrs, shares, threshold).await?;
            fsfile::remove(&paths.marker())?;
            (root, None)
        }
    };
    let opened = Opened::new(paths, &root, tpm, clock)?;
    let report = begin(config, clock, &opened, longest_lease_s, backup_of).await?;
    let paths = opened.paths.clone();
    opened.close().await?;
    init::mark(&paths, clock)?;
    Ok(report)
}

fn unpack(paths: &Paths, files: &[(PathBuf, Vec<u8>)]) -> Result<(), RestoreError> {
    for dir in [paths.dir().to_owned(), paths.audit(), paths.evidence()] {
        fsfile::create_private_dir(&dir)?;
    }
    for (name, content) in files {
        fsfile::write_atomic(&paths.dir().join(name), content, mode(name))?;
    }
    Ok(())
}

/// Certificates and the public key are for everyone.
fn mode(name: &Path) -> u32 {
    let public = name.extension().is_some_and(|kind| kind == "pem" || kind == "pub");
    if public { 0o644 } else { 0o600 }
}

/// Begins the incarnation.
async fn begin(
    config: &Config,
    clock: &SharedClock,
    opened: &Opened,
    longest_lease_s: u64,
    backup_of: Option<u64>,
) -> Result<Report, RestoreError> {
    let records = &opened.records;
    let held = records.get(&records::incarnation()?).await?;
    let before = opened.newest_incarnation(config, clock).await?;
    let incarnation = Incarnation(before.0.saturating_add(1));
    let policy = records.get(&records::policy()?).await?;
    let policy = policy.ok_or_else(|| GroundError::NotInitialised("the policy".to_owned()))?.value;
    let lease_s = policy.policy.lease_s.max(longest_lease_s);
    let wait_s = lease_s.saturating_add(policy.policy.clock_skew_s);
    let at = clock.unix_ms();
    let restored = Restored { at, quiet_until: at.saturating_add(wait_s.saturating_mul(1000)) };
    let old = records.get(&records::restored()?).await?.map_or(0, |old| old.version);
    let write = Write::new()
        .put(records::incarnation()?, &incarnation, held.map_or(0, |held| held.version))?
        .put(records::restored()?, &restored, old)?;
    records.commit(write).await?;
    let hosts = reconcile(records).await?;
    let auditor = Auditor::new(opened.log.clone(), clock.clone());
    let source = backup_of.map_or_else(|| "in place".to_owned(), |at| format!("backup of {at}"));
    let detail = format!("incarnation {}, {source}, no grants for {wait_s} s", incarnation.0);
    let done = Done::new("authority-restored", "authority").detail(detail);
    auditor.done(&Actor::operator("local"), done).await.map_err(GroundError::audit)?;
    let ground = opened.anchor_ground(config, clock, incarnation);
    Anchored::first(ground).await.map_err(GroundError::from)?;
    Ok(Report {
        incarnation: incarnation.0,
        quiet_until: restored.quiet_until,
        hosts,
        audit_entries: opened.log.tree_head().size,
        backup_of,
    })
}

/// What may be out of date is taken back: approvals, tokens, open operations. The hosts that wait
/// for approval.
async fn reconcile(records: &Records) -> Result<Vec<HostId>, RestoreError> {
    records.forget(Kept::Tokens, |_: &TokenRecord| true).await?;
    records.forget(Kept::Orders, |_: &OrderRecord| true).await?;
    let open = |operation: &model::api::operate::Operation| operation.outcome.is_none();
    records.forget(Kept::Operations, open).await?;
    let mut waiting = Vec::new();
    for host in records.hosts().await?.iter().filter(|host| host.mode != HostMode::Revoked) {
        let place = || records::host(&host.name);
        let version = records.get(&place()?).await?.map_or(0, |held| held.version);
        let write = Write::new().put(place()?, &host.clone().restored(), version)?;
        records.commit(write).await?;
        waiting.push(host.name.clone());
    }
    for vm in records.vms().await?.iter().filter(|vm| vm.state != VmState::Retired) {
        let place = || records::vm(&vm.spec.name);
        let version = records.get(&place()?).await?.map_or(0, |held| held.version);
        let write = Write::new().put(place()?, &vm.restored(), version)?;
        records.commit(write).await?;
    }
    Ok(waiting)
}
