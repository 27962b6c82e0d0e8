//! Taking a VM's home away: only when no second copy of the VM can come of it.
//!
//! ```text
//!            its home said that it is stopped ──────────────────────────► fenced
//!            its home was silent for a lease, and the lease pauses it ──► fenced
//! its home was silent for a while, and an operator vouches it is off ───► fenced
//! ```
//! **Invariant:** a home that was heard of a moment ago and did not say that the VM is stopped keeps
//! it, whatever an operator says. A host that was cut off and comes back ends what it still runs of
//! an epoch that has passed.

use http::StatusCode;
use model::{
    HostId,
    api::vm::{OnLeaseEnd, VmState},
};
use thiserror::Error;

use super::{VmRecord, VmRejection};
use crate::refusal::Rejection;

/// Why a VM keeps its home.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FenceRejection {
    /// It may run there.
    #[error("its home {home} was heard of {silent_s} s ago and the VM may run there; {wanted}")]
    HomeAlive {
        /// Its home.
        home: HostId,
        /// How long the home has been silent.
        silent_s: u64,
        /// What would have to be.
        wanted: String,
    },
    /// The VM.
    #[error(transparent)]
    Vm(#[from] VmRejection),
}

impl Rejection for FenceRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::HomeAlive { .. } => "vm-home-alive",
            Self::Vm(rejection) => rejection.name(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::HomeAlive { .. } => {
                "`vouchsafe vm stop NAME`; if the host cannot be reached, switch it off, then \
                 `vouchsafe vm fence NAME --powered-off --reason WHY`"
            }
            Self::Vm(rejection) => rejection.hint(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::HomeAlive { .. } => StatusCode::CONFLICT,
            Self::Vm(rejection) => rejection.status(),
        }
    }
}

/// What is known of a home that is to be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    /// How long nothing was heard of it, seconds.
    pub(crate) silent_s: u64,
    /// An operator vouches that it is switched off.
    pub(crate) powered_off: bool,
    /// How long a host is silent that is switched off, at least, seconds.
    pub(crate) least_s: u64,
    /// How long a host may use what it holds, with what clocks may differ, seconds.
    pub(crate) lease_s: u64,
}

impl VmRecord {
    /// Whether no copy of the VM can go on running on its home.
    ///
    /// # Errors
    /// [`FenceRejection`].
    pub(crate) fn may_be_fenced(&self, home: Silence) -> Result<(), FenceRejection> {
        self.is_live()?;
        let Some(host) = &self.home else { return Err(VmRejection::NotRunning.into()) };
        let stopped = matches!(self.state, VmState::Stopped | VmState::Defined);
        if stopped && self.open.is_none() {
            return Ok(());
        }
        let pauses = self.spec.on_lease_end == OnLeaseEnd::Pause;
        let off = home.powered_off && home.silent_s >= home.least_s;
        if off || (pauses && home.silent_s >= home.lease_s) {
            return Ok(());
        }
        let wanted = if home.powered_off {
            format!("a host that is off is silent for {} s", home.least_s)
        } else if pauses {
            format!("after {} s of silence its lease has ended", home.lease_s)
        } else {
            "it goes on when its lease ends, so somebody has to vouch that it is off".to_owned()
        };
        Err(FenceRejection::HomeAlive { home: host.clone(), silent_s: home.silent_s, wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::running, *};

    const HOME: Silence = Silence { silent_s: 0, powered_off: false, least_s: 90, lease_s: 1830 };

    fn name(vm: &VmRecord, home: Silence) -> Result<(), &'static str> {
        vm.may_be_fenced(home).map_err(|rejection| rejection.name())
    }

    #[test]
    fn a_home_that_speaks_keeps_what_it_runs() {
        let vm = running("a");
        assert_eq!(name(&vm, HOME), Err("vm-home-alive"));
        assert_eq!(name(&vm, Silence { powered_off: true, ..HOME }), Err("vm-home-alive"));
        assert_eq!(name(&vm, Silence { silent_s: 1829, ..HOME }), Err("vm-home-alive"));
        assert_eq!(name(&vm, Silence { silent_s: 1830, ..HOME }), Ok(()));
        let off = Silence { silent_s: 90, powered_off: true, ..HOME };
        assert_eq!(name(&vm, off), Ok(()));
        assert_eq!(name(&vm, Silence { silent_s: 89, ..off }), Err("vm-home-alive"));
    }

    #[test]
    fn a_vm_that_outlives_the_lease_needs_somebody_who_vouches() {
        let mut vm = running("a");
        vm.spec.on_lease_end = OnLeaseEnd::Continue;
        assert_eq!(name(&vm, Silence { silent_s: u64::MAX, ..HOME }), Err("vm-home-alive"));
        let off = Silence { silent_s: 90, powered_off: true, ..HOME };
        assert_eq!(name(&vm, off), Ok(()));
    }

    #[test]
    fn a_home_that_said_stopped_may_go_at_once_and_one_that_is_busy_not() {
        let stopped = VmRecord { state: VmState::Stopped, open: None, ..running("a") };
        assert_eq!(name(&stopped, HOME), Ok(()));
        let homeless = VmRecord { home: None, ..stopped };
        assert_eq!(name(&homeless, HOME), Err("vm-not-running"));
        let revoked = VmRecord { revoked: true, ..running("a") };
        assert_eq!(name(&revoked, HOME), Err("vm-revoked"));
    }
}
