//! Servers that are known by something else than a DNS name or an address.

use std::{fmt::Debug, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        WebPkiSupportedAlgorithms, aws_lc_rs::default_provider, verify_tls12_signature,
        verify_tls13_signature,
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use crate::clock::SharedClock;

/// Decides whether a server is the right one.
pub trait ServerCheck: Debug + Send + Sync {
    /// Looks at the server's certificate (DER) and what it offered between it and an anchor.
    ///
    /// # Errors
    /// Why it will not do; the handshake fails with it.
    fn check(
        &self,
        leaf: &[u8],
        intermediates: &[&[u8]],
        now: OffsetDateTime,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

#[derive(Debug)]
pub(super) struct Verifier {
    check: Arc<dyn ServerCheck>,
    clock: SharedClock,
    algorithms: WebPkiSupportedAlgorithms,
}

pub(super) fn verifier(check: Arc<dyn ServerCheck>, clock: SharedClock) -> Verifier {
    let algorithms = default_provider().signature_verification_algorithms;
    Verifier { check, clock, algorithms }
}

/// What a check said, if that is why a connection failed.
pub(super) fn rejection(
    error: &std::io::Error,
) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    if let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = inner {
        Some(&**why)
    } else {
        None
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let between: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        let checked = self.check.check(leaf, &between, self.clock.now());
        checked.map(|()| ServerCertVerified::assertion()).map_err(|why| {
            let why = Arc::<dyn std::error::Error + Send + Sync>::from(why);
            Error::InvalidCertificate(CertificateError::Other(OtherError(why)))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
