//! Random requests, crashes and closes against an array of bytes.

use std::sync::Arc;

use proptest::prelude::*;

use super::memory::{Memory, options_read_only, reopen, try_open, with_log};
use crate::{
    Volume,
    vault::{Suite, VaultVolume},
};

const SIZE: u64 = (3 << 20) + 1234;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, u8),
    Trim(u64, u64),
    Zeroes(u64, u64),
    Read(u64, usize),
    Flush,
    Close,
    Crash,
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    let at = prop_oneof![0..SIZE, (0..SIZE / 4096).prop_map(|s| s * 4096)];
    let length = prop_oneof![1_usize..9000, (1_usize..260).prop_map(|n| n * 4096)];
    let span = (at, length).prop_map(|(at, n)| {
        let left = usize::try_from(SIZE - at).unwrap();
        (at, n.min(left))
    });
    let long = |n: usize| u64::try_from(n).unwrap();
    prop_oneof![
        8 => (span.clone(), any::<u8>()).prop_map(|((at, n), b)| Step::Write(at, n, b)),
        1 => span.clone().prop_map(move |(at, n)| Step::Trim(at, long(n))),
        1 => span.clone().prop_map(move |(at, n)| Step::Zeroes(at, long(n))),
        4 => span.prop_map(|(at, n)| Step::Read(at, n)),
        4 => Just(Step::Flush),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
        1 => Just(Step::Checkpoint),
    ]
}

fn fill(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| seed ^ u8::try_from(i * 7 % 256).unwrap()).collect()
}

fn run(steps: &[Step], suite: Suite) -> Result<(), TestCaseError> {
    // So long that the background makes no checkpoint, which would keep more than was flushed.
    let medium = with_log(SIZE, suite, 4 << 20);
    let mut volume = reopen(&medium);
    let mut model = vec![0_u8; usize::try_from(SIZE).unwrap()];
    let range = |at: u64, n: usize| usize::try_from(at).unwrap()..usize::try_from(at).unwrap() + n;
    let mut durable = model.clone();
    for step in steps {
        match step {
            Step::Write(at, n, seed) => {
                let data = fill(*seed, *n);
                model[range(*at, *n)].copy_from_slice(&data);
                volume.write(*at, &mut data.clone()).unwrap();
            }
            Step::Trim(at, n) => {
                volume.trim(*at, *n).unwrap();
                let end = at + n;
                let first = at.next_multiple_of(4096).min(end);
                let last = if end == SIZE { end } else { (end - end % 4096).max(first) };
                model[range(first, usize::try_from(last - first).unwrap())].fill(0);
            }
            Step::Zeroes(at, n) => {
                volume.write_zeroes(*at, *n).unwrap();
                model[range(*at, usize::try_from(*n).unwrap())].fill(0);
            }
            Step::Read(at, n) => {
                let mut back = vec![1; *n];
                volume.read(*at, &mut back).unwrap();
                prop_assert!(back == model[range(*at, *n)]);
            }
            Step::Flush => {
                volume.flush().unwrap();
                durable.clone_from(&model);
            }
            Step::Checkpoint => {
                let count = volume.head().anchor_count;
                volume.advance(count + 1).unwrap();
                durable.clone_from(&model);
            }
            Step::Close => {
                volume.close().unwrap();
                drop(volume);
                volume = reopen(&medium);
                durable.clone_from(&model);
            }
            Step::Crash => {
                // The medium keeps every write here, but only what was committed is there.
                drop(volume);
                let mut back = vec![1; model.len()];
                try_open(&medium, &options_read_only()).unwrap().read(0, &mut back).unwrap();
                prop_assert!(back == durable);
                volume = reopen(&medium);
                model.clone_from(&durable);
            }
        }
    }
    ends_as(&medium, volume, &model)
}

fn ends_as(medium: &Arc<Memory>, volume: VaultVolume, model: &[u8]) -> Result<(), TestCaseError> {
    let mut back = vec![1; model.len()];
    volume.read(0, &mut back).unwrap();
    prop_assert!(back == model);
    volume.close().unwrap();
    drop(volume);
    reopen(medium).read(0, &mut back).unwrap();
    prop_assert!(back == model);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_volume_is_an_array_of_bytes_of_which_flushed_ones_survive(
        steps in prop::collection::vec(step(), 1..60),
        aegis in any::<bool>(),
    ) {
        run(&steps, if aegis { Suite::Aegis256X4 } else { Suite::Aes256Gcm })?;
    }
}

#[test]
fn a_case_that_failed_once() {
    use Step::{Close, Crash, Flush, Trim, Write, Zeroes};
    let steps = [
        Write(188_417, 630_784, 0),
        Trim(1_560_576, 733_184),
        Write(819_200, 569_344, 15),
        Write(1_969_834, 987_136, 183),
        Close,
        Write(1_853_803, 655_360, 75),
        Write(450_560, 643_072, 114),
        Zeroes(604_660, 135_168),
        Flush,
        Write(806_645, 262_144, 163),
        Flush,
        Crash,
    ];
    for suite in [Suite::Aes256Gcm, Suite::Aegis256X4] {
        run(&steps, suite).unwrap();
    }
}
