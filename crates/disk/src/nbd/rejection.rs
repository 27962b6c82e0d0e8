//! Why a connection is ended by us.

use thiserror::Error;

/// A peer broke the protocol or our limits; its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The client set a handshake flag that does not exist.
    #[error("unknown client flags {0:#x}")]
    ClientFlags(u32),
    /// `NBD_OPT_EXPORT_NAME` asked for an export that is not here; it has no error reply.
    #[error("no such export")]
    ExportUnknown,
    /// The client sent nothing for too long before transmission.
    #[error("the negotiation took too long")]
    NegotiationTimeout,
    /// An option did not start with its magic number.
    #[error("an option without its magic number")]
    OptionMagic,
    /// An option announced more data than any option needs.
    #[error("an option of {0} bytes")]
    OptionTooLong(u32),
    /// The client negotiates without end.
    #[error("too many options")]
    OptionsTooMany,
    /// A request did not start with its magic number.
    #[error("a request without its magic number")]
    RequestMagic,
    /// All places are taken.
    #[error("too many connections")]
    TooManyConnections,
    /// A write announced more data than the export's maximum.
    #[error("a write of {0} bytes")]
    WriteTooLong(u32),
    /// The peer runs as a user who may not connect.
    #[error("a peer of another user")]
    WrongUser,
}

impl Rejection {
    /// The name of the refusal, in kebab-case, for machines and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ClientFlags(_) => "nbd-client-flags",
            Self::ExportUnknown => "nbd-export-unknown",
            Self::NegotiationTimeout => "nbd-negotiation-timeout",
            Self::OptionMagic => "nbd-option-magic",
            Self::OptionTooLong(_) => "nbd-option-too-long",
            Self::OptionsTooMany => "nbd-options-too-many",
            Self::RequestMagic => "nbd-request-magic",
            Self::TooManyConnections => "too-many-connections",
            Self::WriteTooLong(_) => "nbd-write-too-long",
            Self::WrongUser => "wrong-user",
        }
    }
}
