//! The three acts that safe interfaces do not offer: work between fork and exec, taking over a
//! descriptor that was inherited by number, and watching a descriptor from the async runtime.
//!
//! JUSTIFICATION: the standard library has no safe `setsid`, parent-death signal or inheritance of
//! chosen descriptors; and a descriptor named in argv can only be owned by asserting that nobody
//! else owns it.

#![expect(unsafe_code, reason = "see JUSTIFICATION above; nothing else in this crate is unsafe")]

use std::{
    io,
    os::{
        fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    sync::{Mutex, PoisonError},
};

use rustix::{
    io::{Errno, FdFlags},
    process::{Pid, Signal},
};
use thiserror::Error;
use tokio::io::{Interest, unix::AsyncFd};

/// Lets the child of `command` keep `inherit` open under the numbers they have here, start its own
/// session if `session`, and die by `death_signal` when the spawning *thread* ends.
pub(super) fn before_exec(
    command: &mut Command,
    inherit: Vec<OwnedFd>,
    session: bool,
    death_signal: Option<Signal>,
) {
    let parent = rustix::process::getpid();
    let open = open_descriptors();
    let hook = move || {
        for number in &open {
            // SAFETY: the borrow lasts for one fcntl call, which fails with EBADF if the
            // descriptor was closed since it was listed.
            let stray = unsafe { BorrowedFd::borrow_raw(*number) };
            let _ = rustix::io::fcntl_setfd(stray, FdFlags::CLOEXEC);
        }
        in_child(&inherit, session, death_signal, parent)
    };
    // SAFETY: between fork and exec the hook makes direct system calls only (setsid, prctl,
    // getppid, fcntl): no allocation, no lock, no drop of captured values; all of them are
    // async-signal-safe. `inherit` was moved in, so its descriptors are open when the hook runs.
    unsafe { command.pre_exec(hook) };
}

/// Everything open here beyond the standard streams. What our own parent left open without
/// close-on-exec must not reach our children; what we open ourselves is close-on-exec anyway.
fn open_descriptors() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect()
}

fn in_child(
    inherit: &[OwnedFd],
    session: bool,
    death_signal: Option<Signal>,
    parent: Pid,
) -> io::Result<()> {
    if session {
        rustix::process::setsid()?;
    }
    if death_signal.is_some() {
        rustix::process::set_parent_process_death_signal(death_signal)?;
        if rustix::process::getppid() != Some(parent) {
            // The parent died before the signal was armed.
            return Err(Errno::SRCH.into());
        }
    }
    for fd in inherit {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}

/// Registers `fd` with the runtime, to be awaited until it is readable.
pub(super) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` returns the same descriptor each time and keeps it open until it is
    // dropped, which `AsyncFd` does after it has ended the registration.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// Why an inherited descriptor cannot be taken.
#[derive(Debug, Error)]
pub enum TakeFdError {
    /// 0, 1, 2 or a negative number.
    #[error("descriptor {0} is a standard stream or no descriptor")]
    Reserved(RawFd),
    /// Nothing is open under the number.
    #[error("descriptor {0} is not open")]
    Closed(RawFd),
    /// It is close-on-exec: this process opened it itself, or it was already taken.
    #[error("descriptor {0} was not inherited")]
    NotInherited(RawFd),
}

static TAKING: Mutex<()> = Mutex::new(());

/// Takes over descriptor `number`, which the parent left open for us, and marks it close-on-exec.
/// Each number can be taken once.
///
/// # Errors
/// [`TakeFdError`] if the number is not that of an inherited descriptor.
pub fn take_inherited_fd(number: RawFd) -> Result<OwnedFd, TakeFdError> {
    if number <= 2 {
        return Err(TakeFdError::Reserved(number));
    }
    let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the borrow lasts for the two fcntl calls below; if nothing is open under the number
    // they fail with EBADF and nothing else happens.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed).map_err(|_| TakeFdError::Closed(number))?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(TakeFdError::NotInherited(number));
    }
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(|_| TakeFdError::Closed(number))?;
    // SAFETY: the descriptor is open and was not close-on-exec. Everything that the standard
    // library, rustix and our crates open is close-on-exec, so no owner of it exists in this
    // process; it was inherited over exec. It is close-on-exec now, so that a second call for the
    // same number fails above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
