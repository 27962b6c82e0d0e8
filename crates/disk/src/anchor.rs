//! Freshness: that a volume is the latest one, by a counter that an attacker cannot set back.
//!
//! ```text
//!   model::anchor: State x Event -> State x Action      (pure; model-checked here as it is)
//!        ^                        |
//!   Attachment: the driver    header of the volume | increment of the Anchor
//! ```
//!
//! With `T` the counter: a header with count `T` or `T + 1` is accepted, an older one is
//! `rolled-back`, a newer one `anchor-mismatch`. An advance writes a header that counts one more,
//! makes it durable, then increments. An attachment advances by two before its first write: a copy
//! of a header that an interrupted advance left behind is dead then, not only the header before.
//!
//! **The window that remains:** what was written since the last advance can be rolled back by
//! somebody who also stops the process before its next one. `docs/freshness.md` says it to operators.
//!
//! Deliberately absent: a clock (the owner calls [`Attachment::tick`]) and TPM commands (the host
//! agent counts for its volumes in a table of its own, by the same rules).

mod attachment;
mod file;
mod volume;

#[cfg(test)]
mod checked;

use std::{fmt::Debug, io};

pub use attachment::{Anchored, Attachment};
pub use file::FileAnchor;

/// A counter that an attacker cannot set back.
///
/// The counter of a TPM, the authority's record, or a file on another medium. One owner at a time:
/// an implementation takes care that nobody else increments it meanwhile, or finds it out.
pub trait Anchor: Send + Debug {
    /// The counter.
    ///
    /// # Errors
    /// That of the medium.
    fn read(&mut self) -> io::Result<u64>;

    /// Increments the counter durably if it is `from`, and says whether it did. A sibling may have
    /// moved it to the very same place: what the counter is afterwards would not tell.
    ///
    /// # Errors
    /// That of the medium; whether the counter was incremented is unknown then.
    fn increment(&mut self, from: u64) -> io::Result<bool>;

    /// Nobody else can increment the counter while this value lives. An increment whose outcome is
    /// unknown can only be settled then; otherwise the attachment ends.
    fn alone(&self) -> bool;
}
