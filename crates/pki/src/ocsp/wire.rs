//! The ASN.1 of OCSP.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use der::{
    Any, Choice, Decode as _, Encode as _, Enumerated, Sequence,
    asn1::{BitString, GeneralizedTime, Null, ObjectIdentifier as Oid, OctetString},
};
use x509_cert::{
    certificate::Rfc5280,
    ext::{Extension, Extensions, pkix::CrlReason, pkix::name::GeneralName},
    name::Name,
    serial_number::SerialNumber,
    spki::AlgorithmIdentifierOwned,
};

use crate::cert::Cert;

pub(super) const BASIC: Oid = Oid::new_unwrap("1.3.6.1.5.5.7.48.1.1");
pub(super) const NONCE: Oid = Oid::new_unwrap("1.3.6.1.5.5.7.48.1.2");
const SHA1_ID: Oid = Oid::new_unwrap("1.3.14.3.2.26");
const SHA256_ID: Oid = Oid::new_unwrap("2.16.840.1.101.3.4.2.1");

#[derive(Clone, Debug, Sequence)]
pub(super) struct CertId {
    pub(super) hash: AlgorithmIdentifierOwned,
    pub(super) issuer_name: OctetString,
    pub(super) issuer_key: OctetString,
    pub(super) serial: SerialNumber<Rfc5280>,
}

impl CertId {
    pub(super) fn new(cert: &Cert, issuer: &Cert) -> der::Result<Self> {
        // SHA-1, because that is what every responder understands; it proves nothing here, the
        // names and keys are compared.
        let hash = |bytes: &[u8]| digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
        Ok(Self {
            hash: AlgorithmIdentifierOwned { oid: SHA1_ID, parameters: Some(Any::null()) },
            issuer_name: OctetString::new(hash(cert.issuer().der()).as_ref())?,
            issuer_key: OctetString::new(hash(issuer.key_bits()).as_ref())?,
            serial: SerialNumber::from_der(cert.serial_der())?,
        })
    }

    /// Whether the hashes are those of a CA with this name (DER) and key.
    pub(super) fn is_of(&self, name: &[u8], issuer: &Cert) -> bool {
        let algorithm = match self.hash.oid {
            SHA1_ID => &SHA1_FOR_LEGACY_USE_ONLY,
            SHA256_ID => &SHA256,
            _ => return false,
        };
        digest::digest(algorithm, name).as_ref() == self.issuer_name.as_bytes()
            && digest::digest(algorithm, issuer.key_bits()).as_ref() == self.issuer_key.as_bytes()
    }
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct Request {
    pub(super) id: CertId,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct TbsRequest {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "u8::default")]
    pub(super) version: u8,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) requestor: Option<GeneralName>,
    pub(super) requests: Vec<Request>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct OcspRequest {
    pub(super) tbs: TbsRequest,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) signature: Option<Any>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumerated)]
#[repr(u8)]
pub(super) enum ResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SigRequired = 5,
    Unauthorized = 6,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct ResponseBytes {
    pub(super) kind: Oid,
    pub(super) response: OctetString,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct OcspResponse {
    pub(super) status: ResponseStatus,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) bytes: Option<ResponseBytes>,
}

#[derive(Clone, Debug, Choice)]
pub(super) enum ResponderId {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    Name(Name),
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    Key(OctetString),
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct RevokedInfo {
    pub(super) at: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) reason: Option<CrlReason>,
}

#[derive(Clone, Debug, Choice)]
pub(super) enum CertStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct SingleResponse {
    pub(super) id: CertId,
    pub(super) status: CertStatus,
    pub(super) this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct ResponseData {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "u8::default")]
    pub(super) version: u8,
    pub(super) responder: ResponderId,
    pub(super) produced_at: GeneralizedTime,
    pub(super) responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

#[derive(Clone, Debug, Sequence)]
pub(super) struct BasicResponse {
    pub(super) data: ResponseData,
    pub(super) algorithm: AlgorithmIdentifierOwned,
    pub(super) signature: BitString,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) certs: Option<Vec<Any>>,
}

/// A request for one certificate, DER.
pub(super) fn request(cert: &Cert, issuer: &Cert, nonce: Option<&[u8]>) -> der::Result<Vec<u8>> {
    let extensions = nonce.map(|nonce| Ok::<_, der::Error>(vec![nonce_extension(nonce)?]));
    let request = Request { id: CertId::new(cert, issuer)?, extensions: None };
    let tbs = TbsRequest {
        version: 0,
        requestor: None,
        requests: vec![request],
        extensions: extensions.transpose()?,
    };
    OcspRequest { tbs, signature: None }.to_der()
}

/// The nonce extension: an octet string in the extension's octet string.
pub(super) fn nonce_extension(nonce: &[u8]) -> der::Result<Extension> {
    let value = OctetString::new(nonce)?.to_der()?;
    Ok(Extension { extn_id: NONCE, critical: false, extn_value: OctetString::new(value)? })
}

/// The nonce among `extensions`, and whether a critical one is not known.
pub(super) fn read_extensions(extensions: Option<&Extensions>) -> (Option<Vec<u8>>, bool) {
    let (mut nonce, mut unknown) = (None, false);
    for extension in extensions.into_iter().flatten() {
        if extension.extn_id == NONCE {
            let value = extension.extn_value.as_bytes();
            // Some write the bytes without the inner octet string.
            let inner = OctetString::from_der(value).map(|inner| inner.as_bytes().to_vec());
            nonce = Some(inner.unwrap_or_else(|_| value.to_vec()));
        } else {
            unknown |= extension.critical;
        }
    }
    (nonce, unknown)
}
