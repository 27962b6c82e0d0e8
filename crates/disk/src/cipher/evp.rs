//! AWS-LC's block ciphers behind a safe type: AES-256-XTS, and AES-128-ECB to build AES-128-XTS on.
//!
//! JUSTIFICATION: `aws-lc-rs` has no XTS, and the pure Rust `xts-mode` is two orders of magnitude
//! slower than AWS-LC, which reaches most of what the processor can do. It holds one pointer and
//! makes four kinds of call.
//!
//! The library insists on a new tweak before each unit (a key and tweak may serve one unit only),
//! so the call that sets it stays in the loop, also for sectors of 512 bytes.
#![allow(unsafe_code, reason = "the only way to AWS-LC's XTS; see the module's justification")]

use std::ptr::{NonNull, null, null_mut};

use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_Cipher, EVP_CipherInit_ex,
    EVP_aes_128_ecb, EVP_aes_256_xts,
};

use super::{CipherFailure, KEY_BYTES, Units};

/// Which way a context works; its key schedule is made for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Plaintext to ciphertext.
    Seal,
    /// Ciphertext to plaintext.
    Open,
}

/// What a context computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// AES-256-XTS, key of 64 bytes in different halves.
    Xts256,
    /// AES-128 block by block, key of 16 bytes. A building block only.
    Ecb128,
}

impl Kind {
    const fn key_bytes(self) -> usize {
        match self {
            Self::Xts256 => KEY_BYTES,
            Self::Ecb128 => 16,
        }
    }
}

/// A context with an expanded key. The library wipes it when it is freed.
#[derive(Debug)]
pub(super) struct Context(NonNull<EVP_CIPHER_CTX>);

// SAFETY: the context is owned by this value alone, has no thread-local state, and is used only
// through `&mut self`.
unsafe impl Send for Context {}

impl Context {
    /// A context for `key`, of the length that `kind` has.
    pub(super) fn new(kind: Kind, key: &[u8], direction: Direction) -> Result<Self, CipherFailure> {
        if key.len() != kind.key_bytes() {
            return Err(CipherFailure);
        }
        // SAFETY: takes no arguments; returns null or a context that we own.
        let context = unsafe { EVP_CIPHER_CTX_new() };
        let made = Self(NonNull::new(context).ok_or(CipherFailure)?);
        let seal = i32::from(direction == Direction::Seal);
        // SAFETY: the context is live; the cipher is a static of the library; `key` is readable
        // for the bytes that this cipher takes (checked above); a null engine and a null IV are
        // allowed.
        let ok = unsafe {
            let cipher = match kind {
                Kind::Xts256 => EVP_aes_256_xts(),
                Kind::Ecb128 => EVP_aes_128_ecb(),
            };
            EVP_CipherInit_ex(made.0.as_ptr(), cipher, null_mut(), key.as_ptr(), null(), seal)
        };
        if ok == 1 { Ok(made) } else { Err(CipherFailure) }
    }

    /// Sets the tweak of the next unit.
    fn tweak(&mut self, tweak: u64) -> Result<(), CipherFailure> {
        let tweak = u128::from(tweak).to_le_bytes();
        // SAFETY: the context is live and keyed; a null cipher, engine and key keep those that it
        // has; `tweak` is readable for the 16 bytes of an IV; -1 keeps the direction.
        let ok = unsafe {
            EVP_CipherInit_ex(self.0.as_ptr(), null(), null_mut(), null(), tweak.as_ptr(), -1)
        };
        if ok == 1 { Ok(()) } else { Err(CipherFailure) }
    }

    /// Works in place on whole blocks: one unit of XTS, any number of blocks of ECB.
    pub(super) fn apply(&mut self, blocks: &mut [u8]) -> Result<(), CipherFailure> {
        if blocks.is_empty() || !blocks.len().is_multiple_of(16) {
            return Err(CipherFailure);
        }
        let data = blocks.as_mut_ptr();
        // SAFETY: `data` is readable and writable for `blocks.len()` bytes; input and output may
        // be the same buffer; both ciphers write exactly as much as they read, for whole blocks.
        let ok = unsafe { EVP_Cipher(self.0.as_ptr(), data, data, blocks.len()) };
        if ok == 1 { Ok(()) } else { Err(CipherFailure) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `EVP_CIPHER_CTX_new` and is freed here only.
        unsafe { EVP_CIPHER_CTX_free(self.0.as_ptr()) }
    }
}

/// AES-256-XTS.
#[derive(Debug)]
pub(super) struct Xts(Context);

impl Xts {
    /// `key` has [`KEY_BYTES`] bytes and two different halves.
    pub(super) fn new(key: &[u8], direction: Direction) -> Result<Self, CipherFailure> {
        Context::new(Kind::Xts256, key, direction).map(Self)
    }

    /// Works in place through all units.
    pub(super) fn run(&mut self, units: Units<'_>) -> Result<(), CipherFailure> {
        if units.unit < 16 || !units.bytes.len().is_multiple_of(units.unit) {
            return Err(CipherFailure);
        }
        let mut number = units.first;
        for sector in units.bytes.chunks_exact_mut(units.unit) {
            self.0.tweak(number)?;
            self.0.apply(sector)?;
            number = number.wrapping_add(units.step);
        }
        Ok(())
    }
}
