//! What stands in for [`vaes`](super::vaes) on processors of other families: nothing is available.

use super::{CipherFailure, Units, evp::Direction};

/// The unit that it is made for.
pub(super) const UNIT: usize = 512;

/// A value that is never made.
#[derive(Debug)]
pub(super) enum Xts512 {}

/// Never.
pub(super) const fn available() -> bool {
    false
}

impl Xts512 {
    /// Refused.
    pub(super) const fn new(_key: &[u8], _direction: Direction) -> Result<Self, CipherFailure> {
        Err(CipherFailure)
    }

    /// Not reached.
    pub(super) const fn run(&self, _units: Units<'_>) -> Result<(), CipherFailure> {
        match *self {}
    }
}
