//! Requests over a socket: what each command does, what is refused, what two connections see.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use disk::{
    OpenOptions,
    luks2::open,
    nbd::{BindError, MAX_PAYLOAD, Parsed, Rejection, Request, bind},
};
use proptest::prelude::*;

use crate::{
    client::{CACHE, Client, DISC, FLUSH, READ, STATUS, TRIM, WRITE, ZEROES, request},
    fixture::{Dir, content, key, open_rw, own_user, serve},
    stub::{Stub, broken},
};

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;
const FUA: u16 = 1;
const DF: u16 = 4;
const SIZE: usize = 1 << 20;

#[test]
fn each_command_does_what_it_says() {
    let dir = Dir::new();
    let mut model = content(SIZE);
    let path = dir.volume(&model);
    let (server, socket) = serve(&dir, Arc::new(open_rw(&path)));
    let mut client = Client::simple(&socket);
    assert_eq!(client.read(5, 9000), model[5..9005]);
    assert_eq!(client.write(0, 4096, &[1; 4096]), 0);
    assert_eq!(client.write(FUA, 511, &[2; 1000]), 0);
    assert_eq!(client.ask(ZEROES, FUA | 2, 10_000, 20_000), 0);
    assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
    assert_eq!(client.ask(CACHE, 0, 0, 65_536), 0);
    model[4096..8192].fill(1);
    model[511..1511].fill(2);
    model[10_000..30_000].fill(0);
    assert_eq!(client.read(0, 1 << 20), model);
    assert_eq!(client.ask(TRIM, 0, 0, 4096), 0);
    assert_eq!(client.read(4096, 100), model[4096..4196]);
    client.say(&request(DISC, 0, 0, 0, 0));
    assert!(client.is_closed());
    let counted = server.counters().snapshot();
    assert_eq!((counted.reads, counted.writes, counted.zeroes, counted.trims), (3, 2, 1, 1));
    assert_eq!((counted.flushes, counted.errors), (3, 0));
    assert_eq!((counted.bytes_read, counted.bytes_written), (9000 + (1 << 20) + 100, 5096));
}

#[test]
fn structured_replies_carry_data_errors_and_block_status() {
    let dir = Dir::new();
    let model = content(SIZE);
    let (_server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&model))));
    let mut client = Client::structured(&socket);
    client.say(&request(READ, DF, 7, 4096, 5000));
    let chunk = client.chunk();
    assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (1, 1, 7));
    assert_eq!(chunk.payload[..8], 4096_u64.to_be_bytes());
    assert_eq!(chunk.payload[8..], model[4096..9096]);
    client.say(&request(READ, 0, 8, SIZE as u64, 1));
    let chunk = client.chunk();
    assert_eq!((chunk.flags, chunk.kind), (1, 0x8001));
    assert_eq!(chunk.payload, [&EINVAL.to_be_bytes()[..], &[0, 0]].concat());
    client.say(&request(READ, 0, 8, 0, 0));
    assert_eq!(client.chunk().kind, 0);
    assert_eq!(client.ask(TRIM, 0, 65_536, 65_536), 0);
    client.say(&request(STATUS, 0, 9, 0, 1 << 20));
    let words: Vec<u32> = client
        .chunk()
        .payload
        .chunks(4)
        .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(words, [1, 65_536, 0, 65_536, 1, (1 << 20) - 131_072, 0]);
    client.say(&request(STATUS, 8, 9, 0, 1 << 20));
    assert_eq!(client.chunk().payload.len(), 12);
    client.say(&request(STATUS, 0, 9, 0, 0));
    assert_eq!(client.chunk().kind, 0x8001);
}

#[test]
fn impossible_requests_get_an_error_and_the_connection_goes_on() {
    let dir = Dir::new();
    let (server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&content(SIZE)))));
    let mut client = Client::simple(&socket);
    let size = SIZE as u64;
    let cases = [
        (READ, 0, size, 1, EINVAL),
        (READ, 0, u64::MAX, u32::MAX, EINVAL),
        (READ, DF, 0, 1, EINVAL),
        (READ, 0x8000, 0, 1, EINVAL),
        (TRIM, 0, size - 1, 2, ENOSPC),
        (ZEROES, 0, u64::MAX - 5, 10, ENOSPC),
        (ZEROES, 16, 0, 10, EINVAL),
        (CACHE, 0, size, 1, EINVAL),
        (STATUS, 0, 0, 4096, EINVAL),
        (99, 0, 0, 0, EINVAL),
    ];
    for (kind, flags, offset, length, expected) in cases {
        assert_eq!(client.ask(kind, flags, offset, length), expected, "{kind} {offset}+{length}");
    }
    assert_eq!(client.write(0, size - 1, &[0; 2]), ENOSPC);
    assert_eq!(client.read(0, 10), content(SIZE)[..10]);
    assert_eq!(server.counters().snapshot().errors, 11);
}

