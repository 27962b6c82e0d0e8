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

mod alloc;
mod attach;
mod background;
mod bytes;
mod cache;
mod check;
mod checkpoint;
mod commit;
mod create;
mod data;
mod engine;
mod ephemeral;
mod header;
#[doc(hidden)]
pub mod hostile;
mod inspect;
mod kdf;
mod kept;
mod keyarea;
mod keyring;
mod keyslot;
mod log;
mod medium;
mod node;
mod page;
mod refs;
mod rekey;
mod rekeying;
mod replay;
mod resize;
mod revert;
mod seal;
mod sessions;
mod slots;
mod snapshots;
mod tree;
mod unlock;
mod volume;
mod walk;

pub use attach::open_on;
pub use check::{BadSector, Usage};
pub use create::{Created, NewVault, create, create_from, create_on};
pub use ephemeral::create_ephemeral;
pub use header::Suite;
pub use inspect::{Inspection, SlotInspection, inspect};
pub use kdf::Argon2Cost;
pub use keyslot::{NewSlot, SlotKind, SlotSecret};
pub use medium::Medium;
pub use rekeying::{RekeyProgress, Rekeying, Steps};
pub use snapshots::Snapshot;
pub use volume::{Head, VaultVolume, open};

#[cfg(test)]
mod tests;
