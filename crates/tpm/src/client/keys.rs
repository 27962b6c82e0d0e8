//! Creating, loading and reading keys.

use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{Command, Entity, Hierarchy, Object, Tpm, handle};
use crate::{
    auth::{Auth, AuthValue},
    crypt,
    error::{Malformed, TpmError},
    public::{Name, Public},
    sealed::KeyBlob,
    signature::Signature,
    template::Template,
    wire::{Reader, Writer},
};

/// TPM2B_SENSITIVE_CREATE, TPM2B_PUBLIC, empty outsideInfo, no creation PCRs.
fn creation(auth: &AuthValue, data: &[u8], template: &Template) -> Result<Writer, TpmError> {
    let mut sensitive = Writer::new();
    sensitive.sized(auth.expose()).sized(data);
    let sensitive: Zeroizing<Vec<u8>> = sensitive.finish()?;
    let mut parameters = Writer::new();
    parameters.sized(&sensitive).sized(template.as_bytes()).u16(0).u32(0);
    Ok(parameters)
}

/// A TPM2B_PUBLIC inside a response.
pub(super) fn read_public(reader: &mut Reader<'_>) -> Result<Public, Malformed> {
    Public::parse(reader.sized(1024)?)
}

impl Tpm {
    /// TPM2_CreatePrimary: the same template gives the same key until the hierarchy's seed changes.
    /// `key_auth` becomes the key's authValue; it travels in the clear unless `auth` is a salted
    /// session.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn create_primary(
        &mut self,
        hierarchy: Hierarchy,
        auth: Auth<'_>,
        template: &Template,
        key_auth: &AuthValue,
    ) -> Result<Object, TpmError> {
        let parameters = creation(key_auth, &[], template)?;
        let handles = [hierarchy.into()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::CreatePrimary, &handles, parameters, &mut auths)?
            .hiding(true, false)
            .returning(1);
        let response = self.execute(command)?;
        let handle = response.handle()?;
        self.open.push(handle);
        let public = read_public(&mut response.reader())
            .map_err(TpmError::malformed("created public area"))?;
        Ok(Object::new(handle, public))
    }

    /// TPM2_Create under `parent`. `data` is sealed (for a [`crate::template::sealed`]) or empty.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn create(
        &mut self,
        parent: &Object,
        auth: Auth<'_>,
        template: &Template,
        key_auth: &AuthValue,
        data: &[u8],
    ) -> Result<KeyBlob, TpmError> {
        let parameters = creation(key_auth, data, template)?;
        let handles = [parent.entity()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::Create, &handles, parameters, &mut auths)?;
        let response = self.execute(command.hiding(true, false))?;
        let mut reader = response.reader();
        let parse = |reader: &mut Reader<'_>| {
            let private = reader.sized(2048)?.to_vec();
            Ok(KeyBlob { private, public: read_public(reader)? })
        };
        parse(&mut reader).map_err(TpmError::malformed("created key"))
    }

    /// TPM2_Load of what [`Self::create`] or [`Self::import`] returned.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn load(
        &mut self,
        parent: &Object,
        auth: Auth<'_>,
        blob: &KeyBlob,
    ) -> Result<Object, TpmError> {
        let mut parameters = Writer::new();
        parameters.sized(&blob.private);
        blob.public.write(&mut parameters);
        let handles = [parent.entity()];
        let mut auths = [auth];
        let command =
            Command::authorized(TpmCc::Load, &handles, parameters, &mut auths)?.returning(1);
        let response = self.execute(command)?;
        let handle = response.handle()?;
        self.open.push(handle);
        Ok(Object::new(handle, blob.public.clone()))
    }

    /// TPM2_LoadExternal of a public key, to verify with.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn load_external(&mut self, public: &Public) -> Result<Object, TpmError> {
        let mut parameters = Writer::new();
        parameters.u16(0);
        public.write(&mut parameters);
        parameters.u32(handle::OWNER);
        let command = Command::plain(TpmCc::LoadExternal, &[], parameters)?.returning(1);
        let handle = self.execute(command)?.handle()?;
        self.open.push(handle);
        Ok(Object::new(handle, public.clone()))
    }

    /// TPM2_ReadPublic of a persistent object; `None` if the handle is empty. The Name is
    /// recomputed and compared with the TPM's.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn persistent(&mut self, handle: u32) -> Result<Option<Object>, TpmError> {
        let handles = [Entity::bare(handle)];
        let command = Command::plain(TpmCc::ReadPublic, &handles, Writer::small())?;
        let response = match self.execute(command) {
            Err(error) if error.code().is_some_and(|code| code.is_no_such_handle()) => {
                return Ok(None);
            }
            other => other?,
        };
        let mut reader = response.reader();
        let malformed = TpmError::malformed("public area");
        let public = read_public(&mut reader).map_err(&malformed)?;
        let name = Name::new(reader.sized(66).map_err(&malformed)?).map_err(&malformed)?;
        if name != public.name() {
            return Err(malformed(Malformed::Value { what: "name" }));
        }
        Ok(Some(Object::new(handle, public)))
    }

    /// TPM2_VerifySignature over SHA-256 of `message`; returns the ticket (TPMT_TK_VERIFIED).
    ///
    /// # Errors
    /// [`TpmError`].
    pub(super) fn verify_signature(
        &mut self,
        key: &Object,
        message: &[u8],
        signature: &Signature,
    ) -> Result<Vec<u8>, TpmError> {
        let mut parameters = Writer::new();
        parameters.sized(&crypt::sha256(&[message])).bytes(&signature.to_bytes());
        let handles = [key.entity()];
        let command = Command::plain(TpmCc::VerifySignature, &handles, parameters)?;
        Ok(self.execute(command)?.parameters.to_vec())
    }
}
