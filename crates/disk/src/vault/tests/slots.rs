//! Tests of changing key slots.

use std::sync::atomic::Ordering;

use model::Secret;

use super::memory::{Memory, new_volume, reopen};
use crate::{
    OpenOptions, Volume,
    vault::{Argon2Cost, NewSlot, SlotSecret, Suite, open_on},
};

const CHEAP: Argon2Cost = Argon2Cost { memory: 64, passes: 1, lanes: 1 };

fn opens(medium: &std::sync::Arc<Memory>, secret: &[u8]) -> Result<usize, &'static str> {
    let medium = medium.copy();
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    open_on(medium, &Secret::new(secret.to_vec()), &options)
        .map(|volume| volume.key_slot())
        .map_err(|why| why.rejection().unwrap().code())
}

const FIRST: &[u8] = &[0x2a; 32];

#[test]
fn a_recovery_pass_phrase_is_added_and_the_first_key_replaced_and_removed() {
    let medium = new_volume(1 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    volume.write(4096, &mut [7; 4096]).unwrap();
    let phrase = Secret::new(b"correct horse".to_vec());
    let secret = SlotSecret::Passphrase { phrase: &phrase, cost: CHEAP };
    let recovery = NewSlot { secret, kmi: None, label: "recovery" };
    assert_eq!(volume.add_key_slot(&recovery).unwrap(), 1);
    assert_eq!((opens(&medium, FIRST), opens(&medium, b"correct horse")), (Ok(0), Ok(1)));
    let other = Secret::new(b"another key".to_vec());
    let other = NewSlot { secret: SlotSecret::RandomKey(&other), kmi: None, label: "" };
    volume.replace_key_slot(0, &other).unwrap();
    assert_eq!((opens(&medium, FIRST), opens(&medium, b"another key")), (Err("wrong-key"), Ok(0)));
    volume.remove_key_slot(0).unwrap();
    assert_eq!(opens(&medium, b"another key"), Err("wrong-key"));
    let last = volume.remove_key_slot(1).unwrap_err();
    assert_eq!(last.rejection().unwrap().code(), "last-key-slot");
    let empty = volume.replace_key_slot(0, &other).unwrap_err();
    assert_eq!(empty.rejection().unwrap().code(), "key-slot-empty");
    volume.flush().unwrap();
    drop(volume);
    let options = OpenOptions::default();
    let volume = open_on(medium, &phrase, &options).unwrap();
    let mut back = [0; 4096];
    volume.read(4096, &mut back).unwrap();
    assert_eq!(back, [7; 4096]);
}

#[test]
fn nothing_of_a_removed_slot_is_left_in_the_file() {
    let medium = new_volume(1 << 20, Suite::Aes256Gcm);
    let volume = reopen(&medium);
    let before = medium.bytes.lock().unwrap()[2 * 4096 + 60..2 * 4096 + 108].to_vec();
    let other = Secret::new(b"another key".to_vec());
    let other = NewSlot { secret: SlotSecret::RandomKey(&other), kmi: None, label: "" };
    volume.replace_key_slot(0, &other).unwrap();
    let bytes = medium.bytes.lock().unwrap();
    assert!(!bytes.windows(48).any(|window| window == before));
}

#[test]
fn a_change_costs_the_same_for_a_large_volume() {
    for size in [1 << 20, 1 << 40] {
        let medium = new_volume(size, Suite::Aes256Gcm);
        let volume = reopen(&medium);
        let other = Secret::new(b"another key".to_vec());
        let other = NewSlot { secret: SlotSecret::RandomKey(&other), kmi: None, label: "" };
        let before = medium.syncs.load(Ordering::SeqCst);
        volume.replace_key_slot(0, &other).unwrap();
        assert_eq!(medium.syncs.load(Ordering::SeqCst) - before, 5, "of {size} bytes");
    }
}
