//! The observed list: what was measured into the vTPM since the boot began, read off the commands
//! and responses that pass. Pure: bytes in, entries out.
//!
//! **Invariants.** Every successful command that changes a PCR becomes an entry, or the list says
//! [`Observed::overflowed`] or [`Observed::unobservable`]. A session cannot hide anything here: the
//! first parameter of TPM2_PCR_Extend is a list, which no session encrypts; TPM2_PCR_Event and
//! TPM2_EventSequenceComplete return their digests as a list too; and PCR numbers are handles.

pub(crate) mod carried;
mod parse;

use std::fmt;

use aws_lc_rs::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use model::{
    Digest, HashAlg,
    child::vtpm::{Entry, MAX_ENTRIES, Measured, Observed, Unobservable},
};

use self::parse::Effect;

/// Where the vTPM is between power on and running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// Stopped: no INIT since the last STOP.
    Off,
    /// INIT was done, TPM2_Startup is due.
    Initialized,
    /// Running.
    Started,
}

/// Records what is measured.
pub(crate) struct Recorder {
    limit: usize,
    power: Power,
    generation: u64,
    entries: Vec<Entry>,
    overflowed: bool,
    unobservable: Option<Unobservable>,
    /// Measured by the control channel before startup; belongs to the boot that follows.
    crtm: Option<Entry>,
    hashing: Option<[Context; 4]>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("power", &self.power)
            .field("generation", &self.generation)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// An empty list that takes at most `limit` entries a boot.
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            limit,
            power: Power::Off,
            generation: 0,
            entries: Vec::new(),
            overflowed: false,
            unobservable: None,
            crtm: None,
            hashing: None,
        }
    }

    pub(crate) const fn power(&self) -> Power {
        self.power
    }

    /// The vTPM was initialised and waits for TPM2_Startup.
    pub(crate) fn initialized(&mut self) {
        self.power = Power::Initialized;
        self.crtm = None;
        self.hashing = None;
    }

    /// The vTPM was initialised and came up running, with PCRs that were never seen here.
    pub(crate) fn initialized_running(&mut self, why: Unobservable) {
        self.begin();
        self.power = Power::Started;
        self.unobservable = Some(why);
    }

    /// The vTPM was stopped. The list stays readable until the next boot.
    pub(crate) fn stopped(&mut self) {
        self.power = Power::Off;
    }

    fn begin(&mut self) {
        self.generation = self.generation.saturating_add(1);
        self.entries.clear();
        self.overflowed = false;
        self.unobservable = None;
        self.hashing = None;
    }

    fn push(&mut self, locality: u8, measured: Measured) {
        if self.entries.len() >= self.limit {
            self.overflowed = true;
        } else {
            self.entries.push(Entry { locality, measured });
        }
    }

    fn mark(&mut self, why: Unobservable) {
        self.unobservable.get_or_insert(why);
    }

    /// A command went to the vTPM and its response is not known.
    pub(crate) fn interrupted(&mut self) {
        self.mark(Unobservable::Interrupted);
    }

    /// A command of the guest and its response.
    pub(crate) fn command(&mut self, locality: u8, command: &[u8], response: &[u8]) {
        match parse::effect(command, response) {
            Effect::None => {}
            Effect::Startup => self.startup(locality),
            Effect::Resume => self.resume(locality),
            Effect::Extend { pcr, digests } => {
                self.push(locality, Measured::Extend { pcr, digests });
            }
            Effect::Reset { pcr } => self.push(locality, Measured::Reset { pcr }),
            Effect::Malformed => self.mark(Unobservable::Malformed),
        }
    }

    fn startup(&mut self, locality: u8) {
        self.begin();
        self.power = Power::Started;
        if let Some(entry) = self.crtm.take() {
            self.push(entry.locality, entry.measured);
        }
        self.push(locality, Measured::Startup {});
    }

    fn resume(&mut self, locality: u8) {
        if self.generation == 0 {
            self.begin();
            self.mark(Unobservable::StoredState);
        }
        if self.crtm.take().is_some() {
            self.mark(Unobservable::Malformed);
        }
        self.power = Power::Started;
        self.push(locality, Measured::Resume {});
    }

    /// The control channel's HASH_START succeeded.
    pub(crate) fn hash_start(&mut self) {
        self.hashing = Some(HashAlg::ALL.map(|alg| Context::new(algorithm(alg))));
    }

    /// HASH_DATA succeeded.
    pub(crate) fn hash_data(&mut self, data: &[u8]) {
        match &mut self.hashing {
            Some(contexts) => contexts.iter_mut().for_each(|context| context.update(data)),
            None => self.mark(Unobservable::Malformed),
        }
    }

    /// HASH_END succeeded.
    pub(crate) fn hash_end(&mut self) {
        let Some(contexts) = self.hashing.take() else {
            self.mark(Unobservable::Malformed);
            return;
        };
        let digests: Vec<Digest> = HashAlg::ALL
            .into_iter()
            .zip(contexts)
            .filter_map(|(alg, context)| Digest::new(alg, context.finish().as_ref()).ok())
            .collect();
        if self.power == Power::Started {
            self.push(4, Measured::Drtm { digests });
        } else if self.crtm.is_some() {
            self.mark(Unobservable::Malformed);
        } else {
            self.crtm = Some(Entry { locality: 4, measured: Measured::Crtm { digests } });
        }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) const fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(crate) const fn unobservable(&self) -> Option<Unobservable> {
        self.unobservable
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    /// Entries from position `from` on, as many as one reply takes.
    pub(crate) fn read(&self, from: u64) -> Observed {
        let from = from.min(self.len());
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        Observed {
            generation: self.generation,
            from,
            total: self.len(),
            entries: self.entries.iter().skip(skip).take(MAX_ENTRIES).cloned().collect(),
            overflowed: self.overflowed,
            unobservable: self.unobservable,
        }
    }
}

