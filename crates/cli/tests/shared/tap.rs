//! A wire tap: everything between two services goes through it, and is kept.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub struct Tap {
    pub url: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Listens, and passes everything on to `target`.
    pub fn before(target: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("https://{}", listener.local_addr()?);
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&seen);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let kept = Arc::clone(&kept);
                    thread::spawn(move || pass(from, to, &kept));
                }
            }
        });
        Ok(Self { url, seen })
    }

    /// What went through so far, both ways.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().expect("nobody panics with it").clone()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16384];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        kept.lock().expect("nobody panics with it").extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Whether `seen` holds none of these.
pub fn holds_none(seen: &[u8], parts: &[&[u8]]) -> bool {
    parts
        .iter()
        .all(|part| !part.is_empty() && !seen.windows(part.len()).any(|window| window == *part))
}
