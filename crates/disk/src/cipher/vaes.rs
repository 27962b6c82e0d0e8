//! AES-256-XTS of 512-byte units, for processors with AVX-512 and vector AES.
//!
//! JUSTIFICATION: AWS-LC takes one unit at a time, and of the 100 ns that a unit of 512 bytes takes it
//! half are spent before and behind the blocks: a tweak that nothing else is computed beside, round
//! keys that are loaded anew. LUKS1 has no other sectors. Here the tweaks of eight units are made at
//! once and a whole unit is in flight. The instructions take the same time whatever the data; no
//! table is looked into. Held against AWS-LC by a test, and against IEEE 1619's vectors. Longer units,
//! and other processors, stay with AWS-LC ([`super::evp`]).
#![allow(unsafe_code, reason = "vector loads and stores; see the module's justification")]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_aesimc_si128, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_set1_epi32,
    _mm_setzero_si128, _mm_shuffle_epi32, _mm_slli_si128, _mm_xor_si128, _mm512_aesdec_epi128,
    _mm512_aesdeclast_epi128, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_bslli_epi128, _mm512_bsrli_epi128, _mm512_clmulepi64_epi128,
    _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_set_epi64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_sllv_epi64, _mm512_srlv_epi64, _mm512_storeu_si512,
    _mm512_sub_epi64, _mm512_xor_si512,
};

use zeroize::Zeroize as _;

use super::{CipherFailure, KEY_BYTES, Units, evp::Direction};

/// The unit that it is made for.
pub(super) const UNIT: usize = 512;
/// Bytes of one vector: four blocks.
const VECTOR: usize = 64;
/// Vectors of one unit.
const VECTORS: usize = UNIT / VECTOR;
/// Units whose tweaks are encrypted at once: two vectors of them.
const AT_ONCE: usize = 8;
/// Round keys of AES-256.
const ROUNDS: usize = 15;

type RoundKeys = [__m128i; ROUNDS];

/// Both keys of a volume, expanded, for one direction.
pub(super) struct Xts512 {
    data: RoundKeys,
    tweak: RoundKeys,
    direction: Direction,
}

impl std::fmt::Debug for Xts512 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Xts512").field("direction", &self.direction).finish_non_exhaustive()
    }
}

impl Drop for Xts512 {
    fn drop(&mut self) {
        self.data.zeroize();
        self.tweak.zeroize();
    }
}

/// Whether the processor has what is needed.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("aes")
}

impl Xts512 {
    /// `key` has [`KEY_BYTES`] bytes and two different halves. Refused where it is not
    /// [`available`].
    pub(super) fn new(key: &[u8], direction: Direction) -> Result<Self, CipherFailure> {
        let (first, second) = key.split_first_chunk::<{ KEY_BYTES / 2 }>().ok_or(CipherFailure)?;
        let second = <&[u8; KEY_BYTES / 2]>::try_from(second).map_err(|_| CipherFailure)?;
        if first == second || !available() {
            return Err(CipherFailure);
        }
        // SAFETY: the processor has the instructions; it was just asked.
        let (data, tweak) = unsafe { (expand(first, direction), expand(second, Direction::Seal)) };
        Ok(Self { data, tweak, direction })
    }

    /// Works in place through units of [`UNIT`] bytes.
    pub(super) fn run(&self, units: Units<'_>) -> Result<(), CipherFailure> {
        let Units { first, step, unit, bytes } = units;
        let (bytes, rest) = bytes.as_chunks_mut::<UNIT>();
        if unit != UNIT || !rest.is_empty() {
            return Err(CipherFailure);
        }
        // SAFETY: a value of this type is made only where the processor has the instructions.
        unsafe { self.work(first, step, bytes) };
        Ok(())
    }

    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    fn work(&self, first: u64, step: u64, units: &mut [[u8; UNIT]]) {
        let mut number = first;
        for some in units.chunks_mut(AT_ONCE) {
            // Behind the last unit there are numbers that nothing uses.
            let numbers: [u64; AT_ONCE] = std::array::from_fn(|_| {
                let this = number;
                number = number.wrapping_add(step);
                this
            });
            let tweaks = self.tweaks(numbers);
            for (unit, tweak) in some.iter_mut().zip(tweaks) {
                let tweaks = spread(tweak);
                match self.direction {
                    Direction::Seal => apply::<true>(&self.data, &tweaks, unit),
                    Direction::Open => apply::<false>(&self.data, &tweaks, unit),
                }
            }
        }
    }

