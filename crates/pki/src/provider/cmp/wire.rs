//! The ASN.1 of CMP (RFC 4210, with explicit tags) and of its certificate templates (RFC 4211, with
//! implicit ones): what is sent and read here, and no more.

use der::{
    Any, Sequence, Tag, TagNumber,
    asn1::{BitString, GeneralizedTime, Int, ObjectIdentifier as Oid, OctetString},
};
use x509_cert::{
    certificate::Rfc5280,
    ext::{Extension, pkix::name::GeneralName},
    name::Name,
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::Time,
};

/// id-regCtrl-oldCertID.
pub(super) const OLD_CERT_ID: Oid = Oid::new_unwrap("1.3.6.1.5.5.7.5.1.5");

/// The bodies of a message, by their tags.
pub(super) mod body {
    /// Initialisation request, and its answer.
    pub(in super::super) const IR: u32 = 0;
    pub(in super::super) const IP: u32 = 1;
    /// Certification request, and its answer.
    pub(in super::super) const CR: u32 = 2;
    pub(in super::super) const CP: u32 = 3;
    /// Key update request, and its answer.
    pub(in super::super) const KUR: u32 = 7;
    pub(in super::super) const KUP: u32 = 8;
    /// Revocation request, and its answer.
    pub(in super::super) const RR: u32 = 11;
    pub(in super::super) const RP: u32 = 12;
    /// The end of a confirmed transaction.
    pub(in super::super) const PKI_CONF: u32 = 19;
    pub(in super::super) const ERROR: u32 = 23;
    pub(in super::super) const CERT_CONF: u32 = 24;
    /// Polling.
    pub(in super::super) const POLL_REQ: u32 = 25;
    pub(in super::super) const POLL_REP: u32 = 26;
}

/// PKIHeader.
#[derive(Clone, Debug, Sequence)]
pub(super) struct Header {
    pub(super) version: u8,
    pub(super) sender: GeneralName,
    pub(super) recipient: GeneralName,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) time: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) algorithm: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) sender_key: Option<OctetString>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) recipient_key: Option<OctetString>,
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) transaction: Option<OctetString>,
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) sender_nonce: Option<OctetString>,
    #[asn1(context_specific = "6", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) recipient_nonce: Option<OctetString>,
    #[asn1(context_specific = "7", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) text: Option<Any>,
    #[asn1(context_specific = "8", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) info: Option<Any>,
}

/// PKIMessage; the body is one of [`body`] with an explicit tag.
#[derive(Clone, Debug, Sequence)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Any,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) protection: Option<BitString>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extra: Option<Vec<Any>>,
}

/// PBMParameter.
#[derive(Clone, Debug, Sequence)]
pub(super) struct PasswordMac {
    pub(super) salt: OctetString,
    pub(super) owf: AlgorithmIdentifierOwned,
    pub(super) iterations: u32,
    pub(super) mac: AlgorithmIdentifierOwned,
}

/// CertTemplate.
#[derive(Clone, Debug, Default, Sequence)]
pub(super) struct Template {
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) serial: Option<SerialNumber<Rfc5280>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) issuer: Option<Name>,
    #[asn1(context_specific = "4", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) validity: Option<OptionalValidity>,
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) subject: Option<Name>,
    #[asn1(context_specific = "6", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) key: Option<SubjectPublicKeyInfoOwned>,
    #[asn1(context_specific = "9", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<Extension>>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct OptionalValidity {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) from: Option<Time>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) until: Option<Time>,
}

/// CertReqMsg.
#[derive(Clone, Debug, Sequence)]
pub(super) struct CertReqMsg {
    pub(super) request: CertRequest,
    pub(super) possession: Any,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct CertRequest {
    pub(super) id: u8,
    pub(super) template: Template,
    #[asn1(optional = "true")]
    pub(super) controls: Option<Vec<Control>>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct Control {
    pub(super) kind: Oid,
    pub(super) value: CertId,
}

/// CertId.
#[derive(Clone, Debug, Sequence)]
pub(super) struct CertId {
    pub(super) issuer: GeneralName,
    pub(super) serial: SerialNumber<Rfc5280>,
}

/// PKIStatusInfo.
#[derive(Clone, Debug, Sequence)]
pub(super) struct StatusInfo {
    pub(super) status: u8,
    #[asn1(optional = "true")]
    pub(super) text: Option<Vec<String>>,
    #[asn1(optional = "true")]
    pub(super) failure: Option<BitString>,
}

/// CertRepMessage.
#[derive(Clone, Debug, Sequence)]
pub(super) struct CertRep {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) authorities: Option<Vec<Any>>,
    pub(super) responses: Vec<CertResponse>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct CertResponse {
    pub(super) request: i32,
    pub(super) status: StatusInfo,
    #[asn1(optional = "true")]
    pub(super) pair: Option<KeyPair>,
    #[asn1(optional = "true")]
    pub(super) info: Option<OctetString>,
}

/// CertifiedKeyPair with a certificate and nothing else: a private key is never taken.
#[derive(Clone, Debug, Sequence)]
pub(super) struct KeyPair {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) certificate: Any,
}

/// One entry of CertConfirmContent.
#[derive(Clone, Debug, Sequence)]
pub(super) struct CertStatus {
    pub(super) hash: OctetString,
    pub(super) request: u8,
    #[asn1(optional = "true")]
    pub(super) status: Option<StatusInfo>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct PollReq {
    pub(super) request: u8,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct PollRep {
    pub(super) request: i32,
    pub(super) after: u32,
    #[asn1(optional = "true")]
    pub(super) reason: Option<Vec<String>>,
}

/// RevDetails.
#[derive(Clone, Debug, Sequence)]
pub(super) struct RevDetails {
    pub(super) template: Template,
    pub(super) entry: Vec<Extension>,
}

/// RevRepContent.
#[derive(Clone, Debug, Sequence)]
pub(super) struct RevRep {
    pub(super) status: Vec<StatusInfo>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) certificates: Option<Any>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) crls: Option<Any>,
}

/// ErrorMsgContent.
#[derive(Clone, Debug, Sequence)]
pub(super) struct ErrorMessage {
    pub(super) status: StatusInfo,
    #[asn1(optional = "true")]
    pub(super) code: Option<Int>,
    #[asn1(optional = "true")]
    pub(super) details: Option<Vec<String>>,
}

/// A context-specific tag.
pub(super) const fn tag(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific { constructed, number: TagNumber(number) }
}

/// Bits of PKIFailureInfo.
impl StatusInfo {
    pub(super) const CERT_REVOKED: usize = 10;
    pub(super) const CERT_CONFIRMED: usize = 11;
    pub(super) const SYSTEM_UNAVAILABLE: usize = 24;

    pub(super) fn has(&self, bit: usize) -> bool {
        self.failure.as_ref().and_then(|bits| bits.get(bit)).unwrap_or(false)
    }

    /// What it says, for people.
    pub(super) fn words(&self) -> String {
        let mut words = format!("status {}", self.status);
        let bits = self.failure.as_ref().map(BitString::bits).into_iter().flatten();
        for (at, _) in bits.enumerate().filter(|(_, set)| *set) {
            words.push_str(&format!(", failure {at}"));
        }
        for text in self.text.iter().flatten() {
            words.push_str(", ");
            words.push_str(text);
        }
        super::super::remote::words(&words)
    }
}
