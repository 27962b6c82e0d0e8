//! Option haggling, by bytes and over a socket; the refusals that end it.

use std::{sync::Arc, time::Duration};

use disk::nbd::{Agreed, Export, Negotiation, Outcome, Progress, Rejection, ServerOptions};
use proptest::prelude::*;

use crate::{
    client::{Client, context, go, option, string},
    fixture::{Dir, content, open_rw, serve, serve_with},
};

fn export() -> Export {
    Export {
        names: vec![String::new(), "v".to_owned()],
        size: 1 << 20,
        read_only: false,
        preferred_block: 4096,
    }
}

/// Feeds whole input; how it ended, and the replies without the greeting.
fn haggle(input: &[u8]) -> (Result<Option<Outcome>, Rejection>, Vec<u8>) {
    let mut out = Vec::new();
    let mut negotiation = Negotiation::begin(export(), &mut out);
    out.clear();
    let mut rest = input;
    loop {
        match negotiation.advance(rest, &mut out) {
            Err(rejection) => return (Err(rejection), out),
            Ok(Progress::NeedMore) => return (Ok(None), out),
            Ok(Progress::Consumed(count)) => rest = &rest[count..],
            Ok(Progress::Done(_, outcome)) => return (Ok(Some(outcome)), out),
        }
    }
}

fn haggle_options(options: &[(u32, Vec<u8>)]) -> (Result<Option<Outcome>, Rejection>, Vec<u32>) {
    let mut input = 3_u32.to_be_bytes().to_vec();
    for (code, data) in options {
        input.extend(option(*code, data));
    }
    let (outcome, out) = haggle(&input);
    let mut kinds = Vec::new();
    let mut rest = out.as_slice();
    while rest.len() >= 20 {
        let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
        kinds.push(word(12));
        let end = 20 + word(16) as usize;
        rest = &rest[end..];
    }
    (outcome, kinds)
}

const ACK: u32 = 1;
const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;
const TOO_BIG: u32 = 0x8000_0009;

#[test]
fn go_gives_size_and_block_sizes_and_begins_transmission() {
    let (outcome, kinds) = haggle_options(&[(7, go("v", &[1, 3]))]);
    assert_eq!(kinds, [3, 3, 3, ACK]);
    assert_eq!(outcome, Ok(Some(Outcome::Transmission(Agreed::default()))));
}

#[test]
fn info_tells_the_same_and_goes_on() {
    let (outcome, kinds) = haggle_options(&[(6, go("", &[])), (2, vec![])]);
    assert_eq!(kinds, [3, 3, ACK, ACK]);
    assert_eq!(outcome, Ok(Some(Outcome::Ended)));
}

#[test]
fn block_status_needs_structured_replies_and_the_same_name() {
    let select = |name: &str| (10, context(name, &["base:allocation", "qemu:dirty"]));
    let (_, kinds) = haggle_options(&[select("")]);
    assert_eq!(kinds, [INVALID]);
    let agreed = |options: &[(u32, Vec<u8>)]| match haggle_options(options).0 {
        Ok(Some(Outcome::Transmission(agreed))) => agreed,
        other => panic!("{other:?}"),
    };
    let both = agreed(&[(8, vec![]), select("v"), (7, go("v", &[]))]);
    assert_eq!(both, Agreed { structured: true, block_status: true });
    let other = agreed(&[(8, vec![]), select("v"), (7, go("", &[]))]);
    assert_eq!(other, Agreed { structured: true, block_status: false });
    let unselected =
        agreed(&[(8, vec![]), select("v"), (10, context("v", &[])), (7, go("v", &[]))]);
    assert!(!unselected.block_status);
}

#[test]
fn listing_contexts_and_exports_works() {
    let (_, kinds) = haggle_options(&[
        (8, vec![]),
        (9, context("", &[])),
        (9, context("", &["base:"])),
        (9, context("", &["x:"])),
        (3, vec![]),
    ]);
    assert_eq!(kinds, [ACK, 4, ACK, 4, ACK, ACK, 2, 2, ACK]);
}

#[test]
fn what_is_wrong_inside_an_option_gets_an_error_reply() {
    let cases = [
        (5, vec![], UNSUP),
        (11, vec![], UNSUP),
        (999, vec![1; 100], UNSUP),
        (3, vec![1], INVALID),
        (8, vec![1], INVALID),
        (7, vec![], INVALID),
        (7, go("nope", &[]), UNKNOWN),
        (7, [go("", &[]), vec![0]].concat(), INVALID),
        (7, string("\u{fffd}"), INVALID),
        (7, vec![0xff; 8], INVALID),
    ];
    for (code, data, expected) in cases {
        let (outcome, kinds) = haggle_options(&[(code, data)]);
        assert_eq!((outcome, kinds), (Ok(None), vec![expected]), "option {code}");
    }
    let many = vec!["x"; 65];
    let (_, kinds) = haggle_options(&[(8, vec![]), (10, context("", &many))]);
    assert_eq!(kinds, [ACK, TOO_BIG]);
}

#[test]
fn unknown_client_flags_are_refused() {
    let (outcome, _) = haggle(&0x8000_0003_u32.to_be_bytes());
    assert_eq!(outcome, Err(Rejection::ClientFlags(0x8000_0003)));
    assert_eq!(Rejection::ClientFlags(0).code(), "nbd-client-flags");
}

#[test]
fn an_option_without_its_magic_is_refused() {
    let (outcome, _) = haggle(b"\0\0\0\x03GET / HTTP/1.1\r\n");
    assert_eq!(outcome, Err(Rejection::OptionMagic));
}

