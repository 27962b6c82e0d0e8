//! What the authority knows: one module a kind of record, each with its transitions.
//!
//! **Invariant:** transitions are pure: a record, facts and `now` in; a record or a rejection out.
//! They are written back under compare-and-swap by [`crate::records`].

pub(crate) mod host;
pub(crate) mod operation;
pub(crate) mod token;
pub(crate) mod vm;
