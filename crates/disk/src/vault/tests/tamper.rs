//! Forgeries: bits flipped in every slot, exchanged sectors, older pages and headers, cut files.

use std::sync::Arc;

use proptest::prelude::*;

use super::memory::{Memory, new_volume, options_read_only, reopen, try_open};
use crate::{OpenOptions, Rejection, Volume, vault::Suite};

const SIZE: usize = 2 << 20;
const SECTORS: usize = SIZE / 4096;

fn content(version: u8, sector: usize) -> Vec<u8> {
    vec![version ^ u8::try_from(sector % 256).unwrap(); 4096]
}

/// A closed volume whose odd sectors were rewritten with version 2, and its file before that.
fn volumes() -> (Arc<Memory>, Arc<Memory>) {
    let medium = new_volume(u64::try_from(SIZE).unwrap(), Suite::Aes256Gcm);
    let volume = reopen(&medium);
    for sector in 0..SECTORS {
        let at = u64::try_from(sector * 4096).unwrap();
        volume.write(at, &mut content(1, sector)).unwrap();
    }
    volume.close().unwrap();
    drop(volume);
    let before = medium.copy();
    let volume = reopen(&medium);
    for sector in (1..SECTORS).step_by(2) {
        let at = u64::try_from(sector * 4096).unwrap();
        volume.write(at, &mut content(2, sector)).unwrap();
    }
    volume.close().unwrap();
    drop(volume);
    (before, medium)
}

/// Every sector is right or damaged by name. Returns the damaged ones, or the refusal to open.
fn judge(medium: &Arc<Memory>) -> Result<Vec<usize>, Rejection> {
    let volume = match try_open(medium, &options_read_only()) {
        Ok(volume) => volume,
        Err(error) => return Err(error.rejection().expect("a named refusal").clone()),
    };
    let mut damaged = Vec::new();
    for sector in 0..SECTORS {
        let mut back = vec![0xee; 4096];
        match volume.read(u64::try_from(sector * 4096).unwrap(), &mut back) {
            Ok(()) => {
                let version = if sector % 2 == 1 { 2 } else { 1 };
                assert!(
                    back == content(version, sector),
                    "sector {sector} reads as something else"
                );
            }
            Err(error) => {
                let inner = error.get_ref().and_then(|e| e.downcast_ref::<Rejection>());
                let code = inner.expect("a named damage").code();
                assert!(["sector-damaged", "page-damaged"].contains(&code), "{code}");
                assert!(back.iter().all(|&b| b == 0 || b == 0xee), "something was released");
                damaged.push(sector);
            }
        }
    }
    Ok(damaged)
}

fn slots(medium: &Memory) -> usize {
    medium.bytes.lock().unwrap().len() / 4096
}

fn slot_range(slot: usize) -> std::ops::Range<usize> {
    slot * 4096..(slot + 1) * 4096
}

#[test]
fn an_untouched_volume_is_whole() {
    let (_, medium) = volumes();
    assert_eq!(judge(&medium), Ok(vec![]));
}

#[test]
fn a_flipped_bit_in_any_slot_is_refused_or_named() {
    let (_, medium) = volumes();
    let mut damages = 0;
    for slot in 0..slots(&medium) {
        let changed = medium.copy();
        {
            let mut bytes = changed.bytes.lock().unwrap();
            let at = slot * 4096 + slot * 37 % 4096;
            bytes[at] ^= 1 << (slot % 8);
        }
        match judge(&changed) {
            Ok(damaged) => damages += usize::from(!damaged.is_empty()),
            Err(why) => assert!(slot >= 2, "slot {slot}: {}", why.code()),
        }
    }
    assert!(damages >= SECTORS, "{damages}");
}

#[test]
fn two_sectors_that_changed_places_are_both_damaged() {
    let (_, medium) = volumes();
    let mut found = 0;
    for (a, b) in (320..360).map(|slot| (slot, slot + 2)) {
        let changed = medium.copy();
        {
            let mut bytes = changed.bytes.lock().unwrap();
            let left = bytes[slot_range(a)].to_vec();
            let right = bytes[slot_range(b)].to_vec();
            bytes[slot_range(a)].copy_from_slice(&right);
            bytes[slot_range(b)].copy_from_slice(&left);
        }
        if let Ok(damaged) = judge(&changed) {
            found = found.max(damaged.len());
        }
    }
    assert!(found >= 2, "{found}");
}