    /// The first tweak of each unit.
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    #[inline]
    fn tweaks(&self, numbers: [u64; AT_ONCE]) -> [__m128i; AT_ONCE] {
        let [a, b, c, d, e, f, g, h] = numbers.map(u64::cast_signed);
        let mut pair =
            [_mm512_set_epi64(0, d, 0, c, 0, b, 0, a), _mm512_set_epi64(0, h, 0, g, 0, f, 0, e)];
        rounds::<2, true>(&self.tweak, &mut pair);
        let [first, second] = pair;
        let ([a, b, c, d], [e, f, g, h]) = (blocks(first), blocks(second));
        [a, b, c, d, e, f, g, h]
    }
}

/// The tweaks of all blocks of a unit, from that of its first.
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
#[inline]
fn spread(first: __m128i) -> [__m512i; VECTORS] {
    let poly = _mm512_set1_epi64(0x87);
    let first = _mm512_broadcast_i32x4(first);
    // Times x^n, n its own for each block and at most 7, modulo x^128 + x^7 + x^2 + x + 1: what both
    // words lose at the top goes into the other word's bottom, the upper one's as a multiple of 0x87.
    let times = |counts: __m512i| {
        let lost = _mm512_srlv_epi64(first, _mm512_sub_epi64(_mm512_set1_epi64(64), counts));
        let kept = _mm512_sllv_epi64(first, counts);
        let carried = _mm512_bslli_epi128::<8>(lost);
        let folded = _mm512_clmulepi64_epi128::<1>(lost, poly);
        _mm512_xor_si512(kept, _mm512_xor_si512(carried, folded))
    };
    // Times x^8: the byte that goes out at the top comes in again at the bottom.
    let further = |tweaks: __m512i| {
        let out = _mm512_clmulepi64_epi128::<0>(_mm512_bsrli_epi128::<15>(tweaks), poly);
        _mm512_xor_si512(_mm512_bslli_epi128::<1>(tweaks), out)
    };
    let mut low = times(_mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0));
    let mut high = times(_mm512_set_epi64(7, 7, 6, 6, 5, 5, 4, 4));
    let mut tweaks = [_mm512_setzero_si512(); VECTORS];
    for to in tweaks.as_chunks_mut::<2>().0 {
        *to = [low, high];
        (low, high) = (further(low), further(high));
    }
    tweaks
}

/// One unit, in place.
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
#[inline]
fn apply<const SEAL: bool>(keys: &RoundKeys, tweaks: &[__m512i; VECTORS], unit: &mut [u8; UNIT]) {
    let (vectors, _) = unit.as_chunks_mut::<VECTOR>();
    let mut blocks = *tweaks;
    for (block, from) in blocks.iter_mut().zip(vectors.iter()) {
        *block = _mm512_xor_si512(*block, load(from));
    }
    rounds::<VECTORS, SEAL>(keys, &mut blocks);
    for ((block, tweak), to) in blocks.iter().zip(tweaks).zip(vectors) {
        store(to, _mm512_xor_si512(*block, *tweak));
    }
}

/// AES-256 of `N` times four blocks.
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
#[inline]
fn rounds<const N: usize, const SEAL: bool>(keys: &RoundKeys, blocks: &mut [__m512i; N]) {
    let [first, middle @ .., last] = keys;
    let first = _mm512_broadcast_i32x4(*first);
    for block in blocks.iter_mut() {
        *block = _mm512_xor_si512(*block, first);
    }
    for key in middle {
        let key = _mm512_broadcast_i32x4(*key);
        for block in blocks.iter_mut() {
            *block = if SEAL {
                _mm512_aesenc_epi128(*block, key)
            } else {
                _mm512_aesdec_epi128(*block, key)
            };
        }
    }
    let last = _mm512_broadcast_i32x4(*last);
    for block in blocks.iter_mut() {
        *block = if SEAL {
            _mm512_aesenclast_epi128(*block, last)
        } else {
            _mm512_aesdeclast_epi128(*block, last)
        };
    }
}

