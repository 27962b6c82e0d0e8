//! The outcome of an appraisal: [`Appraised`], the proof that all claims passed, or [`Rejected`].

use std::fmt;

use model::{Digest, Epoch, HostId, VmId};

use crate::{
    Rejection,
    envelope::{Envelope, Sign, Signed, SigningError},
    result::{AttestationResult, Claim, Status, Subject},
};

/// What an appraised host is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub host: HostId,
    /// SHA-256 of the SubjectPublicKeyInfo of its session key.
    pub session_key: Digest,
    /// The HPKE public key that grants are sealed to.
    pub grant_key: Vec<u8>,
    /// Names of our own components in its event log, all endorsed: `vouchsafe:<role>`. None in
    /// a proof that was made again from its verdict, which does not carry them.
    pub components: Vec<String>,
}

/// What an appraised guest is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its VM.
    pub vm: VmId,
    /// The VM's epoch.
    pub epoch: Epoch,
    /// The host it runs on.
    pub host: HostId,
    /// Digest of that host's verdict.
    pub host_verdict: Digest,
}

/// Proof of a good verdict.
///
/// **Invariant:** made only by [`crate::host::appraise_host`], [`crate::guest::appraise_guest`] and
/// [`Self::reopen`] (from a verified, good verdict in force). Not `Clone`: who needs keys gives it up.
#[derive(Debug)]
pub struct Appraised<T> {
    facts: T,
    result: AttestationResult,
}

impl<T> Appraised<T> {
    pub(crate) const fn new(facts: T, result: AttestationResult) -> Self {
        Self { facts, result }
    }

    /// What was appraised.
    pub const fn facts(&self) -> &T {
        &self.facts
    }

    /// The attestation result.
    pub const fn result(&self) -> &AttestationResult {
        &self.result
    }

    /// What names this verdict: SHA-256 of the bytes that are signed.
    #[must_use]
    pub fn verdict_digest(&self) -> Digest {
        self.result.digest()
    }

    /// When the verdict stops counting, Unix milliseconds.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.result.expires_at
    }

    /// Signs the result.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn sign(&self, signer: &dyn Sign) -> Result<Envelope, SigningError> {
        self.result.sign(signer)
    }
}

impl Appraised<Host> {
    /// The proof again, from a verdict that was signed before and is still in force.
    ///
    /// # Errors
    /// [`Rejection::HostNotTrusted`].
    pub fn reopen(verdict: Signed<AttestationResult>, now: u64) -> Result<Self, Rejection> {
        let result = in_force(verdict, now).map_err(Rejection::HostNotTrusted)?;
        let Subject::Host { host, session_key, grant_key } = &result.subject else {
            return Err(Rejection::HostNotTrusted("the verdict is not that of a host"));
        };
        let facts = Host {
            host: host.clone(),
            session_key: *session_key,
            grant_key: grant_key.0.clone(),
            components: Vec::new(),
        };
        Ok(Self { facts, result })
    }
}

impl Appraised<Guest> {
    /// The proof again, from a verdict that was signed before and is still in force.
    ///
    /// # Errors
    /// [`Rejection::GuestNotTrusted`].
    pub fn reopen(verdict: Signed<AttestationResult>, now: u64) -> Result<Self, Rejection> {
        let result = in_force(verdict, now).map_err(Rejection::GuestNotTrusted)?;
        let Subject::Guest { vm, epoch, host, host_verdict } = &result.subject else {
            return Err(Rejection::GuestNotTrusted("the verdict is not that of a guest"));
        };
        let facts = Guest {
            vm: vm.clone(),
            epoch: *epoch,
            host: host.clone(),
            host_verdict: *host_verdict,
        };
        Ok(Self { facts, result })
    }
}

fn in_force(
    verdict: Signed<AttestationResult>,
    now: u64,
) -> Result<AttestationResult, &'static str> {
    let result = verdict.into_inner();
    if result.status != Status::Affirming {
        return Err("the last verdict was bad");
    }
    if now >= result.expires_at {
        return Err("the verdict has expired");
    }
    Ok(result)
}

/// A bad verdict: what was refused, and the result that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    first: Rejection,
    more: Vec<Rejection>,
    result: Box<AttestationResult>,
}

impl Rejected {
    /// Completes a result with the rejections' claims.
    pub(crate) fn new(rejections: Rejections, mut result: AttestationResult) -> Box<Self> {
        let Rejections { first, more } = rejections;
        result.status = Status::Contraindicated;
        result.chain.clear();
        result.claims.extend(std::iter::once(&first).chain(&more).map(Claim::failed));
        Box::new(Self { first, more, result: Box::new(result) })
    }

    /// The rejection that names the refusal.
    #[must_use]
    pub const fn first(&self) -> &Rejection {
        &self.first
    }

    /// All rejections, the naming one first.
    pub fn all(&self) -> impl Iterator<Item = &Rejection> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// The refusal's name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.first.code()
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        self.first.hint()
    }

    /// The contraindicated attestation result.
    #[must_use]
    pub const fn result(&self) -> &AttestationResult {
        &self.result
    }

    /// Signs the contraindicated result.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn sign(&self, signer: &dyn Sign) -> Result<Envelope, SigningError> {
        self.result.sign(signer)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        match self.more.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for Rejected {}

/// One rejection or several.
#[derive(Debug)]
pub(crate) struct Rejections {
    first: Rejection,
    more: Vec<Rejection>,
}

impl Rejections {
    /// `None` if there are none.
    pub(crate) fn of(rejections: Vec<Rejection>) -> Option<Self> {
        let mut rejections = rejections.into_iter();
        Some(Self { first: rejections.next()?, more: rejections.collect() })
    }

    /// With further ones.
    pub(crate) fn and(mut self, more: impl IntoIterator<Item = Rejection>) -> Self {
        self.more.extend(more);
        self
    }
}

impl From<Rejection> for Rejections {
    fn from(first: Rejection) -> Self {
        Self { first, more: Vec::new() }
    }
}
