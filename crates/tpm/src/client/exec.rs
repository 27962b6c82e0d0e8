//! Building a command with its authorizations, sending it, and checking the response.

use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{Entity, Tpm, handle};
use crate::{
    auth::{Auth, AuthValue},
    crypt,
    error::{CommandName, Malformed, ResponseCode, TpmError},
    public::Name,
    session,
    wire::{Reader, Writer},
};

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

/// How often a command is sent again on TPM_RC_RETRY.
const RETRIES: u32 = 20;

/// One command before it is marshalled.
pub(super) struct Command<'a, 'b> {
    pub(super) code: TpmCc,
    pub(super) handles: &'a [Entity<'a>],
    pub(super) parameters: Zeroizing<Vec<u8>>,
    /// As many as the command has handles that need authorization; further ones only encrypt.
    pub(super) auths: &'a mut [Auth<'b>],
    /// The first handles, as many as need authorization.
    pub(super) authorized: usize,
    /// Whether the command's first parameter is a TPM2B that is worth hiding.
    pub(super) hide_request: bool,
    /// Whether the response's first parameter is one.
    pub(super) hide_response: bool,
    pub(super) response_handles: usize,
    /// The first entity's authValue after the command, where the command changes it.
    pub(super) auth_after: Option<&'a AuthValue>,
}

impl<'a, 'b> Command<'a, 'b> {
    /// A command without authorizations.
    pub(super) fn plain(
        code: TpmCc,
        handles: &'a [Entity<'a>],
        parameters: Writer,
    ) -> Result<Self, TpmError> {
        Ok(Self {
            code,
            handles,
            parameters: parameters.finish()?,
            auths: &mut [],
            authorized: 0,
            hide_request: false,
            hide_response: false,
            response_handles: 0,
            auth_after: None,
        })
    }

    /// A command whose first `auths.len()` handles are authorized.
    pub(super) fn authorized(
        code: TpmCc,
        handles: &'a [Entity<'a>],
        parameters: Writer,
        auths: &'a mut [Auth<'b>],
    ) -> Result<Self, TpmError> {
        let authorized = auths.len();
        Ok(Self { auths, authorized, ..Self::plain(code, handles, parameters)? })
    }

    pub(super) const fn hiding(mut self, request: bool, response: bool) -> Self {
        self.hide_request = request;
        self.hide_response = response;
        self
    }

    pub(super) const fn returning(mut self, handles: usize) -> Self {
        self.response_handles = handles;
        self
    }
}

/// A response's handles and parameters, already checked and decrypted.
pub(super) struct Response {
    pub(super) handles: Vec<u32>,
    pub(super) parameters: Zeroizing<Vec<u8>>,
}

impl Response {
    pub(super) fn handle(&self) -> Result<u32, TpmError> {
        let missing = TpmError::Malformed { what: "response", source: Malformed::Truncated };
        self.handles.first().copied().ok_or(missing)
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.parameters)
    }
}

/// Attributes and encryption duty of each authorization.
struct Plan {
    decrypt: Option<usize>,
    encrypt: Option<usize>,
}

impl Plan {
    fn new(command: &Command<'_, '_>) -> Self {
        let salted =
            |auth: &Auth<'_>| matches!(auth, Auth::Session(session, _) if session.is_salted());
        let carrier = command.auths.iter().position(salted);
        Self {
            decrypt: carrier.filter(|_| command.hide_request),
            encrypt: carrier.filter(|_| command.hide_response),
        }
    }

    fn attributes(&self, index: usize) -> u8 {
        let decrypt = if self.decrypt == Some(index) { session::DECRYPT } else { 0 };
        let encrypt = if self.encrypt == Some(index) { session::ENCRYPT } else { 0 };
        session::CONTINUE | decrypt | encrypt
    }
}

fn first_parameter(parameters: &mut [u8]) -> Option<&mut [u8]> {
    let (length, rest) = parameters.split_first_chunk_mut::<2>()?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*length)))
}

impl Tpm {
    /// Sends a command; on TPM_RC_RETRY again, and inside a scope, once more after making room if
    /// all transient slots are taken by others.
    pub(super) fn execute(&mut self, mut command: Command<'_, '_>) -> Result<Response, TpmError> {
        loop {
            let outcome = self.execute_once(&mut command);
            match &outcome {
                Err(error)
                    if error.code() == Some(ResponseCode::OBJECT_MEMORY)
                        && self.depth > 0
                        && !is_housekeeping(command.code)
                        && self.make_room()? => {}
                _ => return outcome,
            }
        }
    }

    fn execute_once(&mut self, command: &mut Command<'_, '_>) -> Result<Response, TpmError> {
        let plan = Plan::new(command);
        let mut retries = 0;
        loop {
            for auth in command.auths.iter_mut() {
                if let Auth::Session(session, _) = auth {
                    session.renew_nonce()?;
                }
            }
            let frame = frame(command, &plan)?;
            let response = Zeroizing::new(self.transport.transmit(&frame)?);
            let (code, body) = split_response(&response)?;
            match code {
                ResponseCode(0) => return accept(command, &plan, body),
                ResponseCode::RETRY if retries < RETRIES => {
                    retries += 1;
                    std::thread::sleep(std::time::Duration::from_millis(5 << retries.min(5)));
                }
                code => {
                    return Err(TpmError::Command { command: CommandName(command.code), code });
                }
            }
        }
    }
}

/// Commands that make room themselves.
fn is_housekeeping(code: TpmCc) -> bool {
    matches!(code, TpmCc::ContextSave | TpmCc::ContextLoad | TpmCc::FlushContext)
}

fn auth_value<'a>(auth: &'a Auth<'_>, index: usize, authorized: usize) -> &'a [u8] {
    match auth {
        Auth::Password(value) => value.expose(),
        Auth::Session(_, value) if index < authorized => value.expose(),
        Auth::Session(..) => &[],
    }
}

