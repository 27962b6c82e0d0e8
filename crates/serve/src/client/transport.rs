//! Connections: to where, and the one idle connection that is kept.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
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

use super::CallError;

type Sender = http1::SendRequest<Full<Bytes>>;

pub(super) struct Transport {
    target: Target,
    /// Address or path, for messages.
    to: String,
    /// For the `Host` field.
    host: String,
    idle: Mutex<Option<Sender>>,
}

enum Target {
    Plain(String),
    Tls { address: String, name: ServerName<'static>, config: Arc<ClientConfig> },
    Unix(PathBuf),
}

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
        Self::origin(&uri, Some(&config)).map(|transport| Self { to: url.to_owned(), ..transport })
    }

    /// To the origin of a URL, `http` or, if there is a configuration for it, `https`; `None` if
    /// it is neither.
    pub(super) fn origin(uri: &Uri, config: Option<&Arc<ClientConfig>>) -> Option<Self> {
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
        Some(Self { target, to, host, idle: Mutex::new(None) })
    }

    pub(super) fn unix(path: &Path) -> Self {
        let to = path.display().to_string();
        let target = Target::Unix(path.to_owned());
        Self { target, to, host: "localhost".to_owned(), idle: Mutex::new(None) }
    }

    pub(super) fn to(&self) -> &str {
        &self.to
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends `request` and waits for the head of the answer.
    ///
    /// Only a call that may be repeated goes over a kept connection: the service may have closed
    /// it a moment ago, and then nobody knows whether the request was read.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        repeatable: bool,
        connect: Duration,
    ) -> Result<Response<Incoming>, CallError> {
        if repeatable
            && let Some(mut sender) = self.take_idle()
            && let Ok(response) = sender.send_request(request.clone()).await
        {
            self.keep(sender);
            return Ok(response);
        }
        let mut sender = match timeout(connect, self.connect()).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
        .map_err(|source| CallError::Unreachable { to: self.to.clone(), source })?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| CallError::Interrupted { to: self.to.clone(), source })?;
        self.keep(sender);
        Ok(response)
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Not ready: the answer before was not read to its end. Not ours to wait for.
        idle.take().filter(|sender| sender.is_ready() && !sender.is_closed())
    }

    fn keep(&self, sender: Sender) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    async fn connect(&self) -> io::Result<Sender> {
        match &self.target {
            Target::Plain(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                start(stream).await
            }
            Target::Tls { address, name, config } => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                let connector = TlsConnector::from(config.clone());
                start(connector.connect(name.clone(), stream).await?).await
            }
            Target::Unix(path) => start(UnixStream::connect(path).await?).await,
        }
    }
}

async fn start<I>(io: I) -> io::Result<Sender>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = crate::exit::chain(&error), "connection ended early");
        }
    });
    Ok(sender)
}
