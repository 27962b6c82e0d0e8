//! Transitions of a VM. Each takes the record as it is and gives back the record as it will be, or
//! says no; none reads a clock or writes anything.

use std::collections::BTreeMap;

use model::{
    Digest, Epoch, HostId, KeyOrigin, OperationId,
    api::{
        operate::{Action, Outcome},
        vm::{Exposure, VmReport, VmSpec, VmState, VolumeFormat, VtpmCertificates, VtpmPublics},
    },
};

use super::{GuestStanding, KeyState, OpenOperation, VmRecord, VmRejection, VtpmRecord};

/// What became of the wish for an operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Accepted {
    /// The same wish is under way: its operation.
    Already(OperationId),
    /// It is a new operation of this host.
    New {
        /// The record with it.
        vm: Box<VmRecord>,
        /// Who carries it out.
        host: HostId,
        /// An open operation that it takes the place of.
        superseded: Option<OperationId>,
    },
    /// Nothing is left to do; the record says so.
    Settled(Box<VmRecord>),
}

/// A new VM. A retired one of the name is replaced, and its epochs are never used again; nor are
/// those of an earlier incarnation, which are below `floor`.
///
/// # Errors
/// [`VmRejection::Exists`].
pub(crate) fn defined(
    before: Option<&VmRecord>,
    spec: VmSpec,
    key_id: Digest,
    floor: Epoch,
) -> Result<VmRecord, VmRejection> {
    if before.is_some_and(|vm| vm.state != VmState::Retired || vm.open.is_some()) {
        return Err(VmRejection::Exists);
    }
    let epoch = next(before.map_or(Epoch(0), |vm| vm.epoch), floor);
    let own = spec.origin == KeyOrigin::Console && !spec.kmi_origin.is_host();
    let key = if own { KeyState::Held } else { KeyState::Awaited };
    Ok(VmRecord {
        spec,
        state: VmState::Defined,
        home: None,
        epoch,
        key_id,
        key_version: 1,
        key,
        open: None,
        vtpm: None,
        guest: None,
        detail: String::new(),
        revoked: false,
        exposed: None,
        reanchor: None,
        anchors: BTreeMap::new(),
    })
}

