//! The vhost-user-blk export, with a front end of our own that can also lie.

use std::{
    io::Read as _,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use disk::{
    Volume, nbd,
    vhost::{Server, ServerOptions},
};
use vhost::{VhostBackend as _, vhost_user::VhostUserFrontend as _};

use crate::{
    fixture::{Dir, content, open_rw, read_all},
    guest::{DISCARD, FLUSH, ZEROES},
    master::{self, AVAILABLE, MEMORY, Master, READ, RING, WRITE},
    stub::{Stub, broken},
};

const SIZE: usize = 8 << 20;

fn serve(dir: &Dir, volume: Arc<dyn Volume>) -> (Server, PathBuf) {
    let path = dir.path("v.sock");
    let options = ServerOptions::default();
    let socket = nbd::bind(&path, &options.peers).unwrap();
    (Server::start(volume, socket, options).unwrap(), path)
}

fn connected() -> (Dir, Server, PathBuf, Master) {
    let dir = Dir::new();
    let volume = Arc::new(open_rw(&dir.volume(&content(SIZE))));
    let (server, path) = serve(&dir, volume);
    let mut master = Master::new();
    master.connect(&path).unwrap();
    (dir, server, path, master)
}

#[test]
fn requests_are_served_and_land_in_the_volume() {
    let (dir, server, _, mut master) = connected();
    let mut expected = content(SIZE);
    assert!(master.read_at(0, 1 << 20) == expected[..1 << 20]);
    assert_eq!(master.write_at(9, &content(100 * 512)), 0);
    expected[9 * 512..109 * 512].copy_from_slice(&content(100 * 512));
    assert_eq!(master.ask(FLUSH, 0, 0), 0);
    let clear = [2048_u64.to_le_bytes().as_slice(), &16_u32.to_le_bytes(), &[0; 4]].concat();
    master.put(Master::data_at(0), &clear);
    assert_eq!(master.ask(ZEROES, 0, 16), 0);
    expected[1 << 20..(1 << 20) + 16 * 512].fill(0);
    assert_eq!(master.ask(DISCARD, 0, 16), 0);
    assert_eq!(master.write_at(2048, &expected[1 << 20..(1 << 20) + 16 * 512]), 0);
    assert!(master.read_at(0, 1 << 20) == expected[..1 << 20]);
    let counted = server.counters().snapshot();
    assert_eq!((counted.flushes, counted.trims, counted.zeroes, counted.errors), (1, 1, 1, 0));
    server.stop().unwrap();
    drop(server);
    assert!(read_all(&open_rw(&dir.path("v.luks"))) == expected);
}

#[test]
fn many_requests_at_a_time_come_back_each_once() {
    let (_dir, _server, _, mut master) = connected();
    let expected = content(SIZE);
    for round in 0..20_u64 {
        let before = master.available();
        for slot in 0..master::SLOTS {
            let sector = (u64::from(slot) * 37 + round * 8) % 1000;
            master.prepare(slot, READ, sector * 8, 4096);
            master.offer(3 * slot);
        }
        master.publish(before);
        let mut back: Vec<u16> = (0..master::SLOTS)
            .map(|_| {
                let (slot, status) = master.completed(5000).unwrap();
                assert_eq!(status, 0);
                let at = ((u64::from(slot) * 37 + round * 8) % 1000) as usize * 4096;
                assert!(master.data(slot, 4096) == expected[at..at + 4096]);
                slot
            })
            .collect();
        back.sort_unstable();
        assert!(back.into_iter().eq(0..master::SLOTS));
    }
}

#[test]
fn what_is_wrong_with_a_request_ends_that_request_only() {
    let (_dir, server, _, mut master) = connected();
    let last = (SIZE / 512) as u64;
    assert_eq!(master.ask(READ, last, 512), 1, "behind the end");
    assert_eq!(master.ask(READ, u64::MAX, 512), 1, "far behind the end");
    assert_eq!(master.ask(READ, 0, 100), 1, "part of a sector");
    assert_eq!(master.ask(77, 0, 512), 2, "an unknown request");
    assert_eq!(master.ask(WRITE, last - 1, 1024), 1, "over the end");
    // Data outside the memory: the status is still told.
    master.prepare(0, READ, 0, 512);
    master.descriptor(1, MEMORY - 100, 512, 1 | 2, 2);
    let before = master.available();
    master.offer(0);
    master.publish(before);
    assert_eq!(master.completed(5000), Some((0, 1)));
    // A chain that goes round has no status, and comes back without one.
    master.prepare(0, READ, 0, 512);
    master.descriptor(1, Master::data_at(0), 512, 1 | 2, 0);
    let before = master.available();
    master.offer(0);
    master.publish(before);
    assert_eq!(master.completed(5000), Some((0, 0xff)));
    // An indirect table that is not there.
    master.prepare(0, READ, 0, 512);
    master.descriptor(0, u64::MAX - 15, 160, 4, 0);
    let before = master.available();
    master.offer(0);
    master.publish(before);
    assert_eq!(master.completed(5000), Some((0, 0xff)));
    assert!(master.read_at(0, 512) == content(512), "the queue goes on");
    assert!(server.counters().snapshot().errors >= 7);
}

#[test]
fn a_broken_ring_stops_its_queue_and_the_next_connection_is_served() {
    for lie in ["index", "head"] {
        let (_dir, server, path, mut master) = connected();
        match lie {
            "index" => master.store(AVAILABLE + 2, 1 + RING),
            _ => {
                let before = master.available();
                master.offer(RING);
                master.publish(before);
            }
        }
        master.force_kick();
        assert_eq!(master.completed(300), None, "{lie}");
        assert_eq!(server.counters().snapshot().errors, 1, "{lie}");
        drop(master);
        let mut next = Master::new();
        next.connect(&path).unwrap();
        assert!(next.read_at(0, 512) == content(512), "{lie}");
    }
}

#[test]
fn malformed_messages_end_their_connection_and_no_other() {
    let (_dir, server, path, mut master) = connected();
    let mut region = master.region();
    region.memory_size = MEMORY * 2;
    let _ = master.frontend().set_mem_table(&[region]);
    drop(master);
    type Lie = fn(&mut Master);
    let lies: [Lie; 5] = [
        |m| drop(m.frontend().set_vring_num(0, 100)),
        |m| drop(m.frontend().set_vring_num(3, 2048)),
        |m| drop(m.frontend().set_features(1 << 63)),
        |m| {
            let place = vhost::VringConfigData { desc_table_addr: 16, ..m.place() };
            drop(m.frontend().set_vring_addr(0, &place));
        },
        |m| {
            let inflight = vhost::vhost_user::message::VhostUserInflight::new(0, 0, 99, 99);
            drop(m.frontend().get_inflight_fd(&inflight));
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut master = Master::new();
        master.connect(&path).unwrap();
        assert!(master.read_at(0, 512) == content(512), "before lie {number}");
        lie(&mut master);
        // The connection is gone: its next question has no answer.
        assert!(master.frontend().get_features().is_err(), "lie {number}");
    }
    let mut honest = Master::new();
    honest.connect(&path).unwrap();
    assert!(honest.read_at(0, 512) == content(512));
    let refused = server.counters().snapshot().connections_refused;
    assert!(refused >= 5, "{refused} refused");
}

#[test]
fn a_reader_gets_no_writes_through() {
    let dir = Dir::new();
    let path = dir.volume(&content(SIZE));
    let options = disk::OpenOptions { read_only: true, ..Default::default() };
    let volume = disk::open(&path, Some(&crate::fixture::key()), &options).unwrap().volume();
    let (_server, socket) = serve(&dir, volume);
    let mut master = Master::new();
    master.connect(&socket).unwrap();
    assert_ne!(master.features & 1 << 5, 0, "the read-only feature");
    assert_eq!(master.write_at(0, &[1; 512]), 1);
    assert_eq!(master.ask(FLUSH, 0, 0), 0);
    assert!(master.read_at(0, 512) == content(512));
}

#[test]
fn what_a_stopped_server_left_is_done_by_the_next() {
    let (dir, server, path, mut master) = connected();
    assert_eq!(master.write_at(0, &[1; 512]), 0);
    server.stop().unwrap();
    drop(server);
    // Nobody serves: these wait.
    for slot in 1..10 {
        master.put(Master::data_at(slot), &[u8::try_from(slot).unwrap(); 512]);
        master.submit(slot, WRITE, u64::from(slot), 512);
    }
    assert_eq!(master.completed(50), None);
    let (_server, _) = serve(&dir, Arc::new(open_rw(&dir.path("v.luks"))));
    master.connect(&path).unwrap();
    for _ in 1..10 {
        assert_eq!(master.completed(5000).unwrap().1, 0);
    }
    for slot in 0..10_u8 {
        assert_eq!(master.read_at(u64::from(slot), 512), [slot.max(1); 512]);
    }
}

/// Whether the server has cut the connection, or does so within half a second.
fn is_cut(connection: &UnixStream) -> bool {
    connection.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    matches!((&*connection).read(&mut [0]), Ok(0))
}

#[test]
fn a_server_that_stops_gives_back_what_is_at_hand_before_it_cuts_the_connection() {
    let dir = Dir::new();
    let ((begun, begins), (goes_on, held)) = (mpsc::channel(), mpsc::channel());
    let held = Mutex::new(held);
    let write = move |_| {
        begun.send(()).unwrap();
        held.lock().unwrap().recv().unwrap();
        Ok(())
    };
    let volume = Stub { read: broken, write, flush: broken };
    let (server, path) = serve(&dir, Arc::new(volume));
    let mut master = Master::new();
    master.connect(&path).unwrap();
    let connection = master.connection.as_ref().unwrap().try_clone().unwrap();
    master.submit(0, WRITE, 0, 512);
    begins.recv().unwrap();
    thread::scope(|scope| {
        // Its flush fails, which is nothing to this.
        let stopping = scope.spawn(|| server.stop());
        // A front end that saw it cut now would have the write done, and given back, twice.
        assert!(!is_cut(&connection), "cut while a request was at hand");
        goes_on.send(()).unwrap();
        stopping.join().unwrap().unwrap_err();
    });
    assert!(is_cut(&connection));
    assert_eq!(master.completed(5000), Some((0, 0)));
    assert_eq!(master.completed(50), None, "given back once");
    drop(server);
    let volume = Stub { read: broken, write: |_| Ok(()), flush: broken };
    let (server, _) = serve(&dir, Arc::new(volume));
    master.connect(&path).unwrap();
    assert_eq!(master.completed(300), None, "nothing was left to do");
    assert_eq!(server.counters().snapshot().writes, 0);
}
