//! The VM's port as a stream of one session: frames out, frames in, every wait bounded.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, OpenOptionsExt as _},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use model::port::{self, Frame, Frames, Kind, Session};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};
use thiserror::Error;

/// How long to wait for an answer to an Open before it is said again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long to wait before Open is said again to a service that was asked too soon.
const SOON: Duration = Duration::from_millis(300);

/// How long to wait before a port is looked at again on whose other side nobody is.
const AWAY: Duration = Duration::from_millis(100);

/// How long nobody may be on the other side before the service counts as absent: one that was started
/// again is back sooner.
const ABSENT: Duration = Duration::from_secs(10);

/// Why the service does not serve now, by what is seen or said on the port. **Nobody proved it**: it
/// comes before TLS, so whoever is on the port can say it, and all that follows is that the wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotNow {
    /// Somebody on the port says so.
    #[error("{}, somebody on the port says before TLS, which proves nothing", .0.code())]
    Said(port::NotNow),
    /// Nobody is on the other side.
    #[error("nobody is on the other side of the port")]
    Absent,
    /// Somebody is, and does not answer.
    #[error("nobody answers on the port")]
    Silent,
}

impl NotNow {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Said(why) => why.code(),
            Self::Absent => "service-absent",
            Self::Silent => "service-silent",
        }
    }

    /// What an error of a [`PortStream`] says, if it is this.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<NotNow> for io::Error {
    fn from(why: NotNow) -> Self {
        Self::new(io::ErrorKind::NotConnected, why)
    }
}

/// Where the kernel lists the ports by name.
const PORTS: &str = "/sys/class/virtio-ports";

