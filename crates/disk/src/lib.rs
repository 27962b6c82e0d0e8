//! Volumes: their formats, the cipher of their blocks, and the exports that serve them.
//!
//! ```text
//!   guest -> QEMU -> nbd::Server -> dyn Volume -> luks2::Luks2Volume -> file
//! ```
//!
//! * [`Volume`] is the seam: a format implements it, an export calls it.
//! * [`luks2`] is the confidentiality-only format that stock `cryptsetup` reads and writes
//!   (`docs/formats/luks2.md`).
//! * [`nbd`] is the export over a unix socket (`docs/protocols/nbd.md`).
//!
//! **Invariants.** Plaintext is in memory only: no function here writes unencrypted guest data to a
//! file. Every structure read from a file or a socket is parsed with limits before anything is
//! allocated for it. A refusal has a name ([`Rejection`], [`nbd::Rejection`]).
//!
//! Deliberately absent: an async runtime, a clock, and any knowledge of where keys come from.

mod cipher;
pub mod luks2;
pub mod nbd;
mod rejection;
mod stripes;
mod volume;

pub use rejection::{Rejection, VolumeError};
pub use volume::{Extent, Volume};
