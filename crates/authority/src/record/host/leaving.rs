//! How a host goes: drained, then retired; or how another TPM takes its place under its name.
//!
//! ```text
//! drain (no new starts) ─► VMs stopped, then deleted, fenced or moved ─► retire = revoked for good
//! replace: token ─► another TPM enrols with it ─► pending, VMs keep their home ─► approve
//! ```

use model::{VmId, api::enrol::HostMode, api::vm::VmState};

use super::{HostRecord, HostRejection, Identity};
use crate::record::vm::VmRecord;

impl HostRecord {
    /// Drained, or not any more.
    ///
    /// # Errors
    /// [`HostRejection::Revoked`].
    pub(crate) fn drained(mut self, draining: bool) -> Result<Self, HostRejection> {
        if self.mode == HostMode::Revoked {
            return Err(HostRejection::Revoked);
        }
        self.draining = draining;
        Ok(self)
    }

    /// Whether a VM may be started on it, as far as draining goes.
    ///
    /// # Errors
    /// [`HostRejection::Draining`].
    pub(crate) const fn takes_starts(&self) -> Result<(), HostRejection> {
        if self.draining { Err(HostRejection::Draining) } else { Ok(()) }
    }

    /// The host after its retirement: revoked for good. It must be draining and nobody's home.
    ///
    /// # Errors
    /// [`HostRejection::NotDrained`].
    pub(crate) fn retired(self, vms: &[VmRecord], now: u64) -> Result<Self, HostRejection> {
        if self.mode == HostMode::Revoked {
            return Ok(self);
        }
        if !self.draining {
            return Err(HostRejection::NotDrained("it takes starts".to_owned()));
        }
        let homed: Vec<&str> = self.homed(vms).map(|vm| vm.spec.name.as_str()).collect();
        if !homed.is_empty() {
            let why = format!("it is the home of {}", homed.join(", "));
            return Err(HostRejection::NotDrained(why));
        }
        Ok(self.revoked(now))
    }

    /// The live VMs whose home it is.
    pub(crate) fn homed<'a>(&self, vms: &'a [VmRecord]) -> impl Iterator<Item = &'a VmRecord> {
        vms.iter().filter(|vm| vm.home.as_ref() == Some(&self.name) && vm.is_live().is_ok())
    }

    /// VMs that run there, or that something is done to.
    pub(crate) fn at_work(&self, vms: &[VmRecord]) -> Vec<VmId> {
        let works = |vm: &&VmRecord| {
            vm.open.is_some() || matches!(vm.state, VmState::Running | VmState::Paused)
        };
        self.homed(vms).filter(works).map(|vm| vm.spec.name.clone()).collect()
    }

    /// Whether another TPM may be enrolled in the place of its own.
    ///
    /// # Errors
    /// [`HostRejection::Revoked`].
    pub(crate) fn may_be_replaced(&self) -> Result<(), HostRejection> {
        if self.mode == HostMode::Revoked { Err(HostRejection::Revoked) } else { Ok(()) }
    }

    /// The host with another TPM: unapproved, without a verdict; sessions of the old one are over.
    pub(crate) fn replaced(mut self, identity: Identity, now: u64) -> Self {
        let old = std::mem::replace(&mut self.identity, identity);
        self.former.push((old.ak_certificate, now));
        self.mode = HostMode::Pending;
        self.replaced_at = now;
        self.standing = None;
        self.guard = None;
        self.draining = false;
        self.spool_next = 0;
        self
    }

    /// Whether a session certificate issued at `issued_at` is of the present TPM. Certificates
    /// count whole seconds: one of the very second of the replacement is not.
    ///
    /// # Errors
    /// [`HostRejection::Replaced`].
    pub(crate) const fn is_present(&self, issued_at: u64) -> Result<(), HostRejection> {
        if self.replaced_at > 0 && issued_at / 1000 <= self.replaced_at / 1000 {
            return Err(HostRejection::Replaced);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, host};
    use super::*;
    use crate::{record::vm::tests::vm, refusal::Rejection as _};

    fn homed() -> VmRecord {
        VmRecord { home: Some("a".parse().unwrap()), state: VmState::Running, ..vm() }
    }

    #[test]
    fn a_host_is_retired_only_when_it_is_drained_and_nobodys_home() {
        let a = host("a").approved(false).unwrap();
        assert_eq!(a.clone().retired(&[], 1).unwrap_err().name(), "host-not-drained");
        let draining = a.drained(true).unwrap();
        assert_eq!(draining.takes_starts().unwrap_err().name(), "host-draining");
        let refused = draining.clone().retired(&[homed()], 1).unwrap_err();
        assert!(refused.to_string().contains("v1"), "{refused}");
        assert_eq!(draining.at_work(&[homed()]).len(), 1);
        let gone = draining.retired(&[], 1).unwrap();
        assert_eq!(gone.mode, HostMode::Revoked);
        assert_eq!(gone.drained(false).unwrap_err().name(), "host-revoked");
    }

    #[test]
    fn another_tpm_waits_for_approval_and_ends_the_sessions_of_the_first() {
        let first = host("a").approved(false).unwrap().appraised(good(10));
        let mut identity = first.identity.clone();
        identity.ak_certificate = model::api::Bytes(vec![9]);
        let other = first.replaced(identity, 100_400);
        assert_eq!((other.mode, other.former.len()), (HostMode::Pending, 1));
        assert!(other.standing.is_none());
        assert_eq!(other.is_present(100_900).unwrap_err().name(), "host-replaced");
        assert!(other.is_present(101_000).is_ok());
        assert!(host("b").is_present(0).is_ok());
    }
}
