//! Messages between the agent and `vouchsafe-vtpm`, the process that owns one VM's vTPM.
//!
//! One request, one [`Reply`], any number of times on a connection; [`Request::Hello`] first. The
//! **observed list** is what the process saw being measured into the vTPM since the boot began: it
//! needs no co-operation of the guest, is append-only within one boot generation, and is never
//! silently short: what could not be recorded is said by [`Observed::overflowed`] and
//! [`Observed::unobservable`].
//!
//! Replaying: at [`Measured::Startup`], PCRs 0 to 16 and 23 are zero and 17 to 22 all ones, except
//! PCR 0, whose last byte is the locality (3, or 4 after a [`Measured::Crtm`]). Then each entry in
//! order: an extend is `PCR = H(PCR || digest)` in each bank that it names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Epoch, HashAlg, Nonce, PcrBanks, VmId};

/// The version of these messages.
pub const VERSION: u32 = 1;

/// The most entries in one reply; further ones come by [`Request::Observed`].
pub const MAX_ENTRIES: usize = 4000;

/// What the agent asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Opens a connection.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
    },
    /// How the vTPM is.
    Status {},
    /// Allocates the PCR banks of a fresh vTPM and makes its EKs and the host's AK, before the
    /// first boot. Asked again, it answers the same keys. Refused while QEMU is connected.
    Manufacture {
        /// Also an RSA-2048 EK.
        rsa: bool,
        /// The PCR banks to allocate; all others are taken away.
        banks: PcrBanks,
    },
    /// Writes the EK certificates to NV and locks them. Refused while QEMU is connected. Done
    /// again with the same certificates, it changes nothing.
    InstallCertificates {
        /// DER certificate of the P-256 EK, for NV index 0x01c0000a.
        #[serde(with = "hex")]
        ek_p256: Vec<u8>,
        /// DER certificate of the RSA EK, for NV index 0x01c00002; empty if there is none.
        #[serde(with = "hex")]
        ek_rsa: Vec<u8>,
    },
    /// A quote by the host's AK, and the observed list at the same moment.
    Quote {
        /// The verifier's nonce.
        nonce: Nonce,
        /// The VM; with the epoch part of qualifyingData (purpose `guest-attest`).
        vm: VmId,
        /// The epoch.
        epoch: Epoch,
        /// Which PCRs to quote, by bank.
        pcrs: BTreeMap<HashAlg, Vec<u8>>,
        /// Skip entries before this position (those the agent has already).
        from: u64,
    },
    /// The observed list without a quote.
    Observed {
        /// Skip entries before this position.
        from: u64,
    },
    /// Stores the vTPM's state and ends the process. QEMU loses its TPM.
    Shutdown {},
}

