//! The eight steps of a block on its way out of a VM and into it, as events for whoever wants to
//! see them: target [`TARGET`], level trace, fields `step`, `offset`, `length`.
//!
//! ```text
//!   out: S310 request and block -> S320 key -> S330 encrypted -> S340 stored at its position
//!   in:  S410 request, block found by its position -> S420 key -> S430 decrypted -> S440 handed over
//! ```
//!
//! The numbers are those of patent CN102609643, figures 2 and 3 (`docs/patent-claims.md`). The key is
//! asked for once, when the volume is opened, and found again in memory for each block.

/// The events' target.
pub const TARGET: &str = "vouchsafe::steps";

/// Tells that a step of these bytes of the disk is done; nearly free while nobody listens.
pub(crate) fn step(step: &'static str, offset: u64, length: usize) {
    tracing::trace!(target: TARGET, step, offset, length);
}