/// The key schedule of FIPS 197, section 5.2; for opening that of the equivalent inverse cipher.
#[target_feature(enable = "aes")]
fn expand(key: &[u8; 32], direction: Direction) -> RoundKeys {
    let (low, high) = key.split_at(16);
    let mut keys = [_mm_setzero_si128(); ROUNDS];
    let mut pair = [load_key(low), load_key(high)];
    let mut constant = 1;
    for to in keys.chunks_mut(2) {
        to.iter_mut().zip(pair).for_each(|(to, key)| *to = key);
        pair = next(pair, constant);
        constant <<= 1;
    }
    pair.zeroize();
    if direction == Direction::Open {
        keys.reverse();
        let [_, middle @ .., _] = &mut keys;
        for key in middle {
            *key = _mm_aesimc_si128(*key);
        }
    }
    keys
}

/// The two round keys behind `pair`.
#[target_feature(enable = "aes")]
fn next([low, high]: [__m128i; 2], constant: i32) -> [__m128i; 2] {
    // Word 3 of the first is rotated and substituted, word 2 of the second substituted only. The
    // round constant is no immediate here, so it is added by hand.
    let rotated = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<0>(high));
    let low = _mm_xor_si128(sum(low), _mm_xor_si128(rotated, _mm_set1_epi32(constant)));
    let substituted = _mm_shuffle_epi32::<0xaa>(_mm_aeskeygenassist_si128::<0>(low));
    [low, _mm_xor_si128(sum(high), substituted)]
}

/// Each word with all words in front of it.
#[target_feature(enable = "aes")]
fn sum(words: __m128i) -> __m128i {
    let words = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
    _mm_xor_si128(words, _mm_slli_si128::<8>(words))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn blocks(vector: __m512i) -> [__m128i; VECTOR / 16] {
    [
        _mm512_extracti32x4_epi32::<0>(vector),
        _mm512_extracti32x4_epi32::<1>(vector),
        _mm512_extracti32x4_epi32::<2>(vector),
        _mm512_extracti32x4_epi32::<3>(vector),
    ]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[u8; VECTOR]) -> __m512i {
    // SAFETY: 64 bytes are read, and `bytes` has as many; any alignment is right.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(bytes: &mut [u8; VECTOR], vector: __m512i) {
    // SAFETY: 64 bytes are written, and `bytes` has as many; any alignment is right.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

#[target_feature(enable = "sse2")]
fn load_key(half: &[u8]) -> __m128i {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(half).for_each(|(to, from)| *to = *from);
    // SAFETY: 16 bytes are read, and `bytes` has as many; any alignment is right.
    let key = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    bytes.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::evp::Xts, *};

    fn units(first: u64, bytes: &mut [u8]) -> Units<'_> {
        Units { first, step: 1, unit: UNIT, bytes }
    }

    proptest! {
        #[test]
        fn it_computes_what_aws_lc_computes(
            key in prop::collection::vec(any::<u8>(), KEY_BYTES),
            plain in prop::collection::vec(any::<u8>(), UNIT),
            count in 1_usize..20,
            first in any::<u64>(),
        ) {
            if !available() {
                eprintln!("Skipped: this processor has no vector AES");
                return Ok(());
            }
            let mut plain = plain.repeat(count);
            for (at, byte) in plain.iter_mut().enumerate() {
                *byte = byte.wrapping_add(u8::try_from(at / UNIT).unwrap());
            }
            let mut theirs = plain.clone();
            Xts::new(&key, Direction::Seal).unwrap().run(units(first, &mut theirs)).unwrap();
            let mut ours = plain.clone();
            Xts512::new(&key, Direction::Seal).unwrap().run(units(first, &mut ours)).unwrap();
            prop_assert!(ours == theirs);
            Xts512::new(&key, Direction::Open).unwrap().run(units(first, &mut ours)).unwrap();
            prop_assert!(ours == plain);
        }
    }

    #[test]
    fn equal_halves_and_other_units_are_refused() {
        assert!(Xts512::new(&[7; 64], Direction::Seal).is_err());
        assert!(Xts512::new(&[7; 32], Direction::Seal).is_err());
        let key: Vec<u8> = (0..64).collect();
        let Ok(xts) = Xts512::new(&key, Direction::Seal) else { return };
        for (unit, length) in [(4096, 4096), (512, 600)] {
            let bytes = &mut vec![0; length][..];
            assert!(xts.run(Units { first: 0, step: 1, unit, bytes }).is_err());
        }
    }
}
