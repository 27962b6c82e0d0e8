//! AES-128-XTS, which AWS-LC has not, over its AES-128-ECB: `C = E1(P ^ T) ^ T` with
//! `T = E2(sector) * x^i` (IEEE 1619). The tweaks of several sectors are made at once, so that the
//! library's parallel block code has enough to do.

use super::{
    CipherFailure, Units,
    evp::{Context, Direction, Kind},
};

/// Bytes that are worked on at a time.
const RUN: usize = 4096;

/// Both keys of a volume, for one direction.
#[derive(Debug)]
pub(super) struct Xts128 {
    data: Context,
    tweak: Context,
    tweaks: Box<[u8; RUN]>,
}

impl Xts128 {
    /// `key` has 32 bytes in two different halves.
    pub(super) fn new(key: &[u8], direction: Direction) -> Result<Self, CipherFailure> {
        let (first, second) = key.split_at_checked(16).ok_or(CipherFailure)?;
        if first == second {
            return Err(CipherFailure);
        }
        Ok(Self {
            data: Context::new(Kind::Ecb128, first, direction)?,
            tweak: Context::new(Kind::Ecb128, second, Direction::Seal)?,
            tweaks: Box::new([0; RUN]),
        })
    }

    /// As [`super::evp::Xts::run`]; the unit is at most [`RUN`] and divides it.
    pub(super) fn run(&mut self, units: Units<'_>) -> Result<(), CipherFailure> {
        let Units { first, step, unit, bytes } = units;
        if unit < 16 || !RUN.is_multiple_of(unit) || !bytes.len().is_multiple_of(unit) {
            return Err(CipherFailure);
        }
        let mut number = first;
        for run in bytes.chunks_mut(RUN) {
            let tweaks = self.tweaks.get_mut(..run.len()).ok_or(CipherFailure)?;
            for of_unit in tweaks.chunks_exact_mut(unit) {
                expand(&mut self.tweak, number, of_unit)?;
                number = number.wrapping_add(step);
            }
            xor(run, tweaks);
            self.data.apply(run)?;
            xor(run, tweaks);
        }
        Ok(())
    }
}

/// The tweaks of all blocks of one unit.
fn expand(context: &mut Context, number: u64, tweaks: &mut [u8]) -> Result<(), CipherFailure> {
    let mut start = u128::from(number).to_le_bytes();
    context.apply(&mut start)?;
    let mut value = u128::from_le_bytes(start);
    let (blocks, _) = tweaks.as_chunks_mut::<16>();
    for block in blocks {
        *block = value.to_le_bytes();
        let carry = if value >> 127 == 1 { 0x87 } else { 0 };
        value = value << 1 ^ carry;
    }
    Ok(())
}

fn xor(data: &mut [u8], mask: &[u8]) {
    for (to, from) in data.iter_mut().zip(mask) {
        *to ^= from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ieee_1619_vector_4_comes_out_and_back() {
        // IEEE 1619-2007, vector 4: XTS-AES-128, data unit 0, 512 bytes 00 01 .. ff twice.
        let key = hex::decode("2718281828459045235360287471352631415926535897932384626433832795");
        let key = key.unwrap();
        let plain: Vec<u8> = (0..=255).chain(0..=255).collect();
        let mut unit = plain.clone();
        Xts128::new(&key, Direction::Seal)
            .unwrap()
            .run(Units { first: 0, step: 1, unit: 512, bytes: &mut unit })
            .unwrap();
        assert_eq!(
            hex::encode(&unit[..32]),
            "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
        );
        Xts128::new(&key, Direction::Open)
            .unwrap()
            .run(Units { first: 0, step: 1, unit: 512, bytes: &mut unit })
            .unwrap();
        assert_eq!(unit, plain);
    }

    #[test]
    fn sectors_do_not_depend_on_the_run_they_are_in() {
        let key: Vec<u8> = (0..32).collect();
        let plain: Vec<u8> = (0..=250).cycle().take(20 * 512).collect();
        let mut seal = Xts128::new(&key, Direction::Seal).unwrap();
        let mut all = plain.clone();
        seal.run(Units { first: 7, step: 1, unit: 512, bytes: &mut all }).unwrap();
        let mut one = plain[13 * 512..14 * 512].to_vec();
        seal.run(Units { first: 20, step: 1, unit: 512, bytes: &mut one }).unwrap();
        assert_eq!(all[13 * 512..14 * 512], one);
    }

    #[test]
    fn equal_halves_are_refused() {
        assert!(Xts128::new(&[7; 32], Direction::Seal).is_err());
        assert!(Xts128::new(&[7; 8], Direction::Seal).is_err());
    }
}
