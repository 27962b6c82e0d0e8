//! One port: its frames, and the session that is the present one.
//!
//! Bytes go one way at a time through buffers of one piece each, so that a session that does not
//! read holds up itself only, and for [`STUCK`] at most.

use std::{
    io,
    os::unix::net::UnixStream as StdStream,
    sync::{Arc, OnceLock},
    time::Duration,
};

use model::{
    VmId,
    port::{self, Frames, Kind, Line, NotNow, Turn},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf},
    net::UnixStream,
    task::JoinSet,
    time::Instant,
};

use super::{
    Guests, NoTls,
    routes::{self, Whose},
};

/// Bytes between a port and its session, each way.
const BUFFER: usize = 32 << 10;

/// How long a session may leave bytes unread.
const STUCK: Duration = Duration::from_secs(30);

/// A session's end on this side.
struct Session {
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    /// Why nothing was said in it, if so; known before it ends.
    why: Arc<OnceLock<NotNow>>,
    /// Ends with it.
    _task: JoinSet<()>,
}

/// The shortest time between two sessions of one port; what comes sooner is turned away.
const PAUSE: Duration = Duration::from_millis(250);

struct Port<'g> {
    guests: &'g Guests,
    vm: &'g VmId,
    frames: Frames,
    line: Line,
    session: Option<Session>,
    /// For the session, not yet taken.
    inward: Vec<u8>,
    /// For the guest, not yet taken.
    outward: Vec<u8>,
    /// When `inward` began to wait.
    since: Instant,
    /// When the last session began.
    began: Option<Instant>,
}

/// Serves a port until the other side is gone or the process ends.
pub(super) async fn serve(guests: &Guests, vm: &VmId, port: StdStream) -> io::Result<()> {
    port.set_nonblocking(true)?;
    let (mut from, mut to) = UnixStream::from_std(port)?.into_split();
    let mut port = Port {
        guests,
        vm,
        frames: Frames::default(),
        line: Line::default(),
        session: None,
        inward: Vec::new(),
        outward: Vec::new(),
        since: Instant::now(),
        began: None,
    };
    let (mut heard, mut said) = (vec![0; BUFFER], vec![0; port::MAX_PAYLOAD]);
    loop {
        port.take_frames();
        let listens = port.inward.is_empty() && port.outward.is_empty();
        let speaks = port.session.is_some() && port.outward.is_empty();
        let waits = !port.inward.is_empty();
        let (mut reader, mut writer) = match port.session.as_mut() {
            Some(Session { read, write, .. }) => (Some(read), Some(write)),
            None => (None, None),
        };
        tokio::select! {
            () = guests.shutdown.requested() => return Ok(()),
            count = from.read(&mut heard), if listens => match count? {
                0 => return Ok(()),
                count => port.frames.push(heard.get(..count).unwrap_or_default()),
            },
            count = to.write(&port.outward), if !port.outward.is_empty() => {
                port.outward.drain(..count?);
            }
            count = async { reader.as_mut()?.read(&mut said).await.ok() }, if speaks => {
                match count.unwrap_or(0) {
                    0 => port.end(),
                    count => port.say(said.get(..count).unwrap_or_default()),
                }
            }
            count = async { writer.as_mut()?.write(&port.inward).await.ok() }, if waits => {
                match count.unwrap_or(0) {
                    0 => port.end(),
                    count => drop(port.inward.drain(..count)),
                }
            }
            () = tokio::time::sleep_until(port.since + STUCK), if waits => {
                tracing::info!(vm.id = %vm, "a guest's session is stuck");
                port.end();
            }
        }
    }
}

impl Port<'_> {
    /// Takes frames until there is something to pass on.
    fn take_frames(&mut self) {
        while self.inward.is_empty() && self.outward.len() < BUFFER {
            let Some(frame) = self.frames.next_frame() else { return };
            match self.line.take(frame) {
                // The client asks again in a while.
                Turn::Begin(_) if self.began.is_some_and(|at| at.elapsed() < PAUSE) => self.end(),
                Turn::Begin(session) => {
                    self.began = Some(Instant::now());
                    self.begin();
                    port::write_word(session, Kind::Opened, &mut self.outward);
                }
                Turn::Bytes(bytes) => {
                    self.inward = bytes;
                    self.since = Instant::now();
                }
                Turn::End => self.drop_session(),
                Turn::Unknown(session) => {
                    port::write_word(session, Kind::Close, &mut self.outward);
                }
                Turn::Idle => {}
            }
        }
    }

    fn begin(&mut self) {
        self.drop_session();
        let (near, far) = tokio::io::duplex(BUFFER);
        let (read, write) = tokio::io::split(near);
        let mut task = JoinSet::new();
        let (guests, vm) = (self.guests.clone(), self.vm.clone());
        let why = Arc::new(OnceLock::new());
        let said = Arc::clone(&why);
        task.spawn(async move {
            let tls = match guests.tls().await {
                Ok(tls) => tls,
                Err(NoTls(why)) => {
                    tracing::info!(vm.id = %vm, why = why.code(), "a guest is not served now");
                    // Nobody has set it: there is one task for a session.
                    let _ = said.set(why);
                    return drop(far);
                }
            };
            if let Err(error) = routes::serve(tls, &guests, Whose::Of(vm.clone()), far).await {
                tracing::info!(vm.id = %vm, %error, "a guest's connection failed");
            }
        });
        self.session = Some(Session { read, write, why, _task: task });
    }

    fn say(&mut self, bytes: &[u8]) {
        if let Some(session) = self.line.present() {
            port::write_data(session, bytes, &mut self.outward);
        }
    }

    /// Ends the session from this side, and says so.
    fn end(&mut self) {
        let why = self.session.as_ref().and_then(|session| session.why.get().copied());
        match (self.line.present(), why) {
            (Some(session), Some(why)) => port::write_not_now(session, why, &mut self.outward),
            (Some(session), None) => port::write_word(session, Kind::Close, &mut self.outward),
            (None, _) => {}
        }
        self.line.end();
        self.drop_session();
    }

    fn drop_session(&mut self) {
        self.session = None;
        self.inward.clear();
    }
}
