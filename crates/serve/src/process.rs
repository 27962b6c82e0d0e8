//! Child processes that may outlive us: started by [`Spawn`], found again by [`ProcessId`].
//!
//! **Invariants:** a secret reaches a child only through a file descriptor, never in its arguments
//! or environment; a process is only ever signalled through a pidfd whose start time was checked,
//! so a re-used number is never hit; descriptors without close-on-exec exist in the child only.

mod identity;
mod raw;
mod spawn;

pub use identity::{Exit, ProcessError, ProcessId};
pub use raw::{TakeFdError, take_inherited_fd};
pub use rustix::process::Signal;
pub use spawn::{Spawn, SpawnError, read_secret_fd, sealed_memfd};
