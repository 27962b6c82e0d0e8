//! LUKS1 (LUKS On-Disk Format Specification 1.2.3), so that the images that `qemu-img` and
//! `cryptsetup` made are served as they are.
//!
//! Confidentiality only: a changed or replayed sector is not noticed. The sector is 512 bytes.
//!
//! Deliberately absent: making LUKS1 volumes, changing their headers, detached headers, other
//! ciphers than `aes` in `xts-plain64` (which `qemu-img` and `cryptsetup` choose by themselves; the
//! old `cbc-essiv` is refused by name).

mod header;
mod open;

pub use header::{HEADER_BYTES, Header, KeySlot};
pub(crate) use open::open_on;
pub use open::{open, read_header};
