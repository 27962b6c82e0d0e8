//! A medium that fails: writes, synchronisations, a full one; and threads at the same time.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use super::memory::{new_volume, reopen};
use crate::{OpenOptions, Volume, vault::Suite};

#[test]
fn a_full_medium_fails_the_write_and_loses_nothing_that_was_flushed() {
    let medium = new_volume(64 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut vec![1; 1 << 20]).unwrap();
    volume.flush().unwrap();
    let length = u64::try_from(medium.bytes.lock().unwrap().len()).unwrap();
    medium.room.store(length + (1 << 20), Ordering::SeqCst);
    let error = volume.write(1 << 20, &mut vec![2; 8 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    volume.flush().unwrap();
    let mut back = vec![0; 1 << 20];
    volume.read(0, &mut back).unwrap();
    assert!(back.iter().all(|&b| b == 1));
    // Room that a trim and a flush give back is used.
    volume.trim(0, 9 << 20).unwrap();
    volume.flush().unwrap();
    volume.write(0, &mut vec![3; 1 << 20]).unwrap();
    medium.room.store(0, Ordering::SeqCst);
    volume.close().unwrap();
    drop(volume);
    reopen(&medium).read(0, &mut back).unwrap();
    assert!(back.iter().all(|&b| b == 3));
}

#[test]
fn a_write_that_fails_leaves_the_old_content_and_a_later_one_succeeds() {
    let medium = new_volume(8 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut vec![1; 1 << 20]).unwrap();
    volume.flush().unwrap();
    medium.fail_write.store(true, Ordering::SeqCst);
    assert!(volume.write(0, &mut vec![2; 1 << 20]).is_err());
    medium.fail_write.store(false, Ordering::SeqCst);
    let mut back = vec![0; 1 << 20];
    volume.read(0, &mut back).unwrap();
    assert!(back.iter().all(|&b| b == 1));
}

#[test]
fn a_record_that_could_not_be_written_is_written_by_the_next_flush() {
    let medium = new_volume(8 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut vec![1; 1 << 20]).unwrap();
    medium.fail_write.store(true, Ordering::SeqCst);
    assert!(volume.flush().is_err());
    assert!(!volume.flush_failed());
    medium.fail_write.store(false, Ordering::SeqCst);
    volume.write(4096, &mut vec![2; 4096]).unwrap();
    volume.flush().unwrap();
    drop(volume);
    let mut back = vec![0; 1 << 20];
    reopen(&medium).read(0, &mut back).unwrap();
    assert!(back[..4096].iter().all(|&b| b == 1));
    assert!(back[4096..8192].iter().all(|&b| b == 2));
    assert!(back[8192..].iter().all(|&b| b == 1));
}

#[test]
fn a_checkpoint_that_failed_before_its_header_is_made_again() {
    let medium = new_volume(8 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut vec![1; 1 << 20]).unwrap();
    let length = u64::try_from(medium.bytes.lock().unwrap().len()).unwrap();
    // No page finds room: the spare slots lie behind the end.
    medium.room.store(length, Ordering::SeqCst);
    assert!(volume.advance(1).is_err());
    assert!(!volume.flush_failed());
    volume.flush().unwrap();
    medium.room.store(0, Ordering::SeqCst);
    assert_eq!(volume.advance(2).unwrap().anchor_count, 2);
    drop(volume);
    let mut back = vec![0; 1 << 20];
    reopen(&medium).read(0, &mut back).unwrap();
    assert!(back.iter().all(|&b| b == 1));
}

#[test]
fn after_a_failed_synchronisation_no_flush_succeeds() {
    let medium = new_volume(8 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut vec![1; 4096]).unwrap();
    medium.fail_sync.store(true, Ordering::SeqCst);
    assert!(volume.flush().is_err());
    medium.fail_sync.store(false, Ordering::SeqCst);
    assert!(volume.flush_failed());
    assert!(volume.flush().is_err());
    assert!(volume.close().is_err());
}

/// Threads that each own every fourth sector, with flushes and checkpoints between them.
#[test]
fn threads_see_their_own_writes_while_commits_and_checkpoints_run() {
    let medium = new_volume(16 << 20, Suite::Aegis256X4);
    let options = OpenOptions { cache_bytes: Some(0), ..OpenOptions::default() };
    let volume = Arc::new(super::memory::try_open(&medium, &options).unwrap());
    let worker = |thread: u64| {
        let volume = Arc::clone(&volume);
        move || {
            let mut expected = [0_u8; 1024];
            let mut state = thread + 1;
            for round in 0..3000_u64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(thread);
                let mine = (state >> 33) % 1024;
                let at = (mine * 4 + thread) * 4096;
                let index = usize::try_from(mine).unwrap();
                if round % 3 == 0 {
                    let mut back = vec![0; 4096];
                    volume.read(at, &mut back).unwrap();
                    assert!(back.iter().all(|&b| b == expected[index]), "sector {at}");
                } else if round % 50 == 7 {
                    volume.trim(at, 4096).unwrap();
                    expected[index] = 0;
                } else {
                    let byte = u8::try_from(round % 255).unwrap() + 1;
                    volume.write(at, &mut vec![byte; 4096]).unwrap();
                    expected[index] = byte;
                }
                match (round % 97, thread) {
                    (0, 0) => drop(volume.advance(round).unwrap()),
                    (0, _) => volume.flush().unwrap(),
                    _ => {}
                }
            }
            volume.flush().unwrap();
            expected
        }
    };
    let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(worker(n))).collect();
    let expected: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    drop(volume);
    let volume = reopen(&medium);
    for (thread, expected) in (0_u64..).zip(expected) {
        for (mine, byte) in (0_u64..).zip(expected) {
            let mut back = vec![0; 4096];
            volume.read((mine * 4 + thread) * 4096, &mut back).unwrap();
            assert!(back.iter().all(|&b| b == byte));
        }
    }
}
