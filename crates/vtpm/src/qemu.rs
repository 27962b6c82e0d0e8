//! QEMU's side: its control connection, and the data channel that it hands over on it.
//!
//! QEMU may quit and come again: its SHUTDOWN and the end of its connection power the vTPM off and
//! leave this process and swtpm running. A second QEMU at the same time is turned away.

use std::{
    io::{self, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serve::{control::is_admitted, exit::chain, shutdown::Shutdown};

use crate::{
    control::{Code, number_at},
    sockets::Socket,
    vtpm::{MAX_COMMAND, MachineError, RC_COMMAND_SIZE, Vtpm, announced, refusal},
};

/// The longest request: SET_STATEBLOB with all of a vTPM's state.
const MAX_REQUEST: usize = 1 << 20;

/// How often 10 ms are waited for the QEMU before to be gone.
const LEAVING_PATIENCE: u32 = 200;

/// Accepts QEMU in a thread of its own until the process ends.
pub(crate) fn start(
    vtpm: Arc<Vtpm>,
    socket: Arc<Socket>,
    uids: Vec<u32>,
    stop: Shutdown,
) -> io::Result<()> {
    let accept = move || {
        loop {
            let admitted =
                socket.listener.accept().and_then(|(stream, _)| admit(stream, &vtpm, &uids, &stop));
            if let Err(error) = admitted {
                tracing::warn!(%error, "QEMU's connection could not be accepted");
                thread::sleep(Duration::from_millis(50));
            }
        }
    };
    thread::Builder::new().name("qemu-accept".to_owned()).spawn(accept).map(drop)
}

fn admit(stream: UnixStream, vtpm: &Arc<Vtpm>, uids: &[u32], stop: &Shutdown) -> io::Result<()> {
    if !is_admitted(&stream, uids) {
        tracing::warn!(rejection = "wrong-user", "QEMU's connection refused");
        return Ok(());
    }
    if !claim(vtpm) {
        tracing::warn!(rejection = "already-connected", "QEMU's connection refused");
        return Ok(());
    }
    let shared = Arc::clone(vtpm);
    let stop = stop.clone();
    let spawned = thread::Builder::new().name("qemu".to_owned()).spawn(move || {
        tracing::info!("QEMU connected");
        let left = shared.turns.take().leave();
        match left.and_then(|()| converse(stream, &shared)) {
            Ok(()) => tracing::info!("QEMU left"),
            Err(error) => tracing::warn!(detail = chain(&error), "QEMU's connection broke"),
        }
        if let Err(error) = shared.turns.take().power_off() {
            tracing::error!(detail = chain(&error), "swtpm does not answer");
            stop.trigger();
        }
        shared.qemu_connected.store(false, Ordering::SeqCst);
    });
    if spawned.is_err() {
        vtpm.qemu_connected.store(false, Ordering::SeqCst);
    }
    spawned.map(drop)
}

/// Claims the place of QEMU, waiting for one that is just leaving.
fn claim(vtpm: &Vtpm) -> bool {
    (0..LEAVING_PATIENCE).any(|attempt| {
        if attempt > 0 {
            thread::sleep(Duration::from_millis(10));
        }
        !vtpm.qemu_connected.swap(true, Ordering::SeqCst)
    })
}

/// Requests and answers in turn until QEMU leaves.
fn converse(stream: UnixStream, vtpm: &Arc<Vtpm>) -> Result<(), MachineError> {
    let mut requests = Requests { stream, data: None };
    let mut relay: Option<UnixStream> = None;
    let outcome = loop {
        let (code, request) = match requests.next() {
            Ok(Some(request)) => request,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        };
        let answer = match answer(vtpm, code, &request, &mut requests.data, &mut relay) {
            Ok(answer) => answer,
            Err(error) => break Err(error),
        };
        if let Err(error) = requests.stream.write_all(&answer) {
            break Err(error.into());
        }
    };
    if let Some(data) = relay {
        // Ends the relay's wait for the next command; it is gone before the TPM is powered off.
        let _ = data.shutdown(std::net::Shutdown::Both);
    }
    outcome
}

const DONE: [u8; 4] = [0; 4];
/// TPM_FAIL, as swtpm answers to requests that it cannot do.
const FAILED: [u8; 4] = [0, 0, 0, 9];

fn answer(
    vtpm: &Arc<Vtpm>,
    code: Code,
    request: &[u8],
    data: &mut Option<OwnedFd>,
    relay: &mut Option<UnixStream>,
) -> Result<Vec<u8>, MachineError> {
    match code {
        Code::Cancel => Ok(vtpm.control.forward(code, request)?),
        Code::SetDataFd => {
            let Some(fd) = data.take() else { return Ok(FAILED.to_vec()) };
            let stream = UnixStream::from(fd);
            *relay = Some(stream.try_clone()?);
            start_relay(vtpm, stream)?;
            Ok(DONE.to_vec())
        }
        Code::Shutdown => {
            vtpm.turns.take().power_off()?;
            Ok(DONE.to_vec())
        }
        Code::GetCapability
        | Code::Init
        | Code::GetEstablished
        | Code::SetLocality
        | Code::HashStart
        | Code::HashData
        | Code::HashEnd
        | Code::StoreVolatile
        | Code::ResetEstablished
        | Code::GetStateBlob
        | Code::SetStateBlob
        | Code::Stop
        | Code::GetConfig
        | Code::SetBufferSize
        | Code::GetInfo => vtpm.turns.take().guest_control(code, request),
    }
}

/// Passes the guest's commands on, one turn each.
fn start_relay(vtpm: &Arc<Vtpm>, mut stream: UnixStream) -> io::Result<()> {
    let vtpm = Arc::clone(vtpm);
    let mut relay = move || -> Result<(), MachineError> {
        while let Some(command) = read_command(&mut stream)? {
            let response = match command {
                Incoming::Complete(command) => vtpm.turns.take().guest_command(&command)?,
                Incoming::Malformed => refusal(RC_COMMAND_SIZE),
            };
            stream.write_all(&response)?;
        }
        Ok(())
    };
    let named = thread::Builder::new().name("qemu-data".to_owned());
    let spawned = named.spawn(move || {
        if let Err(error) = relay() {
            tracing::warn!(detail = chain(&error), "QEMU's data channel broke");
        }
    });
    spawned.map(drop)
}

/// What the guest sent.
enum Incoming {
    Complete(Vec<u8>),
    /// The size in its header is not that of the command: a guest's fault, which must not stop the
    /// channel. QEMU writes what the guest gave in one piece, so the rest will not come.
    Malformed,
}

/// How long the rest of a command may take that came in parts.
const PARTS_WAIT: Duration = Duration::from_millis(500);

/// The next command; `None` if QEMU closed the channel.
fn read_command(stream: &mut UnixStream) -> io::Result<Option<Incoming>> {
    let mut command = vec![0; MAX_COMMAND];
    stream.set_read_timeout(None)?;
    let mut have = match rustix::io::retry_on_intr(|| rustix::io::read(&*stream, &mut command))? {
        0 => return Ok(None),
        count => count,
    };
    stream.set_read_timeout(Some(PARTS_WAIT))?;
    loop {
        let size = if have < 10 { Some(10) } else { announced(&command) };
        match size {
            Some(size) if have < size => {}
            Some(size) if have == size => {
                command.truncate(size);
                return Ok(Some(Incoming::Complete(command)));
            }
            Some(_) | None => return Ok(Some(Incoming::Malformed)),
        }
        match stream.read(command.get_mut(have..).unwrap_or_default()) {
            Ok(0) => return Ok(None),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Some(Incoming::Malformed));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// QEMU's requests, one at a time: it waits for each answer.
struct Requests {
    stream: UnixStream,
    data: Option<OwnedFd>,
}

impl Requests {
    /// The next complete request; a descriptor that came with it is in `self.data`.
    fn next(&mut self) -> io::Result<Option<(Code, Vec<u8>)>> {
        let mut request = vec![0; 8192];
        let length = self.receive(&mut request)?;
        request.truncate(length);
        if request.is_empty() {
            return Ok(None);
        }
        self.read_up_to(&mut request, 4)?;
        let number = number_at(&request, 0).ok_or(io::ErrorKind::InvalidData)?;
        let code = Code::from_number(number).ok_or(io::ErrorKind::InvalidData)?;
        self.read_up_to(&mut request, code.body().saturating_add(4))?;
        let head = code.body().saturating_add(4);
        let carries_data = matches!(code, Code::HashData | Code::SetStateBlob);
        let announced = number_at(&request, head.saturating_sub(4)).filter(|_| carries_data);
        if let Some(length) = announced {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            self.read_up_to(&mut request, length.saturating_add(head))?;
        }
        Ok(Some((code, request)))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(buffer)];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(self.stream.as_fd(), &mut parts, &mut ancillary, flags)
        })?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                // The last one counts; others are closed.
                fds.for_each(|fd| self.data = Some(fd));
            }
        }
        Ok(received.bytes)
    }

    fn read_up_to(&mut self, request: &mut Vec<u8>, length: usize) -> io::Result<()> {
        let have = request.len();
        if length > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if have < length {
            request.resize(length, 0);
            let rest = request.get_mut(have..).unwrap_or_default();
            self.stream.read_exact(rest)?;
        }
        Ok(())
    }
}
