//! The bodies that are sent.

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use der::{
    Any, Encode as _,
    asn1::{ObjectIdentifier as Oid, OctetString},
    oid::AssociatedOid as _,
};
use x509_cert::{
    Certificate,
    ext::{
        Extension,
        pkix::{CrlReason, name::GeneralName},
    },
    serial_number::SerialNumber,
};

use super::{
    super::{Ask, ProviderError, RevocationAsk, template},
    message::encoding,
    wire::{
        CertId, CertReqMsg, CertRequest, CertStatus, Control, OLD_CERT_ID, OptionalValidity,
        PollReq, RevDetails, StatusInfo, Template, body, tag,
    },
};
use crate::{
    Profile, Validity,
    cert::{Cert, time},
};

/// A request, and the key that the certificate must be for; none for a revocation.
pub(super) struct Asked {
    pub(super) kind: u32,
    pub(super) body: Vec<u8>,
    pub(super) spki: Vec<u8>,
}

/// The body for `ask`; `first` if we are known to the CA by a shared secret alone.
pub(super) fn of(ask: &Ask, first: bool) -> Result<Asked, ProviderError> {
    match ask {
        Ask::Enrol(ask) => {
            let spki = ask.spki.clone();
            let body = certificate(&ask.profile, &spki, ask.validity, None)?;
            Ok(Asked { kind: if first { body::IR } else { body::CR }, body, spki })
        }
        Ask::Renew(ask) => {
            let old = Cert::parse(&ask.certificate).map_err(ProviderError::NotOurs)?;
            let spki = old.spki().to_vec();
            let body = certificate(&ask.profile, &spki, ask.validity, Some(&old))?;
            Ok(Asked { kind: body::KUR, body, spki })
        }
        Ask::Revoke(ask) => Ok(Asked { kind: body::RR, body: revocation(ask)?, spki: Vec::new() }),
    }
}

fn certificate(
    profile: &Profile,
    spki: &[u8],
    validity: Validity,
    old: Option<&Cert>,
) -> Result<Vec<u8>, ProviderError> {
    let (subject, extensions) = template::of(profile, spki).map_err(ProviderError::Issue)?;
    let build = || {
        let validity = OptionalValidity {
            from: Some(time(validity.not_before)?),
            until: Some(time(validity.not_after)?),
        };
        let template = Template {
            validity: Some(validity),
            subject: Some(subject),
            key: Some(der::Decode::from_der(spki)?),
            extensions: (!extensions.is_empty()).then_some(extensions),
            ..Template::default()
        };
        let control =
            |old| Ok::<_, der::Error>(vec![Control { kind: OLD_CERT_ID, value: id(old)? }]);
        let controls = old.map(control).transpose()?;
        // We have verified that the subject holds the key (raVerified).
        let possession = Any::new(tag(0, false), Vec::new())?;
        vec![CertReqMsg { request: CertRequest { id: 0, template, controls }, possession }].to_der()
    };
    build().map_err(encoding)
}

fn id(cert: &Cert) -> der::Result<CertId> {
    Ok(CertId {
        issuer: GeneralName::DirectoryName(cert.issuer_name().clone()),
        serial: serial(cert)?,
    })
}

fn serial(cert: &Cert) -> der::Result<SerialNumber<x509_cert::certificate::Rfc5280>> {
    der::Decode::from_der(cert.serial_der())
}

fn revocation(ask: &RevocationAsk) -> Result<Vec<u8>, ProviderError> {
    let cert = Cert::parse(&ask.certificate).map_err(ProviderError::NotOurs)?;
    let build = || {
        let template = Template {
            serial: Some(serial(&cert)?),
            issuer: Some(cert.issuer_name().clone()),
            ..Template::default()
        };
        let reason = OctetString::new(ask.reason.code().to_der()?)?;
        let reason = Extension { extn_id: CrlReason::OID, critical: false, extn_value: reason };
        vec![RevDetails { template, entry: vec![reason] }].to_der()
    };
    build().map_err(encoding)
}

/// Confirms a certificate (DER), or says that it is refused.
pub(super) fn confirmation(certificate: &[u8], accepted: bool) -> Result<Vec<u8>, ProviderError> {
    let build = || {
        let parsed: Certificate = der::Decode::from_der(certificate)?;
        let hash = match parsed.signature_algorithm().oid {
            SHA384_ECDSA | SHA384_RSA => &SHA384,
            SHA512_RSA => &SHA512,
            _ => &SHA256,
        };
        let text = vec!["not the certificate that was asked for".to_owned()];
        let refusal = StatusInfo { status: 2, text: Some(text), failure: None };
        let hash = OctetString::new(digest(hash, certificate).as_ref())?;
        vec![CertStatus { hash, request: 0, status: (!accepted).then_some(refusal) }].to_der()
    };
    build().map_err(encoding)
}

const SHA384_ECDSA: Oid = Oid::new_unwrap("1.2.840.10045.4.3.3");
const SHA384_RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.12");
const SHA512_RSA: Oid = Oid::new_unwrap("1.2.840.113549.1.1.13");

/// Asks whether the certificate is ready.
pub(super) fn poll() -> Result<Vec<u8>, ProviderError> {
    vec![PollReq { request: 0 }].to_der().map_err(encoding)
}
