//! Snapshots, sizes, re-keying, scrubbing.

use std::ops::ControlFlow;

use model::Secret;

use super::memory::{Memory, new_volume, options_read_only, reopen, secret, try_open};
use crate::{
    OpenOptions, Rejection, Volume,
    vault::{Medium, NewSlot, SlotSecret, Suite, VaultVolume, open_on},
};

const MIB: u64 = 1 << 20;

fn write(volume: &VaultVolume, at: u64, byte: u8, length: usize) {
    volume.write(at, &mut vec![byte; length]).unwrap();
}

fn all(volume: &VaultVolume, at: u64, length: usize) -> u8 {
    let mut back = vec![0; length];
    volume.read(at, &mut back).unwrap();
    assert!(back.iter().all(|&b| b == back[0]), "mixed content");
    back[0]
}

fn go(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn code(error: &crate::VolumeError) -> &'static str {
    error.rejection().expect("a refusal").code()
}

#[test]
fn a_snapshot_keeps_the_disk_as_it_was_until_it_is_deleted() {
    let medium = new_volume(8 * MIB, Suite::Aes256Gcm);
    let mut volume = reopen(&medium);
    write(&volume, 0, 1, 4 << 20);
    volume.snapshot("one", 1000).unwrap();
    assert_eq!(code(&volume.snapshot("one", 1000).unwrap_err()), "snapshot-name");
    assert_eq!(code(&volume.snapshot("", 1000).unwrap_err()), "snapshot-name");
    for round in 2..6 {
        write(&volume, 0, round, 4 << 20);
        volume.flush().unwrap();
        if round == 3 {
            volume.snapshot("two", 2000).unwrap();
            volume.trim(MIB, MIB).unwrap();
            volume.close().unwrap();
            drop(volume);
            volume = reopen(&medium);
        }
    }
    let used = volume.usage().unwrap().used;
    assert!(used >= 12 * MIB, "{used}");
    volume.flush().unwrap();
    drop(volume);
    let open = |name: &str| {
        let snapshot = Some(name.to_owned());
        try_open(&medium, &OpenOptions { snapshot, ..options_read_only() })
    };
    assert_eq!(all(&open("one").unwrap(), 0, 4 << 20), 1);
    assert_eq!(all(&open("two").unwrap(), 0, 4 << 20), 3);
    assert_eq!(code(&open("three").unwrap_err()), "snapshot-not-found");
    let volume = reopen(&medium);
    assert_eq!(all(&volume, 0, 4 << 20), 5);
    let names: Vec<_> = volume.snapshots().into_iter().map(|s| (s.name, s.time)).collect();
    assert_eq!(names, [("one".to_owned(), 1000), ("two".to_owned(), 2000)]);
    volume.delete_snapshot("one").unwrap();
    assert_eq!(code(&volume.delete_snapshot("one").unwrap_err()), "snapshot-not-found");
    volume.delete_snapshot("two").unwrap();
    let after = volume.usage().unwrap().used;
    assert!(after + 7 * MIB < used, "{after} of {used}");
    write(&volume, 0, 9, 8 << 20);
    volume.close().unwrap();
    drop(volume);
    assert_eq!(all(&reopen(&medium), 0, 8 << 20), 9);
}