/// What the process answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// The process's [`VERSION`]; end the connection if it is another.
        version: u32,
        /// The process.
        pid: u32,
        /// Its swtpm.
        swtpm_pid: u32,
    },
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Manufacture`].
    Manufactured(Identity),
    /// Done, nothing to tell.
    Done {},
    /// To [`Request::Quote`].
    Quote(Box<Quoted>),
    /// To [`Request::Observed`].
    Observed(Observed),
    /// Not done.
    Failed {
        /// Why, for programs.
        fault: Fault,
        /// Why, for people.
        detail: String,
    },
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The vTPM holds no host AK yet, or not one that opens with this authValue.
    NotManufactured,
    /// QEMU is connected.
    Running,
    /// No boot has begun, or the guest is just being reset: ask again in a moment.
    Resetting,
    /// The guest holds all slots of the vTPM and they could not be freed for a moment.
    SlotsTaken,
    /// PCRs kept changing while they were quoted: ask again.
    Unstable,
    /// The request cannot be done as it is (a bank that is not allocated, an overlong certificate).
    BadRequest,
    /// Another version of these messages.
    Version,
    /// swtpm failed, or the vTPM said no.
    Vtpm,
}

impl Fault {
    /// The name in kebab-case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotManufactured => "vtpm-not-manufactured",
            Self::Running => "vtpm-running",
            Self::Resetting => "vtpm-resetting",
            Self::SlotsTaken => "vtpm-slots-taken",
            Self::Unstable => "vtpm-unstable",
            Self::BadRequest => "vtpm-bad-request",
            Self::Version => "vtpm-version",
            Self::Vtpm => "vtpm-failed",
        }
    }
}

/// How the vTPM is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Whether it holds a host AK.
    pub manufactured: bool,
    /// Whether QEMU is connected to the control channel.
    pub qemu_connected: bool,
    /// Counts TPM2_Startup(CLEAR) by the guest in this process; 0 before the first boot.
    pub generation: u64,
    /// Length of the observed list.
    pub entries: u64,
    /// Whether the list went over its limit.
    pub overflowed: bool,
    /// Whether something was measured that the process could not see.
    pub unobservable: bool,
}

/// The vTPM's keys, each a TPMT_PUBLIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The EK on P-256, at 0x81010001.
    #[serde(with = "hex")]
    pub ek_p256: Vec<u8>,
    /// The RSA-2048 EK; empty if there is none.
    #[serde(with = "hex")]
    pub ek_rsa: Vec<u8>,
    /// The host's AK, at 0x81800003.
    #[serde(with = "hex")]
    pub ak: Vec<u8>,
}

/// A quote and the list at the same moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quoted {
    /// TPMS_ATTEST.
    #[serde(with = "hex")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE by the host's AK.
    #[serde(with = "hex")]
    pub signature: Vec<u8>,
    /// The quoted values.
    pub pcrs: Vec<PcrValue>,
    /// The banks that are allocated.
    pub banks: Vec<HashAlg>,
    /// The list at the moment of the quote; `observed.total` is its length then.
    pub observed: Observed,
}

/// The value of one PCR in the bank of its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcrValue {
    /// Which PCR.
    pub pcr: u8,
    /// Its value.
    pub value: Digest,
}

/// A part of the observed list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// The boot that the list belongs to; positions of other generations mean nothing.
    pub generation: u64,
    /// Position of the first entry here.
    pub from: u64,
    /// Length of the whole list.
    pub total: u64,
    /// Entries from `from` on, at most [`MAX_ENTRIES`].
    pub entries: Vec<Entry>,
    /// More was measured than the limit allows to record (verdict `log-overflow`).
    pub overflowed: bool,
    /// Something was measured that could not be seen (verdict `log-unobservable`).
    pub unobservable: Option<Unobservable>,
}

/// Why the list does not tell all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unobservable {
    /// The vTPM came up with PCRs from a stored state, whose list is not known here.
    StoredState,
    /// State was loaded into the vTPM from outside (an incoming migration) without its list.
    LoadedState,
    /// A command or response that measures could not be parsed.
    Malformed,
    /// The channel broke between a command and its response.
    Interrupted,
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The locality that the guest had set.
    pub locality: u8,
    /// What happened.
    pub measured: Measured,
}

/// What happened to PCRs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Measured {
    /// TPM2_Startup(CLEAR): always the first entry, or the second after [`Measured::Crtm`].
    Startup {},
    /// TPM2_Startup(STATE): PCRs 0 to 15 keep their values, the others are as at a startup.
    Resume {},
    /// TPM2_PCR_Extend, TPM2_PCR_Event or TPM2_EventSequenceComplete.
    Extend {
        /// Which PCR.
        pcr: u8,
        /// One digest a bank, in the order of the command.
        digests: Vec<Digest>,
    },
    /// TPM2_PCR_Reset: all zeros.
    Reset {
        /// Which PCR.
        pcr: u8,
    },
    /// A measurement by the control channel before startup: PCR 0 begins with 4 as its last byte
    /// and is extended with these.
    Crtm {
        /// Digest of what was measured, one a bank.
        digests: Vec<Digest>,
    },
    /// A measurement by the control channel after startup (a dynamic launch): PCRs 17 to 22 are
    /// zeroed, then PCR 17 is extended with these.
    Drtm {
        /// Digest of what was measured, one a bank.
        digests: Vec<Digest>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_unknown_fields_are_refused() {
        let request = Request::Quote {
            nonce: Nonce([1; 32]),
            vm: "v1".parse().unwrap(),
            epoch: Epoch(3),
            pcrs: BTreeMap::from([(HashAlg::Sha256, vec![0, 7])]),
            from: 0,
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let reply = Reply::Quote(Box::new(Quoted {
            attest: vec![1],
            signature: vec![2],
            pcrs: vec![PcrValue { pcr: 7, value: Digest::sha256([7; 32]) }],
            banks: vec![HashAlg::Sha256],
            observed: Observed {
                generation: 1,
                from: 0,
                total: 1,
                entries: vec![Entry { locality: 0, measured: Measured::Startup {} }],
                overflowed: false,
                unobservable: Some(Unobservable::StoredState),
            },
        }));
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
        let entry = Entry {
            locality: 0,
            measured: Measured::Extend { pcr: 10, digests: vec![Digest::sha256([2; 32])] },
        };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
        assert!(serde_json::from_str::<Request>(r#"{"request":"status","x":1}"#).is_err());
    }
}
