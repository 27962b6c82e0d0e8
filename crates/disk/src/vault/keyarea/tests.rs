//! Tests of key areas.

use model::Secret;

use super::{super::kdf::Argon2Cost, *};
use crate::vault::SlotSecret;

const UUID: [u8; 16] = [1; 16];
const CHEAP: Argon2Cost = Argon2Cost { memory: 64, passes: 1, lanes: 1 };

fn secret(bytes: &[u8]) -> Secret<Vec<u8>> {
    Secret::new(bytes.to_vec())
}

fn key() -> VolumeKey {
    VolumeKey(Secret::new([0x5a; 32]))
}

fn new(secret: &Secret<Vec<u8>>) -> NewSlot<'_> {
    NewSlot { secret: SlotSecret::RandomKey(secret), kmi: None, label: "" }
}

fn unseal(area: &KeyArea, secret: &[u8]) -> Option<usize> {
    area.unseal(secret, None, &UUID, 1).ok().map(|unsealed| {
        assert_eq!(unsealed.key.0.expose(), &[0x5a; 32]);
        unsealed.slot
    })
}

#[test]
fn slots_are_added_replaced_and_removed_without_touching_the_others() {
    let key = key();
    let owner = Owner { uuid: &UUID, epoch: 1, key: &key };
    let (a, b, c) = (secret(b"a"), secret(b"b"), secret(b"c"));
    let mut area = KeyArea::new(&[new(&a)], owner).unwrap();
    let phrase = SlotSecret::Passphrase { phrase: &b, cost: CHEAP };
    let recovery = NewSlot { secret: phrase, kmi: None, label: "recovery" };
    assert_eq!(area.add(&recovery, owner).unwrap(), 1);
    assert_eq!((unseal(&area, b"a"), unseal(&area, b"b")), (Some(0), Some(1)));
    let before = area.encode();
    area.replace(0, &new(&c), owner).unwrap();
    assert_eq!(before[2048..], area.encode()[2048..]);
    assert_eq!((unseal(&area, b"a"), unseal(&area, b"c")), (None, Some(0)));
    let read = KeyArea::decode(area.encode().as_slice().try_into().unwrap()).unwrap();
    assert_eq!(read, area);
    area.remove(0).unwrap();
    assert_eq!((unseal(&area, b"c"), unseal(&area, b"b")), (None, Some(1)));
    assert_eq!(area.remove(1), Err(Rejection::LastKeySlot));
    assert_eq!(area.remove(0), Err(Rejection::KeySlotEmpty));
    let error = area.replace(16, &new(&c), owner).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::KeySlotEmpty));
}

#[test]
fn an_area_has_one_to_sixteen_slots() {
    let key = key();
    let owner = Owner { uuid: &UUID, epoch: 1, key: &key };
    let a = secret(b"a");
    let error = KeyArea::new(&[], owner).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::LastKeySlot));
    let mut area = KeyArea::new(&[new(&a); 16], owner).unwrap();
    let error = area.add(&new(&a), owner).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::KeySlotsFull));
    assert_eq!(area.encode().len(), KEY_AREA_BYTES);
}

#[test]
fn a_slot_over_the_limits_does_not_hide_one_that_opens() {
    let key = key();
    let owner = Owner { uuid: &UUID, epoch: 1, key: &key };
    let (a, b) = (secret(b"a"), secret(b"b"));
    let phrase = SlotSecret::Passphrase { phrase: &b, cost: CHEAP };
    let costly = NewSlot { secret: phrase, kmi: None, label: "" };
    let area = KeyArea::new(&[costly, new(&a)], owner).unwrap();
    let mut bytes = area.encode();
    bytes[7] = 1;
    let area = KeyArea::decode(bytes.as_slice().try_into().unwrap()).unwrap();
    assert_eq!(unseal(&area, b"a"), Some(1));
    let error = area.unseal(b"b", None, &UUID, 1).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::KdfTooCostly { slot: 0 }));
}
