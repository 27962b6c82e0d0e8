//! The service's passport, checked while TLS shakes hands: the certificate is one that the authority
//! issued to the guests' end of the trust service of a host with a good verdict, and its key signs
//! the handshake. The passport that a trust service shows to other services is not taken.

use std::sync::{Arc, Mutex, PoisonError};

use model::api::service::Service;
use pki::{Anchors, PassportRejection, Purpose, Wanted, check_passport};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

/// Checks passports in a handshake and remembers why one was not taken.
#[derive(Debug)]
pub struct PassportVerifier {
    anchors: Anchors,
    algorithms: WebPkiSupportedAlgorithms,
    rejected: Mutex<Option<PassportRejection>>,
}

impl PassportVerifier {
    /// Takes passports that one of `anchors` certifies.
    #[must_use]
    pub fn new(anchors: Anchors, provider: &Arc<CryptoProvider>) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { anchors, algorithms, rejected: Mutex::default() }
    }

    /// Why the passport was not taken.
    #[must_use]
    pub fn rejection(&self) -> Option<PassportRejection> {
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for PassportVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seconds = i64::try_from(now.as_secs()).ok();
        let now = seconds.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        let now = now.ok_or(Error::FailedToGetCurrentTime)?;
        let wanted = Wanted::any(Service::TrustGuests);
        let at = (now, Purpose::TlsServer);
        match check_passport(end_entity, intermediates, &self.anchors, at, &wanted) {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(rejection) => {
                *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = Some(rejection);
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
