//! As `fsx` does it, from outside: writes, zeros, trims, flushes, sizes and restarts at random through
//! `qemu-io`, and each read compared with a model.

use std::ops::Range;

use crate::{
    dice::Dice,
    fixture::{Dir, tool},
};

/// Grain of the model; the operations are at multiples of it, most of them not at sectors of 4096.
const GRAIN: u64 = 512;
const SIZE: u64 = 4 << 20;
const OPERATIONS: u64 = 40;

/// What each grain holds: one repeated byte, or nothing that is known.
struct Model {
    grains: Vec<Option<u8>>,
    /// A trimmed sector is zeros; else it is anything.
    trims_to_zeros: bool,
}

impl Model {
    fn grains(range: &Range<u64>) -> Range<usize> {
        let index = |at: u64| usize::try_from(at / GRAIN).unwrap();
        index(range.start)..index(range.end)
    }

    fn fill(&mut self, range: &Range<u64>, value: Option<u8>) {
        self.grains[Self::grains(range)].fill(value);
    }

    /// The commands that read a range and compare it, run by run.
    fn read(&self, range: &Range<u64>) -> Vec<String> {
        let mut at = range.start;
        let mut commands = Vec::new();
        for run in self.grains[Self::grains(range)].chunk_by(|one, next| one == next) {
            let length = run.len() as u64 * GRAIN;
            if let Some(value) = run[0] {
                commands.push(format!("read -P {value} {at} {length}"));
            }
            at += length;
        }
        commands
    }

    fn size(&self) -> u64 {
        self.grains.len() as u64 * GRAIN
    }

    /// One operation at random: what `qemu-io` is to do.
    fn operation(&mut self, dice: &mut Dice) -> Vec<String> {
        let range = |dice: &mut Dice, grain: u64, most: u64| {
            let start = dice.roll(self.size() / grain) * grain;
            start..(start + grain * (1 + dice.roll(most / grain))).min(self.size())
        };
        match dice.index(10) {
            0..4 => {
                let (range, value) =
                    (range(dice, GRAIN, 192 << 10), u8::try_from(dice.roll(255)).unwrap() + 1);
                let fua = if dice.roll(4) == 0 { "-f " } else { "" };
                self.fill(&range, Some(value));
                vec![format!("write {fua}-P {value} {} {}", range.start, range.end - range.start)]
            }
            4 => {
                let range = range(dice, GRAIN, 192 << 10);
                self.fill(&range, Some(0));
                vec![format!("write -z {} {}", range.start, range.end - range.start)]
            }
            5 => {
                let range = range(dice, 4096, 512 << 10);
                self.fill(&range, self.trims_to_zeros.then_some(0));
                vec![format!("discard {} {}", range.start, range.end - range.start)]
            }
            6 => vec!["flush".to_owned()],
            _ => self.read(&range(dice, GRAIN, 512 << 10)),
        }
    }
}

/// Lets `qemu-io` do the commands; false, said aloud, if it is not installed.
fn done(uri: &str, commands: &[String], seed: u64) -> bool {
    let Some(mut program) = tool("qemu-io") else { return false };
    program.args(["-f", "raw", "-d", "unmap", uri]);
    for command in commands {
        program.args(["-c", command]);
    }
    let output = program.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = !output.status.success() || said.contains("failed") || said.contains("error");
    assert!(!failed, "seed {seed}: {commands:?}: {said}");
    true
}

fn run(dir: &Dir, line: &str, mut model: Model) {
    let mut dice = Dice::new(0x7673_6673);
    // A LUKS2 volume has no sizes to go through, and its key takes a second each time.
    for round in 0..if model.trims_to_zeros { 8 } else { 3_u64 } {
        let served = dir.serve(line);
        let size = model.size();
        let mut commands = model.read(&(0..size));
        for _ in 0..OPERATIONS {
            commands.extend(model.operation(&mut dice));
        }
        let wanted = if size == SIZE { 2 * SIZE } else { SIZE };
        let resized = model.trims_to_zeros && round % 3 == 2;
        if resized && wanted < size {
            // Only what is trimmed may be cut off.
            commands.push(format!("discard {wanted} {}", size - wanted));
        }
        commands.push("flush".to_owned());
        if !done(&served.uri(), &commands, dice.seed) {
            return;
        }
        if round.is_multiple_of(2) {
            served.kill()
        } else {
            served.stop()
        }
        if resized {
            dir.done(&format!("resize v --key-file key --size {wanted}"));
            model.grains.resize(Model::grains(&(0..wanted)).len(), Some(0));
        }
    }
    dir.done("check v --key-file key");
}

#[test]
fn a_vault_is_as_the_model_says_through_trims_sizes_and_kills() {
    let dir = Dir::new();
    dir.done(&format!("create --size {SIZE} --key-file key v"));
    let grains = vec![Some(0); Model::grains(&(0..SIZE)).len()];
    run(&dir, "v --key-file key", Model { grains, trims_to_zeros: true });
}

#[test]
fn a_luks2_volume_is_as_the_model_says_through_trims_and_kills() {
    let dir = Dir::new();
    dir.done(&format!("create --format luks2 --size {SIZE} --key-file key v"));
    let grains = vec![None; Model::grains(&(0..SIZE)).len()];
    run(&dir, "v --key-file key", Model { grains, trims_to_zeros: false });
}
