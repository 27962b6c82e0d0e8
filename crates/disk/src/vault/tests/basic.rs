//! What was written is read back: now, after a crash, after a close; absence reads as zeros.

use std::sync::atomic::Ordering;

use super::memory::{new_volume, options_read_only, reopen, try_open};
use crate::{OpenOptions, Volume, vault::Suite};

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| seed.wrapping_add(u8::try_from(i % 251).unwrap())).collect()
}

#[test]
fn what_was_written_is_read_back_now_and_after_a_crash_and_after_a_close() {
    for suite in [Suite::Aes256Gcm, Suite::Aegis256X4] {
        let medium = new_volume(10 << 20, suite);
        let volume = reopen(&medium);
        let mut data = pattern(1, 3 << 20);
        volume.write(5000, &mut data).unwrap();
        let mut small = pattern(9, 100);
        volume.write(4090, &mut small).unwrap();
        let mut back = vec![0; 3 << 20];
        volume.read(5000, &mut back).unwrap();
        assert!(back == pattern(1, 3 << 20));
        volume.flush().unwrap();
        drop(volume);
        let shown = |options: &OpenOptions| {
            let volume = try_open(&medium, options).unwrap();
            let mut back = vec![1; 3 << 20];
            volume.read(5000, &mut back).unwrap();
            assert!(back == pattern(1, 3 << 20));
            let mut small = vec![0; 110];
            volume.read(4085, &mut small).unwrap();
            assert_eq!(small[..5], [0; 5]);
            assert_eq!(small[5..105], pattern(9, 100)[..]);
            let mut zeros = vec![1; 4 << 20];
            volume.read(6 << 20, &mut zeros).unwrap();
            assert!(zeros.iter().all(|&b| b == 0));
            volume
        };
        shown(&options_read_only());
        let volume = shown(&OpenOptions::default());
        volume.close().unwrap();
        assert!(volume.write(0, &mut [1; 10]).is_err());
        drop(volume);
        shown(&options_read_only());
        shown(&OpenOptions::default());
    }
}

#[test]
fn a_flush_costs_one_synchronisation_and_an_idle_one_none() {
    let medium = new_volume(10 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    for round in 0..10 {
        volume.write(round * 40_960, &mut pattern(3, 8192)).unwrap();
        let before = medium.syncs.load(Ordering::SeqCst);
        volume.flush().unwrap();
        assert_eq!(medium.syncs.load(Ordering::SeqCst) - before, 1);
        volume.flush().unwrap();
        assert_eq!(medium.syncs.load(Ordering::SeqCst) - before, 1);
    }
}

#[test]
fn extents_and_trims_tell_absence() {
    let medium = new_volume(10 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(1 << 20, &mut pattern(1, 1 << 20)).unwrap();
    volume.trim((1 << 20) + 8192, 4096 * 3).unwrap();
    let found = volume.extents(0, 10 << 20, 10).unwrap();
    let lengths: Vec<_> = found.iter().map(|e| (e.length, e.hole)).collect();
    let rest = (1 << 20) - 8192 - 4096 * 3;
    assert_eq!(
        lengths,
        [(1 << 20, true), (8192, false), (4096 * 3, true), (rest, false), (8 << 20, true)]
    );
    assert_eq!(volume.extents(100, 10, 1).unwrap()[0].length, 10);
}

#[test]
fn a_size_that_is_no_multiple_of_a_sector_works_to_its_last_byte() {
    let medium = new_volume(10_001, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut pattern(7, 10_001)).unwrap();
    assert!(volume.write(1, &mut pattern(7, 10_001)).is_err());
    volume.flush().unwrap();
    drop(volume);
    let volume = reopen(&medium);
    let mut back = vec![0; 10_001];
    volume.read(0, &mut back).unwrap();
    assert_eq!(back, pattern(7, 10_001));
    volume.write_zeroes(8192, 1809).unwrap();
    assert!(volume.extents(8192, 1809, 4).unwrap()[0].hole);
    volume.write_zeroes(10, 5000).unwrap();
    volume.read(0, &mut back).unwrap();
    assert!(back[10..5010].iter().all(|&b| b == 0));
    assert_eq!(back[5010..8192], pattern(7, 10_001)[5010..8192]);
}

#[test]
fn a_silent_volume_confirms_its_last_record() {
    let medium = new_volume(1 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut pattern(7, 4096)).unwrap();
    volume.flush().unwrap();
    let number = volume.engine.committer().number;
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        if volume.engine.committer().number > number {
            break;
        }
    }
    assert_eq!(volume.engine.committer().number, number + 1);
    drop(volume);
    let mut back = vec![0; 4096];
    reopen(&medium).read(0, &mut back).unwrap();
    assert_eq!(back, pattern(7, 4096));
}

#[test]
fn the_anchor_s_count_is_checked() {
    let medium = new_volume(1 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    assert_eq!(volume.advance(5).unwrap().anchor_count, 5);
    drop(volume);
    let open = |count| {
        let options = OpenOptions { anchor: Some(count), ..options_read_only() };
        try_open(&medium, &options).map(|_| ()).map_err(|e| e.rejection().unwrap().code())
    };
    assert_eq!(open(6), Err("rolled-back"));
    assert_eq!(open(5), Ok(()));
    assert_eq!(open(4), Ok(()));
    assert_eq!(open(3), Err("anchor-mismatch"));
}