fn frame(command: &Command<'_, '_>, plan: &Plan) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let mut parameters = command.parameters.clone();
    if let Some((index, auth)) = plan.decrypt.and_then(|i| Some((i, command.auths.get(i)?)))
        && let Auth::Session(session, _) = auth
        && let Some(first) = first_parameter(&mut parameters)
    {
        session.encrypt(auth_value(auth, index, command.authorized), first)?;
    }
    let mut body = Writer::new();
    for entity in command.handles {
        body.u32(entity.handle);
    }
    if !command.auths.is_empty() {
        let area = authorization_area(command, plan, &parameters)?;
        body.u32(u32::try_from(area.len()).map_err(|_| TpmError::TooLong)?).bytes(&area);
    }
    body.bytes(&parameters);
    let body = body.finish()?;
    let tag = if command.auths.is_empty() { NO_SESSIONS } else { SESSIONS };
    let size = body.len().checked_add(10).and_then(|size| u32::try_from(size).ok());
    let mut frame = Writer::new();
    frame.u16(tag).u32(size.ok_or(TpmError::TooLong)?).u32(command.code.value()).bytes(&body);
    frame.finish()
}

fn authorization_area(
    command: &Command<'_, '_>,
    plan: &Plan,
    parameters: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let names: Vec<Name> = command
        .handles
        .iter()
        .map(|entity| entity.name.cloned().unwrap_or_else(|| Name::of_handle(entity.handle)))
        .collect();
    let code = command.code.value().to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![&code];
    parts.extend(names.iter().map(Name::as_bytes));
    parts.push(parameters);
    let cp_hash = crypt::sha256(&parts);
    let mut area = Writer::new();
    for (index, auth) in command.auths.iter().enumerate() {
        match auth {
            Auth::Password(value) => {
                area.u32(handle::PASSWORD).u16(0).u8(session::CONTINUE).sized(value.expose());
            }
            Auth::Session(session, _) => {
                let attributes = plan.attributes(index);
                let others = if index == 0 { foreign_nonces(command, plan) } else { Vec::new() };
                let value = auth_value(auth, index, command.authorized);
                let hmac = session.command_hmac(&cp_hash, attributes, value, &others);
                area.u32(session.handle).sized(&session.nonce_caller).u8(attributes).sized(&hmac);
            }
        }
    }
    area.finish()
}

/// nonceTPM of the decrypting and the encrypting session, where those are not the first: they go
/// into the first session's HMAC (part 1, 19.6.5).
fn foreign_nonces(command: &Command<'_, '_>, plan: &Plan) -> Vec<u8> {
    let decrypt = plan.decrypt.filter(|index| *index != 0);
    let encrypt = plan.encrypt.filter(|index| *index != 0 && plan.decrypt != Some(*index));
    [decrypt, encrypt]
        .into_iter()
        .flatten()
        .filter_map(|index| match command.auths.get(index)? {
            Auth::Session(session, _) => Some(session.nonce_tpm.clone()),
            Auth::Password(_) => None,
        })
        .flatten()
        .collect()
}

fn split_response(response: &[u8]) -> Result<(ResponseCode, &[u8]), TpmError> {
    let mut reader = Reader::new(response);
    let header = |reader: &mut Reader<'_>| Ok((reader.u16()?, reader.u32()?, reader.u32()?));
    let (_, size, code) = header(&mut reader).map_err(TpmError::malformed("response header"))?;
    if usize::try_from(size) != Ok(response.len()) {
        return Err(TpmError::Malformed { what: "response header", source: Malformed::Truncated });
    }
    Ok((ResponseCode(code), reader.rest()))
}

fn accept(command: &mut Command<'_, '_>, plan: &Plan, body: &[u8]) -> Result<Response, TpmError> {
    let malformed = TpmError::malformed("response");
    let mut reader = Reader::new(body);
    let mut handles = Vec::new();
    for _ in 0..command.response_handles {
        handles.push(reader.u32().map_err(&malformed)?);
    }
    if command.auths.is_empty() {
        return Ok(Response { handles, parameters: Zeroizing::new(reader.rest().to_vec()) });
    }
    let size = usize::try_from(reader.u32().map_err(&malformed)?).unwrap_or(usize::MAX);
    let mut parameters = Zeroizing::new(reader.bytes(size).map_err(&malformed)?.to_vec());
    let code = command.code.value().to_be_bytes();
    let rp_hash = crypt::sha256(&[&[0; 4], &code, &parameters]);
    let authorized = command.authorized;
    let mut decrypted = false;
    for (index, auth) in command.auths.iter_mut().enumerate() {
        let nonce = reader.sized(64).map_err(&malformed)?;
        let attributes = reader.u8().map_err(&malformed)?;
        let hmac = reader.sized(64).map_err(&malformed)?;
        if let Auth::Session(session, _) = auth {
            session.nonce_tpm = nonce.to_vec();
        }
        let value = match command.auth_after {
            Some(after) if index == 0 => after.expose(),
            _ => auth_value(auth, index, authorized),
        };
        if let Auth::Session(session, _) = &*auth {
            if !session.response_is_authentic(&rp_hash, attributes, value, hmac) {
                return Err(TpmError::Authenticity { command: CommandName(command.code) });
            }
            if plan.encrypt == Some(index)
                && let Some(first) = first_parameter(&mut parameters)
            {
                session.decrypt(value, first)?;
                decrypted = true;
            }
        }
    }
    reader.finish().map_err(&malformed)?;
    if plan.encrypt.is_some() && !decrypted {
        return Err(TpmError::Malformed { what: "response", source: Malformed::Truncated });
    }
    Ok(Response { handles, parameters })
}
