//! Non-volatile indices.

use model::HashAlg;
use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{Command, Entity, Hierarchy, Tpm};
use crate::{
    auth::{Auth, AuthValue},
    error::{Malformed, TpmError},
    public::Name,
    wire::{Reader, Writer},
};

/// Bytes read or written at once; every TPM takes so many.
const CHUNK: u16 = 512;

/// Attributes of an NV index (TPMA_NV), bits 7:4 being its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvAttributes(pub u32);

impl NvAttributes {
    /// The platform may write.
    pub const PPWRITE: Self = Self(0x0000_0001);
    /// The owner may write.
    pub const OWNERWRITE: Self = Self(0x0000_0002);
    /// The index's authValue may write.
    pub const AUTHWRITE: Self = Self(0x0000_0004);
    /// A counter of 64 bits.
    pub const COUNTER: Self = Self(0x0000_0010);
    /// Can be locked until it is undefined.
    pub const WRITEDEFINE: Self = Self(0x0000_2000);
    /// The platform may read.
    pub const PPREAD: Self = Self(0x0001_0000);
    /// The owner may read.
    pub const OWNERREAD: Self = Self(0x0002_0000);
    /// The index's authValue may read.
    pub const AUTHREAD: Self = Self(0x0004_0000);
    /// Failures do not count for dictionary-attack lockout.
    pub const NO_DA: Self = Self(0x0200_0000);
    /// Written at least once (set by the TPM).
    pub const WRITTEN: Self = Self(0x2000_0000);
    /// Defined by the platform; survives a change of owner.
    pub const PLATFORMCREATE: Self = Self(0x4000_0000);

    /// An EK certificate as manufacturers define it: platform-created, platform-written, readable
    /// by all, lockable.
    pub const EK_CERTIFICATE: Self = Self(0x4207_2001);

    /// A counter of the owner: increments and reads need the owner or the index's authValue.
    pub const OWNER_COUNTER: Self = Self(0x0206_0016);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The public area of an NV index (TPMS_NV_PUBLIC), nameAlg SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvPublic {
    /// The index, 0x01xxxxxx.
    pub index: u32,
    /// Its attributes.
    pub attributes: NvAttributes,
    /// Its policy, empty or 32 bytes.
    pub policy: Vec<u8>,
    /// How many bytes it holds (8 for a counter).
    pub size: u16,
}

impl NvPublic {
    /// The Name; it depends on the attributes, so also on whether the index was ever written.
    #[must_use]
    pub fn name(&self) -> Name {
        let mut writer = Writer::small();
        self.write(&mut writer);
        Name::of_area(HashAlg::Sha256, &writer.finish_public().unwrap_or_default())
    }

    /// The same index after its first write.
    #[must_use]
    pub fn written(&self) -> Self {
        Self { attributes: self.attributes.and(NvAttributes::WRITTEN), ..self.clone() }
    }

    fn write(&self, writer: &mut Writer) {
        writer.u32(self.index).u16(0x000b).u32(self.attributes.0);
        writer.sized(&self.policy).u16(self.size);
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let index = reader.u32()?;
        let alg = reader.u16()?;
        if alg != 0x000b {
            return Err(Malformed::Unsupported { what: "nameAlg", value: alg.into() });
        }
        let attributes = NvAttributes(reader.u32()?);
        let policy = reader.sized(64)?.to_vec();
        let size = reader.u16()?;
        reader.finish()?;
        Ok(Self { index, attributes, policy, size })
    }
}

/// Who authorizes: a hierarchy, or the index itself if `None`.
type By = Option<Hierarchy>;

impl Tpm {
    /// TPM2_NV_DefineSpace by the owner or the platform.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_define(
        &mut self,
        hierarchy: Hierarchy,
        auth: Auth<'_>,
        public: &NvPublic,
        index_auth: &AuthValue,
    ) -> Result<(), TpmError> {
        let mut area = Writer::small();
        public.write(&mut area);
        let mut parameters = Writer::new();
        parameters.sized(index_auth.expose()).sized(&area.finish()?);
        let handles = [hierarchy.into()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::NvDefineSpace, &handles, parameters, &mut auths)?;
        self.execute(command.hiding(true, false)).map(|_| ())
    }

