//! A VM's port with somebody else on the host's side of it: its frames taken off, so that any TLS
//! program can speak over it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use model::port::{Frames, Kind, Session, write_data, write_word};

use crate::{
    server::Server,
    world::{PATIENCE, eventually, kill_9},
};

/// The port of a VM, taken away from the trust service until this is dropped.
pub struct Taken {
    socket: PathBuf,
    away: PathBuf,
    /// Where the trust service comes, which takes it for the VM's.
    visitors: UnixListener,
    /// Both ends, as far as they are held.
    ends: Vec<UnixStream>,
}

impl Taken {
    /// Puts a socket of ours in the place of QEMU's, and has the trust service let go of that.
    pub fn from(server: &Server<'_>, vm: &str) -> std::io::Result<Self> {
        let socket = server.world.path(&format!("run/{}/{vm}/xkms.sock", server.host));
        let away = socket.with_extension("qemu");
        fs::rename(&socket, &away)?;
        let visitors = UnixListener::bind(&socket)?;
        visitors.set_nonblocking(true)?;
        if let Some(reader) = server.reader() {
            kill_9(&[reader.to_string()]);
        }
        Ok(Self { socket, away, visitors, ends: Vec::new() })
    }

    /// Plays the trust service for the guest: each session is a connection to `server`.
    pub fn serve(&mut self, server: PathBuf) -> std::io::Result<()> {
        let port = UnixStream::connect(&self.away)?;
        self.ends.push(port.try_clone()?);
        serve_sessions(port, server)
    }

    /// Plays the guest for the trust service: one session, for whoever connects to `at`.
    pub fn dial(&mut self, at: &Path) -> std::io::Result<()> {
        let port = eventually(PATIENCE, || self.visitors.accept().ok());
        let (port, _) = port.ok_or(std::io::ErrorKind::TimedOut)?;
        port.set_nonblocking(false)?;
        self.ends.push(port.try_clone()?);
        dial(port, at)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::rename(&self.away, &self.socket);
        for end in &self.ends {
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
    }
}

type Shared = Arc<Mutex<UnixStream>>;

fn say(port: &Shared, frame: &[u8]) {
    let _ = port.lock().expect("nobody panics with it").write_all(frame);
}

/// Everything that `from` says goes to the port as data of `session`.
fn into_frames(mut from: UnixStream, session: Session, port: Shared) {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let mut frames = Vec::new();
            write_data(session, &buffer[..n], &mut frames);
            say(&port, &frames);
        }
        let mut frame = Vec::new();
        write_word(session, Kind::Close, &mut frame);
        say(&port, &frame);
    });
}

/// Plays the trust service on a port: each session is a connection to `server`.
fn serve_sessions(port: UnixStream, server: PathBuf) -> std::io::Result<()> {
    let back: Shared = Arc::new(Mutex::new(port.try_clone()?));
    thread::spawn(move || {
        let mut open: Option<(Session, UnixStream)> = None;
        frames_of(port, |session, kind, payload| match kind {
            Kind::Open => {
                if open.as_ref().is_none_or(|(known, _)| *known != session) {
                    let Ok(stream) = UnixStream::connect(&server) else { return };
                    let Ok(other) = stream.try_clone() else { return };
                    into_frames(other, session, Arc::clone(&back));
                    open = Some((session, stream));
                }
                let mut frame = Vec::new();
                write_word(session, Kind::Opened, &mut frame);
                say(&back, &frame);
            }
            Kind::Data => {
                if let Some((_, stream)) = open.as_mut().filter(|(known, _)| *known == session) {
                    let _ = stream.write_all(&payload);
                }
            }
            Kind::Close => open = None,
            Kind::Opened | Kind::NotNow => {}
        });
    });
    Ok(())
}

/// Plays the client on a port: one session, for whoever connects to `at` first.
fn dial(port: UnixStream, at: &Path) -> std::io::Result<()> {
    let listener = UnixListener::bind(at)?;
    let back: Shared = Arc::new(Mutex::new(port.try_clone()?));
    let session = Session(serve::random::bytes().map_err(std::io::Error::other)?);
    thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else { return };
        let mut frame = Vec::new();
        write_word(session, Kind::Open, &mut frame);
        say(&back, &frame);
        let (mut out, mut begun) = (stream, false);
        frames_of(port, |of, kind, payload| match kind {
            Kind::Opened if of == session && !begun => {
                begun = true;
                if let Ok(other) = out.try_clone() {
                    into_frames(other, session, Arc::clone(&back));
                }
            }
            Kind::Data if of == session => drop(out.write_all(&payload)),
            Kind::Close if of == session => drop(out.shutdown(std::net::Shutdown::Both)),
            Kind::Open | Kind::Opened | Kind::Data | Kind::Close | Kind::NotNow => {}
        });
    });
    Ok(())
}

fn frames_of(mut port: UnixStream, mut each: impl FnMut(Session, Kind, Vec<u8>)) {
    let mut frames = Frames::default();
    let mut buffer = [0; 16384];
    while let Ok(n @ 1..) = port.read(&mut buffer) {
        frames.push(&buffer[..n]);
        while let Some(frame) = frames.next_frame() {
            each(frame.session, frame.kind, frame.payload);
        }
    }
}
