//! What a guest's client and the trust service of its server say to each other before the first
//! request: JSON over HTTP inside the TLS connection of [`crate::port`], or over a network in a TLS
//! connection to the service's listener for guests.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `POST /guest/v1/challenge` | [`ChallengeAsk`] | [`GuestChallenge`] |
//! | `POST /guest/v1/attest` | [`ChannelEvidence`] | [`Admitted`] |
//!
//! and what the two processes of the trust service say about it ([`GuestRequest`]). **Invariants:**
//! what is claimed in evidence names refusals and decides nothing; the verifier compares with what
//! it gave out and found out itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Epoch, Nonce, VmId,
    api::Bytes,
    keys::{order::SecretBytes, rpc::KeyRequest},
};

/// Label of the TLS exporter (RFC 8446, section 7.5) that a quote is bound to; 32 bytes, no context.
pub const EXPORTER: &[u8] = b"EXPORTER-vouchsafe-guest-v1";

/// Longest EK certificate, bytes.
pub const MAX_CERTIFICATE: usize = 4 << 10;

/// Longest IMA list that a client may send, bytes.
pub const MAX_IMA: usize = 1 << 20;

/// Longest body of either request, bytes.
pub const MAX_BODY: usize = 2 << 20;

/// PCRs of the SHA-256 bank that a client quotes: the boot, and IMA's.
pub const PCRS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The PCR of IMA.
pub const IMA_PCR: u8 = 10;

/// `POST /guest/v1/challenge`: which keys the client will answer with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeAsk {
    /// Over a network: the VM that the client says it is in. On a port, whose it is is known and
    /// this says nothing. What is claimed is proven by the EK certificate, which must be that VM's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmId>,
    /// The certificate of the vTPM's EK, DER, from its NV memory.
    pub ek_certificate: Bytes,
    /// The EK's public area (TPMT_PUBLIC).
    pub ek: Bytes,
    /// The public area (TPMT_PUBLIC) of the AK that the client made for this connection.
    pub ak: Bytes,
}

/// The answer: what is to be proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestChallenge {
    /// To be answered once, on this connection.
    pub nonce: Nonce,
    /// Until when, Unix milliseconds.
    pub expires_at: u64,
    /// Opens only in the TPM with this EK and this AK (TPM2_ActivateCredential): identity object.
    pub id_object: Bytes,
    /// And its seed, encrypted to the EK.
    pub encrypted_seed: Bytes,
}

/// `POST /guest/v1/attest`: the proof.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelEvidence {
    /// The nonce that is answered.
    pub nonce: Nonce,
    /// Digest of the TLS exporter that the client saw. Only tells a relayed quote from a replayed.
    pub channel: Digest,
    /// What the credential held.
    pub secret: SecretBytes,
    /// TPMS_ATTEST, as signed.
    pub quote: Bytes,
    /// TPMT_SIGNATURE of the AK.
    pub signature: Bytes,
    /// Value of PCR 10 when it was quoted: tells how much of the list was measured before.
    pub ima_value: Digest,
    /// IMA's list in binary form, at most [`MAX_IMA`] bytes; it may be newer than the quote.
    pub ima_log: Bytes,
}

/// The answer: requests are taken on this connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    /// As which VM.
    pub vm: VmId,
    /// Until when, Unix milliseconds; then a new proof is needed.
    pub until: u64,
    /// URI of the service, as requests must name it.
    pub service: String,
    /// The key that signs its answers (SubjectPublicKeyInfo, DER).
    pub message_key: Bytes,
}

/// What the agent of the server knows of a VM that runs on it, by what it saw itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The VM.
    pub vm: VmId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The authority's last verdict on this launch; none if there is none yet.
    pub trusted: Option<bool>,
    /// The certificate of its vTPM's EK as the authority issued it, DER.
    pub ek_certificate: Option<Bytes>,
    /// PCRs of the SHA-256 bank by the list of extends that the agent observed, as far as the verdict
    /// is about it.
    pub pcrs: Vec<PcrValue>,
    /// The host's end of the port [`crate::port::NAME`].
    pub port: String,
}

/// One PCR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcrValue {
    /// Its index.
    pub pcr: u8,
    /// Its value.
    pub value: Digest,
}

/// One TLS connection of a guest's client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestLine {
    /// The VM: whose port it is, or over a network whose the client claims to be.
    pub vm: VmId,
    /// Digest of the connection's TLS exporter.
    pub channel: Digest,
    /// Over a network: from where the VM is claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_from: Option<IpAddr>,
}

/// What the reader asks about a guest's connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestRequest {
    /// Certificate and key for a new TLS connection: [`GuestAnswer::Passport`].
    Passport,
    /// A challenge for a connection: [`GuestAnswer::Challenge`].
    Challenge {
        /// The connection.
        line: GuestLine,
        /// What the client asks with.
        ask: ChallengeAsk,
    },
    /// The proof on a connection: [`GuestAnswer::Admitted`].
    Attest {
        /// The connection.
        line: GuestLine,
        /// The proof.
        evidence: Box<ChannelEvidence>,
    },
    /// A request of a guest: answered as the request itself, if the keeper admitted this connection
    /// and what an order is about is the VM's own.
    Ask {
        /// The connection.
        line: GuestLine,
        /// The request.
        request: Box<KeyRequest>,
    },
}

/// What the keeper answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestAnswer {
    /// The service's passport.
    Passport {
        /// Chain, leaf first, DER.
        chain: Vec<Bytes>,
        /// Its key, PKCS#8 DER.
        key: SecretBytes,
    },
    /// There is none now: the authority gives none, or is away.
    NoPassport,
    /// A challenge.
    Challenge(GuestChallenge),
    /// Requests are taken until then, Unix milliseconds.
    Admitted {
        /// The end.
        until: u64,
    },
    /// A rule said no; it is in the audit log.
    Refused {
        /// Kebab-case name.
        name: String,
    },
    /// It could not be decided.
    Failed,
}
