//! A service that does not serve now: the client hears it at once, by name, and believes nothing of it.

#![expect(clippy::disallowed_methods, reason = "the tests measure how long the client waits")]

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use model::port::{self, Frames, Kind, Session};
use vouchsafe_guest::{
    exchange::{Ask, Reply},
    service::port::{NotNow, PortStream},
};

use crate::{
    proofs::{locate, located},
    world::World,
};

/// Longer than any of this may take, shorter than the client's patience.
const PROMPTLY: Duration = Duration::from_secs(30);

fn seen(reply: &Reply) -> &str {
    if let Reply::NotNow { seen, .. } = reply { seen } else { "another answer" }
}

#[test]
fn while_the_service_has_no_passport_its_guests_are_told_so_at_once() {
    let Some(world) = World::up() else { return };
    *world.agent.life_s.lock().unwrap() = Some(3);
    let mut client = world.client();
    // Its passport may end while a slow machine has not used it yet; then there is another one.
    let first = (0..20).map(|_| client.ask(&locate())).find(located);
    assert!(first.is_some(), "{}", world.log());
    *world.agent.life_s.lock().unwrap() = None;
    let since = Instant::now();
    // One may have been given a moment before; it is shown as long as it lasts, and no longer.
    let without = loop {
        let before = Instant::now();
        let reply = client.ask(&Ask::Attest {});
        assert!(before.elapsed() < PROMPTLY, "{reply:?} took {:?}", before.elapsed());
        if !matches!(reply, Reply::Admitted { .. }) {
            break reply;
        }
        assert!(since.elapsed() < PROMPTLY, "passports go on: {}", world.log());
        thread::sleep(Duration::from_millis(300));
    };
    assert_eq!(seen(&without), "service-without-passport", "{without:?}\n{}", world.log());
    // Its connection is gone as well.
    let before = Instant::now();
    assert_eq!(seen(&client.ask(&locate())), "service-without-passport", "{}", world.log());
    assert!(before.elapsed() < PROMPTLY);
    // It is no memory: once there is a passport again, the same client is served.
    *world.agent.life_s.lock().unwrap() = Some(600);
    let back = (0..400).find_map(|_| {
        thread::sleep(Duration::from_millis(50));
        let reply = client.ask(&locate());
        (seen(&reply) != "service-without-passport").then_some(reply)
    });
    assert!(back.as_ref().is_some_and(located), "{back:?}\n{}", world.log());
}

/// The host's end of a port whose other end a stream is opened on, and what comes of that.
fn played(play: impl FnOnce(UnixStream, Session) + Send + 'static) -> std::io::Result<PortStream> {
    let (near, far) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let session = opened(&far);
        play(far, session);
    });
    PortStream::on(near.into(), Duration::from_secs(3))
}

/// The session that the client opens.
fn opened(mut port: &UnixStream) -> Session {
    let (mut frames, mut buffer) = (Frames::default(), [0; 512]);
    loop {
        if let Some(frame) = frames.next_frame() {
            assert_eq!(frame.kind, Kind::Open);
            return frame.session;
        }
        let count = port.read(&mut buffer).unwrap();
        frames.push(&buffer[..count]);
    }
}

fn word(session: Session, kind: Kind) -> Vec<u8> {
    let mut out = Vec::new();
    port::write_word(session, kind, &mut out);
    out
}

fn not_now(session: Session) -> Vec<u8> {
    let mut out = Vec::new();
    port::write_not_now(session, port::NotNow::Busy, &mut out);
    out
}

fn why(outcome: std::io::Result<impl std::fmt::Debug>) -> Option<&'static str> {
    NotNow::of(&outcome.unwrap_err()).map(NotNow::code)
}

#[test]
fn a_port_on_which_nobody_answers_is_given_up_by_name() {
    let since = Instant::now();
    // Someone is there and says nothing, but for what is of another session.
    let silent = played(|mut port, _| {
        port.write_all(&not_now(Session([9; 8]))).unwrap();
        thread::sleep(Duration::from_secs(8));
    });
    assert_eq!(why(silent), Some("service-silent"));
    let busy = played(|mut port, session| port.write_all(&not_now(session)).unwrap());
    assert_eq!(why(busy), Some("service-busy"));
    assert!(since.elapsed() < PROMPTLY, "{:?}", since.elapsed());
    // A port that nobody has opened on the other side reads as an end, as this does.
    let since = Instant::now();
    let absent = PortStream::open(Path::new("/dev/null"), Duration::from_secs(60));
    assert_eq!(why(absent), Some("service-absent"));
    let (most, least) = (Duration::from_secs(50), Duration::from_secs(8));
    assert!(since.elapsed() < most, "{:?}", since.elapsed());
    assert!(since.elapsed() > least, "a service that begins again is waited for");
}

#[test]
fn what_is_said_after_the_services_first_word_is_only_an_end() {
    let stream = played(|mut port, session| {
        port.write_all(&word(session, Kind::Opened)).unwrap();
        let mut out = Vec::new();
        port::write_data(session, b"tls", &mut out);
        out.extend(not_now(session));
        port.write_all(&out).unwrap();
        thread::sleep(Duration::from_secs(1));
    });
    let mut said = Vec::new();
    stream.unwrap().read_to_end(&mut said).unwrap();
    assert_eq!(said, b"tls");
    // The other side goes away in the middle: nobody will answer in this session, so it is not late.
    let stream = played(|mut port, session| {
        port.write_all(&word(session, Kind::Opened)).unwrap();
    });
    assert_eq!(stream.unwrap().read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_service_that_is_asked_too_soon_is_asked_again() {
    let stream = played(|mut port, session| {
        port.write_all(&word(session, Kind::Close)).unwrap();
        assert_eq!(opened(&port), session);
        port.write_all(&word(session, Kind::Opened)).unwrap();
        thread::sleep(Duration::from_secs(1));
    });
    assert!(stream.is_ok(), "{stream:?}");
}