impl VmRecord {
    /// Start on `host`, which becomes its home if it has none.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn start(
        &self,
        host: &HostId,
        id: OperationId,
        now: u64,
    ) -> Result<Accepted, VmRejection> {
        self.is_live()?;
        if self.home.is_some() {
            self.is_home(host)?;
        }
        match self.open {
            Some(open) if open.action == Action::Start => return Ok(Accepted::Already(open.id)),
            Some(open) => return Err(VmRejection::Busy(open.id)),
            None => {}
        }
        if matches!(self.state, VmState::Running | VmState::Paused) {
            return Err(VmRejection::Running);
        }
        let reanchor = self.reanchor_for(id, now);
        let homed = Self { home: Some(host.clone()), reanchor, ..self.clone() };
        Ok(homed.with(OpenOperation { id, action: Action::Start, accepted_at: now }, host, None))
    }

    /// Stop. An open start, attestation or re-keying gives way to it.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn stop(&self, id: OperationId, now: u64) -> Result<Accepted, VmRejection> {
        self.is_live()?;
        let home = self.home.as_ref().ok_or(VmRejection::NotRunning)?;
        let superseded = match self.open {
            Some(open) => match open.action {
                Action::Stop => return Ok(Accepted::Already(open.id)),
                Action::Delete => return Err(VmRejection::Busy(open.id)),
                Action::Start | Action::Attest | Action::Rekey => Some(open.id),
            },
            None => None,
        };
        let open = OpenOperation { id, action: Action::Stop, accepted_at: now };
        Ok(self.clone().with(open, home, superseded))
    }

    /// Take fresh evidence of the running guest.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn attest(&self, id: OperationId, now: u64) -> Result<Accepted, VmRejection> {
        self.of_running(Action::Attest, id, now)
    }

    /// Exchange the data keys of the running VM's volumes.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn rekey(&self, id: OperationId, now: u64) -> Result<Accepted, VmRejection> {
        if self.spec.format != VolumeFormat::Vault {
            return Err(VmRejection::NotVault);
        }
        self.of_running(Action::Rekey, id, now)
    }

    fn of_running(
        &self,
        action: Action,
        id: OperationId,
        now: u64,
    ) -> Result<Accepted, VmRejection> {
        self.is_live()?;
        match self.open {
            Some(open) if open.action == action => return Ok(Accepted::Already(open.id)),
            Some(open) => return Err(VmRejection::Busy(open.id)),
            None => {}
        }
        let home = self.home.as_ref().ok_or(VmRejection::NotRunning)?;
        if !matches!(self.state, VmState::Running | VmState::Paused) {
            return Err(VmRejection::NotRunning);
        }
        let open = OpenOperation { id, action, accepted_at: now };
        Ok(self.clone().with(open, home, None))
    }

    /// Delete: the home host destroys its copies, then the record is retired. Without a home it is
    /// retired at once.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn delete(&self, id: OperationId, now: u64) -> Result<Accepted, VmRejection> {
        match self.open {
            Some(open) if open.action == Action::Delete => return Ok(Accepted::Already(open.id)),
            Some(open) => return Err(VmRejection::Busy(open.id)),
            None => {}
        }
        self.is_live()?;
        if matches!(self.state, VmState::Running | VmState::Paused) {
            return Err(VmRejection::Running);
        }
        let Some(home) = &self.home else {
            return Ok(Accepted::Settled(Box::new(self.retired())));
        };
        let open = OpenOperation { id, action: Action::Delete, accepted_at: now };
        Ok(self.clone().with(open, home, None))
    }

    /// Revoke: no key is given out any more; the home host is told to destroy its copies.
    pub(crate) fn revoke(&self, id: OperationId, now: u64) -> Accepted {
        if self.revoked {
            return Accepted::Settled(Box::new(self.clone()));
        }
        let ended = Self { revoked: true, ..self.retired() };
        let Some(home) = &self.home else { return Accepted::Settled(Box::new(ended)) };
        match self.open {
            Some(open) if open.action == Action::Delete => {
                Accepted::Settled(Box::new(Self { open: self.open, ..ended }))
            }
            before => {
                let open = OpenOperation { id, action: Action::Delete, accepted_at: now };
                ended.with(open, home, before.map(|b| b.id))
            }
        }
    }

    /// Fence: the epoch moves on, the home is cleared, and the next start makes the VM anew from its
    /// image. Whether it may be is [`Self::may_be_fenced`]'s. `floor`: the least epoch of this
    /// incarnation.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn fenced(&self, floor: Epoch) -> Result<Self, VmRejection> {
        self.is_live()?;
        if self.home.is_none() {
            return Err(VmRejection::NotRunning);
        }
        Ok(Self {
            state: VmState::Defined,
            home: None,
            epoch: next(self.epoch, floor),
            open: None,
            vtpm: None,
            guest: None,
            detail: "fenced".to_owned(),
            exposed: None,
            reanchor: None,
            anchors: BTreeMap::new(),
            ..self.clone()
        })
    }

    /// After its home turned out bad: marked, if the host had its keys and no earlier mark stands.
    pub(crate) fn exposed_by(&self, exposure: &Exposure) -> Option<Self> {
        let held = self.home.as_ref() == Some(&exposure.host) && self.key == KeyState::Granted;
        let marks = held && self.is_live().is_ok() && self.exposed.is_none();
        marks.then(|| Self { exposed: Some(exposure.clone()), ..self.clone() })
    }

    /// After an explicit restore: no operation is under way, and what the guest's verdict was worth
    /// is not known.
    pub(crate) fn restored(&self) -> Self {
        let detail = "the authority was restored; its home has not reported since".to_owned();
        Self { open: None, guest: None, detail, ..self.clone() }
    }

    /// After an operation's outcome.
    pub(crate) fn settled(&self, id: OperationId, outcome: &Outcome) -> Self {
        let Some(open) = self.open.filter(|open| open.id == id) else { return self.clone() };
        let mut after = Self { open: None, ..self.clone() };
        match (open.action, outcome) {
            (Action::Start, Outcome::Done) => {
                after.reanchor = None;
                if self.state != VmState::Paused {
                    after.state = VmState::Running;
                }
            }
            (Action::Start, _) if self.state == VmState::Defined => {
                after.state = VmState::Stopped;
            }
            (Action::Stop, Outcome::Done) => after.state = VmState::Stopped,
            (Action::Delete, Outcome::Done) => {
                after = Self { revoked: self.revoked, open: None, ..self.retired() };
            }
            (Action::Start | Action::Stop | Action::Attest | Action::Rekey | Action::Delete, _) => {
            }
        }
        after
    }

    /// After its home host's report.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn reported(&self, host: &HostId, report: VmReport) -> Result<Self, VmRejection> {
        if self.state == VmState::Retired && self.home.as_ref() == Some(host) {
            // The last word about what is gone.
            return Ok(self.clone());
        }
        self.is_homed(host, report.epoch)?;
        let mut after = Self { detail: report.detail.chars().take(512).collect(), ..self.clone() };
        match report.state {
            VmState::Running | VmState::Paused => {
                after.state = report.state;
                after.vtpm = after.vtpm.map(|vtpm| VtpmRecord { booted: true, ..vtpm });
            }
            VmState::Stopped => after.state = VmState::Stopped,
            // What a host cannot know of a VM changes nothing.
            VmState::Defined | VmState::Busy | VmState::Retired => {}
        }
        Ok(after)
    }

    /// After its home host deposited what the origins leave to it: master key, KMI, or both.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn deposited(
        &self,
        host: &HostId,
        id: OperationId,
        key_id: Option<Digest>,
    ) -> Result<Self, VmRejection> {
        self.is_home(host)?;
        if self.key != KeyState::Awaited {
            return Err(VmRejection::KeyDeposited);
        }
        if !self.open.is_some_and(|open| open.id == id && open.action == Action::Start) {
            return Err(VmRejection::NotRunning);
        }
        let key_id = key_id.unwrap_or(self.key_id);
        Ok(Self { key: KeyState::Held, key_id, ..self.clone() })
    }

    /// After its first grant.
    pub(crate) fn granted(&self) -> Self {
        Self { key: KeyState::Granted, ..self.clone() }
    }

    /// Whether its home host may have (other) vTPM keys certified now.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn may_certify(&self, host: &HostId, epoch: Epoch) -> Result<(), VmRejection> {
        self.is_homed(host, epoch)?;
        match &self.vtpm {
            Some(vtpm) if vtpm.booted => Err(VmRejection::VtpmCertified),
            Some(_) | None => Ok(()),
        }
    }

    /// After its vTPM was certified.
    pub(crate) fn certified_as(
        &self,
        publics: VtpmPublics,
        certificates: VtpmCertificates,
    ) -> Self {
        let vtpm = Some(VtpmRecord { publics, certificates, booted: false });
        Self { vtpm, guest: None, ..self.clone() }
    }

    /// After its guest was appraised: a guest has booted with this vTPM.
    pub(crate) fn appraised(&self, guest: GuestStanding) -> Self {
        let vtpm = self.vtpm.clone().map(|vtpm| VtpmRecord { booted: true, ..vtpm });
        Self { guest: Some(guest), vtpm, ..self.clone() }
    }

    fn retired(&self) -> Self {
        Self {
            state: VmState::Retired,
            key: KeyState::Destroyed,
            vtpm: None,
            guest: None,
            open: None,
            reanchor: None,
            anchors: BTreeMap::new(),
            ..self.clone()
        }
    }

    fn with(
        mut self,
        open: OpenOperation,
        host: &HostId,
        superseded: Option<OperationId>,
    ) -> Accepted {
        self.open = Some(open);
        Accepted::New { vm: Box::new(self), host: host.clone(), superseded }
    }
}

fn next(epoch: Epoch, floor: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_add(1)).max(floor)
}
