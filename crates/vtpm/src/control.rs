//! swtpm's control channel (`swtpm_ioctls(3)`): requests of a big-endian number and a body, answers
//! of a big-endian result and a body, strictly in turn.

use std::{
    io::{self, IoSlice, Read as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// The longest answer: GET_STATEBLOB's header and data.
const MAX_ANSWER: usize = 64 << 10;

/// No control request takes longer; INIT of a fresh state makes keys' seeds only.
const WAIT: Duration = Duration::from_secs(60);

/// Requests of the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    GetCapability = 0x01,
    Init = 0x02,
    Shutdown = 0x03,
    GetEstablished = 0x04,
    SetLocality = 0x05,
    HashStart = 0x06,
    HashData = 0x07,
    HashEnd = 0x08,
    Cancel = 0x09,
    StoreVolatile = 0x0a,
    ResetEstablished = 0x0b,
    GetStateBlob = 0x0c,
    SetStateBlob = 0x0d,
    Stop = 0x0e,
    GetConfig = 0x0f,
    SetDataFd = 0x10,
    SetBufferSize = 0x11,
    GetInfo = 0x12,
}

impl Code {
    const ALL: [Self; 18] = [
        Self::GetCapability,
        Self::Init,
        Self::Shutdown,
        Self::GetEstablished,
        Self::SetLocality,
        Self::HashStart,
        Self::HashData,
        Self::HashEnd,
        Self::Cancel,
        Self::StoreVolatile,
        Self::ResetEstablished,
        Self::GetStateBlob,
        Self::SetStateBlob,
        Self::Stop,
        Self::GetConfig,
        Self::SetDataFd,
        Self::SetBufferSize,
        Self::GetInfo,
    ];

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    pub(crate) const fn number(self) -> u32 {
        self as u32
    }

    /// Bytes of the request's body before any data whose length it announces.
    pub(crate) const fn body(self) -> usize {
        match self {
            Self::Init
            | Self::SetLocality
            | Self::HashData
            | Self::ResetEstablished
            | Self::SetBufferSize => 4,
            Self::GetStateBlob | Self::SetStateBlob => 12,
            Self::GetInfo => 16,
            Self::GetCapability
            | Self::Shutdown
            | Self::GetEstablished
            | Self::HashStart
            | Self::HashEnd
            | Self::Cancel
            | Self::StoreVolatile
            | Self::Stop
            | Self::GetConfig
            | Self::SetDataFd => 0,
        }
    }
}

/// The big-endian number at `at`.
pub(crate) fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four))
}

/// Our end of swtpm's control channel. Apart from the lock on commands, so that CANCEL gets through
/// while a command runs.
#[derive(Debug)]
pub(crate) struct Control(Mutex<UnixStream>);

impl Control {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(WAIT))?;
        Ok(Self(Mutex::new(stream)))
    }

    /// Sends a complete request, as it came from QEMU or built here, and returns the complete
    /// answer.
    pub(crate) fn forward(&self, code: Code, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(&stream, request, None)?;
        receive(&mut stream, code)
    }

    /// A request with this body; its result.
    pub(crate) fn request(&self, code: Code, body: &[u8]) -> io::Result<u32> {
        let request = [&code.number().to_be_bytes()[..], body].concat();
        let answer = self.forward(code, &request)?;
        number_at(&answer, 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Hands swtpm its end of the data channel.
    pub(crate) fn set_data_fd(&self, fd: BorrowedFd<'_>) -> io::Result<u32> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(&stream, &Code::SetDataFd.number().to_be_bytes(), Some(fd))?;
        let answer = receive(&mut stream, Code::SetDataFd)?;
        number_at(&answer, 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// swtpm takes what one `recvmsg` gives as one request, so a request is one `sendmsg`.
fn send(stream: &UnixStream, request: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(request)];
    let flags = SendFlags::NOSIGNAL;
    let sent = rustix::net::sendmsg(stream.as_fd(), &parts, &mut ancillary, flags)?;
    // Only state blobs are long enough to be taken in parts; swtpm reads on for those.
    let mut rest = request.get(sent..).unwrap_or_default();
    while !rest.is_empty() {
        let sent = rustix::net::send(stream.as_fd(), rest, flags)?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// swtpm writes an answer at once; only data may follow in further parts.
fn receive(stream: &mut UnixStream, code: Code) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; MAX_ANSWER];
    let mut length = 0;
    loop {
        let space = answer.get_mut(length..).filter(|space| !space.is_empty());
        let Some(space) = space else { return Err(io::ErrorKind::InvalidData.into()) };
        match stream.read(space)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => length += count,
        }
        let have = answer.get(..length).unwrap_or_default();
        if expected(code, have).is_some_and(|expected| length >= expected) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

/// How long the answer is that begins with `have`, if that can be told already.
fn expected(code: Code, have: &[u8]) -> Option<usize> {
    let result = number_at(have, 0)?;
    if code == Code::GetStateBlob && have.len() > 4 {
        return usize::try_from(number_at(have, 12)?).ok()?.checked_add(16);
    }
    if code == Code::GetInfo && result == 0 {
        return usize::try_from(number_at(have, 8)?).ok()?.checked_add(12);
    }
    Some(4)
}
