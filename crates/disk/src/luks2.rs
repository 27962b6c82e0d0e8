//! LUKS2 (LUKS2 On-Disk Format Specification 1.1), written and read so that stock `cryptsetup`
//! accepts what we write and we open what it wrote. What we choose where the specification leaves
//! a choice stands in `docs/formats/luks2.md`.
//!
//! Confidentiality only: a changed or replayed sector is not noticed. The key-management
//! information is a token of type `vouchsafe-kmi`.
//!
//! Deliberately absent: writing to an existing header, detached headers, integrity, re-encryption
//! in flight, ciphers other than `aes-xts-plain64` with 512-bit keys.

mod binary;
mod create;
mod format;
mod kdf;
mod keyslot;
mod metadata;
mod open;

pub use binary::{BINARY_BYTES, BinaryHeader, Copy};
pub use create::{Created, NewVolume, SlotKind, create, create_empty};
pub use metadata::{KMI_TOKEN, Metadata};
pub(crate) use open::open_on;
pub use open::{HeaderCopies, open, read_header};
