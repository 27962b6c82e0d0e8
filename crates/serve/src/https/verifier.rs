//! Verifies client certificates, leaving the leaf's dates to the application.
//!
//! A TLS alert cannot tell an agent *why* it was turned away, and an expired session certificate
//! is an everyday event that must end in the named refusal `session-expired`. So a leaf outside its
//! validity does not fail the handshake. What this costs, and why it is safe:
//!
//! - Signatures, trust anchors, path length, names and key usage are always verified by webpki.
//! - Only if the leaf itself is outside its validity are the dates of the chain checked at the
//!   leaf's nearest valid moment instead of now; then, and only then, an intermediate that expired
//!   meanwhile passes as well.
//! - A caller with such a leaf gets no further than one without any: the only way to the
//!   certificate that handlers act on is [`super::Peer::certificate`], which compares the leaf's
//!   dates with the request's time.

use std::{sync::Arc, time::Duration};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use super::{ClientCertificate, TlsError};

#[derive(Debug)]
pub(super) struct SessionVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
}

impl SessionVerifier {
    pub(super) fn new(
        anchors: &[Vec<u8>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, TlsError> {
        let roots = Arc::new(super::anchors(anchors)?);
        let webpki = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .allow_unauthenticated()
            .build()
            .map_err(|_| TlsError::Anchor)?;
        Ok(Arc::new(Self { webpki }))
    }
}

/// `now`, or the moment nearest to it at which the leaf is valid.
fn nearest_valid(leaf: &ClientCertificate, now: UnixTime) -> UnixTime {
    let seconds = |date: OffsetDateTime| u64::try_from(date.unix_timestamp()).unwrap_or(0);
    let (first, last) = (seconds(leaf.not_before), seconds(leaf.not_after));
    let at = now.as_secs().min(last).max(first);
    UnixTime::since_unix_epoch(Duration::from_secs(at))
}

impl ClientCertVerifier for SessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let leaf = ClientCertificate::parse(end_entity)
            .ok_or(Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        self.webpki.verify_client_cert(end_entity, intermediates, nearest_valid(&leaf, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
