//! Keeps the head of a service's store anchored in a counter, so that an older copy of its state
//! directory refuses to start. The protocol is [`store::head`]'s; here it gets a counter, a
//! signature, a task, and what a service does with it at a start and after a restore.
//!
//! ```text
//!   service ─► Anchored::resume, first ─► task ─► head.json (signed), witness
//!                       │                   └───► Counter: a TPM's NV index, or the host's agent
//!                       └ store-rolled-back, store-forked, store-anchor-missing …: no start
//! ```
//!
//! **Invariants:** a head is durable before the counter moves; a store that was anchored once opens
//! without its counter only after an explicit restore; the counter moves at most once a round,
//! however many wait. Deliberately absent: an option to skip the check.

#![forbid(unsafe_code)]

mod agent;
mod anchored;
mod counter;
mod fault;
mod follow;
mod ground;
mod service;
mod settings;
mod state;
mod task;

pub use agent::AgentCounter;
pub use anchored::Anchored;
pub use counter::{Begun, Counter, CounterError, Counting, TpmCounter};
pub use fault::{AnchorFault, refused};
pub use follow::{Anchoring, Following};
pub use ground::{Ground, Signing};
pub use service::{Restored, Stand};
pub use settings::{AnchorBy, AnchorSettings, Bound};
pub use state::{StateError, records};
pub use task::{AnchorHandle, Pace};