#[test]
fn a_short_file_is_refused() {
    let (_, medium) = volumes();
    let changed = medium.copy();
    let length = changed.bytes.lock().unwrap().len();
    changed.bytes.lock().unwrap().truncate(length - 4096);
    assert_eq!(judge(&changed), Err(Rejection::Truncated));
    for length in [0, 4096, 18 * 4096, 19 * 4096 + 5] {
        changed.bytes.lock().unwrap().truncate(length);
        assert!(judge(&changed).is_err());
    }
}

#[test]
fn yesterday_s_file_opens_without_an_anchor_and_not_with_one() {
    let (before, medium) = volumes();
    let volume = reopen(&medium);
    volume.advance(7).unwrap();
    volume.close().unwrap();
    drop(volume);
    let with_anchor = OpenOptions { anchor: Some(7), ..options_read_only() };
    assert!(try_open(&medium, &with_anchor).is_ok());
    let error = try_open(&before, &with_anchor).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::RolledBack));
    assert!(try_open(&before, &options_read_only()).is_ok());
}

#[test]
fn an_old_header_before_a_newer_log_is_stale() {
    let medium = new_volume(u64::try_from(SIZE).unwrap(), Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(0, &mut content(1, 0)).unwrap();
    volume.advance(0).unwrap();
    let headers = medium.bytes.lock().unwrap()[..8192].to_vec();
    volume.write(0, &mut content(2, 0)).unwrap();
    volume.advance(0).unwrap();
    volume.write(4096, &mut content(2, 1)).unwrap();
    volume.flush().unwrap();
    drop(volume);
    medium.bytes.lock().unwrap()[..8192].copy_from_slice(&headers);
    let error = try_open(&medium, &options_read_only()).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::HeaderStale));
}

#[test]
fn a_record_that_is_missing_before_another_is_a_damaged_log() {
    let medium = new_volume(u64::try_from(SIZE).unwrap(), Suite::Aes256Gcm);
    let volume = reopen(&medium);
    for sector in 0..4 {
        let at = u64::try_from(sector * 4096).unwrap();
        volume.write(at, &mut content(1, sector)).unwrap();
        volume.flush().unwrap();
    }
    drop(volume);
    let whole = medium.copy();
    medium.bytes.lock().unwrap()[slot_range(257)].fill(0);
    let error = try_open(&medium, &options_read_only()).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::LogDamaged));
    // The last one alone may have been cut off by a crash.
    whole.bytes.lock().unwrap()[slot_range(259)].fill(0);
    let volume = try_open(&whole, &options_read_only()).unwrap();
    let mut back = vec![1; 4096 * 4];
    volume.read(0, &mut back).unwrap();
    assert_eq!(back[4096 * 2..4096 * 3], content(1, 2));
    assert!(back[4096 * 3..].iter().all(|&b| b == 0));
}

#[test]
fn a_scrub_names_what_is_damaged() {
    let medium = new_volume(u64::try_from(SIZE).unwrap(), Suite::Aes256Gcm);
    let volume = reopen(&medium);
    for sector in 0..SECTORS {
        let at = u64::try_from(sector * 4096).unwrap();
        volume.write(at, &mut content(1, sector)).unwrap();
    }
    volume.close().unwrap();
    drop(volume);
    // Sector 5 and 6 at home: the log has 64 slots.
    medium.bytes.lock().unwrap()[(320 + 5) * 4096] ^= 1;
    medium.bytes.lock().unwrap()[(320 + 6) * 4096] ^= 1;
    let volume = try_open(&medium, &options_read_only()).unwrap();
    let bad = volume.check(&mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(bad.len(), 1);
    assert_eq!((bad[0].position, bad[0].length), (5 * 4096, 2 * 4096));
    assert!(volume.damaged_sectors() >= 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn old_content_of_any_slots_is_refused_or_named(
        chosen in prop::collection::vec(18_usize..900, 1..40),
    ) {
        let (before, medium) = volumes();
        let changed = medium.copy();
        {
            let old = before.bytes.lock().unwrap();
            let mut new = changed.bytes.lock().unwrap();
            for slot in chosen {
                if slot_range(slot).end <= old.len().min(new.len()) {
                    new[slot_range(slot)].copy_from_slice(&old[slot_range(slot)]);
                }
            }
        }
        let _ = judge(&changed);
    }
}