#[test]
fn a_read_over_the_maximum_is_an_error_and_a_write_ends_the_connection() {
    let dir = Dir::new();
    let (server, socket) = serve(&dir, Arc::new(open_rw(&dir.empty(64 << 20))));
    let mut client = Client::simple(&socket);
    assert_eq!(client.ask(READ, 0, 0, MAX_PAYLOAD + 1), EOVERFLOW);
    assert_eq!(client.write(0, 4096, &vec![3; MAX_PAYLOAD as usize]), 0);
    assert!(client.read(4096, MAX_PAYLOAD).iter().all(|&b| b == 3));
    client.say(&request(WRITE, 0, 1, 0, MAX_PAYLOAD + 1));
    assert!(client.is_closed());
    assert_eq!(server.counters().snapshot().connections_refused, 1);
    assert_eq!(Rejection::WriteTooLong(0).code(), "nbd-write-too-long");
}

#[test]
fn a_request_without_its_magic_ends_its_connection_and_no_other() {
    let dir = Dir::new();
    let (_server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&content(SIZE)))));
    let (mut good, mut bad) = (Client::simple(&socket), Client::simple(&socket));
    bad.say(b"GET / HTTP/1.1\r\n\r\n");
    assert!(bad.is_closed());
    assert_eq!(good.read(0, 10), content(SIZE)[..10]);
    assert_eq!(Rejection::RequestMagic.code(), "nbd-request-magic");
}

#[test]
fn many_requests_in_one_write_are_all_answered_in_order() {
    let dir = Dir::new();
    let model = content(SIZE);
    let (_server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&model))));
    let mut client = Client::simple(&socket);
    let mut batch = Vec::new();
    for i in 0..200_u64 {
        batch.extend(request(READ, 0, i, i * 4096 + 3, 4000));
        batch.extend(request(WRITE, 0, 1000 + i, i * 4096, 2));
        batch.extend([b'x', b'y']);
    }
    let mut sender = Client(client.0.try_clone().unwrap());
    let sending = thread::spawn(move || sender.say(&batch));
    for i in 0..200 {
        assert_eq!(client.simple_reply(), (0, i as u64));
        assert_eq!(client.take(4000), model[i * 4096 + 3..i * 4096 + 4003]);
        assert_eq!(client.simple_reply(), (0, 1000 + i as u64));
    }
    sending.join().unwrap();
}

#[test]
fn two_connections_write_parts_of_one_sector_and_both_writes_stay() {
    let dir = Dir::new();
    let (_server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&vec![0; 8192]))));
    let writers: Vec<_> = (0..4_u64)
        .map(|part| {
            let socket = socket.clone();
            thread::spawn(move || {
                let mut client = Client::simple(&socket);
                for round in 0..300_u64 {
                    let value = [u8::try_from(round % 251).unwrap(); 512];
                    assert_eq!(client.write(0, part * 512, &value), 0);
                    assert_eq!(client.read(part * 512, 512), value, "part {part} lost a write");
                }
            })
        })
        .collect();
    // Whole-sector writes of the neighbour go on meanwhile.
    let mut client = Client::simple(&socket);
    for _ in 0..300 {
        assert_eq!(client.write(0, 4096, &[9; 4096]), 0);
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(client.read(2048, 2048), vec![0; 2048]);
    assert_eq!(client.read(4096, 4096), vec![9; 4096]);
}

#[test]
fn a_whole_write_is_not_lost_to_a_partial_one_of_the_same_sector() {
    let dir = Dir::new();
    let (_server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&vec![0; 4096]))));
    let stop = Arc::new(AtomicBool::new(false));
    let partial = {
        let (socket, stop) = (socket.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut client = Client::simple(&socket);
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(client.write(0, 0, &[0xee; 512]), 0);
            }
        })
    };
    let mut client = Client::simple(&socket);
    for round in 0..500_u32 {
        let value = vec![u8::try_from(round % 200).unwrap(); 4096];
        assert_eq!(client.write(0, 0, &value), 0);
        assert_eq!(client.read(512, 3584), value[512..], "round {round}");
    }
    stop.store(true, Ordering::SeqCst);
    partial.join().unwrap();
}

#[test]
fn a_read_only_export_says_so_and_refuses_writes() {
    let dir = Dir::new();
    let path = dir.volume(&content(SIZE));
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let (_server, socket) = serve(&dir, Arc::new(open(&path, &key(), &options).unwrap()));
    let mut client = Client::simple(&socket);
    assert_eq!(client.write(0, 0, &[0; 512]), EPERM);
    assert_eq!(client.ask(TRIM, 0, 0, 512), EPERM);
    assert_eq!(client.ask(ZEROES, 0, 0, 512), EPERM);
    assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
    assert_eq!(client.read(0, 512), content(SIZE)[..512]);
}

