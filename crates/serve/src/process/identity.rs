//! A process by number and start time, ours or not: is it alive, signal it, wait for its end.

use std::{fs, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::raw;
use crate::clock::{Clock as _, SystemClock};

/// The kernel refused an operation on a process.
#[derive(Debug, Error)]
#[error("cannot {operation} process {pid}")]
pub struct ProcessError {
    operation: &'static str,
    pid: i32,
    #[source]
    source: io::Error,
}

/// One process of this boot: its number and when it started, so that a number used again is
/// not taken for it. Written to state files, found again after a restart of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// Process number.
    pub pid: i32,
    /// Clock ticks since boot at its start: `/proc/PID/stat`, field 22.
    pub start_time: u64,
}

/// How a process ended. The status is known only to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone; it was not our child, or someone else collected its status.
    Unknown,
}

impl Exit {
    /// Whether the process is known to have exited with status 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl ProcessId {
    /// The process that now has the number `pid`; `None` if there is none or it has ended.
    #[must_use]
    pub fn find(pid: i32) -> Option<Self> {
        let stat = stat(pid)?;
        (!stat.ended()).then_some(Self { pid, start_time: stat.start_time })
    }

    /// This process.
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::find(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Whether the process, or any thread of it, still runs. One that ended and is our child is
    /// reaped here.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.open() {
            Ok(Some(pidfd)) => {
                if stat(self.pid).is_some_and(|stat| stat.ended()) {
                    reap(&pidfd);
                    return false;
                }
                true
            }
            Ok(None) => false,
            Err(_) => start_time(self.pid) == Some(self.start_time),
        }
    }

    /// Sends `signal`; `false` if the process is gone.
    ///
    /// # Errors
    /// [`ProcessError`] if the kernel does not allow it.
    pub fn signal(&self, signal: Signal) -> Result<bool, ProcessError> {
        let Some(pidfd) = self.open()? else { return Ok(false) };
        match rustix::process::pidfd_send_signal(&pidfd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(errno) => Err(self.error("signal", errno)),
        }
    }

    /// Sends SIGKILL; `false` if the process is gone.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub fn kill(&self) -> Result<bool, ProcessError> {
        self.signal(Signal::KILL)
    }

    /// Waits until the process ends, at most `timeout`; `None` if it still runs then. A child of
    /// ours is reaped. Blocks the thread; [`Self::wait_exit`] does not.
    ///
    /// # Errors
    /// [`ProcessError`] if the process cannot be watched.
    pub fn wait_exit_blocking(&self, timeout: Duration) -> Result<Option<Exit>, ProcessError> {
        let Some(pidfd) = self.open()? else { return Ok(Some(Exit::Unknown)) };
        let clock = SystemClock;
        let deadline = clock.monotonic().saturating_add(timeout);
        loop {
            let left = deadline.saturating_sub(clock.monotonic());
            let left = Timespec::try_from(left).map_err(|_| self.error("watch", Errno::INVAL))?;
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&left)) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(reap(&pidfd))),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error("watch", errno)),
            }
        }
    }

    /// Waits until the process ends, at most `timeout`; `None` if it still runs then. A child of
    /// ours is reaped. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ProcessError`] if the process cannot be watched.
    pub async fn wait_exit(&self, timeout: Duration) -> Result<Option<Exit>, ProcessError> {
        let Some(pidfd) = self.open()? else { return Ok(Some(Exit::Unknown)) };
        let watched = raw::watch_readable(pidfd).map_err(|source| ProcessError {
            operation: "watch",
            pid: self.pid,
            source,
        })?;
        match tokio::time::timeout(timeout, watched.readable()).await {
            Err(_elapsed) => Ok(None),
            Ok(Ok(_guard)) => Ok(Some(reap(watched.get_ref()))),
            Ok(Err(source)) => Err(ProcessError { operation: "watch", pid: self.pid, source }),
        }
    }

    /// Asks the process to end (SIGTERM), and kills it if it still runs after `grace`.
    ///
    /// # Errors
    /// [`ProcessError`] if it cannot be signalled or watched.
    pub async fn stop(&self, grace: Duration) -> Result<Exit, ProcessError> {
        if !self.signal(Signal::TERM)? {
            return Ok(Exit::Unknown);
        }
        if let Some(exit) = self.wait_exit(grace).await? {
            return Ok(exit);
        }
        self.kill()?;
        loop {
            if let Some(exit) = self.wait_exit(Duration::from_secs(5)).await? {
                return Ok(exit);
            }
        }
    }

    fn open(&self) -> Result<Option<OwnedFd>, ProcessError> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 0) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(self.error("open", errno)),
        };
        // The descriptor pins the process, so the check cannot be overtaken by re-use.
        Ok((start_time(self.pid) == Some(self.start_time)).then_some(pidfd))
    }

    fn error(&self, operation: &'static str, errno: Errno) -> ProcessError {
        ProcessError { operation, pid: self.pid, source: errno.into() }
    }
}

/// Collects the status of an ended process if it is our child.
fn reap(pidfd: &OwnedFd) -> Exit {
    use std::os::fd::AsFd as _;

    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        Ok(None) | Err(_) => Exit::Unknown,
    }
}

/// When the process with this number started, zombie or not.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_time)
}

/// What is read of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// The letter of the first thread's state.
    state: u8,
    threads: u32,
    start_time: u64,
}

impl Stat {
    /// Whether nothing of the process runs. Its first thread can be a zombie while another, say in a
    /// write that the disk has not finished, still holds its files, locks and sockets.
    const fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name (field 2) is in brackets and may hold anything, so fields count from the last
/// closing bracket: the state (3) is the first, the number of threads (20) the eighteenth, the start
/// time (22) the twentieth.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let end_of_name = line.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(line.get(end_of_name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let threads = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, threads, start_time: fields.nth(1)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = b"7 (a) Z (b) S 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let seen = Stat { state: b'S', threads: 1, start_time: 4711 };
        assert_eq!(parse_stat(line), Some(seen));
        assert_eq!(parse_stat(b"7 (a) S 1"), None);
    }

    #[test]
    fn a_process_whose_first_thread_alone_has_ended_still_runs() {
        let leave = "import threading, ctypes, time\n\
            threading.Thread(target=time.sleep, args=(60,)).start()\n\
            ctypes.CDLL(None).syscall(60, 0)";
        let pid = crate::process::Spawn::new("python3").args(["-c", leave]).spawn().unwrap().pid;
        let left = (0..6000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            stat(pid).unwrap().state == b'Z'
        });
        assert!(left, "its first thread goes on");
        let process = ProcessId::find(pid).unwrap();
        assert!(process.is_alive());
        process.kill().unwrap();
        assert!(process.wait_exit_blocking(Duration::from_secs(60)).unwrap().is_some());
        assert!(!process.is_alive());
        assert_eq!(ProcessId::find(pid), None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive());
        let other = ProcessId { start_time: me.start_time + 1, ..me };
        assert!(!other.is_alive());
        assert!(!other.kill().unwrap());
    }
}
