//! A responder: answers requests about the certificates of one CA.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use der::{
    Any, Decode as _, Encode as _,
    asn1::{BitString, Null, ObjectIdentifier as Oid, OctetString},
};
use model::Secret;
use rcgen::SigningKey as _;
use time::OffsetDateTime;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{
    MAX_REQUEST, MAX_SINGLES, OcspRejection,
    wire::{
        BASIC, BasicResponse, CertStatus, OcspRequest, OcspResponse, Request, ResponderId,
        ResponseBytes, ResponseData, ResponseStatus, RevokedInfo, SingleResponse, nonce_extension,
        read_extensions,
    },
};
use crate::{
    IssueError, RevocationReason,
    ca::CaKey,
    cert::{Cert, generalized},
    verify::ocsp_signing,
};

const ECDSA_WITH_SHA256: Oid = Oid::new_unwrap("1.2.840.10045.4.3.2");

/// What the CA knows about a certificate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspStatus {
    /// It was issued and is not revoked.
    Good,
    /// It was revoked.
    Revoked {
        /// When.
        at: OffsetDateTime,
        /// Why.
        reason: RevocationReason,
    },
    /// It was never issued.
    Unknown,
}

/// What goes back to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspReply {
    /// The response, DER; an error response if the request was refused.
    pub der: Vec<u8>,
    /// Why the request was refused.
    pub refused: Option<OcspRejection>,
    /// The serial numbers (big-endian) that were asked about.
    pub serials: Vec<Vec<u8>>,
}

/// A responder's key and certificate. Its `Debug` shows no key.
#[derive(Debug)]
pub struct Responder {
    key: CaKey,
    own: Cert,
    issuer: Cert,
}

impl Responder {
    /// A responder for the certificates of `issuer` (DER): with the certificate (DER) and key
    /// (PKCS#8) of the CA itself, or of a responder that it certified
    /// ([`crate::Profile::OcspResponder`]).
    ///
    /// # Errors
    /// [`IssueError::CaMismatch`] if key, certificate and issuer do not belong together.
    pub fn load(
        certificate: &[u8],
        key: &Secret<Vec<u8>>,
        issuer: &[u8],
    ) -> Result<Self, IssueError> {
        let parse = |der| Cert::parse(der).map_err(IssueError::CaCertificate);
        let (own, issuer) = (parse(certificate)?, parse(issuer)?);
        let key = CaKey::from_pkcs8(key.expose())?;
        let direct = own.der() == issuer.der();
        let delegated = || {
            let usages = own.ext().extended_usage.as_deref().unwrap_or_default();
            usages.contains(&ocsp_signing()) && own.verify_signature(&issuer).is_ok()
        };
        if own.spki() != key.spki() || !(direct || delegated()) {
            return Err(IssueError::CaMismatch);
        }
        Ok(Self { key, own, issuer })
    }

    /// Answers `request` (DER) at `now`; each answer stands for `lifetime`. `lookup` says what is
    /// known about a serial number (big-endian).
    ///
    /// # Errors
    /// [`IssueError`] if the answer cannot be built or signed: then nothing is sent.
    pub fn respond(
        &self,
        request: &[u8],
        now: OffsetDateTime,
        lifetime: Duration,
        lookup: impl Fn(&[u8]) -> OcspStatus,
    ) -> Result<OcspReply, IssueError> {
        match read(request) {
            Ok((requests, nonce)) => {
                let serial = |one: &Request| one.id.serial.as_bytes().to_vec();
                let serials = requests.iter().map(serial).collect();
                let der = self.answer(&requests, nonce.as_deref(), (now, lifetime), lookup)?;
                Ok(OcspReply { der, refused: None, serials })
            }
            Err(refused) => {
                let status = ResponseStatus::MalformedRequest;
                let der = OcspResponse { status, bytes: None }.to_der();
                let der = der.map_err(IssueError::Encode)?;
                Ok(OcspReply { der, refused: Some(refused), serials: Vec::new() })
            }
        }
    }

