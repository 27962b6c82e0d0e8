//! A response as it came: read, not believed.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use der::{Decode as _, Encode as _, asn1::GeneralizedTime};
use time::OffsetDateTime;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::{
    MAX_RESPONSE, MAX_SINGLES, OcspRejection,
    wire::{
        BASIC, BasicResponse, CertId, CertStatus, OcspResponse, ResponderId, ResponseStatus,
        SingleResponse, read_extensions,
    },
};
use crate::{RevocationReason, cert::Cert, cert::signed_part, dn::Dn};

/// What is said about one certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    Good,
    Revoked(OffsetDateTime, Option<RevocationReason>),
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Single {
    id: CertId,
    serial: Vec<u8>,
    pub(crate) state: State,
    pub(crate) this_update: OffsetDateTime,
    pub(crate) next_update: Option<OffsetDateTime>,
}

impl Single {
    pub(crate) fn has_serial_of(&self, cert: &Cert) -> bool {
        self.serial == cert.serial_der()
    }

    pub(crate) fn has_issuer_of(&self, cert: &Cert, issuer: &Cert) -> bool {
        self.id.is_of(cert.issuer().der(), issuer)
    }
}

/// A basic response.
#[derive(Debug)]
pub(crate) struct Answer {
    tbs: Vec<u8>,
    algorithm: AlgorithmIdentifierOwned,
    signature: Vec<u8>,
    responder: Responder,
    pub(crate) produced_at: OffsetDateTime,
    pub(crate) singles: Vec<Single>,
    /// Certificates that came with it.
    pub(crate) certs: Vec<Cert>,
    pub(crate) nonce: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Responder {
    Name(Vec<u8>),
    Key(Vec<u8>),
}

impl Answer {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, OcspRejection> {
        if der.len() > MAX_RESPONSE {
            return Err(OcspRejection::TooLarge);
        }
        let malformed = |_| OcspRejection::Malformed;
        let response = OcspResponse::from_der(der).map_err(malformed)?;
        if response.status != ResponseStatus::Successful {
            return Err(OcspRejection::Refused);
        }
        let bytes = response.bytes.ok_or(OcspRejection::Malformed)?;
        if bytes.kind != BASIC {
            return Err(OcspRejection::Malformed);
        }
        let inner = bytes.response.as_bytes();
        let basic = BasicResponse::from_der(inner).map_err(malformed)?;
        let (nonce, mut unknown) = read_extensions(basic.data.extensions.as_ref());
        for single in &basic.data.responses {
            unknown |= read_extensions(single.extensions.as_ref()).1;
        }
        if unknown {
            return Err(OcspRejection::ExtensionUnknown);
        }
        let certs = basic.certs.as_deref().unwrap_or_default();
        if basic.data.responses.len() > MAX_SINGLES || certs.len() > MAX_SINGLES {
            return Err(OcspRejection::TooMany);
        }
        Self::read(inner, &basic, nonce).map_err(malformed)
    }

    fn read(inner: &[u8], basic: &BasicResponse, nonce: Option<Vec<u8>>) -> der::Result<Self> {
        let mut certs = Vec::new();
        for cert in basic.certs.iter().flatten() {
            // One that cannot be used may be of no concern.
            certs.extend(Cert::parse(&cert.to_der()?).ok());
        }
        let signature = basic.signature.as_bytes().ok_or(der::ErrorKind::Failed)?;
        Ok(Self {
            tbs: signed_part(inner)?,
            algorithm: basic.algorithm.clone(),
            signature: signature.to_vec(),
            responder: match &basic.data.responder {
                ResponderId::Name(name) => Responder::Name(Dn::new(name)?.key()),
                ResponderId::Key(hash) => Responder::Key(hash.as_bytes().to_vec()),
            },
            produced_at: moment(basic.data.produced_at)?,
            singles: basic.data.responses.iter().map(single).collect::<der::Result<_>>()?,
            certs,
            nonce,
        })
    }

    /// Whether the response says that it is by `cert`.
    pub(crate) fn is_by(&self, cert: &Cert) -> bool {
        match &self.responder {
            Responder::Name(name) => *name == cert.subject_key(),
            Responder::Key(hash) => {
                digest(&SHA1_FOR_LEGACY_USE_ONLY, cert.key_bits()).as_ref() == hash.as_slice()
            }
        }
    }

    pub(crate) fn signed_by(&self, cert: &Cert) -> bool {
        cert.verify(&self.algorithm, &self.tbs, &self.signature).is_ok()
    }
}

fn single(single: &SingleResponse) -> der::Result<Single> {
    let state = match &single.status {
        CertStatus::Good(_) => State::Good,
        CertStatus::Revoked(info) => {
            State::Revoked(moment(info.at)?, info.reason.map(RevocationReason::from))
        }
        CertStatus::Unknown(_) => State::Unknown,
    };
    Ok(Single {
        serial: single.id.serial.to_der()?,
        id: single.id.clone(),
        state,
        this_update: moment(single.this_update)?,
        next_update: single.next_update.map(moment).transpose()?,
    })
}

fn moment(time: GeneralizedTime) -> der::Result<OffsetDateTime> {
    crate::cert::date(x509_cert::time::Time::GeneralTime(time))
}
