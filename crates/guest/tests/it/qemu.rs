//! QEMU's part of a port: bytes between whoever is connected on either side.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

type Side = Arc<Mutex<Option<UnixStream>>>;

/// A port: `host` is where the trust service connects, `guest` where the client does.
pub(crate) struct Port {
    pub(crate) host: PathBuf,
    pub(crate) guest: PathBuf,
}

impl Port {
    pub(crate) fn new(dir: &Path) -> Self {
        let (host, guest) = (dir.join("port-host"), dir.join("port-guest"));
        let (near, far) = (Side::default(), Side::default());
        pump(UnixListener::bind(&host).unwrap(), Arc::clone(&near), Arc::clone(&far));
        pump(UnixListener::bind(&guest).unwrap(), far, near);
        Self { host, guest }
    }
}

/// Takes connections on this side, of which the newest is spoken to, and hands what they say to the
/// other side.
fn pump(listener: UnixListener, here: Side, there: Side) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let from = stream.try_clone().unwrap();
            *here.lock().unwrap() = Some(stream);
            let there = Arc::clone(&there);
            thread::spawn(move || carry(from, &there));
        }
    });
}

fn carry(mut from: UnixStream, there: &Side) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        // As QEMU: what nobody takes is lost.
        let to = there.lock().unwrap().as_ref().map(|to| to.try_clone().unwrap());
        if let Some(mut to) = to {
            let _ = to.write_all(&buffer[..count]);
        }
    }
}
