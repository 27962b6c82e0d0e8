//! Why a guest's client is not served: one enum, with names for the audit log and hints.

use model::Digest;
use thiserror::Error;

/// A rule that a client's proof broke. Alphabetical.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChannelRejection {
    /// The client's program is not an approved one, or was never measured.
    #[error("the client is not an approved one{}", found.map(|found| format!(": {found}")).unwrap_or_default())]
    ClientTampered {
        /// What was measured at its place.
        found: Option<Digest>,
    },
    /// The authority has no good verdict on the guest.
    #[error("the guest is not affirmed: {0}")]
    GuestNotAffirmed(&'static str),
    /// The list is malformed, or does not lead to the quoted PCR 10.
    #[error("the IMA list is not what was measured: {0}")]
    ImaLogDisagrees(String),
    /// The quoted PCRs are not those that the agent observed in this VM.
    #[error("the quoted PCRs are not those that were observed in this VM")]
    MeasurementsDiffer,
    /// Not signed by the client's AK, no quote, or not over all PCRs.
    #[error("the quote does not count: {0}")]
    QuoteInvalid(String),
    /// Made for another connection.
    #[error("the quote was made on another connection")]
    QuoteRelayed,
    /// Made for another challenge, or too late.
    #[error("the quote is not fresh: {0}")]
    QuoteReplayed(&'static str),
    /// Something ran in the guest that is not approved.
    #[error("`{path}` ran in the guest and is not approved: {found}")]
    SoftwareUnknown {
        /// Its path, made harmless.
        path: String,
        /// Its digest, or why there is none.
        found: String,
    },
    /// The vTPM is not that of the VM whose port it is.
    #[error("the vTPM is not that of this VM: {0}")]
    VtpmForeign(String),
}

impl ChannelRejection {
    /// The refusal's name on the wire and in the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ClientTampered { .. } => "client-tampered",
            Self::GuestNotAffirmed(_) => "guest-not-affirmed",
            Self::ImaLogDisagrees(_) => "ima-log-disagrees",
            Self::MeasurementsDiffer => "measurements-differ",
            Self::QuoteInvalid(_) => "quote-invalid",
            Self::QuoteRelayed => "quote-relayed",
            Self::QuoteReplayed(_) => "quote-replayed",
            Self::SoftwareUnknown { .. } => "guest-software-unknown",
            Self::VtpmForeign(_) => "vtpm-foreign",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::ClientTampered { .. } => {
                "install the approved client in the guest and restart it, or approve the new one in `guest.clients`"
            }
            Self::GuestNotAffirmed(_) => "see why: `vouchsafe vm attest NAME`",
            Self::ImaLogDisagrees(_) => {
                "the guest lies about its own log, or its IMA policy came too late: inspect the guest"
            }
            Self::MeasurementsDiffer | Self::VtpmForeign(_) => {
                "another VM's vTPM speaks on this port: look for a relay in the guest"
            }
            Self::QuoteInvalid(_) => "the proof was altered, or made by another program: update it",
            Self::QuoteRelayed | Self::QuoteReplayed(_) => {
                "a proof was passed on: look for a relay between client and trust service"
            }
            Self::SoftwareUnknown { .. } => {
                "if it belongs there, approve its digest in `guest.software`; restart the guest"
            }
        }
    }
}
