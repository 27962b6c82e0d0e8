//! Trust-service interface: a connection to the trust service, over the VM's port or a network.
//!
//! ```text
//! PortStream ─┐
//!             ├─► TLS 1.3, passport checked ─► HTTP ─► challenge, attest, xkms
//! TCP ────────┴─► (http: plain) ─────────────► HTTP ─► xkms     no VM is proven over plain HTTP
//! ```
//!
//! **Invariant:** over the port and over `https`, nothing is sent before the service's passport was
//! checked ([`crate::proof::passport`]).

pub mod http;
pub mod port;

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use model::guest::EXPORTER;
use pki::{Anchors, PassportRejection};
use rustls::{ClientConfig, ClientConnection, StreamOwned, client::Resumption};
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use self::{
    http::{HttpAnswer, HttpError},
    port::NotNow,
};
use crate::proof::passport::PassportVerifier;

/// Why the service cannot be spoken to.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// It is not what it must be: nothing was sent to it.
    #[error("the service is not the trust service of an attested host: {0}")]
    Tampered(#[source] PassportRejection),
    /// It said no.
    #[error("the service refused: {0}")]
    Refused(String),
    /// It could not do it.
    #[error("the service failed (status {0})")]
    Failed(u16),
    /// It does not serve now, as it seems on the port: no answer, and nothing that is proven.
    #[error("the service does not serve now: {0}")]
    NotNow(NotNow),
    /// No connection, or it broke.
    #[error("the service cannot be reached")]
    Io(#[source] io::Error),
    /// TLS.
    #[error("TLS with the service failed")]
    Tls(#[from] rustls::Error),
    /// What came is no answer of the service.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What came is not what the request answers with.
    #[error("the service answered something else")]
    Answer(#[from] serde_json::Error),
    /// Not `http://HOST:PORT/PATH` or `https://..`.
    #[error("{0:?} is no URL of a service")]
    Url(String),
}

impl From<io::Error> for ServiceError {
    fn from(error: io::Error) -> Self {
        NotNow::of(&error).map_or(Self::Io(error), Self::NotNow)
    }
}

impl ServiceError {
    /// The name of the refusal, on whichever side it was.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Tampered(_) => Some("service-tampered"),
            Self::Refused(name) => Some(name),
            Self::Failed(_)
            | Self::NotNow(_)
            | Self::Io(_)
            | Self::Tls(_)
            | Self::Http(_)
            | Self::Answer(_)
            | Self::Url(_) => None,
        }
    }
}

/// Bytes both ways.
pub trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

enum Stream {
    Tls(Box<StreamOwned<ClientConnection, Box<dyn Duplex>>>),
    Plain(Box<dyn Duplex>),
}

/// A connection.
pub struct Connection {
    stream: Stream,
    host: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What a refusal looks like (RFC 9457, as far as it is read).
#[derive(Deserialize)]
struct Problem {
    name: String,
}

impl Connection {
    /// TLS over `stream`, to a trust service that one of `anchors` certifies.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] and others.
    pub fn tls(stream: Box<dyn Duplex>, anchors: &Anchors) -> Result<Self, ServiceError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(PassportVerifier::new(anchors.clone(), &provider));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // The passport names a service and no address: this name decides nothing.
        let name = ServerName::try_from("trust.vouchsafe.internal")
            .map_err(|_| ServiceError::Url(String::new()))?;
        let mut connection = ClientConnection::new(Arc::new(config), name)?;
        let mut stream = stream;
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut stream) {
                return Err(verifier.rejection().map_or(error.into(), ServiceError::Tampered));
            }
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(connection, stream)));
        Ok(Self { stream, host: "trust.vouchsafe.internal".to_owned() })
    }

    /// To a URL; gives the path too. Over `https` the service needs a passport.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn url(
        url: &str,
        anchors: Option<&Anchors>,
        patience: Duration,
    ) -> Result<(Self, String), ServiceError> {
        let wrong = || ServiceError::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let stream = connect(host, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let connection = match (scheme, anchors) {
            ("http", _) => Self { stream: Stream::Plain(Box::new(stream)), host: host.to_owned() },
            ("https", Some(anchors)) => Self::tls(Box::new(stream), anchors)?,
            _ => return Err(wrong()),
        };
        Ok((connection, format!("/{path}")))
    }

    /// What both ends of this connection, and nobody else, can compute; none without TLS.
    ///
    /// # Errors
    /// [`ServiceError::Tls`].
    pub fn exporter(&self) -> Result<Option<[u8; 32]>, ServiceError> {
        match &self.stream {
            Stream::Tls(stream) => {
                Ok(Some(stream.conn.export_keying_material([0; 32], EXPORTER, None)?))
            }
            Stream::Plain(_) => Ok(None),
        }
    }

    /// Posts a document.
    ///
    /// # Errors
    /// [`ServiceError::Http`].
    pub fn post(
        &mut self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<HttpAnswer, ServiceError> {
        let host = self.host.clone();
        let answer = match &mut self.stream {
            Stream::Tls(stream) => http::post(stream, &host, path, content_type, body),
            Stream::Plain(stream) => http::post(stream, &host, path, content_type, body),
        };
        Ok(answer?)
    }

    /// Posts JSON and reads JSON.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] with the refusal's name, and others.
    pub fn post_json<B: Serialize, T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &B,
    ) -> Result<T, ServiceError> {
        let answer = self.post(path, "application/json", &serde_json::to_vec(body)?)?;
        refusal(&answer)?;
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

/// To the first of a host's addresses that answers; each may take as long as the patience.
fn connect(host: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The refusal that an answer is, if it is one.
///
/// # Errors
/// [`ServiceError::Refused`], [`ServiceError::Failed`].
pub fn refusal(answer: &HttpAnswer) -> Result<(), ServiceError> {
    if answer.status < 300 {
        return Ok(());
    }
    let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
    match problem.filter(|_| answer.status < 500) {
        Some(problem) => {
            let name = problem.name.chars().filter(|c| c.is_ascii_lowercase() || *c == '-');
            Err(ServiceError::Refused(name.take(64).collect()))
        }
        None => Err(ServiceError::Failed(answer.status)),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, ipproto::TCP, listen, socket};

    use super::*;

    #[test]
    fn a_host_that_does_not_answer_is_not_waited_for_longer_than_the_patience() {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, Some(TCP)).unwrap();
        bind(&listener, &"127.0.0.1:0".parse::<std::net::SocketAddrV4>().unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        let address = getsockname(&listener).unwrap();
        let address = std::net::SocketAddrV4::try_from(address).unwrap().to_string();
        // Nobody takes connections: some fit in the queue, and then none.
        let mut kept = Vec::new();
        while let Ok(stream) = connect(&address, Duration::from_millis(200)) {
            kept.push(stream);
            assert!(kept.len() < 10, "the queue has no end");
        }
        let url = format!("http://{address}/xkms");
        let why = Connection::url(&url, None, Duration::from_millis(200)).unwrap_err();
        assert!(
            matches!(&why, ServiceError::Io(error) if error.kind() == io::ErrorKind::TimedOut),
            "{why:?}"
        );
    }
}