#[test]
fn a_disk_grows_and_shrinks_without_its_empty_end() {
    let medium = new_volume(MIB / 4 + 100, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    write(&volume, 0, 7, (1 << 18) + 100);
    volume.resize(70 * MIB).unwrap();
    assert_eq!(volume.size(), 70 * MIB);
    assert_eq!(all(&volume, MIB / 4 + 100, 4 << 20), 0);
    write(&volume, 69 * MIB, 8, 1 << 20);
    volume.resize(200 * MIB).unwrap();
    write(&volume, 199 * MIB, 9, 1 << 20);
    volume.flush().unwrap();
    drop(volume);
    let volume = reopen(&medium);
    assert_eq!(all(&volume, 69 * MIB, 1 << 20), 8);
    assert_eq!(all(&volume, 199 * MIB, 1 << 20), 9);
    assert_eq!(code(&volume.resize(100 * MIB).unwrap_err()), "shrink-loses-data");
    volume.trim(199 * MIB, MIB).unwrap();
    volume.resize(100 * MIB).unwrap();
    assert_eq!(all(&volume, 69 * MIB, 1 << 20), 8);
    volume.write_zeroes(10_000, 90 * MIB).unwrap();
    volume.resize(10_000).unwrap();
    drop(volume);
    let volume = reopen(&medium);
    assert_eq!(volume.size(), 10_000);
    assert_eq!(all(&volume, 0, 10_000), 7);
    assert_eq!(code(&volume.resize(9000).unwrap_err()), "shrink-loses-data");
    volume.resize(MIB).unwrap();
    assert_eq!(all(&volume, 10_000, 1 << 19), 0);
}

fn rekeyed(volume: &VaultVolume, key: &Secret<Vec<u8>>, stop_at: u64) -> bool {
    let slots = [NewSlot { secret: SlotSecret::RandomKey(key), kmi: None, label: "new" }];
    let stop = &mut |done: u64, _: u64| {
        if done >= stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match volume.rekey(&slots, stop) {
        Ok(()) => true,
        Err(crate::VolumeError::Cancelled) => false,
        Err(error) => panic!("{error:?}"),
    }
}

fn open_with(medium: &std::sync::Arc<Memory>, key: &Secret<Vec<u8>>) -> Option<VaultVolume> {
    let medium: std::sync::Arc<dyn Medium> = std::sync::Arc::clone(medium) as _;
    match open_on(medium, key, &OpenOptions::default()) {
        Ok(volume) => Some(volume),
        Err(error) => {
            assert_eq!(error.rejection(), Some(&Rejection::WrongKey));
            None
        }
    }
}

#[test]
fn re_keying_goes_on_after_a_crash_and_ends_the_old_key() {
    let medium = new_volume(16 * MIB, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    write(&volume, 0, 5, 12 << 20);
    let new = Secret::new(vec![9; 40]);
    assert!(!rekeyed(&volume, &new, 7));
    assert!(volume.rekeying());
    write(&volume, MIB, 6, 1 << 20);
    volume.flush().unwrap();
    drop(volume);
    assert!(open_with(&medium, &secret()).is_none());
    let volume = open_with(&medium, &new).unwrap();
    assert_eq!(all(&volume, MIB, 1 << 20), 6);
    assert_eq!(all(&volume, 2 * MIB, 10 << 20), 5);
    assert_eq!(code(&volume.snapshot("s", 0).unwrap_err()), "unsupported");
    assert!(rekeyed(&volume, &new, u64::MAX));
    assert!(!volume.rekeying());
    volume.flush().unwrap();
    drop(volume);
    let volume = open_with(&medium, &new).unwrap();
    assert_eq!(all(&volume, MIB, 1 << 20), 6);
    assert_eq!(all(&volume, 2 * MIB, 10 << 20), 5);
    assert!(volume.check(&mut go).unwrap().is_empty());
    let old_epoch = volume.engine.enter().ring.records().any(|record| record.epoch == 1);
    assert!(!old_epoch);
}

#[test]
fn re_keying_with_snapshots_is_refused() {
    let medium = new_volume(MIB, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.snapshot("s", 0).unwrap();
    let error = volume.rekey(&[], &mut go).unwrap_err();
    assert_eq!(code(&error), "unsupported");
}

#[test]
fn sessions_that_sealed_nothing_living_are_forgotten() {
    let medium = new_volume(MIB, Suite::Aes256Gcm);
    for round in 0..300_u64 {
        let volume = reopen(&medium);
        write(&volume, round % 4 * 4096, 1, 4096);
        volume.flush().unwrap();
    }
    let volume = reopen(&medium);
    let sessions = volume.engine.enter().ring.records().count();
    assert!(sessions < 12, "{sessions}");
    assert_eq!(volume.engine.committer().header.session.id, 301);
}
