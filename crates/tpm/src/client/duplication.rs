//! Objects that go from one TPM into another (part 1, section 23), and key agreement.

use model::Secret;
use tpm2_protocol::data::TpmCc;

use super::{Command, Object, Tpm};
use crate::{
    auth::{Auth, EMPTY},
    error::{Malformed, TpmError},
    public::padded,
    sealed::{Duplicate, ImportBlob, KeyBlob},
    session::Session,
    wire::{Reader, Writer},
};

/// The inner wrapper: AES-128-CFB (TPMT_SYM_DEF_OBJECT).
fn inner(parameters: &mut Writer) {
    parameters.u16(0x0006).u16(128).u16(0x0043);
}

impl Tpm {
    /// TPM2_Duplicate of `object` for `parent`, whose public area is loaded here. `session` is a
    /// policy session that satisfies the object's policy; the inner wrapper's key, which the TPM
    /// makes, is encrypted on the way if it is salted.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::is_policy_refusal`] if the policy names another parent.
    pub fn duplicate(
        &mut self,
        object: &Object,
        session: &mut Session,
        parent: &Object,
    ) -> Result<Duplicate, TpmError> {
        let mut parameters = Writer::small();
        parameters.u16(0);
        inner(&mut parameters);
        let handles = [object.entity(), parent.entity()];
        let mut auths = [Auth::Session(session, &EMPTY)];
        let command = Command::authorized(TpmCc::Duplicate, &handles, parameters, &mut auths)?;
        let response = self.execute(command.hiding(false, true))?;
        let public = object.public().clone();
        let parse = |mut reader: Reader<'_>| {
            let inner = Secret::new(reader.sized(32)?.to_vec());
            let duplicate = reader.sized(2048)?.to_vec();
            let encrypted_seed = reader.sized(512)?.to_vec();
            reader.finish()?;
            Ok(Duplicate { blob: ImportBlob { public, duplicate, encrypted_seed }, inner })
        };
        parse(response.reader()).map_err(TpmError::malformed("duplicate"))
    }

    /// TPM2_Import of what [`Self::duplicate`] made for `parent`, a storage key with an empty
    /// authValue; the inner wrapper's key is encrypted on the way.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn import_duplicate(
        &mut self,
        parent: &Object,
        duplicate: &Duplicate,
    ) -> Result<KeyBlob, TpmError> {
        let blob = &duplicate.blob;
        let mut parameters = Writer::new();
        parameters.sized(duplicate.inner.expose());
        blob.public.write(&mut parameters);
        parameters.sized(&blob.duplicate).sized(&blob.encrypted_seed);
        inner(&mut parameters);
        let mut session = self.start_hmac_session(parent)?;
        let auth = Auth::Session(&mut session, &EMPTY);
        let imported = self.import_with(parent, auth, parameters, blob)?;
        self.end_session(session)?;
        Ok(imported)
    }

    /// TPM2_ECDH_ZGen: the x coordinate that `key` (empty authValue) and a P-256 point agree on;
    /// encrypted on the way if `session` is salted.
    ///
    /// # Errors
    /// [`TpmError`], also if the point is not on the curve.
    pub fn ecdh_zgen(
        &mut self,
        key: &Object,
        session: &mut Session,
        (x, y): (&[u8; 32], &[u8; 32]),
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let mut point = Writer::small();
        point.sized(x).sized(y);
        let mut parameters = Writer::small();
        parameters.sized(&point.finish()?);
        let handles = [key.entity()];
        let mut auths = [Auth::Session(session, &EMPTY)];
        let command = Command::authorized(TpmCc::EcdhZGen, &handles, parameters, &mut auths)?;
        let response = self.execute(command.hiding(true, true))?;
        let agreed = |mut reader: Reader<'_>| {
            let point = reader.sized(68)?;
            reader.finish()?;
            let mut reader = Reader::new(point);
            let x = padded(reader.sized(32)?)?;
            reader.sized(32)?;
            reader.finish()?;
            Ok::<_, Malformed>(Secret::new(x.to_vec()))
        };
        agreed(response.reader()).map_err(TpmError::malformed("agreed point"))
    }
}
