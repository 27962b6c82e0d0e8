//! The TPM client: one connection, one job at a time.
//!
//! **Invariant:** whatever a [`Tpm::scoped`] closure opened (transient objects, sessions) is flushed
//! when it returns, and objects of others that had to make room are back under their handles.

mod admin;
mod attestation;
mod context;
mod credential;
mod duplication;
mod exec;
mod keys;
mod nv;
mod pcr;
mod sealing;
mod sessions;

use std::fmt;

use self::exec::Command;
pub use self::{
    admin::TimeInfo,
    attestation::{Certification, Quote},
    context::SavedContext,
    nv::{NvAttributes, NvPublic},
};
use crate::{
    error::{ResponseCode, TpmError},
    public::{Name, Public},
    transport::Transport,
};

/// Handles that this product reserves or that the TCG assigns.
pub mod handle {
    /// TPM_RH_OWNER.
    pub const OWNER: u32 = 0x4000_0001;
    /// TPM_RH_NULL.
    pub const NULL: u32 = 0x4000_0007;
    /// TPM_RS_PW: a password session.
    pub const PASSWORD: u32 = 0x4000_0009;
    /// TPM_RH_LOCKOUT.
    pub const LOCKOUT: u32 = 0x4000_000a;
    /// TPM_RH_ENDORSEMENT.
    pub const ENDORSEMENT: u32 = 0x4000_000b;
    /// TPM_RH_PLATFORM.
    pub const PLATFORM: u32 = 0x4000_000c;
    /// The SRK (TCG provisioning guidance).
    pub const SRK: u32 = 0x8100_0001;
    /// The EK (TCG provisioning guidance).
    pub const EK: u32 = 0x8101_0001;
    /// The host's AK in the host TPM.
    pub const HOST_AK: u32 = 0x8101_0002;
    /// The host-owned AK in a vTPM, in the platform's range.
    pub const VTPM_AK: u32 = 0x8180_0003;
    /// NV index of the policy counter in the host's TPM; 0x01805601 is the authority's anchor.
    pub const GUARD_COUNTER: u32 = 0x0180_5602;
    /// NV index of the counter in the host's TPM that its volumes are anchored in.
    pub const ANCHOR_COUNTER: u32 = 0x0180_5603;
    /// NV index of the RSA-2048 EK certificate (TCG EK credential profile, L-1).
    pub const EK_CERT_RSA: u32 = 0x01c0_0002;
    /// NV index of the EC P-256 EK certificate (L-2).
    pub const EK_CERT_P256: u32 = 0x01c0_000a;
}

/// A hierarchy, for primary keys and administration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// The machine's identity.
    Endorsement,
    /// Ends with the next TPM reset.
    Null,
    /// The machine's owner.
    Owner,
    /// Firmware; and, before a VM's first boot, its host.
    Platform,
    /// Dictionary-attack lockout (for authorization only).
    Lockout,
}

impl Hierarchy {
    /// Its permanent handle.
    #[must_use]
    pub const fn handle(self) -> u32 {
        match self {
            Self::Endorsement => handle::ENDORSEMENT,
            Self::Null => handle::NULL,
            Self::Owner => handle::OWNER,
            Self::Platform => handle::PLATFORM,
            Self::Lockout => handle::LOCKOUT,
        }
    }
}

/// An object that is in the TPM: transient in this job, or persistent.
#[derive(Clone, Debug)]
pub struct Object {
    handle: u32,
    public: Public,
    name: Name,
}

impl Object {
    pub(crate) fn new(handle: u32, public: Public) -> Self {
        let name = public.name();
        Self { handle, public, name }
    }

    /// Its handle.
    #[must_use]
    pub const fn handle(&self) -> u32 {
        self.handle
    }

    /// Its public area, as the TPM gave it.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// Its Name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) const fn entity(&self) -> Entity<'_> {
        Entity { handle: self.handle, name: Some(&self.name) }
    }
}

/// A handle in a command, with its Name unless the handle is its own Name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entity<'a> {
    pub(crate) handle: u32,
    pub(crate) name: Option<&'a Name>,
}

impl Entity<'static> {
    pub(crate) const fn bare(handle: u32) -> Self {
        Self { handle, name: None }
    }
}

impl From<Hierarchy> for Entity<'static> {
    fn from(hierarchy: Hierarchy) -> Self {
        Self::bare(hierarchy.handle())
    }
}

/// One TPM, connected.
pub struct Tpm {
    transport: Box<dyn Transport>,
    /// Transient objects and sessions that we opened, oldest first.
    open: Vec<u32>,
    /// Objects of others that made room, the last displaced last.
    displaced: Vec<SavedContext>,
    depth: u32,
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Tpm {
    /// A client on a transport that is open.
    #[must_use]
    pub fn new(transport: Box<dyn Transport>) -> Self {
        Self { transport, open: Vec::new(), displaced: Vec::new(), depth: 0 }
    }

    /// Runs `job`, then flushes every transient object and session that it opened and did not flush
    /// itself, and puts displaced objects of others back. Scopes nest.
    ///
    /// # Errors
    /// What the job returns; else what went wrong while tidying up.
    pub fn scoped<R, E: From<TpmError>>(
        &mut self,
        job: impl FnOnce(&mut Self) -> Result<R, E>,
    ) -> Result<R, E> {
        let mark = self.open.len();
        self.depth = self.depth.saturating_add(1);
        let result = job(self);
        let tidied = self.flush_down_to(mark);
        self.depth = self.depth.saturating_sub(1);
        let restored = if self.depth == 0 { self.put_back() } else { Ok(()) };
        let result = result?;
        tidied.and(restored)?;
        Ok(result)
    }

    fn flush_down_to(&mut self, mark: usize) -> Result<(), TpmError> {
        let mut outcome = Ok(());
        while self.open.len() > mark {
            if let Some(handle) = self.open.pop() {
                match self.flush_handle(handle) {
                    // The TPM flushed it by itself: a session whose command failed or a reset.
                    Err(error) if error.code().is_some_and(is_gone) => {}
                    other => outcome = outcome.and(other),
                }
            }
        }
        outcome
    }
}

/// The handle is no more: TPM_RC_HANDLE in its variants, or the TPM was reset.
fn is_gone(code: ResponseCode) -> bool {
    code.is_no_such_handle() || code == ResponseCode::INITIALIZE || matches!(code.0, 0x910..=0x91e)
}