/// The device of the port of this name.
///
/// # Errors
/// [`io::ErrorKind::NotFound`].
pub fn find() -> io::Result<PathBuf> {
    for entry in std::fs::read_dir(PORTS)?.flatten() {
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == port::NAME {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    let missing = format!("this VM has no port {}", port::NAME);
    Err(io::Error::new(io::ErrorKind::NotFound, missing))
}

/// One session on a port.
#[derive(Debug)]
pub struct PortStream {
    port: File,
    session: Session,
    frames: Frames,
    /// Bytes that came and were not read yet, and how many of them were.
    heard: (Vec<u8>, usize),
    patience: Duration,
    /// How long nobody is on the other side by now, before the session.
    away: Duration,
    /// Whether the session has begun.
    begun: bool,
    /// Whether bytes of the service came: from then on only a Close is heard.
    spoke: bool,
    ended: bool,
}

impl PortStream {
    /// Opens the port, a device or a unix socket, and a session on it.
    ///
    /// # Errors
    /// The device's, or [`NotNow`] in one.
    pub fn open(device: &Path, patience: Duration) -> io::Result<Self> {
        if std::fs::metadata(device)?.file_type().is_socket() {
            return Self::on(UnixStream::connect(device)?.into(), patience);
        }
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(device)?;
        Self::on(file.into(), patience)
    }

    /// Opens a session on a port that is open already: any stream.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn on(port: OwnedFd, patience: Duration) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&port)?;
        rustix::fs::fcntl_setfl(&port, flags | OFlags::NONBLOCK)?;
        let mut session = [0; 8];
        let random = SystemRandom::new();
        random.fill(&mut session).map_err(|_| io::Error::other("no randomness"))?;
        let mut stream = Self {
            port: port.into(),
            session: Session(session),
            frames: Frames::default(),
            heard: (Vec::new(), 0),
            patience,
            away: Duration::ZERO,
            begun: false,
            spoke: false,
            ended: false,
        };
        stream.begin()?;
        stream.begun = true;
        Ok(stream)
    }

    /// Says Open until it is answered. A Close is an answer too: that it was too soon.
    fn begin(&mut self) -> io::Result<()> {
        let mut word = Vec::new();
        port::write_word(self.session, Kind::Open, &mut word);
        let mut waited = Duration::ZERO;
        loop {
            self.put(&word)?;
            let mut here = Duration::ZERO;
            while here < AGAIN {
                let before = here;
                if !self.hear(&mut here, AGAIN)? {
                    break;
                }
                while let Some(frame) = self.frames.next_frame() {
                    match self.own(frame) {
                        Some(Frame { kind: Kind::Opened, .. }) => return Ok(()),
                        Some(Frame { kind: Kind::NotNow, payload, .. }) => {
                            return Err(not_now(&payload));
                        }
                        Some(Frame { kind: Kind::Close, .. }) => {
                            std::thread::sleep(SOON);
                            here = AGAIN;
                        }
                        Some(_) | None => {}
                    }
                }
                here = here.max(before.saturating_add(Duration::from_millis(1)));
            }
            waited = waited.saturating_add(AGAIN);
            if self.away >= ABSENT {
                return Err(NotNow::Absent.into());
            }
            if waited >= self.patience {
                return Err(NotNow::Silent.into());
            }
        }
    }

    /// Takes a frame of the session under way.
    fn take(&mut self, frame: Frame) -> io::Result<()> {
        let Some(Frame { kind, payload, .. }) = self.own(frame) else { return Ok(()) };
        match kind {
            Kind::Data => {
                self.spoke = true;
                self.heard = (payload, 0);
            }
            Kind::NotNow => {
                self.ended = true;
                // Once the service spoke there is a better source than this.
                if !self.spoke {
                    return Err(not_now(&payload));
                }
            }
            Kind::Close => self.ended = true,
            Kind::Open | Kind::Opened => {}
        }
        Ok(())
    }

    /// Nothing came for as long as the patience is.
    fn late(&self) -> io::Error {
        if self.spoke { io::ErrorKind::TimedOut.into() } else { NotNow::Silent.into() }
    }

    /// The frame, if it is of this session.
    fn own(&self, frame: Frame) -> Option<Frame> {
        (frame.session == self.session).then_some(frame)
    }

    /// Writes all of it, or waits until the patience is over.
    fn put(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut waited = Duration::ZERO;
        while !bytes.is_empty() {
            match (&self.port).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, &mut waited, self.patience)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what is there into the frames; `false` if nothing came before `limit`.
    fn hear(&mut self, waited: &mut Duration, limit: Duration) -> io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        loop {
            match (&self.port).read(&mut buffer) {
                // The other side is gone; whoever comes next knows nothing of this session.
                Ok(0) if self.begun => {
                    self.ended = true;
                    return Ok(false);
                }
                // It is not there, or not yet.
                Ok(0) => {
                    std::thread::sleep(AWAY);
                    *waited = waited.saturating_add(AWAY);
                    self.away = self.away.saturating_add(AWAY);
                    if *waited >= limit {
                        return Ok(false);
                    }
                }
                Ok(count) => {
                    self.away = Duration::ZERO;
                    self.frames.push(buffer.get(..count).unwrap_or_default());
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.away = Duration::ZERO;
                    match self.wait(PollFlags::IN, waited, limit) {
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
                        other => other?,
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the port is ready, a step at a time, so that a port that hangs up does not spin.
    fn wait(&self, flags: PollFlags, waited: &mut Duration, limit: Duration) -> io::Result<()> {
        if *waited >= limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let step = AWAY.min(limit.saturating_sub(*waited));
        let mut ready = [PollFd::new(&self.port, flags)];
        let timeout = Timespec::try_from(step).map_err(|_| io::ErrorKind::InvalidInput)?;
        poll(&mut ready, Some(&timeout))?;
        let answered = ready.iter().any(|fd| fd.revents().intersects(flags));
        if !answered {
            if ready.iter().any(|fd| !fd.revents().is_empty()) {
                std::thread::sleep(step);
            }
            *waited = waited.saturating_add(step);
        }
        Ok(())
    }
}

/// What such a frame says.
fn not_now(payload: &[u8]) -> io::Error {
    NotNow::Said(port::NotNow::read(payload)).into()
}

impl AsFd for PortStream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.port.as_fd()
    }
}

impl Read for PortStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut waited = Duration::ZERO;
        loop {
            let (bytes, taken) = &mut self.heard;
            let left = bytes.get(*taken..).unwrap_or_default();
            if !left.is_empty() {
                let count = left.len().min(out.len());
                for (to, from) in out.iter_mut().zip(left) {
                    *to = *from;
                }
                *taken = taken.saturating_add(count);
                return Ok(count);
            }
            if self.ended {
                return Ok(0);
            }
            match self.frames.next_frame() {
                Some(frame) => self.take(frame)?,
                None => {
                    let limit = self.patience;
                    if !self.hear(&mut waited, limit)? && !self.ended {
                        return Err(self.late());
                    }
                }
            }
        }
    }
}

impl Write for PortStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let bytes = bytes.get(..bytes.len().min(port::MAX_PAYLOAD)).unwrap_or_default();
        let mut frame = Vec::with_capacity(bytes.len().saturating_add(port::HEADER));
        port::write_data(self.session, bytes, &mut frame);
        self.put(&frame)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PortStream {
    fn drop(&mut self) {
        let mut word = Vec::new();
        port::write_word(self.session, Kind::Close, &mut word);
        // If it is not heard, the next session's Open says the same.
        let _ = (&self.port).write(&word);
    }
}
