//! Writes event logs: for the lab's firmware stand-in, and for tests.

use aws_lc_rs::digest;
use model::{Digest, HashAlg};
use thiserror::Error;

use super::{EventType, MAX_EVENTS, MAX_LOG, SPEC_ID, STARTUP_LOCALITY, replay::algorithm};

/// Why an event was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// The digests are not one for each bank of the log, in its order.
    #[error("an event needs one digest for each bank of the log")]
    Digests,
    /// The log would exceed the limits of the parser.
    #[error("the log is full")]
    Full,
    /// There is no such PCR.
    #[error("there is no PCR {0}")]
    Pcr(u8),
}

/// Builds a log of chosen banks.
#[derive(Clone, Debug)]
pub struct Builder {
    banks: Vec<HashAlg>,
    bytes: Vec<u8>,
    events: usize,
}

impl Builder {
    /// A log with its header. Each bank should be named once.
    #[must_use]
    pub fn new(banks: &[HashAlg]) -> Self {
        let mut data = SPEC_ID.to_vec();
        data.extend_from_slice(&[0, 0, 0, 0, 0, 2, 0, 2]); // class 0, version 2.0, 64-bit UINTN
        data.extend_from_slice(&u32::try_from(banks.len()).unwrap_or(0).to_le_bytes());
        for bank in banks {
            data.extend_from_slice(&bank.tpm_id().to_le_bytes());
            data.extend_from_slice(&u16::try_from(bank.size()).unwrap_or(0).to_le_bytes());
        }
        data.push(0);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(&EventType::NO_ACTION.0.to_le_bytes());
        bytes.extend_from_slice(&[0; 20]);
        append_sized(&mut bytes, &data);
        Self { banks: banks.to_vec(), bytes, events: 0 }
    }

    /// Says which locality started the TPM (0, 3 or 4). Must precede events of PCR 0.
    ///
    /// # Errors
    /// [`BuildError::Full`].
    pub fn startup_locality(&mut self, locality: u8) -> Result<(), BuildError> {
        let digests: Vec<Digest> = self.banks.iter().map(|bank| Digest::zero(*bank)).collect();
        let data = [&STARTUP_LOCALITY[..], &[locality]].concat();
        self.event(0, EventType::NO_ACTION, &digests, &data)
    }

    /// Appends an event with digests that the caller has, one a bank in the log's order.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn event(
        &mut self,
        pcr: u8,
        kind: EventType,
        digests: &[Digest],
        data: &[u8],
    ) -> Result<(), BuildError> {
        if pcr >= tpm::PCR_COUNT {
            return Err(BuildError::Pcr(pcr));
        }
        if !digests.iter().map(Digest::alg).eq(self.banks.iter().copied()) {
            return Err(BuildError::Digests);
        }
        let size = self.bytes.len().saturating_add(data.len()).saturating_add(512);
        if size > MAX_LOG || self.events == MAX_EVENTS {
            return Err(BuildError::Full);
        }
        self.bytes.extend_from_slice(&u32::from(pcr).to_le_bytes());
        self.bytes.extend_from_slice(&kind.0.to_le_bytes());
        let count = u32::try_from(digests.len()).unwrap_or(0);
        self.bytes.extend_from_slice(&count.to_le_bytes());
        for digest in digests {
            self.bytes.extend_from_slice(&digest.alg().tpm_id().to_le_bytes());
            self.bytes.extend_from_slice(digest.as_bytes());
        }
        append_sized(&mut self.bytes, data);
        self.events += 1;
        Ok(())
    }

    /// Appends an event whose digests are those of `measured` in each bank, and returns them: they
    /// are what must be extended.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn measure(
        &mut self,
        pcr: u8,
        kind: EventType,
        measured: &[u8],
        data: &[u8],
    ) -> Result<Vec<Digest>, BuildError> {
        let digests: Vec<Digest> = self
            .banks
            .iter()
            .map(|bank| {
                let value = digest::digest(algorithm(*bank), measured);
                Digest::new(*bank, value.as_ref()).unwrap_or(Digest::zero(*bank))
            })
            .collect();
        self.event(pcr, kind, &digests, data)?;
        Ok(digests)
    }

    /// The log so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The log.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn append_sized(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(data);
}
