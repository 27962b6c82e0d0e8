//! Starting up, randomness, capabilities, the clock, and the administration of hierarchies.

use model::{HashAlg, Secret};
use tpm2_protocol::data::TpmCc;

use super::{Command, Entity, Hierarchy, Tpm};
use crate::{
    attest::ClockInfo,
    auth::{Auth, AuthValue, EMPTY},
    error::{Malformed, ResponseCode, TpmError},
    pcr::PcrSelection,
    session::Session,
    wire::{Reader, Writer},
};

/// TPMS_TIME_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeInfo {
    /// Milliseconds since the TPM was last powered on.
    pub time: u64,
    /// The clock, which does not go back, and the reset counters.
    pub clock: ClockInfo,
}

const PROPERTIES: u32 = 0x0000_0006;

impl Tpm {
    /// TPM2_Startup(CLEAR). A TPM that is already started is left as it is.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn startup(&mut self) -> Result<(), TpmError> {
        let mut parameters = Writer::small();
        parameters.u16(0x0000);
        match self.execute(Command::plain(TpmCc::Startup, &[], parameters)?) {
            Err(error) if error.code() == Some(ResponseCode::INITIALIZE) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// TPM2_Shutdown(CLEAR), before power goes.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn shutdown(&mut self) -> Result<(), TpmError> {
        let mut parameters = Writer::small();
        parameters.u16(0x0000);
        self.execute(Command::plain(TpmCc::Shutdown, &[], parameters)?).map(|_| ())
    }

    /// Random bytes from the TPM, in the clear on the way.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn random(&mut self, count: u16) -> Result<Vec<u8>, TpmError> {
        self.random_with(count, &mut []).map(|mut bytes| std::mem::take(bytes.expose_mut()))
    }

    /// Random bytes from the TPM for a key: encrypted on the way by `session`.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn secret_random(
        &mut self,
        count: u16,
        session: &mut Session,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        self.random_with(count, &mut [Auth::Session(session, &EMPTY)])
    }

    fn random_with(
        &mut self,
        count: u16,
        auths: &mut [Auth<'_>],
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let mut out = Secret::new(Vec::with_capacity(usize::from(count)));
        while out.expose().len() < usize::from(count) {
            let missing = usize::from(count).saturating_sub(out.expose().len()).min(32);
            let mut parameters = Writer::small();
            parameters.u16(u16::try_from(missing).map_err(|_| TpmError::TooLong)?);
            let mut command = Command::authorized(TpmCc::GetRandom, &[], parameters, auths)?;
            command.authorized = 0;
            let response = self.execute(command.hiding(false, true))?;
            let bytes = response.reader().sized(64).map_err(TpmError::malformed("random bytes"))?;
            if bytes.is_empty() {
                return Err(TpmError::Crypto("the TPM gave no random bytes"));
            }
            out.expose_mut().extend(bytes.iter().take(missing));
        }
        Ok(out)
    }

    /// TPM2_GetCapability; the list's bytes, without moreData and the capability.
    pub(super) fn get_capability(
        &mut self,
        capability: u32,
        property: u32,
        count: u32,
    ) -> Result<Vec<u8>, TpmError> {
        let mut parameters = Writer::small();
        parameters.u32(capability).u32(property).u32(count);
        let command = Command::plain(TpmCc::GetCapability, &[], parameters)?;
        let response = self.execute(command)?;
        let malformed = TpmError::malformed("capability");
        let mut reader = response.reader();
        reader.u8().map_err(&malformed)?;
        if reader.u32().map_err(&malformed)? != capability {
            return Err(malformed(Malformed::Value { what: "capability" }));
        }
        Ok(reader.rest().to_vec())
    }

    /// A fixed or variable property (TPM_PT), `None` if the TPM does not have it.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn property(&mut self, property: u32) -> Result<Option<u32>, TpmError> {
        let bytes = self.get_capability(PROPERTIES, property, 1)?;
        let mut reader = Reader::new(&bytes);
        let entry = |reader: &mut Reader<'_>| Ok((reader.u32()?, reader.u32()?, reader.u32()?));
        match reader.u32().map_err(TpmError::malformed("TPML_TAGGED_TPM_PROPERTY"))? {
            0 => Ok(None),
            _ => {
                reader = Reader::new(&bytes);
                let (_, tag, value) =
                    entry(&mut reader).map_err(TpmError::malformed("TPML_TAGGED_TPM_PROPERTY"))?;
                Ok((tag == property).then_some(value))
            }
        }
    }

    /// TPM_PT_MANUFACTURER, four letters ("IBM" for libtpms, the software TPM).
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn manufacturer(&mut self) -> Result<String, TpmError> {
        let value = self.property(0x105)?.unwrap_or(0);
        Ok(value.to_be_bytes().into_iter().filter(u8::is_ascii_graphic).map(char::from).collect())
    }

    /// The PCR banks that are allocated.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn pcr_banks(&mut self) -> Result<Vec<HashAlg>, TpmError> {
        let bytes = self.get_capability(0x0000_0005, 0, 1)?;
        let selection = PcrSelection::read(&mut Reader::new(&bytes), true)
            .map_err(TpmError::malformed("TPML_PCR_SELECTION"))?;
        Ok(HashAlg::ALL.into_iter().filter(|alg| selection.contains(*alg, 0)).collect())
    }

    /// TPM2_ReadClock.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn read_clock(&mut self) -> Result<TimeInfo, TpmError> {
        let command = Command::plain(TpmCc::ReadClock, &[], Writer::small())?;
        let response = self.execute(command)?;
        let mut reader = response.reader();
        let parse = |reader: &mut Reader<'_>| {
            Ok(TimeInfo { time: reader.u64()?, clock: ClockInfo::read(reader)? })
        };
        parse(&mut reader).map_err(TpmError::malformed("TPMS_TIME_INFO"))
    }

    /// TPM2_Clear: a new owner. `auth` is that of the lockout or platform hierarchy.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn clear(&mut self, hierarchy: Hierarchy, auth: Auth<'_>) -> Result<(), TpmError> {
        let handles = [hierarchy.into()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::Clear, &handles, Writer::small(), &mut auths)?;
        self.execute(command).map(|_| ())
    }

    /// TPM2_HierarchyChangeAuth, the new value encrypted by `session` (salted), which also proves
    /// the old one.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn change_hierarchy_auth(
        &mut self,
        hierarchy: Hierarchy,
        session: &mut Session,
        old: &AuthValue,
        new: &AuthValue,
    ) -> Result<(), TpmError> {
        let mut parameters = Writer::small();
        parameters.sized(new.expose());
        let handles: [Entity<'_>; 1] = [hierarchy.into()];
        let mut auths = [Auth::Session(session, old)];
        let command =
            Command::authorized(TpmCc::HierarchyChangeAuth, &handles, parameters, &mut auths)?;
        self.execute(Command { auth_after: Some(new), ..command.hiding(true, false) }).map(|_| ())
    }
}
