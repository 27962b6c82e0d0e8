//! vhost-user-blk of the real process: `kill -9` at any moment, a new one on the same socket, and
//! every request that the driver made is answered once, and done.

use std::{thread, time::Duration};

use crate::{
    driver::FLUSH,
    master::{Master, READ, SLOTS, WRITE},
    process::{Disk, pattern, status, with_volume},
};

const VHOST: &[&str] = &["--vhost-user"];

/// What a slot writes in a round: nobody else writes these sectors.
fn filled(round: u16, slot: u16) -> Vec<u8> {
    let word = (u32::from(round) << 16 | u32::from(slot) | 0x8000_0000).to_le_bytes();
    word.into_iter().cycle().take(16 << 10).collect()
}

fn sector(slot: u16) -> u64 {
    u64::from(slot) * 32
}

#[test]
fn no_request_is_lost_when_the_process_is_killed() {
    let dir = with_volume(&pattern(4 << 20));
    let socket = dir.path().join("s.sock");
    let mut disk = Disk::serve(dir.path(), VHOST);
    let mut master = Master::new();
    master.connect(&socket).unwrap();
    for round in 0..30 {
        let before = master.available();
        for slot in 0..SLOTS {
            master.put(Master::data_at(slot), &filled(round, slot));
            master.prepare(slot, WRITE, sector(slot), 16 << 10);
            master.offer(3 * slot);
        }
        master.publish(before);
        // Killed while they are taken, worked on, given back: each round a little later.
        thread::sleep(Duration::from_micros(u64::from(round) * 60));
        disk.kill();
        disk = Disk::serve(dir.path(), VHOST);
        master.connect(&socket).unwrap();
        let mut back: Vec<u16> = (0..SLOTS)
            .map(|n| {
                let told = master.completed(10_000);
                let (slot, status) = told.unwrap_or_else(|| panic!("round {round}: {n} came back"));
                assert_eq!(status, 0);
                slot
            })
            .collect();
        back.sort_unstable();
        assert!(back.iter().copied().eq(0..SLOTS), "round {round}: {back:?}");
        assert_eq!(master.completed(0), None, "none comes twice");
        for slot in 0..SLOTS {
            assert!(master.read_at(sector(slot), 16 << 10) == filled(round, slot));
        }
    }
    assert_eq!(master.ask(FLUSH, 0, 0), 0);
    assert_eq!(disk.terminate(), 0);
}

#[test]
fn it_serves_what_it_says_on_its_control_socket() {
    let dir = with_volume(&pattern(1 << 20));
    let disk = Disk::serve(dir.path(), &["--vhost-user", "--queues", "2", "--read-only"]);
    let mut master = Master::new();
    master.connect(&dir.path().join("s.sock")).unwrap();
    assert_eq!(master.ask(READ, 0, 4096), 0);
    let status = status(dir.path());
    assert_eq!(
        (status.read_only, status.counters.reads, status.counters.connections),
        (true, 1, 1)
    );
    assert_eq!(disk.terminate(), 0);
}
