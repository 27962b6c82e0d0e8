//! Connections: to where, and what is sent over which.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::{Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    CallError,
    idle::{Idle, Keeping, Open, Probe},
};

pub(super) struct Transport {
    target: Target,
    /// Address or path, for messages.
    to: String,
    /// For the `Host` field.
    host: String,
    idle: Idle,
}

enum Target {
    Plain(String),
    Tls { address: String, name: ServerName<'static>, config: Arc<ClientConfig> },
    Unix(PathBuf),
}

/// Why there is no answer; and the request, if nothing of it was written.
type Broken = (CallError, Option<Box<Request<Full<Bytes>>>>);

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Transport {
    /// `None` if `url` is not `https://HOST[:PORT]` with at most a slash after it.
    pub(super) fn tls(url: &str, config: Arc<ClientConfig>) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") {
            return None;
        }
        if uri.query().is_some() {
            return None;
        }
        let transport = Self::origin(&uri, Some(&config), Keeping::Long)?;
        Some(Self { to: url.to_owned(), ..transport })
    }

    /// To the origin of a URL, `http` or, if there is a configuration for it, `https`; `None` if
    /// it is neither.
    pub(super) fn origin(
        uri: &Uri,
        config: Option<&Arc<ClientConfig>>,
        keeping: Keeping,
    ) -> Option<Self> {
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let address =
            |port| format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port));
        let target = match (uri.scheme_str()?, config) {
            ("http", _) => Target::Plain(address(80)),
            ("https", Some(config)) => {
                let name = authority.host().trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned()).ok()?;
                Target::Tls { address: address(443), name, config: Arc::clone(config) }
            }
            _ => return None,
        };
        let host = authority.as_str().to_owned();
        let to = format!("{}://{host}", uri.scheme_str()?);
        Some(Self { target, to, host, idle: Idle::new(keeping) })
    }

    pub(super) fn unix(path: &Path) -> Self {
        let to = path.display().to_string();
        let target = Target::Unix(path.to_owned());
        Self { target, to, host: "localhost".to_owned(), idle: Idle::default() }
    }

    pub(super) fn to(&self) -> &str {
        &self.to
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends `request` and waits for the head of the answer.
    ///
    /// Over a kept connection, which the service may have closed a moment ago: then nobody knows
    /// whether the request was read. One that may be repeated is sent again over a new connection;
    /// one that may not only if nothing of it was written ([`Idle`] makes that moment short).
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        repeatable: bool,
        connect: Duration,
    ) -> Result<Response<Incoming>, CallError> {
        while let Some(open) = self.idle.take(repeatable) {
            let again = repeatable.then(|| request.clone());
            request = match self.send_over(open, request).await {
                Ok(response) => return Ok(response),
                Err((_, Some(unsent))) => *unsent,
                Err((error, None)) => again.ok_or(error)?,
            };
        }
        let open = match timeout(connect, self.connect()).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
        .map_err(|source| CallError::Unreachable { to: self.to.clone(), source })?;
        self.send_over(open, request).await.map_err(|(error, _)| error)
    }

    /// The same over this connection.
    async fn send_over(
        &self,
        mut open: Open,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Broken> {
        match open.sender.try_send_request(request).await {
            Ok(response) => {
                self.idle.keep(open, response.headers());
                Ok(response)
            }
            Err(mut error) => {
                let unsent = error.take_message().map(Box::new);
                let source = error.into_error();
                Err((CallError::Interrupted { to: self.to.clone(), source }, unsent))
            }
        }
    }

    async fn connect(&self) -> io::Result<Open> {
        match &self.target {
            Target::Plain(address) => {
                let stream = tcp(address).await?;
                let probe = Probe::of(&stream);
                start(stream, probe).await
            }
            Target::Tls { address, name, config } => {
                let stream = tcp(address).await?;
                let probe = Probe::of(&stream);
                let connector = TlsConnector::from(config.clone());
                start(connector.connect(name.clone(), stream).await?, probe).await
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                let probe = Probe::of(&stream);
                start(stream, probe).await
            }
        }
    }
}

async fn tcp(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn start<I>(io: I, probe: Probe) -> io::Result<Open>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let ends = probe.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = crate::exit::chain(&error), "connection ended early");
        }
        ends.end();
    });
    Ok(Open { sender, probe })
}
