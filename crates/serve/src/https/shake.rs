//! TLS for another protocol than HTTP, or over another stream than a socket: the handshake alone,
//! and HTTP on a stream whose handshake is done.

use std::io;

use axum::Router;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{ClientCertificate, Limits, Peer, ServerTls, connection};
use crate::{clock::SharedClock, shutdown::Shutdown};

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

    /// Shakes hands on any stream; the client's certificate, if there is one, is not looked at. How
    /// long it may take is the caller's to bound.
    ///
    /// # Errors
    /// The handshake's.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config.clone()).accept(stream).await
    }
}

/// Serves `router` on one stream to its end. Handlers see an anonymous [`Peer`] without address: who
/// is at the other end, `router` must know.
pub async fn serve_stream<S>(stream: S, router: Router, limits: Limits, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = connection::prepare(router);
    connection::serve(stream, Peer::anonymous(None), router, limits, shutdown).await;
}
