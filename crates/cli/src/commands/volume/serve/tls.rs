//! The export over TCP, for clients with a certificate: NBD's own way into TLS (`STARTTLS`), then
//! bytes to the export's socket and back. Nothing but TLS is spoken over TCP.
//!
//! ```text
//!   greeting -> client's flags -> any option but STARTTLS: TLS_REQD
//!     -> STARTTLS -> handshake, certificate of the client CA -> the export's option haggling
//! ```
//!
//! **Invariants:** before the handshake no option is answered but by a refusal, and what a client
//! sent before it is forgotten; all of it has ten seconds.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::serve::{
    clock::{SharedClock, SystemClock},
    https::ServerTls,
    pem,
};
use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{args::OverTls, output::Failure};

/// Until the handshake is done.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Options of one client before STARTTLS, and the longest of them.
const OPTIONS: usize = 16;
const OPTION_BYTES: u64 = 4096;

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Fixed newstyle, no zeroes.
const FLAGS: u16 = 3;
const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_STARTTLS: u32 = 5;
const REP_ACK: u32 = 1;
const REP_ERR_INVALID: u32 = 0x8000_0003;
const REP_ERR_TLS_REQD: u32 = 0x8000_0005;
/// Bytes of the greeting.
const GREETING: usize = 18;

/// The TCP side of an export.
#[derive(Debug)]
pub(super) struct Front {
    listener: TcpListener,
    tls: ServerTls,
    clock: SharedClock,
    socket: PathBuf,
}

impl Front {
    /// Reads the certificates and binds; connections go to the export at `socket`.
    ///
    /// # Errors
    /// A file or address that cannot be used.
    pub(super) async fn bind(wish: &OverTls, socket: &Path) -> Result<Option<Self>, Failure> {
        let (Some(address), Some(cert), Some(key), Some(ca)) =
            (wish.listen, &wish.tls_cert, &wish.tls_key, &wish.tls_client_ca)
        else {
            return Ok(None);
        };
        let (chain, anchors) = (pem::read_certificates(cert)?, pem::read_certificates(ca)?);
        if anchors.is_empty() {
            return Err(Failure::Usage(format!("{} holds no certificate", ca.display())));
        }
        let clock = SystemClock::shared();
        let tls = ServerTls::new(&chain, &pem::read_key(key)?, &anchors, clock.clone())
            .context("the TLS certificate and key")?;
        let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
        Ok(Some(Self { listener, tls, clock, socket: socket.to_owned() }))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections for ever.
    pub(super) async fn run(self) {
        let (front, places) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, from) = match front.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let front = Arc::clone(&front);
            tokio::spawn(async move {
                match front.serve(stream).await {
                    Ok(()) => tracing::info!(%from, "connection closed"),
                    Err(error) => tracing::warn!(%from, %error, "connection ended"),
                }
                drop(place);
            });
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let begun = async {
            let Some(flags) = haggle(&mut stream).await? else { return Ok(None) };
            let outer = self.tls.shake(stream, &self.clock).await?;
            let mut inner = UnixStream::connect(&self.socket).await?;
            inner.read_exact(&mut [0; GREETING]).await?;
            inner.write_u32(flags).await?;
            Ok::<_, io::Error>(Some((outer, inner)))
        };
        let Some((mut outer, mut inner)) = timeout(PATIENCE, begun).await?? else {
            return Ok(());
        };
        copy_bidirectional(&mut outer, &mut inner).await.map(|_| ())
    }
}

/// Greets, and refuses every option until STARTTLS; the client's flags, or nothing if it left.
async fn haggle(stream: &mut TcpStream) -> io::Result<Option<u32>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut greeting = Vec::with_capacity(GREETING);
    greeting.extend(NBDMAGIC.to_be_bytes());
    greeting.extend(IHAVEOPT.to_be_bytes());
    greeting.extend(FLAGS.to_be_bytes());
    stream.write_all(&greeting).await?;
    let flags = stream.read_u32().await?;
    for _ in 0..OPTIONS {
        if stream.read_u64().await? != IHAVEOPT {
            return Err(invalid("no option follows"));
        }
        let (option, length) = (stream.read_u32().await?, u64::from(stream.read_u32().await?));
        if length > OPTION_BYTES {
            return Err(invalid("an option that is too long"));
        }
        let mut data = Vec::new();
        (&mut *stream).take(length).read_to_end(&mut data).await?;
        let answer = match option {
            OPT_STARTTLS if length == 0 => REP_ACK,
            OPT_STARTTLS => REP_ERR_INVALID,
            OPT_ABORT => REP_ACK,
            // It has no answer but the export.
            OPT_EXPORT_NAME => return Err(invalid("a client that does not ask for TLS")),
            _ => REP_ERR_TLS_REQD,
        };
        let mut reply = Vec::with_capacity(20);
        reply.extend(OPTION_REPLY.to_be_bytes());
        reply.extend(option.to_be_bytes());
        reply.extend(answer.to_be_bytes());
        reply.extend(0_u32.to_be_bytes());
        stream.write_all(&reply).await?;
        match (option, answer) {
            (OPT_STARTTLS, REP_ACK) => return Ok(Some(flags)),
            (OPT_ABORT, _) => return Ok(None),
            _ => {}
        }
    }
    Err(invalid("too many options before STARTTLS"))
}
