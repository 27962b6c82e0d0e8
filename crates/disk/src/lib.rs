//! Volumes: their formats, the cipher of their blocks, and the exports that serve them.
//!
//! ```text
//!   guest -> QEMU -> nbd::Server -> dyn Volume -> CryptVolume | RawVolume -> file
//! ```
//!
//! * [`Volume`] is the seam: a format implements it, an export calls it.
//! * [`open()`] recognises a volume's format and opens it.
//! * [`luks1`] is what `qemu-img` and older `cryptsetup` write, served unchanged.
//! * [`luks2`] is the confidentiality-only format that stock `cryptsetup` reads and writes
//!   (`docs/formats/luks2.md`).
//! * [`nbd`] is the export over a unix socket (`docs/protocols/nbd.md`), [`vhost`] the one that
//!   shares the guest's memory (`docs/protocols/vhost-user-blk.md`).
//!
//! **Invariants.** Plaintext is in memory only: no function here writes unencrypted guest data to a
//! file. Every structure read from a file or a socket is parsed with limits before anything is
//! allocated for it. A refusal has a name ([`Rejection`], [`nbd::Rejection`]).
//!
//! Deliberately absent: an async runtime, a clock, and any knowledge of where keys come from.

mod accept;
pub mod anchor;
mod cipher;
mod gather;
pub mod luks1;
pub mod luks2;
pub mod nbd;
mod open;
mod partial;
mod raw;
mod rejection;
mod spread;
pub mod steps;
mod stripes;
mod through;
pub mod vault;
pub mod vhost;
mod volume;

pub use cipher::CryptVolume;
pub use open::{Format, OpenOptions, Opened, TrimPolicy, open, recognise};
pub use raw::RawVolume;
pub use rejection::{Rejection, VolumeError};
pub use through::WriteThrough;
pub use volume::{Extent, Volume};
