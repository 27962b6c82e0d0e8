//! Sealing, unsealing, importing, and taking a session through a policy. Parents are storage keys
//! with an empty authValue, as the SRK is; they also salt the sessions.

use model::Secret;
use tpm2_protocol::data::TpmCc;

use super::{Command, Entity, Object, Tpm};
use crate::{
    auth::{Auth, AuthValue, EMPTY},
    crypt,
    error::TpmError,
    pcr::PcrSelection,
    policy::{INCLUDE_OBJECT, Policy, Step},
    public::Public,
    sealed::{ImportBlob, KeyBlob},
    session::Session,
    signature::Signature,
    template,
    wire::Writer,
};

impl Tpm {
    /// Seals at most 128 bytes under `parent` to the policy with this digest; encrypted on the way.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn seal(
        &mut self,
        parent: &Object,
        policy: &[u8; 32],
        data: &Secret<Vec<u8>>,
    ) -> Result<KeyBlob, TpmError> {
        let mut session = self.start_hmac_session(parent)?;
        let auth = Auth::Session(&mut session, &EMPTY);
        let template = template::sealed(policy);
        let blob = self.create(parent, auth, &template, &EMPTY, data.expose())?;
        self.end_session(session)?;
        Ok(blob)
    }

    /// Unseals; encrypted on the way. A refusal by the policy is told by
    /// [`TpmError::is_policy_refusal`].
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn unseal(
        &mut self,
        parent: &Object,
        blob: &KeyBlob,
        policy: &Policy,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        self.scoped(|tpm| {
            let object = tpm.load(parent, Auth::none(), blob)?;
            let mut session = tpm.start_policy_session(Some(parent))?;
            policy.satisfy(tpm, &mut session)?;
            tpm.unseal_with(&object, Auth::Session(&mut session, &EMPTY))
        })
    }

    /// TPM2_Unseal with an authorization of the caller's making.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn unseal_with(
        &mut self,
        object: &Object,
        auth: Auth<'_>,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let handles = [object.entity()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::Unseal, &handles, Writer::small(), &mut auths)?;
        let response = self.execute(command.hiding(false, true))?;
        let data = response.reader().sized(1024).map_err(TpmError::malformed("sealed data"))?;
        Ok(data.to_vec().into())
    }

    /// TPM2_Import of what [`crate::software::wrap_sealed`] made for `parent`.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn import(&mut self, parent: &Object, blob: &ImportBlob) -> Result<KeyBlob, TpmError> {
        let mut parameters = Writer::new();
        parameters.u16(0);
        blob.public.write(&mut parameters);
        parameters.sized(&blob.duplicate).sized(&blob.encrypted_seed).u16(0x0010);
        self.import_with(parent, Auth::none(), parameters, blob)
    }

    pub(super) fn import_with(
        &mut self,
        parent: &Object,
        auth: Auth<'_>,
        parameters: Writer,
        blob: &ImportBlob,
    ) -> Result<KeyBlob, TpmError> {
        let handles = [parent.entity()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::Import, &handles, parameters, &mut auths)?;
        let response = self.execute(command.hiding(true, false))?;
        let private =
            response.reader().sized(2048).map_err(TpmError::malformed("imported key"))?.to_vec();
        Ok(KeyBlob { public: blob.public.clone(), private })
    }

    /// TPM2_PolicyGetDigest.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn policy_digest(&mut self, session: &Session) -> Result<[u8; 32], TpmError> {
        let handles = [Entity::bare(session.handle())];
        let command = Command::plain(TpmCc::PolicyGetDigest, &handles, Writer::small())?;
        let response = self.execute(command)?;
        let digest = response.reader().sized(32).map_err(TpmError::malformed("policy digest"))?;
        let wrong = crate::error::Malformed::Value { what: "size" };
        digest.try_into().map_err(|_| TpmError::malformed("policy digest")(wrong))
    }

    fn policy_command(
        &mut self,
        code: TpmCc,
        session: &Session,
        parameters: Writer,
    ) -> Result<(), TpmError> {
        let handles = [Entity::bare(session.handle())];
        self.execute(Command::plain(code, &handles, parameters)?).map(|_| ())
    }

    fn policy_pcr(
        &mut self,
        session: &Session,
        selection: &PcrSelection,
        digest: &[u8; 32],
    ) -> Result<(), TpmError> {
        let mut parameters = Writer::small();
        parameters.sized(digest);
        selection.write(&mut parameters);
        self.policy_command(TpmCc::PolicyPcr, session, parameters)
    }

    fn policy_authorize(
        &mut self,
        session: &Session,
        key: &Public,
        policy_ref: &[u8],
        approval: &Signature,
    ) -> Result<(), TpmError> {
        let approved = self.policy_digest(session)?;
        let message = Policy::approval_message(&approved, policy_ref);
        let loaded = self.load_external(key)?;
        let ticket = self.verify_signature(&loaded, &message, approval);
        self.flush(&loaded)?;
        let mut parameters = Writer::new();
        parameters.sized(&approved).sized(policy_ref).sized(key.name().as_bytes());
        parameters.bytes(&ticket?);
        self.policy_command(TpmCc::PolicyAuthorize, session, parameters)
    }

    fn policy_secret(
        &mut self,
        session: &Session,
        entity: Entity<'_>,
        auth: &AuthValue,
    ) -> Result<(), TpmError> {
        let mut parameters = Writer::small();
        parameters.u16(0).u16(0).u16(0).u32(0);
        let handles = [entity, Entity::bare(session.handle())];
        let mut auths = [Auth::Password(auth)];
        let command = Command::authorized(TpmCc::PolicySecret, &handles, parameters, &mut auths)?;
        self.execute(command).map(|_| ())
    }

    fn policy_nv(&mut self, session: &Session, step: &Step) -> Result<(), TpmError> {
        let Step::Nv { index, auth, operand, offset, comparison } = step else {
            return Ok(());
        };
        let name = index.name();
        let entity = Entity { handle: index.index, name: Some(&name) };
        let mut parameters = Writer::small();
        parameters.sized(operand).u16(*offset).u16(comparison.code());
        let handles = [entity, entity, Entity::bare(session.handle())];
        let mut auths = [Auth::Password(auth)];
        let command = Command::authorized(TpmCc::PolicyNv, &handles, parameters, &mut auths)?;
        self.execute(command).map(|_| ())
    }
}

