//! Starting and ending sessions; the salt (part 1, 19.6.8 and annexes B.10 and C.6).

use tpm2_protocol::data::TpmCc;

use super::{Command, Entity, Object, Tpm, handle};
use crate::{crypt, error::TpmError, session::Session, software, wire::Writer};

const HMAC: u8 = 0x00;
const POLICY: u8 = 0x01;

impl Tpm {
    /// Starts an HMAC session salted to `key`, a decryption key in this TPM (SRK or EK). Whoever
    /// listens on the way to the TPM learns neither authValues nor encrypted parameters, as long as
    /// `key`'s public area is known to be that of this TPM.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn start_hmac_session(&mut self, key: &Object) -> Result<Session, TpmError> {
        self.start_session(HMAC, Some(key))
    }

    /// Starts a policy session, salted if a key is given.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn start_policy_session(&mut self, key: Option<&Object>) -> Result<Session, TpmError> {
        self.start_session(POLICY, key)
    }

    fn start_session(&mut self, kind: u8, key: Option<&Object>) -> Result<Session, TpmError> {
        let (salt, encrypted_salt) = match key {
            Some(key) => {
                let (salt, encrypted) = software::seed_for(key.public(), "SECRET")?;
                (Some(salt), encrypted)
            }
            None => (None, Vec::new()),
        };
        let nonce_caller = crypt::random(32)?.to_vec();
        let mut parameters = Writer::new();
        parameters.sized(&nonce_caller).sized(&encrypted_salt).u8(kind);
        parameters.u16(0x0006).u16(128).u16(0x0043).u16(0x000b);
        let tpm_key = key.map_or(Entity::bare(handle::NULL), Object::entity);
        let handles = [tpm_key, Entity::bare(handle::NULL)];
        let command = Command::plain(TpmCc::StartAuthSession, &handles, parameters)?.returning(1);
        let response = self.execute(command)?;
        let handle = response.handle()?;
        self.open.push(handle);
        let mut reader = response.reader();
        let nonce_tpm = reader.sized(64).map_err(TpmError::malformed("nonceTPM"))?.to_vec();
        let session_key = salt.map_or_else(Vec::new, |salt| {
            crypt::kdfa(&salt, "ATH", &nonce_tpm, &nonce_caller, 256).to_vec()
        });
        Ok(Session {
            handle,
            is_policy: kind == POLICY,
            needs_auth_value: false,
            key: session_key.into(),
            nonce_tpm,
            nonce_caller,
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn end_session(&mut self, session: Session) -> Result<(), TpmError> {
        self.close(session.handle)
    }
}
