//! A server's certificate and key that are replaced while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use model::Secret;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{TlsError, certified};

/// The certificate and key of the moment. Clones share it. While there is none, handshakes fail.
#[derive(Clone, Debug, Default)]
pub struct LiveIdentity {
    now: Arc<RwLock<Option<Arc<CertifiedKey>>>>,
}

impl LiveIdentity {
    /// From now on, connections get this chain (leaf first, DER) and key (PKCS#8 DER).
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used; then the one before stays.
    pub fn replace(&self, chain: &[Vec<u8>], key: &Secret<Vec<u8>>) -> Result<(), TlsError> {
        let next = Arc::new(certified(chain, key)?);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(())
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