impl Policy {
    /// Takes a policy session through the steps, in order.
    ///
    /// # Errors
    /// [`TpmError::Policy`] if an approval is missing; the TPM's refusal if a step does not hold.
    pub fn satisfy(&self, tpm: &mut Tpm, session: &mut Session) -> Result<(), TpmError> {
        for step in self.steps() {
            match step {
                Step::AuthValue => {
                    tpm.policy_command(TpmCc::PolicyAuthValue, session, Writer::small())?;
                    session.needs_auth_value = true;
                }
                Step::Authorize { key, policy_ref, approval } => {
                    let approval =
                        approval.as_ref().ok_or(TpmError::Policy("an approval is missing"))?;
                    tpm.policy_authorize(session, key, policy_ref, approval)?;
                }
                Step::CounterTimer { operand, offset, comparison } => {
                    let mut parameters = Writer::small();
                    parameters.sized(operand).u16(*offset).u16(comparison.code());
                    tpm.policy_command(TpmCc::PolicyCounterTimer, session, parameters)?;
                }
                Step::DuplicationSelect { object, parent } => {
                    let mut parameters = Writer::small();
                    parameters.sized(object.as_bytes()).sized(parent.as_bytes());
                    parameters.u8(INCLUDE_OBJECT);
                    tpm.policy_command(TpmCc::PolicyDuplicationSelect, session, parameters)?;
                }
                Step::Nv { .. } => tpm.policy_nv(session, step)?,
                Step::Pcr { selection, digest } => tpm.policy_pcr(session, selection, digest)?,
                Step::Secret { hierarchy, auth } => {
                    tpm.policy_secret(session, (*hierarchy).into(), auth)?;
                }
            }
        }
        let reached = tpm.policy_digest(session)?;
        if crypt::same(&reached, &self.digest()) {
            Ok(())
        } else {
            Err(TpmError::Policy("the TPM's digest is not the computed one"))
        }
    }
}
