//! Reading, extending and resetting PCRs.

use model::{Digest, HashAlg};
use tpm2_protocol::data::TpmCc;

use super::{Command, Entity, Hierarchy, Tpm};
use crate::{
    auth::Auth,
    error::{Malformed, TpmError},
    pcr::{PCR_COUNT, PcrSelection, PcrValues},
    wire::{Reader, Writer},
};

/// How often PCRs that change meanwhile are read again.
const ATTEMPTS: u32 = 8;

/// At most so many values come in one response.
const PER_COMMAND: usize = 8;

impl Tpm {
    /// The values of the selected PCRs, all from one moment (TPM2_PCR_Read, repeated while PCRs
    /// change in between). PCRs of banks that are not allocated are missing in the result.
    ///
    /// # Errors
    /// [`TpmError::Unstable`] if they never hold still.
    pub fn pcr_read(&mut self, selection: &PcrSelection) -> Result<PcrValues, TpmError> {
        let wanted: Vec<_> = selection.iter().collect();
        for _ in 0..ATTEMPTS {
            let mut values = PcrValues::new();
            let mut counters = Vec::new();
            for chunk in wanted.chunks(PER_COMMAND) {
                let part =
                    chunk.iter().fold(PcrSelection::none(), |s, (alg, pcr)| s.with(*alg, &[*pcr]));
                counters.push(self.pcr_read_some(&part, &mut values)?);
            }
            if counters.windows(2).all(|pair| pair.first() == pair.last()) {
                return Ok(values);
            }
        }
        Err(TpmError::Unstable)
    }

    /// One TPM2_PCR_Read; returns pcrUpdateCounter.
    fn pcr_read_some(
        &mut self,
        selection: &PcrSelection,
        values: &mut PcrValues,
    ) -> Result<u32, TpmError> {
        let mut parameters = Writer::small();
        selection.write(&mut parameters);
        let response = self.execute(Command::plain(TpmCc::PcrRead, &[], parameters)?)?;
        let mut parse = |reader: &mut Reader<'_>| {
            let counter = reader.u32()?;
            let read = PcrSelection::read(reader, false)?;
            let count = reader.u32()?;
            for (alg, pcr) in read.iter() {
                let value = Digest::new(alg, reader.sized(64)?)
                    .map_err(|_| Malformed::Value { what: "PCR value" })?;
                values.insert(pcr, value);
            }
            if usize::try_from(count) != Ok(read.iter().count()) {
                return Err(Malformed::Value { what: "number of PCR values" });
            }
            Ok(counter)
        };
        parse(&mut response.reader()).map_err(TpmError::malformed("PCR values"))
    }

    /// TPM2_PCR_Extend, with one digest a bank.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn pcr_extend(&mut self, pcr: u8, digests: &[Digest]) -> Result<(), TpmError> {
        let mut parameters = Writer::new();
        parameters.u32(u32::try_from(digests.len()).map_err(|_| TpmError::TooLong)?);
        for digest in digests {
            parameters.u16(digest.alg().tpm_id()).bytes(digest.as_bytes());
        }
        let handles = [Entity::bare(pcr.into())];
        let mut auths = [Auth::none()];
        let command = Command::authorized(TpmCc::PcrExtend, &handles, parameters, &mut auths)?;
        self.execute(command).map(|_| ())
    }

    /// TPM2_PCR_Allocate: from the next power-on, all PCRs in these banks and none in the others.
    /// `auth` is the platform hierarchy's.
    ///
    /// # Errors
    /// [`TpmError::NoRoom`] if the TPM cannot have so many.
    pub fn pcr_allocate(&mut self, auth: Auth<'_>, banks: &[HashAlg]) -> Result<(), TpmError> {
        let all: Vec<u8> = (0..PCR_COUNT).collect();
        let selection = HashAlg::ALL.into_iter().fold(PcrSelection::none(), |selection, alg| {
            selection.with(alg, if banks.contains(&alg) { &all } else { &[] })
        });
        let mut parameters = Writer::small();
        selection.write(&mut parameters);
        let handles = [Hierarchy::Platform.into()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::PcrAllocate, &handles, parameters, &mut auths)?;
        let response = self.execute(command)?;
        match response.reader().u8().map_err(TpmError::malformed("PCR allocation"))? {
            0 => Err(TpmError::NoRoom),
            _ => Ok(()),
        }
    }

    /// TPM2_PCR_Reset, where the platform allows it (16 and 23 at locality 0).
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn pcr_reset(&mut self, pcr: u8) -> Result<(), TpmError> {
        let handles = [Entity::bare(pcr.into())];
        let mut auths = [Auth::none()];
        let command = Command::authorized(TpmCc::PcrReset, &handles, Writer::small(), &mut auths)?;
        self.execute(command).map(|_| ())
    }
}
