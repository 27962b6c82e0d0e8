//! What a process gives up before it touches a secret or a foreign byte: core dumps, being traced,
//! new privileges, and the files it has no business with.
//!
//! **Invariant:** call these first in `main`, before any thread or runtime starts: `no_new_privs`
//! and landlock bind the calling thread and those that it starts later, not its siblings. Children
//! inherit both, the core limit and the umask, but not the dumpable flag (`exec` resets it), so
//! every binary of the project calls [`harden`] itself.
//!
//! Deliberately absent: system-call filters, and limits on unix sockets and signals.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use rustix::{
    fs::Mode,
    mm::MlockAllFlags,
    process::{DumpableBehavior, Resource, Rlimit},
    thread::CapabilitySet,
};
use thiserror::Error;

/// The step of [`harden`] or [`restrict_files`] that the kernel refused.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A process attribute could not be set.
    #[error("cannot set {attribute}")]
    Attribute {
        /// Which attribute.
        attribute: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A directory that the process must write to is not there, so it cannot be allowed.
    #[error("{} is to be writable in the sandbox but does not exist", .0.display())]
    MissingPath(PathBuf),
    /// The file rules could not be made or applied, although the kernel knows them.
    #[error("cannot restrict file access")]
    Files(#[source] landlock::RulesetError),
}

/// Turns off core dumps and tracing by others of the same user, forbids gaining privileges by
/// `exec`, makes every new file private to its owner (umask 077), and lets a panic of any thread
/// end the process: a half-dead guard is worse than none.
///
/// # Errors
/// [`SandboxError::Attribute`] names the step that failed; the caller must not go on.
pub fn harden() -> Result<(), SandboxError> {
    let step = |attribute| {
        move |errno: rustix::io::Errno| SandboxError::Attribute { attribute, source: errno.into() }
    };
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(step("the core limit"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("the dumpable flag"))?;
    rustix::thread::set_no_new_privs(true).map_err(step("no_new_privs"))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    end_on_panic();
    Ok(())
}

/// As `panic = "abort"` would do, without building every dependency twice for tests and programs.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Whether the process's memory is kept out of swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLock {
    /// All present and future pages are locked once they are touched.
    Locked,
    /// The kernel allows too little locked memory; locking anyway would make later allocations
    /// fail. Swap must then be off or encrypted, which the host policy checks.
    Limited,
}

/// Locks all memory if the process may do so without limit; otherwise changes nothing.
#[must_use]
pub fn lock_memory() -> MemoryLock {
    let capable = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let unlimited = rustix::process::getrlimit(Resource::Memlock).current.is_none();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if (capable || unlimited) && rustix::mm::mlockall(flags).is_ok() {
        MemoryLock::Locked
    } else {
        MemoryLock::Limited
    }
}

/// How much of the file restriction the running kernel enforces. Callers log it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRestriction {
    /// Every asked-for right is enforced.
    Full,
    /// The kernel's landlock is older than the rights that we know; those it knows are enforced.
    Partial,
    /// The kernel has no landlock; nothing is enforced.
    Absent,
}

impl FileRestriction {
    /// The status as one word for a log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Absent => "absent",
        }
    }
}

/// From here on the calling thread and its descendants (children too) can only read and execute
/// what lies under `read`, and do anything to what lies under `write`; `/dev/null` and
/// `/dev/urandom` are always allowed. Files already open stay usable. Paths under `read` that do
/// not exist are ignored. Needs no privilege.
///
/// # Errors
/// [`SandboxError::MissingPath`] if a path of `write` does not exist, [`SandboxError::Files`] if
/// the kernel knows landlock but refused the rules. A kernel without landlock is no error but
/// [`FileRestriction::Absent`].
pub fn restrict_files(read: &[&Path], write: &[&Path]) -> Result<FileRestriction, SandboxError> {
    let abi = ABI::V5;
    if let Some(missing) = write.iter().find(|path| !path.exists()) {
        return Err(SandboxError::MissingPath(missing.to_path_buf()));
    }
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create)
        .and_then(|rules| {
            rules.add_rules(path_beneath_rules(["/dev/urandom"], AccessFs::from_read(abi)))
        })
        .and_then(|rules| {
            rules.add_rules(path_beneath_rules(["/dev/null"], AccessFs::from_all(abi)))
        })
        .and_then(|rules| rules.add_rules(path_beneath_rules(read, AccessFs::from_read(abi))))
        .and_then(|rules| rules.add_rules(path_beneath_rules(write, AccessFs::from_all(abi))))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(SandboxError::Files)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => FileRestriction::Full,
        RulesetStatus::PartiallyEnforced => FileRestriction::Partial,
        RulesetStatus::NotEnforced => FileRestriction::Absent,
    })
}
