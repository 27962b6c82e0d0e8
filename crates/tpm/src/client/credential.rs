//! Credential activation: the TPM side of enrolment.

use model::Secret;
use tpm2_protocol::data::TpmCc;

use super::{Command, Hierarchy, Object, Tpm};
use crate::{
    auth::{Auth, AuthValue, EMPTY},
    error::TpmError,
    policy::Policy,
    sealed::Credential,
    wire::Writer,
};

impl Tpm {
    /// TPM2_ActivateCredential with a default EK (PolicySecret of the endorsement hierarchy, whose
    /// authValue is `endorsement`). The secret comes back encrypted to a session salted with the EK.
    ///
    /// # Errors
    /// [`TpmError`]; TPM_RC_INTEGRITY if the credential is for another EK or another AK Name.
    pub fn activate_credential(
        &mut self,
        ak: &Object,
        ak_auth: &AuthValue,
        ek: &Object,
        endorsement: &AuthValue,
        credential: &Credential,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let mut session = self.start_policy_session(Some(ek))?;
        Policy::new().secret(Hierarchy::Endorsement, endorsement).satisfy(self, &mut session)?;
        let mut parameters = Writer::new();
        parameters.sized(&credential.id_object).sized(&credential.encrypted_seed);
        let handles = [ak.entity(), ek.entity()];
        let mut auths = [Auth::Password(ak_auth), Auth::Session(&mut session, &EMPTY)];
        let command =
            Command::authorized(TpmCc::ActivateCredential, &handles, parameters, &mut auths)?;
        let response = self.execute(command.hiding(false, true))?;
        let secret =
            response.reader().sized(64).map_err(TpmError::malformed("credential"))?.to_vec();
        self.end_session(session)?;
        Ok(secret.into())
    }
}
