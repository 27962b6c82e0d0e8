//! Why evidence is refused: one enum for both appraisals. The code is what goes on the wire and into
//! the audit log; the text and the hint are for operators only.

use model::{Digest, VmId};
use thiserror::Error;
use tpm::{Malformed, Name, Purpose, SignatureFault};

use crate::{
    eventlog::{EventType, LogMalformed},
    ima::ImaMalformed,
};

/// A rule that evidence broke. Alphabetical.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The evidence was signed by another AK than the enrolled one.
    #[error("the evidence names the AK {found}, enrolled is {enrolled}")]
    AkNotEnrolled {
        /// Name of the AK in the evidence, if it is one.
        found: String,
        /// Name of the enrolled AK.
        enrolled: Name,
    },
    /// A key that must not be enrolled as an AK.
    #[error("the AK is not {}", .missing.join(", not "))]
    AkWrongAttributes {
        /// What it lacks.
        missing: Vec<&'static str>,
    },
    /// The host's event log cannot be read.
    #[error("the event log cannot be read: {0}")]
    EventLogMalformed(LogMalformed),
    /// The log does not lead to the PCRs that the TPM quoted.
    #[error("the event log leads to PCR digest {replayed}, the TPM quoted {quoted}")]
    EventLogMismatch {
        /// What the TPM signed.
        quoted: Digest,
        /// What follows from the log.
        replayed: Digest,
    },
    /// A required event is not in the log.
    #[error("the reference values require {kind} `{name}` in PCR {pcr}, the log has none")]
    EventMissing {
        /// Its PCR.
        pcr: u8,
        /// Its type.
        kind: EventType,
        /// Its name.
        name: String,
    },
    /// An event that the reference values do not have.
    #[error("{kind} `{name}` in PCR {pcr} with digest {digest} is not in the reference values")]
    EventUnknown {
        /// Its PCR.
        pcr: u8,
        /// Its type.
        kind: EventType,
        /// Its name, from the log.
        name: String,
        /// Its digest.
        digest: Digest,
    },
    /// A predicted extend did not come.
    #[error("the guest did not measure `{name}` into PCR {pcr}")]
    GuestEventMissing {
        /// Its PCR.
        pcr: u8,
        /// The prediction's name for it.
        name: String,
    },
    /// The guest measured something that its image does not predict.
    #[error(
        "extend {position} of PCR {pcr} with digest {digest} is not predicted{}{}",
        or_else(instead_of.as_deref(), "; expected was "),
        or_else(description.as_deref(), "; the guest's log says ")
    )]
    GuestEventUnknown {
        /// Its place in the observed list, from 0.
        position: usize,
        /// Its PCR.
        pcr: u8,
        /// Its digest.
        digest: Digest,
        /// What should have come instead.
        instead_of: Option<String>,
        /// What the guest's own log says at this place, if it agrees on the digest.
        description: Option<String>,
    },
    /// The guest's own log has something else than was observed.
    #[error("entry {entry} of the guest's {log} is not what was observed")]
    GuestLogDisagrees {
        /// `event log` or `IMA list`.
        log: &'static str,
        /// The entry, from 0, among those that extend PCRs.
        entry: usize,
    },
    /// The guest's own log cannot be read.
    #[error("the guest's {log} cannot be read: {reason}")]
    GuestLogMalformed {
        /// `event log` or `IMA list`.
        log: &'static str,
        /// Why.
        reason: String,
    },
    /// The guest's own log lacks what was observed.
    #[error("the guest's {log} has {entries} entries, {observed} were observed")]
    GuestLogTruncated {
        /// `event log` or `IMA list`.
        log: &'static str,
        /// Entries in the guest's log.
        entries: usize,
        /// Extends that were observed.
        observed: usize,
    },
    /// A guest's verdict that is not good, or no longer.
    #[error("the guest has no good verdict: {0}")]
    GuestNotTrusted(&'static str),
    /// A guest is never better than its host.
    #[error("the host has no good verdict: {0}")]
    HostNotTrusted(&'static str),
    /// The guest extended so often that the list was cut.
    #[error("the guest extended PCRs more often than is recorded")]
    LogOverflow,
    /// The proxy met a command that it could not see into.
    #[error("the guest's measurements could not be observed: {0}")]
    LogUnobservable(String),
    /// The nonce was answered too late.
    #[error("the nonce expired at {expired_at}, it is {now}")]
    NonceExpired {
        /// End of the challenge, Unix milliseconds.
        expired_at: u64,
        /// Now, Unix milliseconds.
        now: u64,
    },
    /// The evidence answers another challenge.
    #[error("the evidence answers another nonce than the one that was given out")]
    NonceUnknown,
    /// The observed list does not lead to the PCRs that the vTPM quoted.
    #[error("the observed list leads to PCR digest {replayed}, the vTPM quoted {quoted}")]
    ObservedListMismatch {
        /// What the vTPM signed.
        quoted: Digest,
        /// What follows from the list.
        replayed: Digest,
    },
    /// The quote covers a bank that is not relied on.
    #[error("the quote covers PCRs of the bank {0}, only sha256 may be quoted")]
    PcrBankUnsupported(&'static str),
    /// The quote does not cover what must be appraised.
    #[error("the quote does not cover PCRs {pcrs:?}")]
    PcrMissing {
        /// Required and not quoted.
        pcrs: Vec<u8>,
    },
    /// The prediction leaves a PCR open that policy wants predicted.
    #[error("nothing is predicted for PCR {pcr}: {reason}")]
    PcrUnpredicted {
        /// The PCR.
        pcr: u8,
        /// Why it cannot be predicted.
        reason: String,
    },
    /// What is presented as a quote is none.
    #[error("the quote is malformed: {0}")]
    QuoteMalformed(Malformed),
    /// A quote of this purpose, over another nonce, session key or subject (relay, replay).
    #[error("the quote is not bound to this nonce and session")]
    QuoteNotBound,
    /// The AK did not sign this.
    #[error("the quote is not signed by the enrolled AK: {0}")]
    QuoteSignatureInvalid(String),
    /// The AK signed an attestation that is no quote.
    #[error("the AK signed an attestation of another type than a quote")]
    QuoteTypeUnexpected,
    /// A quote that was made for another protocol.
    #[error("the quote was made for {}, not for {}", .made_for.name(), .wanted.name())]
    QuoteWrongPurpose {
        /// What it was made for.
        made_for: Purpose,
        /// What is asked for.
        wanted: Purpose,
    },
    /// The vTPM is not the one that the authority certified for this VM in this epoch.
    #[error("the vTPM's binding is invalid: {0}")]
    VtpmBindingInvalid(String),
    /// The vTPM's EK certificate is that of another VM.
    #[error("the vTPM's EK certificate is for VM {found}, not {expected}")]
    VtpmEkOtherVm {
        /// The VM in the certificate.
        found: VmId,
        /// The VM that is appraised.
        expected: VmId,
    },
}

fn or_else(text: Option<&str>, lead: &str) -> String {
    text.map(|text| format!("{lead}`{text}`")).unwrap_or_default()
}

impl Rejection {
    /// The refusal's name on the wire and in the audit log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AkNotEnrolled { .. } => "ak-not-enrolled",
            Self::AkWrongAttributes { .. } => "ak-wrong-attributes",
            Self::EventLogMalformed(_) => "event-log-malformed",
            Self::EventLogMismatch { .. } => "event-log-mismatch",
            Self::EventMissing { .. } => "event-missing",
            Self::EventUnknown { .. } => "event-unknown",
            Self::GuestEventMissing { .. } => "guest-event-missing",
            Self::GuestEventUnknown { .. } => "guest-event-unknown",
            Self::GuestLogDisagrees { .. } => "guest-log-disagrees",
            Self::GuestLogMalformed { .. } => "guest-log-malformed",
            Self::GuestLogTruncated { .. } => "guest-log-truncated",
            Self::GuestNotTrusted(_) => "guest-not-trusted",
            Self::HostNotTrusted(_) => "host-not-trusted",
            Self::LogOverflow => "log-overflow",
            Self::LogUnobservable(_) => "log-unobservable",
            Self::NonceExpired { .. } => "nonce-expired",
            Self::NonceUnknown => "nonce-unknown",
            Self::ObservedListMismatch { .. } => "observed-list-mismatch",
            Self::PcrBankUnsupported(_) => "pcr-bank-unsupported",
            Self::PcrMissing { .. } => "pcr-missing",
            Self::PcrUnpredicted { .. } => "pcr-unpredicted",
            Self::QuoteMalformed(_) => "quote-malformed",
            Self::QuoteNotBound => "quote-not-bound",
            Self::QuoteSignatureInvalid(_) => "quote-signature-invalid",
            Self::QuoteTypeUnexpected => "quote-type-unexpected",
            Self::QuoteWrongPurpose { .. } => "quote-wrong-purpose",
            Self::VtpmBindingInvalid(_) => "vtpm-binding-invalid",
            Self::VtpmEkOtherVm { .. } => "vtpm-ek-other-vm",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::AkNotEnrolled { .. } => {
                "if the host's TPM was cleared or replaced, enrol the host anew with a new token"
            }
            Self::AkWrongAttributes { .. } => {
                "let the host agent create its AK; keys made elsewhere are not enrolled"
            }
            Self::EventLogMalformed(_) | Self::EventLogMismatch { .. } => {
                "the log was edited or a PCR was extended outside it: inspect the host, then reboot"
            }
            Self::EventMissing { .. } => {
                "a part did not start on the host, or the reference values are those of another one"
            }
            Self::EventUnknown { .. } => {
                "if the part was updated on purpose, sign new reference values that include it"
            }
            Self::GuestEventMissing { .. } => {
                "the guest has not finished its boot or booted another way: look at its console"
            }
            Self::GuestEventUnknown { .. } => {
                "the guest runs something else than its image: compare the image, then recreate it"
            }
            Self::GuestLogDisagrees { .. }
            | Self::GuestLogMalformed { .. }
            | Self::GuestLogTruncated { .. } => {
                "the guest lies about its own log: treat it as hostile and inspect its volume"
            }
            Self::GuestNotTrusted(_) => "attest the VM again: `vouchsafe vm attest NAME`",
            Self::HostNotTrusted(_) => "see what the host was refused for: `vouchsafe host show`",
            Self::LogOverflow => "restart the VM; if it floods again, something in it is hostile",
            Self::LogUnobservable(_) => "restart the VM without software that drives the TPM so",
            Self::NonceExpired { .. } | Self::NonceUnknown => {
                "ask for a new challenge; if it happens again, look for delay or replay on the path"
            }
            Self::ObservedListMismatch { .. } => {
                "the vTPM proxy and its TPM disagree: inspect the host, then restart the VM"
            }
            Self::PcrBankUnsupported(_) | Self::PcrMissing { .. } => {
                "the host agent must quote exactly the PCRs of the challenge: update it"
            }
            Self::PcrUnpredicted { .. } => {
                "use firmware and machine settings that can be predicted, or change the policy"
            }
            Self::QuoteMalformed(_) | Self::QuoteTypeUnexpected => {
                "the evidence was not made by the host agent: inspect the host"
            }
            Self::QuoteNotBound | Self::QuoteWrongPurpose { .. } => {
                "a quote was replayed or relayed: inspect the host and the path to it"
            }
            Self::QuoteSignatureInvalid(_) => "the evidence was altered or made by another TPM",
            Self::VtpmBindingInvalid(_) | Self::VtpmEkOtherVm { .. } => {
                "the VM runs on a vTPM that was not made for it: start it on its home host again"
            }
        }
    }

    pub(crate) fn signature(fault: SignatureFault) -> Self {
        Self::QuoteSignatureInvalid(fault.to_string())
    }

    /// The guest's event log cannot be read; `observed` extends would stand in a whole one.
    pub(crate) fn event_log(reason: LogMalformed, observed: usize) -> Self {
        if let LogMalformed::Truncated { event: entries } = reason {
            return Self::GuestLogTruncated { log: EVENT_LOG, entries, observed };
        }
        Self::GuestLogMalformed { log: EVENT_LOG, reason: reason.to_string() }
    }

    /// The guest's IMA list cannot be read; at least `observed` entries would stand in a whole one.
    pub(crate) fn ima_list(reason: ImaMalformed, observed: usize) -> Self {
        if let ImaMalformed::Truncated { entry: entries } = reason {
            return Self::GuestLogTruncated { log: IMA_LIST, entries, observed };
        }
        Self::GuestLogMalformed { log: IMA_LIST, reason: reason.to_string() }
    }
}

pub(crate) const EVENT_LOG: &str = "event log";
pub(crate) const IMA_LIST: &str = "IMA list";