    fn answer(
        &self,
        requests: &[Request],
        nonce: Option<&[u8]>,
        (now, lifetime): (OffsetDateTime, Duration),
        lookup: impl Fn(&[u8]) -> OcspStatus,
    ) -> Result<Vec<u8>, IssueError> {
        let data = self.data(requests, nonce, (now, lifetime), lookup);
        let data = data.map_err(IssueError::Encode)?;
        let tbs = data.to_der().map_err(IssueError::Encode)?;
        let signature = self.key.sign(&tbs).map_err(IssueError::building)?;
        let delegated = self.own.der() != self.issuer.der();
        let wrap = || {
            let certs = delegated.then(|| Any::from_der(self.own.der()).map(|own| vec![own]));
            let basic = BasicResponse {
                data,
                algorithm: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
                signature: BitString::from_bytes(&signature)?,
                certs: certs.transpose()?,
            };
            let bytes = ResponseBytes { kind: BASIC, response: OctetString::new(basic.to_der()?)? };
            OcspResponse { status: ResponseStatus::Successful, bytes: Some(bytes) }.to_der()
        };
        wrap().map_err(IssueError::Encode)
    }

    fn data(
        &self,
        requests: &[Request],
        nonce: Option<&[u8]>,
        (now, lifetime): (OffsetDateTime, Duration),
        lookup: impl Fn(&[u8]) -> OcspStatus,
    ) -> der::Result<ResponseData> {
        let key = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.own.key_bits());
        let until = now.saturating_add(time::Duration::try_from(lifetime).unwrap_or_default());
        let mut responses = Vec::new();
        for request in requests {
            let ours = request.id.is_of(self.issuer.subject().der(), &self.issuer);
            let status =
                if ours { lookup(request.id.serial.as_bytes()) } else { OcspStatus::Unknown };
            responses.push(SingleResponse {
                id: request.id.clone(),
                status: cert_status(status)?,
                this_update: generalized(now)?,
                next_update: Some(generalized(until)?),
                extensions: None,
            });
        }
        let extensions = nonce.map(|nonce| Ok::<_, der::Error>(vec![nonce_extension(nonce)?]));
        Ok(ResponseData {
            version: 0,
            responder: ResponderId::Key(OctetString::new(key.as_ref())?),
            produced_at: generalized(now)?,
            responses,
            extensions: extensions.transpose()?,
        })
    }
}

/// What is asked: one to 32 certificates, and a nonce.
fn read(der: &[u8]) -> Result<(Vec<Request>, Option<Vec<u8>>), OcspRejection> {
    if der.len() > MAX_REQUEST {
        return Err(OcspRejection::TooLarge);
    }
    let request = OcspRequest::from_der(der).map_err(|_| OcspRejection::Malformed)?;
    let OcspRequest { tbs, signature: _ } = request;
    if tbs.requests.len() > MAX_SINGLES {
        return Err(OcspRejection::TooMany);
    }
    let (nonce, mut unknown) = read_extensions(tbs.extensions.as_ref());
    for request in &tbs.requests {
        unknown |= read_extensions(request.extensions.as_ref()).1;
    }
    if unknown {
        return Err(OcspRejection::ExtensionUnknown);
    }
    if nonce.as_ref().is_some_and(|nonce| !(1..=128).contains(&nonce.len())) {
        return Err(OcspRejection::Nonce);
    }
    if tbs.version != 0 || tbs.requests.is_empty() {
        return Err(OcspRejection::Malformed);
    }
    Ok((tbs.requests, nonce))
}

fn cert_status(status: OcspStatus) -> der::Result<CertStatus> {
    Ok(match status {
        OcspStatus::Good => CertStatus::Good(Null),
        OcspStatus::Revoked { at, reason } => {
            let given = reason != RevocationReason::Unspecified;
            let reason = given.then(|| reason.code());
            CertStatus::Revoked(RevokedInfo { at: generalized(at)?, reason })
        }
        OcspStatus::Unknown => CertStatus::Unknown(Null),
    })
}
