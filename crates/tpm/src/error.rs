//! What can go wrong with a TPM: the wire, the TPM's own refusal, or an answer that is not what the
//! specification says.

use std::{fmt, io};

use thiserror::Error;
use tpm2_protocol::data::{TpmCc, TpmRc, TpmRcBase};

/// Why bytes are not the TPM structure they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A length field exceeds what the specification or this implementation allows.
    #[error("a length field exceeds its limit")]
    TooLong,
    /// A TPMS_ATTEST does not begin with TPM_GENERATED_VALUE: not made by a TPM.
    #[error("the attestation does not begin with TPM_GENERATED_VALUE")]
    Magic,
    /// Bytes are left over.
    #[error("bytes are left over after the structure")]
    Trailing,
    /// The bytes end inside the structure.
    #[error("the bytes end inside the structure")]
    Truncated,
    /// A well-formed structure with an algorithm or type that is not supported here.
    #[error("unsupported {what} 0x{value:04x}")]
    Unsupported {
        /// What the value stands for.
        what: &'static str,
        /// The value on the wire.
        value: u32,
    },
    /// A field has a value that its type does not allow.
    #[error("the field {what} has a value that is not allowed")]
    Value {
        /// The field.
        what: &'static str,
    },
}

/// Why a command did not reach the TPM or its answer did not come back.
#[derive(Debug, Error)]
pub enum TransportError {
    /// Another client holds the TPM and did not let go within the time allowed.
    #[error("the TPM is held by another client")]
    Busy,
    /// The TPM or its socket could not be opened.
    #[error("cannot open the TPM at {address}")]
    Open {
        /// Where it should have been.
        address: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The exchange broke.
    #[error("the exchange with the TPM broke")]
    Io(#[source] io::Error),
    /// The answer's header contradicts itself.
    #[error("the TPM's answer has no valid header")]
    Frame,
    /// A running vTPM is between STOP and INIT: no command can be injected now.
    #[error("the vTPM is being reset")]
    Resetting,
}

/// A TPM_RC as it came, with its name for people.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

impl ResponseCode {
    /// TPM_RC_INITIALIZE: TPM2_Startup is due, or was not.
    pub const INITIALIZE: Self = Self(0x100);
    /// TPM_RC_OBJECT_MEMORY: all transient slots are taken.
    pub const OBJECT_MEMORY: Self = Self(0x902);
    /// TPM_RC_RETRY: send the command again.
    pub const RETRY: Self = Self(0x922);

    fn base(self) -> Option<TpmRcBase> {
        TpmRc::try_from(self.0).ok().map(|rc| rc.base())
    }

    /// A policy was not satisfied: PCRs, NV value, clock or approval differ from what the object
    /// was sealed to (TPM_RC_POLICY_FAIL, TPM_RC_POLICY, TPM_RC_PCR_CHANGED, TPM_RC_VALUE of a
    /// policy command are told apart by the command).
    #[must_use]
    pub fn is_policy_refusal(self) -> bool {
        matches!(
            self.base(),
            Some(TpmRcBase::PolicyFail | TpmRcBase::Policy | TpmRcBase::PcrChanged)
        )
    }

    /// The authorization value is wrong (TPM_RC_AUTH_FAIL, TPM_RC_BAD_AUTH).
    #[must_use]
    pub fn is_auth_failure(self) -> bool {
        matches!(self.base(), Some(TpmRcBase::AuthFail | TpmRcBase::BadAuth))
    }

    /// The handle names nothing (TPM_RC_HANDLE).
    #[must_use]
    pub fn is_no_such_handle(self) -> bool {
        matches!(self.base(), Some(TpmRcBase::Handle))
    }

    /// An NV index that should not exist does (TPM_RC_NV_DEFINED).
    #[must_use]
    pub fn is_nv_defined(self) -> bool {
        matches!(self.base(), Some(TpmRcBase::NvDefined))
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TpmRc::try_from(self.0) {
            Ok(rc) => write!(f, "{rc} (0x{:03x})", self.0),
            Err(_) => write!(f, "0x{:03x}", self.0),
        }
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a command in an error, as the TCG writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommandName(pub(crate) TpmCc);

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.to_string();
        write!(f, "TPM2_{}", name.strip_prefix("TPM_CC_").unwrap_or(&name))
    }
}

impl fmt::Debug for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a TPM operation has no result.
#[derive(Debug, Error)]
pub enum TpmError {
    /// The session's HMAC over the response is wrong: something sits between us and the TPM.
    #[error("the response to {command} is not authentic")]
    Authenticity {
        /// The command that was sent.
        command: CommandName,
    },
    /// The TPM refused the command.
    #[error("the TPM refused {command}: {code}")]
    Command {
        /// The command that was sent.
        command: CommandName,
        /// The TPM's response code.
        code: ResponseCode,
    },
    /// A software step failed (a point not on its curve, an unusable key).
    #[error("cryptography: {0}")]
    Crypto(&'static str),
    /// Another party's transient object came back from ContextLoad under another handle.
    #[error("a displaced object could not be put back under its handle 0x{handle:08x}")]
    Displaced {
        /// The handle it had.
        handle: u32,
    },
    /// An answer or a structure could not be parsed.
    #[error("malformed {what}")]
    Malformed {
        /// Which structure.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// An NV index is not defined.
    #[error("NV index 0x{index:08x} is not defined")]
    NoIndex {
        /// The index.
        index: u32,
    },
    /// The TPM cannot allocate these PCR banks.
    #[error("the TPM has no room for these PCR banks")]
    NoRoom,
    /// A policy step lacks what is needed to satisfy it (an approval's signature).
    #[error("the policy cannot be satisfied: {0}")]
    Policy(&'static str),
    /// PCRs kept changing while they were read and quoted.
    #[error("PCRs changed while they were being quoted")]
    Unstable,
    /// A value does not fit into a TPM command.
    #[error("a value does not fit into a TPM command")]
    TooLong,
    /// The wire.
    #[error("no exchange with the TPM")]
    Transport(#[from] TransportError),
}

impl TpmError {
    /// The TPM's response code, if the TPM refused.
    #[must_use]
    pub const fn code(&self) -> Option<ResponseCode> {
        if let Self::Command { code, .. } = self { Some(*code) } else { None }
    }

    /// Whether the TPM said that a policy does not hold: PCRs, NV contents or clock differ, or the
    /// approval is not the key's.
    #[must_use]
    pub fn is_policy_refusal(&self) -> bool {
        let Self::Command { command, code } = self else {
            return false;
        };
        let compares = matches!(command.0, TpmCc::PolicyPcr | TpmCc::PolicyAuthorize);
        let verifies = command.0 == TpmCc::VerifySignature;
        (compares && code.base() == Some(TpmRcBase::Value))
            || (verifies && code.base() == Some(TpmRcBase::Signature))
            || code.is_policy_refusal()
    }

    /// For `map_err`: a structure `what` is malformed.
    pub(crate) const fn malformed(what: &'static str) -> impl Fn(Malformed) -> Self {
        move |source| Self::Malformed { what, source }
    }
}