const fn algorithm(alg: HashAlg) -> &'static Algorithm {
    match alg {
        HashAlg::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
        HashAlg::Sha256 => &SHA256,
        HashAlg::Sha384 => &SHA384,
        HashAlg::Sha512 => &SHA512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0];
    const STARTUP: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];

    fn extend(pcr: u8) -> Vec<u8> {
        let mut command = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, pcr];
        command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0]);
        command.extend([0, 0, 0, 1, 0, 0x0b]);
        command.extend([7; 32]);
        command
    }

    #[test]
    fn a_flood_is_told_and_a_new_boot_begins_afresh() {
        let mut recorder = Recorder::new(3);
        recorder.initialized();
        recorder.command(0, &STARTUP, &OK);
        (0..5).for_each(|_| recorder.command(0, &extend(10), &OK));
        let seen = recorder.read(0);
        assert_eq!((seen.entries.len(), seen.overflowed, seen.generation), (3, true, 1));
        recorder.command(0, &STARTUP, &OK);
        let seen = recorder.read(0);
        assert_eq!((seen.entries.len(), seen.overflowed, seen.generation), (1, false, 2));
    }

    #[test]
    fn a_refused_command_measures_nothing() {
        let mut recorder = Recorder::new(10);
        recorder.command(0, &STARTUP, &OK);
        let refused = [0x80, 1, 0, 0, 0, 10, 0, 0, 9, 7];
        recorder.command(0, &extend(10), &refused);
        assert_eq!(recorder.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let mut recorder = Recorder::new(10);
        recorder.command(0, &STARTUP, &OK);
        recorder.command(0, &extend(10)[..40], &OK);
        assert_eq!(recorder.unobservable(), Some(Unobservable::Malformed));
        let mut resumed = Recorder::new(10);
        resumed.command(0, &[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 1], &OK);
        assert_eq!(resumed.unobservable(), Some(Unobservable::StoredState));
    }

    #[test]
    fn a_measurement_before_startup_belongs_to_the_boot_that_follows() {
        let mut recorder = Recorder::new(10);
        recorder.initialized();
        recorder.hash_start();
        recorder.hash_data(b"crtm");
        recorder.hash_end();
        recorder.command(3, &STARTUP, &OK);
        let kinds: Vec<_> = recorder.read(0).entries.into_iter().map(|e| e.measured).collect();
        assert!(
            matches!(&kinds[..], [Measured::Crtm { digests }, Measured::Startup {}] if digests.len() == 4)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            command in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            response in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            code in 0x13c_u16..0x186,
        ) {
            let mut recorder = Recorder::new(4);
            let mut command = command;
            if let Some(place) = command.get_mut(8..10) {
                place.copy_from_slice(&code.to_be_bytes());
                command[6] = 0;
                command[7] = 0;
            }
            recorder.command(0, &command, &response);
            recorder.command(0, &command, &OK);
        }
    }
}
