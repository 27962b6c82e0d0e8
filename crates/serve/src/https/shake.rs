//! TLS for another protocol than HTTP: the handshake alone.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{ClientCertificate, Peer, ServerTls};
use crate::clock::SharedClock;

impl ServerTls {
    /// Shakes hands on `stream`. The client must present a certificate of the server's client
    /// anchors, within its dates. How long it may take is the caller's to bound.
    ///
    /// # Errors
    /// The handshake's, or [`io::ErrorKind::PermissionDenied`] with a
    /// [`PeerRejection`](super::PeerRejection) in it.
    pub async fn shake(
        &self,
        stream: TcpStream,
        clock: &SharedClock,
    ) -> io::Result<TlsStream<TcpStream>> {
        let address = stream.peer_addr().ok();
        let stream = TlsAcceptor::from(self.config.clone()).accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let leaf = chain.and_then(|chain| ClientCertificate::parse(chain.first()?));
        let peer = leaf.map_or_else(
            || Peer::anonymous(address),
            |certificate| Peer::certified(certificate, address),
        );
        let denied = |why| io::Error::new(io::ErrorKind::PermissionDenied, why);
        peer.certificate(clock.now()).map_err(denied)?;
        Ok(stream)
    }
}
