//! The control socket, with a service that counts.

use std::{
    io::Write as _,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use model::child::{self, FrameError};
use serde::{Deserialize, Serialize};
use serve::{
    control::{CONNECTIONS_MAX, Service},
    shutdown::Shutdown,
};
use tempfile::TempDir;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    Double(u32),
    End,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    Doubled(u32),
    Ending { raised: bool },
    Malformed,
}

struct Doubler {
    listener: UnixListener,
    stop: Shutdown,
}

impl Service for Doubler {
    type Request = Request;
    type Reply = Reply;

    fn listener(&self) -> &UnixListener {
        &self.listener
    }

    fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Double(number) => Reply::Doubled(number * 2),
            Request::End => Reply::Ending { raised: self.stop.is_requested() },
        }
    }

    fn malformed(&self, _: &FrameError) -> Reply {
        Reply::Malformed
    }

    fn ends(request: &Request) -> bool {
        matches!(request, Request::End)
    }
}

fn started() -> (TempDir, PathBuf, Shutdown) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let stop = Shutdown::new();
    let listener = UnixListener::bind(&path).unwrap();
    serve::control::start(Doubler { listener, stop: stop.clone() }, stop.clone()).unwrap();
    (dir, path, stop)
}

/// `None` if the connection is ended instead of an answer.
fn ask(stream: &mut UnixStream, request: &Request) -> Option<Reply> {
    child::send(stream, request).ok()?;
    child::receive(stream).ok()?
}

fn connect(path: &Path) -> UnixStream {
    UnixStream::connect(path).unwrap()
}

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    let (_dir, path, stop) = started();
    let mut stream = connect(&path);
    for number in 0..100 {
        assert_eq!(ask(&mut stream, &Request::Double(number)), Some(Reply::Doubled(number * 2)));
    }
    assert!(!stop.is_requested());
}

#[test]
fn what_is_no_request_is_answered_and_ends_its_connection_only() {
    let (_dir, path, stop) = started();
    let mut other = connect(&path);
    for junk in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{}", b"\0\0\0\x05hello"] {
        let mut stream = connect(&path);
        stream.write_all(junk).unwrap();
        assert_eq!(child::receive(&mut stream).unwrap(), Some(Reply::Malformed));
        assert!(child::receive::<Reply>(&mut stream).unwrap().is_none());
    }
    assert_eq!(ask(&mut other, &Request::Double(4)), Some(Reply::Doubled(8)));
    assert!(!stop.is_requested());
}

#[test]
fn the_wish_to_end_is_known_only_after_its_reply() {
    let (_dir, path, stop) = started();
    let reply = ask(&mut connect(&path), &Request::End);
    assert_eq!(reply, Some(Reply::Ending { raised: false }));
    let raised = (0..12_000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        stop.is_requested()
    });
    assert!(raised);
}

#[test]
fn one_connection_too_many_is_turned_away_until_a_place_is_free() {
    let (_dir, path, _stop) = started();
    let mut streams: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| connect(&path)).collect();
    for stream in &mut streams {
        assert_eq!(ask(stream, &Request::Double(1)), Some(Reply::Doubled(2)));
    }
    assert_eq!(ask(&mut connect(&path), &Request::Double(1)), None);
    assert_eq!(ask(&mut streams[0], &Request::Double(3)), Some(Reply::Doubled(6)));
    streams.pop();
    let served = (0..12_000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        ask(&mut connect(&path), &Request::Double(1)).is_some()
    });
    assert!(served);
}
