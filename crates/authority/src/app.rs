//! What all handlers share.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use anchor::AnchorHandle;
use model::{
    HostId, Incarnation, OperationId, VmId,
    api::policy::{Policy, PolicyView},
};
use serve::{clock::SharedClock, shutdown::Shutdown};
use time::OffsetDateTime;

use crate::{
    audit::Auditor,
    config::Config,
    ekroots::EkRoots,
    failure::Failure,
    flood::FloodGate,
    keyring::Keyring,
    nonce::NonceBook,
    paths::Paths,
    record::{
        host::{HostRecord, HostRejection},
        token::PendingEnrolment,
        vm::{VmRecord, VmRejection},
    },
    records::{self, Records, Versioned, Write},
    reference::References,
    restore::Restored,
};

/// The state of the process; handlers hold it by [`App`].
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where things are.
    pub(crate) paths: Paths,
    /// The configuration.
    pub(crate) config: Config,
    /// The time.
    pub(crate) clock: SharedClock,
    /// The records.
    pub(crate) records: Records,
    /// The audit log.
    pub(crate) audit: Auditor,
    /// The keys.
    pub(crate) keys: Keyring,
    /// The store's anchor.
    pub(crate) anchor: AnchorHandle,
    /// TPM makers whose EKs are taken.
    pub(crate) ek_roots: EkRoots,
    /// Reference values of hosts.
    pub(crate) references: References,
    /// The store's incarnation.
    pub(crate) incarnation: Incarnation,
    /// What the last explicit restore left.
    pub(crate) restored: Restored,
    /// The policy in force.
    pub(crate) policy: RwLock<Arc<PolicyView>>,
    /// Challenges under way.
    pub(crate) nonces: Mutex<NonceBook>,
    /// Enrolments under way.
    pub(crate) enrolments: Mutex<HashMap<OperationId, PendingEnrolment>>,
    /// When each host last spoke.
    pub(crate) seen: Mutex<HashMap<HostId, u64>>,
    /// When this process began to listen; what was said before it does not know.
    pub(crate) began: u64,
    /// Bounds callers without a certificate, by address.
    pub(crate) flood: Mutex<FloodGate<Option<IpAddr>>>,
    /// Bounds the refusals of one host that are written down.
    pub(crate) noise: Mutex<FloodGate<String>>,
    /// One spool is taken at a time.
    pub(crate) spool: tokio::sync::Mutex<()>,
    /// The wish to end.
    pub(crate) shutdown: Shutdown,
}

/// A handle to the shared state.
pub(crate) type App = Arc<Shared>;

impl Shared {
    /// A VM's record.
    ///
    /// # Errors
    /// [`VmRejection::Unknown`], or the store's.
    pub(crate) async fn vm(&self, name: &VmId) -> Result<Versioned<VmRecord>, Failure> {
        let found = self.records.get(&records::vm(name)?).await?;
        Ok(found.ok_or(VmRejection::Unknown)?)
    }

    /// Changes a VM's record, again if it moved meanwhile: what it was, and what it is now. What
    /// stays the same is not written.
    ///
    /// # Errors
    /// [`VmRejection::Unknown`], what `change` refuses, or the store's.
    pub(crate) async fn change_vm<E: Into<Failure>>(
        &self,
        name: &VmId,
        change: impl Fn(&VmRecord) -> Result<VmRecord, E>,
    ) -> Result<(VmRecord, VmRecord), Failure> {
        loop {
            let vm = self.vm(name).await?;
            let after = change(&vm.value).map_err(Into::into)?;
            if after == vm.value {
                return Ok((vm.value, after));
            }
            let write = Write::new().put(records::vm(name)?, &after, vm.version)?;
            if self.records.commit(write).await? {
                return Ok((vm.value, after));
            }
        }
    }

    /// The record of a host that an operator names.
    ///
    /// # Errors
    /// [`HostRejection::Unknown`], or the store's.
    pub(crate) async fn host(&self, name: &HostId) -> Result<Versioned<HostRecord>, Failure> {
        let found = self.records.get(&records::host(name)?).await?;
        Ok(found.ok_or(HostRejection::Unknown)?)
    }

    /// The record of a host that speaks for itself.
    ///
    /// # Errors
    /// [`HostRejection::NotEnrolled`], or the store's.
    pub(crate) async fn enrolled(&self, name: &HostId) -> Result<Versioned<HostRecord>, Failure> {
        let found = self.records.get(&records::host(name)?).await?;
        Ok(found.ok_or(HostRejection::NotEnrolled)?)
    }

    /// Changes the record of a host that speaks for itself, as [`Self::change_vm`] does; what it is
    /// now.
    ///
    /// # Errors
    /// [`HostRejection::NotEnrolled`], what `change` refuses, or the store's.
    pub(crate) async fn change_enrolled(
        &self,
        name: &HostId,
        change: impl Fn(&HostRecord) -> Result<HostRecord, HostRejection>,
    ) -> Result<HostRecord, Failure> {
        loop {
            let host = self.enrolled(name).await?;
            let after = change(&host.value)?;
            let write = Write::new().put(records::host(name)?, &after, host.version)?;
            if self.records.commit(write).await? {
                return Ok(after);
            }
        }
    }

    /// The time in Unix milliseconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// The time as certificates have it.
    pub(crate) fn date(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Policy {
        self.policy_view().policy.clone()
    }

    /// The policy in force with its generation.
    pub(crate) fn policy_view(&self) -> Arc<PolicyView> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another policy in force, unless a newer one is.
    pub(crate) fn set_policy(&self, policy: PolicyView) {
        let mut held = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        if policy.generation > held.generation {
            *held = Arc::new(policy);
        }
    }

    /// When a host spoke last, or showed evidence that was genuine.
    pub(crate) fn heard(&self, host: &HostRecord) -> Option<u64> {
        let spoke = lock(&self.seen).get(&host.name).copied();
        spoke.max(host.standing.as_ref().map(|standing| standing.at))
    }

    /// How long nothing was heard of a host, as far as this process can know, seconds.
    pub(crate) fn silent_s(&self, host: &HostRecord) -> u64 {
        let heard = self.heard(host).map_or(self.began, |heard| heard.max(self.began));
        self.now().saturating_sub(heard) / 1000
    }

    /// Notes that a host spoke.
    pub(crate) fn mark_seen(&self, host: &HostId) {
        let now = self.now();
        lock(&self.seen).insert(host.clone(), now);
    }
}

/// Locks a mutex that no panic can leave half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
