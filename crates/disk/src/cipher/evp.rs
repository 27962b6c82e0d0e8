//! AWS-LC's AES-256-XTS behind a safe type.
//!
//! JUSTIFICATION: `aws-lc-rs` has no XTS, and the pure Rust `xts-mode` is two orders of magnitude
//! slower than AWS-LC, which reaches most of what the processor can do. This module is the only
//! unsafe code of the crate; it holds one pointer and makes four kinds of call.
#![allow(unsafe_code, reason = "the only way to AWS-LC's XTS; see the module's justification")]

use std::ptr::{NonNull, null, null_mut};

use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_Cipher, EVP_CipherInit_ex,
    EVP_aes_256_xts,
};

use super::{CipherFailure, KEY_BYTES};

/// Which way a context works; its key schedule is made for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Plaintext to ciphertext.
    Seal,
    /// Ciphertext to plaintext.
    Open,
}

/// A context with an expanded key. The library wipes it when it is freed.
#[derive(Debug)]
pub(super) struct Xts(NonNull<EVP_CIPHER_CTX>);

// SAFETY: the context is owned by this value alone, has no thread-local state, and is used only
// through `&mut self`.
unsafe impl Send for Xts {}

impl Xts {
    /// A context for `key`, which has [`KEY_BYTES`] bytes and two different halves.
    pub(super) fn new(key: &[u8], direction: Direction) -> Result<Self, CipherFailure> {
        if key.len() != KEY_BYTES {
            return Err(CipherFailure);
        }
        // SAFETY: takes no arguments; returns null or a context that we own.
        let context = unsafe { EVP_CIPHER_CTX_new() };
        let made = Self(NonNull::new(context).ok_or(CipherFailure)?);
        let seal = i32::from(direction == Direction::Seal);
        // SAFETY: the context is live; the cipher is a static of the library; `key` is readable
        // for the 64 bytes that this cipher takes (checked above); a null engine and a null IV are
        // allowed.
        let ok = unsafe {
            let cipher = EVP_aes_256_xts();
            EVP_CipherInit_ex(made.0.as_ptr(), cipher, null_mut(), key.as_ptr(), null(), seal)
        };
        if ok == 1 { Ok(made) } else { Err(CipherFailure) }
    }

    /// Works in place through `units` of `unit` bytes each (at least 16); the tweaks are `first`,
    /// `first + step`, and so on.
    pub(super) fn run(
        &mut self,
        first: u64,
        step: u64,
        unit: usize,
        units: &mut [u8],
    ) -> Result<(), CipherFailure> {
        if unit < 16 || !units.len().is_multiple_of(unit) {
            return Err(CipherFailure);
        }
        let mut number = first;
        for sector in units.chunks_exact_mut(unit) {
            let tweak = u128::from(number).to_le_bytes();
            // SAFETY: the context is live and keyed; a null cipher, engine and key keep those that
            // it has; `tweak` is readable for the 16 bytes of this cipher's IV; -1 keeps the
            // direction.
            let ok = unsafe {
                EVP_CipherInit_ex(self.0.as_ptr(), null(), null_mut(), null(), tweak.as_ptr(), -1)
            };
            if ok != 1 {
                return Err(CipherFailure);
            }
            let data = sector.as_mut_ptr();
            // SAFETY: `data` is readable and writable for `sector.len()` bytes; input and output
            // may be the same buffer; XTS writes exactly as much as it reads.
            let ok = unsafe { EVP_Cipher(self.0.as_ptr(), data, data, sector.len()) };
            if ok != 1 {
                return Err(CipherFailure);
            }
            number = number.wrapping_add(step);
        }
        Ok(())
    }
}

impl Drop for Xts {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `EVP_CIPHER_CTX_new` and is freed here only.
        unsafe { EVP_CIPHER_CTX_free(self.0.as_ptr()) }
    }
}
