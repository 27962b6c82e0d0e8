//! The vault format: every sector encrypted and authenticated, absence authenticated, one
//! `fdatasync` per flush of the guest, no nonce used twice whatever happens to the file
//! (`docs/formats/vault.md` says every byte).
//!
//! ```text
//!   secret -> keyarea -> volume key -> header (HMAC) -> root reference -> tree -> sectors
//! ```
//!
//! **Invariant:** the codecs (`header`, `keyarea`, `refs`) are pure, bytes in and values out, with
//! limits before anything is allocated; nothing that was read is trusted before its tag was checked.

mod bytes;
mod header;
mod kdf;
mod keyarea;
mod keyslot;
mod refs;
mod unlock;

pub use header::Suite;
pub use kdf::Argon2Cost;
pub use keyslot::{NewSlot, SlotKind, SlotSecret};
