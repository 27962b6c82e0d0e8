//! Replay: the PCR values that a list of extends leads to.

use aws_lc_rs::digest;
use model::{Digest, HashAlg};
use tpm::{PCR_COUNT, PcrValues};

use super::EventLog;

const COUNT: usize = PCR_COUNT as usize;

/// Values of PCRs 0 to 23 in the SHA-256 bank, extended step by step. Allocates nothing.
#[derive(Clone, Debug)]
pub struct Sha256Replay {
    values: [[u8; 32]; COUNT],
}

impl Sha256Replay {
    /// The values after a reset that locality `startup_locality` began: PCR 0 holds the locality,
    /// PCRs 17 to 22 ones, all others zeros (PC Client Platform TPM Profile, table 6).
    #[must_use]
    pub fn new(startup_locality: u8) -> Self {
        let mut values = [[0; 32]; COUNT];
        if let Some([.., last]) = values.first_mut() {
            *last = startup_locality;
        }
        for value in values.iter_mut().take(23).skip(17) {
            *value = [0xff; 32];
        }
        Self { values }
    }

    /// `PCR = SHA-256(PCR || digest)`. Indices of 24 and more do nothing.
    pub fn extend(&mut self, pcr: u8, digest: &[u8; 32]) {
        if let Some(value) = self.values.get_mut(usize::from(pcr)) {
            let mut joined = [0; 64];
            for (to, from) in joined.iter_mut().zip(value.iter().chain(digest)) {
                *to = *from;
            }
            for (to, from) in
                value.iter_mut().zip(digest::digest(&digest::SHA256, &joined).as_ref())
            {
                *to = *from;
            }
        }
    }

    /// One value; zeros for indices of 24 and more.
    #[must_use]
    pub fn value(&self, pcr: u8) -> [u8; 32] {
        self.values.get(usize::from(pcr)).copied().unwrap_or_default()
    }

    /// SHA-256 over the values of these PCRs, in this order: a quote's pcrDigest.
    #[must_use]
    pub fn quote_digest(&self, pcrs: impl Iterator<Item = u8>) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for pcr in pcrs {
            context.update(&self.value(pcr));
        }
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        out
    }
}

/// Values of PCRs 0 to 23 in one bank.
#[derive(Clone, Debug)]
pub struct Replay {
    values: Vec<Digest>,
    extended: u32,
}

impl Replay {
    /// One value.
    #[must_use]
    pub fn value(&self, pcr: u8) -> Option<&Digest> {
        self.values.get(usize::from(pcr))
    }

    /// Whether any event extended this PCR.
    #[must_use]
    pub const fn is_extended(&self, pcr: u8) -> bool {
        pcr < PCR_COUNT && self.extended & (1 << pcr) != 0
    }

    /// The values in the form in which quotes are made over them.
    #[must_use]
    pub fn to_values(&self) -> PcrValues {
        (0..PCR_COUNT).zip(self.values.iter().copied()).collect()
    }
}

impl EventLog<'_> {
    /// The values that the log leads to in one bank. `None` if an event has no digest of that bank:
    /// its replay could not be what a TPM holds.
    #[must_use]
    pub fn replay(&self, alg: HashAlg) -> Option<Replay> {
        let mut values: Vec<Digest> =
            (0..PCR_COUNT).map(|pcr| start_value(alg, pcr, self.locality)).collect();
        let mut extended = 0;
        for event in self.extends() {
            let digest = event.digest(alg)?;
            let value = values.get_mut(usize::from(event.pcr))?;
            let joined = [value.as_bytes(), digest.as_bytes()].concat();
            *value = Digest::new(alg, digest::digest(algorithm(alg), &joined).as_ref()).ok()?;
            extended |= 1 << event.pcr;
        }
        Some(Replay { values, extended })
    }

    /// As [`Self::replay`] for the SHA-256 bank, without allocation.
    #[must_use]
    pub fn replay_sha256(&self) -> Option<Sha256Replay> {
        let mut replay = Sha256Replay::new(self.locality);
        for event in self.extends() {
            replay.extend(event.pcr, event.sha256()?);
        }
        Some(replay)
    }
}

fn start_value(alg: HashAlg, pcr: u8, locality: u8) -> Digest {
    let mut value = match pcr {
        17..=22 => [0xff; 64],
        _ => [0; 64],
    };
    let value = value.get_mut(..alg.size()).unwrap_or_default();
    if let (0, Some(last)) = (pcr, value.last_mut()) {
        *last = locality;
    }
    Digest::new(alg, value).unwrap_or(Digest::zero(alg))
}

/// The library's name of an algorithm.
pub(crate) const fn algorithm(alg: HashAlg) -> &'static digest::Algorithm {
    match alg {
        HashAlg::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        HashAlg::Sha256 => &digest::SHA256,
        HashAlg::Sha384 => &digest::SHA384,
        HashAlg::Sha512 => &digest::SHA512,
    }
}
