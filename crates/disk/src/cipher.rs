//! AES-XTS over runs of sectors, as dm-crypt's `aes-xts-plain64` computes it: the tweak is the
//! little-endian 64-bit number of the sector, counted in units of 512 bytes.
//!
//! AES-256 is AWS-LC's XTS, reached through one small unsafe module; for sectors of 512 bytes, where
//! the processor can, a vector implementation of our own. AES-128, which only LUKS1 asks for, stands on
//! AWS-LC's ECB. Contexts with an expanded key are pooled, because a context serves one
//! thread at a time.

pub(crate) mod af;
mod evp;
pub(crate) mod hash;
#[cfg(target_arch = "x86_64")]
mod vaes;
#[cfg(not(target_arch = "x86_64"))]
#[path = "cipher/no_vaes.rs"]
mod vaes;
mod volume;
mod xts128;

use std::sync::{Mutex, PoisonError};

use model::Secret;

pub use self::volume::CryptVolume;
pub(crate) use self::volume::{Geometry, Identity};
use self::{
    evp::{Direction, Xts},
    vaes::Xts512,
    xts128::Xts128,
};

/// Length of an AES-256-XTS key: two AES-256 keys.
pub(crate) const KEY_BYTES: usize = 64;

/// The unit in which `plain64` counts, whatever the sector size.
const IV_UNIT: u64 = 512;

/// The cryptographic library failed, or refused the key (its halves are equal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CipherFailure;

impl From<CipherFailure> for std::io::Error {
    fn from(_: CipherFailure) -> Self {
        Self::other("the cipher failed")
    }
}

/// A row of units, each under a tweak of its own.
struct Units<'a> {
    /// Tweak of the first unit.
    first: u64,
    /// From one tweak to the next.
    step: u64,
    /// Bytes of one unit.
    unit: usize,
    bytes: &'a mut [u8],
}

/// Encrypts and decrypts sectors of one size under one key, from any thread.
pub(crate) struct SectorCipher {
    key: Secret<Vec<u8>>,
    sector: usize,
    /// Added to every sector number (LUKS2 `iv_tweak`).
    tweak: u64,
    sealing: Mutex<Vec<Keyed>>,
    opening: Mutex<Vec<Keyed>>,
}

/// A context with its expanded key, for one direction.
enum Keyed {
    Aes256(Xts),
    Aes256Short(Box<Xts512>),
    Aes128(Xts128),
}

impl Keyed {
    /// The key's length says which cipher it is, the sector's which implementation.
    fn new(key: &[u8], sector: usize, direction: Direction) -> Result<Self, CipherFailure> {
        if key.len() == KEY_BYTES / 2 {
            Xts128::new(key, direction).map(Self::Aes128)
        } else if sector == vaes::UNIT && vaes::available() {
            Xts512::new(key, direction).map(|xts| Self::Aes256Short(Box::new(xts)))
        } else {
            Xts::new(key, direction).map(Self::Aes256)
        }
    }

    fn run(&mut self, units: Units<'_>) -> Result<(), CipherFailure> {
        match self {
            Self::Aes256(xts) => xts.run(units),
            Self::Aes256Short(xts) => xts.run(units),
            Self::Aes128(xts) => xts.run(units),
        }
    }
}

impl std::fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SectorCipher").field("sector", &self.sector).finish_non_exhaustive()
    }
}

impl SectorCipher {
    /// A cipher for sectors of `sector` bytes, a multiple of 512.
    pub(crate) fn new(
        key: Secret<Vec<u8>>,
        sector: usize,
        tweak: u64,
    ) -> Result<Self, CipherFailure> {
        let cipher = Self {
            key,
            sector,
            tweak,
            sealing: Mutex::new(Vec::new()),
            opening: Mutex::new(Vec::new()),
        };
        // Fails now rather than at the first request.
        cipher.give(Direction::Seal, Keyed::new(cipher.key.expose(), sector, Direction::Seal)?);
        Ok(cipher)
    }

    /// Encrypts whole sectors in place; `offset` is the byte position of the first one.
    pub(crate) fn seal(&self, offset: u64, sectors: &mut [u8]) -> Result<(), CipherFailure> {
        self.run(Direction::Seal, offset, sectors)
    }

    /// Decrypts whole sectors in place.
    pub(crate) fn open(&self, offset: u64, sectors: &mut [u8]) -> Result<(), CipherFailure> {
        self.run(Direction::Open, offset, sectors)
    }

    fn run(
        &self,
        direction: Direction,
        offset: u64,
        sectors: &mut [u8],
    ) -> Result<(), CipherFailure> {
        let step = u64::try_from(self.sector).map_err(|_| CipherFailure)? / IV_UNIT;
        let first = (offset / IV_UNIT).wrapping_add(self.tweak);
        let mut context = match self.pool(direction).pop() {
            Some(context) => context,
            None => Keyed::new(self.key.expose(), self.sector, direction)?,
        };
        let done = context.run(Units { first, step, unit: self.sector, bytes: sectors });
        self.give(direction, context);
        done
    }

    fn pool(&self, direction: Direction) -> std::sync::MutexGuard<'_, Vec<Keyed>> {
        let pool = match direction {
            Direction::Seal => &self.sealing,
            Direction::Open => &self.opening,
        };
        pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, direction: Direction, context: Keyed) {
        self.pool(direction).push(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(sector: usize) -> SectorCipher {
        let key = (0..64).collect::<Vec<u8>>();
        SectorCipher::new(Secret::new(key), sector, 0).unwrap()
    }

    #[test]
    fn sectors_round_trip_and_do_not_depend_on_the_run_they_are_in() {
        let cipher = cipher(4096);
        let plain: Vec<u8> = (0..=250).cycle().take(3 * 4096).collect();
        let mut run = plain.clone();
        cipher.seal(8 * 4096, &mut run).unwrap();
        let mut middle = plain[4096..8192].to_vec();
        cipher.seal(9 * 4096, &mut middle).unwrap();
        assert_eq!(run[4096..8192], middle);
        cipher.open(8 * 4096, &mut run).unwrap();
        assert_eq!(run, plain);
    }

    #[test]
    fn ieee_1619_vector_10_comes_out() {
        // IEEE 1619-2007, vector 10: AES-256-XTS, data unit 0xff, 512 bytes 00 01 .. ff twice.
        let key = hex::decode(concat!(
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592"
        ))
        .unwrap();
        let cipher = SectorCipher::new(Secret::new(key), 512, 0).unwrap();
        let mut unit: Vec<u8> = (0..=255).chain(0..=255).collect();
        cipher.seal(0xff * 512, &mut unit).unwrap();
        assert_eq!(
            hex::encode(&unit[..32]),
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
        );
    }

    #[test]
    fn a_key_whose_halves_are_equal_is_refused() {
        assert!(SectorCipher::new(Secret::new(vec![7; 64]), 512, 0).is_err());
        assert!(SectorCipher::new(Secret::new(vec![7; 63]), 512, 0).is_err());
    }

    #[test]
    fn part_of_a_sector_is_refused() {
        assert!(cipher(4096).seal(0, &mut [0; 100]).is_err());
    }
}
