//! Bytes that must not be shown: no `Debug` of the content, no `Serialize`, wiped on drop.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret value. `Debug` prints only a placeholder; the content is wiped when it is dropped.
///
/// There is deliberately no `Serialize`, `Display` or `PartialEq`: a secret leaves its wrapper only
/// where the code says [`Secret::expose`].
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The content. Every use of this name is a place where a secret is touched.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The content, to be filled in place.
    pub const fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_secret_does_not_show_it() {
        let shown = format!("{:?}", Secret::new(vec![0x41_u8; 4]));
        assert_eq!(shown, "Secret(..)");
    }
}