#[test]
fn an_option_that_is_too_long_is_refused_before_it_arrives() {
    let mut input = 3_u32.to_be_bytes().to_vec();
    input.extend(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
    assert_eq!(haggle(&input).0, Err(Rejection::OptionTooLong(u32::MAX)));
}

#[test]
fn too_many_options_are_refused() {
    let options = vec![(3, vec![]); 200];
    assert_eq!(haggle_options(&options).0, Err(Rejection::OptionsTooMany));
}

#[test]
fn an_unknown_export_name_is_refused_where_there_is_no_error_reply() {
    assert_eq!(haggle_options(&[(1, b"nope".to_vec())]).0, Err(Rejection::ExportUnknown));
}

#[test]
fn an_old_client_gets_its_zeros() {
    let mut input = 1_u32.to_be_bytes().to_vec();
    input.extend(option(1, b"v"));
    let (outcome, out) = haggle(&input);
    assert!(matches!(outcome, Ok(Some(Outcome::Transmission(_)))));
    assert_eq!(out.len(), 134);
}

#[test]
fn a_silent_client_is_sent_away() {
    let dir = Dir::new();
    let volume = Arc::new(open_rw(&dir.volume(&content(4096))));
    let negotiation_patience = Duration::from_millis(200);
    let options = ServerOptions { negotiation_patience, ..ServerOptions::default() };
    let (server, socket) = serve_with(&dir, volume, options);
    let mut client = Client::connect(&socket);
    client.say(&[0, 0]);
    assert!(client.is_closed());
    assert_eq!(server.counters().snapshot().connections_refused, 1);
    assert_eq!(Rejection::NegotiationTimeout.code(), "nbd-negotiation-timeout");
}

#[test]
fn one_connection_too_many_is_refused_and_a_freed_place_is_given_again() {
    let dir = Dir::new();
    let volume = Arc::new(open_rw(&dir.volume(&content(4096))));
    let options = ServerOptions { connections_max: 2, ..ServerOptions::default() };
    let (server, socket) = serve_with(&dir, volume, options);
    let (first, _second) = (Client::simple(&socket), Client::simple(&socket));
    let mut third = Client(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    assert!(third.is_closed());
    assert_eq!(server.counters().snapshot().connections_refused, 1);
    drop(first);
    while server.counters().snapshot().connections > 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(20));
    let mut fourth = Client::simple(&socket);
    assert_eq!(fourth.read(0, 4096), content(4096));
    assert_eq!(Rejection::TooManyConnections.code(), "too-many-connections");
}

#[test]
fn a_client_of_another_user_is_refused_unless_it_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let Some(mut probe) = crate::fixture::tool("setpriv") else { return };
    if !rustix_is_root() || crate::fixture::tool("nbdinfo").is_none() {
        eprintln!("Skipped: needs root to take another user's id, and nbdinfo");
        return;
    }
    let dir = Dir::new();
    let volume = Arc::new(open_rw(&dir.volume(&content(4096))));
    let peers = disk::nbd::PeerPolicy::with_users(vec![65_533]);
    let (server, socket) =
        serve_with(&dir, volume, ServerOptions { peers, ..ServerOptions::default() });
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(socket.parent().unwrap(), open).unwrap();
    let uri = crate::fixture::uri(&socket);
    let named = ["--reuid", "65533", "--clear-groups", "nbdinfo", "--size"];
    assert!(probe.args(named).arg(&uri).output().unwrap().status.success());
    let mut stranger = crate::fixture::tool("setpriv").unwrap();
    let other = ["--reuid", "65534", "--clear-groups", "nbdinfo", "--size"];
    assert!(!stranger.args(other).arg(&uri).output().unwrap().status.success());
    assert_eq!(server.counters().snapshot().connections_refused, 1);
    assert_eq!(Rejection::WrongUser.code(), "wrong-user");
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_volume_can_be_served_again_after_its_server_stopped() {
    let dir = Dir::new();
    let path = dir.volume(&content(4096));
    for _ in 0..2 {
        let (server, socket) = serve(&dir, Arc::new(open_rw(&path)));
        assert_eq!(Client::simple(&socket).read(0, 4096), content(4096));
        server.stop().unwrap();
        drop(server);
        assert!(!socket.exists());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_replies_stay_small(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        flags in any::<bool>(),
    ) {
        let mut input = if flags { 3_u32.to_be_bytes().to_vec() } else { Vec::new() };
        input.extend(bytes);
        prop_assert!(haggle(&input).1.len() < 4096);
    }

    #[test]
    fn arbitrary_option_data_never_panics(
        options in proptest::collection::vec(
            (0_u32..14, proptest::collection::vec(0_u8..10, 0..60)), 0..20),
    ) {
        let _ = haggle_options(&options);
    }

    #[test]
    fn the_outcome_does_not_depend_on_how_the_bytes_arrive(cut in 0_usize..60) {
        let mut input = 3_u32.to_be_bytes().to_vec();
        input.extend(option(8, &[]));
        input.extend(option(7, &go("v", &[3])));
        let cut = cut.min(input.len());
        let mut out = Vec::new();
        let mut negotiation = Negotiation::begin(export(), &mut out);
        let (mut seen, mut end, mut done) = (0, cut, None);
        while done.is_none() {
            match negotiation.advance(&input[seen..end], &mut out).unwrap() {
                Progress::NeedMore => end = input.len(),
                Progress::Consumed(count) => seen += count,
                Progress::Done(_, outcome) => done = Some(outcome),
            }
        }
        let agreed = Agreed { structured: true, block_status: false };
        prop_assert_eq!(done, Some(Outcome::Transmission(agreed)));
    }
}