    /// TPM2_NV_UndefineSpace.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_undefine(
        &mut self,
        hierarchy: Hierarchy,
        auth: Auth<'_>,
        index: u32,
    ) -> Result<(), TpmError> {
        let name = self.nv_name(index)?;
        let handles = [hierarchy.into(), Entity { handle: index, name: Some(&name) }];
        let mut auths = [auth];
        let code = TpmCc::NvUndefineSpace;
        let command = Command::authorized(code, &handles, Writer::small(), &mut auths)?;
        self.execute(command).map(|_| ())
    }

    /// TPM2_NV_ReadPublic; `None` if the index is not defined. The Name is recomputed and compared.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_public(&mut self, index: u32) -> Result<Option<NvPublic>, TpmError> {
        let handles = [Entity::bare(index)];
        let command = Command::plain(TpmCc::NvReadPublic, &handles, Writer::small())?;
        let response = match self.execute(command) {
            Err(error) if error.code().is_some_and(|code| code.is_no_such_handle()) => {
                return Ok(None);
            }
            other => other?,
        };
        let malformed = TpmError::malformed("NV public area");
        let mut reader = response.reader();
        let public = NvPublic::parse(reader.sized(256).map_err(&malformed)?).map_err(&malformed)?;
        if reader.sized(66).map_err(&malformed)? != public.name().as_bytes() {
            return Err(malformed(Malformed::Value { what: "name" }));
        }
        Ok(Some(public))
    }

    fn nv_name(&mut self, index: u32) -> Result<Name, TpmError> {
        let public = self.nv_public(index)?;
        public.map(|public| public.name()).ok_or(TpmError::NoIndex { index })
    }

    /// One command on an index whose first handle authorizes.
    fn nv_command(
        &mut self,
        code: TpmCc,
        by: By,
        auth: Auth<'_>,
        index: u32,
        parameters: Writer,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let name = self.nv_name(index)?;
        let entity = Entity { handle: index, name: Some(&name) };
        let handles = [by.map_or(entity, |hierarchy| Entity::bare(hierarchy.handle())), entity];
        let mut auths = [auth];
        let command = Command::authorized(code, &handles, parameters, &mut auths)?
            .hiding(code == TpmCc::NvWrite, code == TpmCc::NvRead);
        Ok(self.execute(command)?.parameters)
    }

    /// TPM2_NV_Write from offset 0, in chunks. `by` is the hierarchy that authorizes, or the index.
    ///
    /// # Errors
    /// [`TpmError`]; what was written before stays.
    pub fn nv_write(
        &mut self,
        by: Option<Hierarchy>,
        auth: &mut Auth<'_>,
        index: u32,
        data: &[u8],
    ) -> Result<(), TpmError> {
        let mut offset = 0_u16;
        for chunk in data.chunks(usize::from(CHUNK)) {
            let mut parameters = Writer::new();
            parameters.sized(chunk).u16(offset);
            self.nv_command(TpmCc::NvWrite, by, auth.again(), index, parameters)?;
            offset = offset.checked_add(CHUNK).ok_or(TpmError::TooLong)?;
        }
        Ok(())
    }

    /// TPM2_NV_Read of the whole index.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_read(
        &mut self,
        by: Option<Hierarchy>,
        auth: &mut Auth<'_>,
        index: u32,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let size = self.nv_public(index)?.ok_or(TpmError::NoIndex { index })?.size;
        let mut out = Zeroizing::new(Vec::with_capacity(usize::from(size)));
        let mut offset = 0_u16;
        while offset < size {
            let count = size.saturating_sub(offset).min(CHUNK);
            let mut parameters = Writer::small();
            parameters.u16(count).u16(offset);
            let bytes = self.nv_command(TpmCc::NvRead, by, auth.again(), index, parameters)?;
            let mut reader = Reader::new(&bytes);
            let part = reader.sized(count.into()).map_err(TpmError::malformed("NV data"))?;
            if part.len() != usize::from(count) {
                return Err(TpmError::malformed("NV data")(Malformed::Truncated));
            }
            out.extend_from_slice(part);
            offset = offset.saturating_add(count);
        }
        Ok(out)
    }

    /// The value of a counter index.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_read_counter(
        &mut self,
        by: Option<Hierarchy>,
        auth: &mut Auth<'_>,
        index: u32,
    ) -> Result<u64, TpmError> {
        let bytes = self.nv_read(by, auth, index)?;
        let bytes: Result<[u8; 8], _> = bytes.as_slice().try_into();
        let wrong = TpmError::malformed("NV counter")(Malformed::Value { what: "size" });
        bytes.map(u64::from_be_bytes).map_err(|_| wrong)
    }

    /// TPM2_NV_Increment of a counter. The first one also makes it readable.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_increment(
        &mut self,
        by: Option<Hierarchy>,
        auth: Auth<'_>,
        index: u32,
    ) -> Result<(), TpmError> {
        self.nv_command(TpmCc::NvIncrement, by, auth, index, Writer::small()).map(|_| ())
    }

    /// TPM2_NV_WriteLock: with [`NvAttributes::WRITEDEFINE`], for as long as the index exists.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn nv_write_lock(
        &mut self,
        by: Option<Hierarchy>,
        auth: Auth<'_>,
        index: u32,
    ) -> Result<(), TpmError> {
        self.nv_command(TpmCc::NvWriteLock, by, auth, index, Writer::small()).map(|_| ())
    }
}
