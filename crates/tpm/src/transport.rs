//! How a command reaches a TPM: a character device, or swtpm's socket.
//!
//! swtpm serves one data client at a time and leaves the next one waiting in the listen queue, so a
//! connection is proved with a harmless command whose answer must come within [`BUSY_WAIT`].

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::{address::Address, error::TransportError, wire::MAX_FRAME};

/// How long to wait for another client to let go of a swtpm.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(10);

/// How long a command may take; RSA key generation in hardware is the slowest.
const COMMAND_WAIT: Duration = Duration::from_secs(120);

/// TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES, TPM_PT_FAMILY_INDICATOR, 1): changes nothing, and is
/// answered, if only with TPM_RC_INITIALIZE, in every state of a TPM.
const PROBE: [u8; 22] =
    [0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 0x01, 0, 0, 0, 0, 1];

/// One TPM, reached.
pub trait Transport: Send {
    /// Sends one complete command and returns its complete response.
    ///
    /// # Errors
    /// [`TransportError`]; after one the transport must not be used again.
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError>;
}

/// Something that can be connected to for one job at a time.
pub trait Connect: Send {
    /// Opens the TPM for one job.
    ///
    /// # Errors
    /// [`TransportError::Busy`] if another client holds it, [`TransportError::Open`].
    fn connect(&mut self) -> Result<Box<dyn Transport>, TransportError>;
}

impl Connect for Address {
    fn connect(&mut self) -> Result<Box<dyn Transport>, TransportError> {
        let address = self.to_string();
        let failed = |source| TransportError::Open { address: address.clone(), source };
        match self {
            Self::Device(path) => {
                let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
                Ok(Box::new(Device { file }))
            }
            Self::Unix(path) => {
                let target = SocketAddrUnix::new(&*path).map_err(|e| failed(e.into()))?;
                let stream = connect_unix(&target).map_err(|error| {
                    let busy = error.kind() == io::ErrorKind::WouldBlock;
                    if busy { TransportError::Busy } else { failed(error) }
                })?;
                stream.set_read_timeout(Some(BUSY_WAIT)).map_err(failed)?;
                let mut stream = StreamTransport(stream);
                stream.probe()?;
                stream.0.set_read_timeout(Some(COMMAND_WAIT)).map_err(failed)?;
                Ok(Box::new(stream))
            }
            Self::Tcp(socket) => {
                let stream = TcpStream::connect_timeout(socket, BUSY_WAIT).map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                stream.set_read_timeout(Some(BUSY_WAIT)).map_err(failed)?;
                let mut stream = StreamTransport(stream);
                stream.probe()?;
                stream.0.set_read_timeout(Some(COMMAND_WAIT)).map_err(failed)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// A blocking connect would wait without end while swtpm's queue is full.
fn connect_unix(target: &SocketAddrUnix) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let pause = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        match rustix::net::connect(&socket, target) {
            Ok(()) => break,
            Err(rustix::io::Errno::AGAIN) if waited < BUSY_WAIT => {
                thread::sleep(pause);
                waited += pause;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A kernel TPM device: one write, one read.
#[derive(Debug)]
struct Device {
    file: File,
}

impl Transport for Device {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let written = self.file.write(command).map_err(TransportError::Io)?;
        if written != command.len() {
            return Err(TransportError::Frame);
        }
        let mut response = vec![0; MAX_FRAME];
        let length = self.file.read(&mut response).map_err(TransportError::Io)?;
        response.truncate(length);
        Ok(response)
    }
}

/// A stream that carries bare commands and responses: swtpm's data channel, or the injected
/// channel of a running vTPM.
#[derive(Debug)]
pub struct StreamTransport<S>(S);

impl<S: Read + Write + Send> StreamTransport<S> {
    /// A transport over a stream that is open and ours alone while commands run.
    #[must_use]
    pub const fn new(stream: S) -> Self {
        Self(stream)
    }

    fn probe(&mut self) -> Result<(), TransportError> {
        match self.transmit(&PROBE) {
            Ok(_) => Ok(()),
            Err(TransportError::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                Err(TransportError::Busy)
            }
            Err(error) => Err(error),
        }
    }
}

impl<S: Read + Write + Send> Transport for StreamTransport<S> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        self.0.write_all(command).map_err(TransportError::Io)?;
        read_response(&mut self.0)
    }
}

/// Reads one response: its header says how long it is.
///
/// # Errors
/// [`TransportError::Io`], or [`TransportError::Frame`] for a length outside 10 to 4096.
fn read_response(stream: &mut impl Read) -> Result<Vec<u8>, TransportError> {
    let mut header = [0; 10];
    stream.read_exact(&mut header).map_err(TransportError::Io)?;
    let [_, _, a, b, c, d, ..] = header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let body = length.checked_sub(header.len()).ok_or(TransportError::Frame)?;
    if length > MAX_FRAME {
        return Err(TransportError::Frame);
    }
    let mut response = header.to_vec();
    response.resize(length, 0);
    let tail = response.get_mut(length - body..).ok_or(TransportError::Frame)?;
    stream.read_exact(tail).map_err(TransportError::Io)?;
    Ok(response)
}
