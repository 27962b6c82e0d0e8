//! PCR values that were read once, carried on by what was measured since: so that a quote costs one
//! command, not four. Nothing rests on them: a quote that signs other values has the PCRs read.

use aws_lc_rs::digest::digest;
use model::{Digest, child::vtpm::Measured};
use tpm::PcrValues;

use super::{Recorder, algorithm};

/// Values as they were at a place of the list.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    generation: u64,
    place: usize,
    values: PcrValues,
}

impl Carried {
    /// `values` hold now.
    pub(crate) fn new(recorder: &Recorder, values: PcrValues) -> Self {
        Self { generation: recorder.generation, place: recorder.entries.len(), values }
    }

    /// What should hold now; nothing if that cannot be told.
    pub(crate) fn now(mut self, recorder: &Recorder) -> PcrValues {
        let since = recorder.entries.get(self.place..).unwrap_or_default();
        if recorder.overflowed || recorder.generation != self.generation {
            return PcrValues::new();
        }
        for entry in since {
            let Measured::Extend { pcr, digests } = &entry.measured else {
                return PcrValues::new();
            };
            for measured in digests {
                let alg = measured.alg();
                let Some(old) = self.values.get(alg, *pcr) else { continue };
                let joined = [old.as_bytes(), measured.as_bytes()].concat();
                let new = digest(algorithm(alg), &joined);
                let Ok(new) = Digest::new(alg, new.as_ref()) else { return PcrValues::new() };
                self.values.insert(*pcr, new);
            }
        }
        self.values
    }
}

#[cfg(test)]
mod tests {
    use model::HashAlg;

    use super::*;

    const STARTUP: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    const OK: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0];

    fn started() -> (Recorder, Carried) {
        let mut recorder = Recorder::new(3);
        recorder.command(0, &STARTUP, &OK);
        let zero = |pcr| (pcr, Digest::sha256([0; 32]));
        let carried = Carried::new(&recorder, (0..2).map(zero).collect());
        (recorder, carried)
    }

    fn extend(recorder: &mut Recorder, pcr: u8) {
        let digests = vec![Digest::sha256([7; 32])];
        recorder.push(0, Measured::Extend { pcr, digests });
    }

    #[test]
    fn an_extend_is_carried_out_and_one_of_another_pcr_changes_nothing() {
        let (mut recorder, carried) = started();
        extend(&mut recorder, 1);
        extend(&mut recorder, 9);
        let now = carried.now(&recorder);
        let expected = digest(algorithm(HashAlg::Sha256), &[[0; 32], [7; 32]].concat());
        assert_eq!(now.get(HashAlg::Sha256, 1).unwrap().as_bytes(), expected.as_ref());
        assert_eq!(now.get(HashAlg::Sha256, 0).unwrap().as_bytes(), [0; 32]);
        assert_eq!(now.len(), 2);
    }

    #[test]
    fn nothing_is_told_after_a_reset_a_new_boot_or_an_overflow() {
        let (mut recorder, carried) = started();
        recorder.push(0, Measured::Reset { pcr: 16 });
        assert!(carried.now(&recorder).is_empty());
        let (mut recorder, carried) = started();
        recorder.command(0, &STARTUP, &OK);
        assert!(carried.now(&recorder).is_empty());
        let (mut recorder, carried) = started();
        (0..3).for_each(|_| extend(&mut recorder, 1));
        assert!(carried.now(&recorder).is_empty());
    }
}