#[test]
fn errors_of_the_medium_reach_the_client() {
    let dir = Dir::new();
    let write = |offset| match offset {
        0 => Ok(()),
        _ => Err(io::ErrorKind::StorageFull.into()),
    };
    let (_server, socket) = serve(&dir, Arc::new(Stub { read: broken, write, flush: broken }));
    let mut client = Client::simple(&socket);
    assert_eq!(client.ask(READ, 0, 0, 512), EIO);
    assert_eq!(client.write(0, 4096, &[0; 512]), ENOSPC);
    assert_eq!(client.write(0, 0, &[0; 512]), 0);
    assert_eq!(client.write(FUA, 0, &[0; 512]), EIO, "FUA needs the flush");
    assert_eq!(client.ask(ZEROES, 0, 4096, 512), ENOSPC);
    assert_eq!(client.ask(FLUSH, 0, 0, 0), EIO);
    let mut client = Client::structured(&socket);
    client.say(&request(READ, 0, 1, 0, 512));
    assert_eq!(client.chunk().payload[..4], EIO.to_be_bytes());
    client.say(&request(STATUS, 0, 1, 0, 512));
    assert_eq!(client.chunk().payload[..4], EIO.to_be_bytes());
}

#[test]
fn stopping_answers_what_was_received() {
    let dir = Dir::new();
    let path = dir.volume(&content(SIZE));
    let (server, socket) = serve(&dir, Arc::new(open_rw(&path)));
    let mut client = Client::simple(&socket);
    assert_eq!(client.write(0, 0, &[5; 4096]), 0);
    for cookie in 0..50 {
        client.say(&request(READ, 0, cookie, 0, 4096));
    }
    // The answers are more than a socket holds: who stops waits for a client that takes them.
    thread::scope(|scope| {
        let stopping = scope.spawn(|| server.stop());
        for cookie in 0..50 {
            assert_eq!(client.simple_reply(), (0, cookie));
            assert_eq!(client.take(4096), vec![5; 4096]);
        }
        assert!(client.is_closed());
        stopping.join().unwrap().unwrap();
    });
}

#[test]
fn a_socket_in_use_is_kept_and_a_stale_one_replaced() {
    let dir = Dir::new();
    let path = dir.path("s.sock");
    let first = bind(&path, &own_user()).unwrap();
    assert_eq!(bind(&path, &own_user()).unwrap_err().code(), "socket-in-use");
    // As after kill -9: the file is there, nobody listens.
    drop(std::os::unix::net::UnixListener::bind(dir.path("dead.sock")).unwrap());
    let again = bind(&dir.path("dead.sock"), &own_user()).unwrap();
    drop((first, again));
    assert_eq!(dir.names(), Vec::<String>::new());
    let file = dir.file("file", b"precious");
    assert!(matches!(bind(&file, &own_user()), Err(BindError::NotASocket)));
    let long = dir.path(&"x".repeat(200));
    assert_eq!(bind(&long, &own_user()).unwrap_err().code(), "socket-failed");
}

proptest! {
    #[test]
    fn parsing_arbitrary_requests_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Request::parse(&bytes);
    }

    #[test]
    fn a_request_asks_for_bounded_memory(
        kind in 0_u16..10, flags in any::<u16>(), offset in any::<u64>(), length in any::<u32>(),
    ) {
        match Request::parse(&request(kind, flags, 1, offset, length)) {
            Ok(Parsed::NeedMore(whole)) => prop_assert!(whole <= 28 + MAX_PAYLOAD as usize),
            Ok(Parsed::Request(_, payload)) => prop_assert_eq!(payload, 0),
            Err(rejection) => prop_assert_eq!(rejection, Rejection::WriteTooLong(length)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn a_server_survives_arbitrary_requests(
        requests in proptest::collection::vec(
            (0_u16..9, 0_u16..64, 0_u64..(SIZE as u64 * 2), 0_u32..20_000), 1..30),
        junk in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let dir = Dir::new();
        let (_server, socket) = serve(&dir, Arc::new(open_rw(&dir.volume(&content(SIZE)))));
        let mut client = Client::structured(&socket);
        let mut batch = Vec::new();
        for (kind, flags, offset, length) in requests {
            batch.extend(request(kind, flags, 1, offset, length));
            if kind == WRITE {
                batch.extend(vec![0x33; length as usize]);
            }
        }
        batch.extend(junk);
        let mut sender = client.0.try_clone().unwrap();
        let sending = thread::spawn(move || {
            // The server may close before it has read all.
            let _ = io::Write::write_all(&mut sender, &batch);
            let _ = sender.shutdown(std::net::Shutdown::Write);
        });
        prop_assert!(client.is_closed());
        sending.join().unwrap();
        prop_assert_eq!(Client::simple(&socket).read(0, 16).len(), 16);
    }
}
