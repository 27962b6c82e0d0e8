//! Tests of one key slot.

use model::{Digest, Epoch};
use proptest::prelude::*;

use super::*;

const UUID: [u8; 16] = [1; 16];
const LONG: &str = "a label of 49 bytes, which is one more than fit..";
const CHEAP: Argon2Cost = Argon2Cost { memory: 64, passes: 1, lanes: 1 };

fn secret(bytes: &[u8]) -> Secret<Vec<u8>> {
    Secret::new(bytes.to_vec())
}

fn volume_key() -> VolumeKey {
    VolumeKey(Secret::new([0x5a; 32]))
}

fn kmi() -> Kmi {
    Kmi {
        vm: "vm-3f2a9c4e-5d6b-4a7c-8e9f-0a1b2c3d4e5f".parse().unwrap(),
        key_id: Digest::sha256([7; 32]),
        version: 1,
        epoch: Epoch(4),
    }
}

fn sealed(secret: SlotSecret<'_>, kmi: Option<&Kmi>) -> KeySlot {
    let new = NewSlot { secret, kmi, label: "first" };
    KeySlot::seal_with(&new, &volume_key(), &UUID, 2, [9; 32]).unwrap()
}

fn open(slot: &KeySlot, secret: &[u8]) -> Result<[u8; 32], String> {
    let opened = slot.open(0, secret, &UUID, 2);
    opened
        .map(|key| *key.0.expose())
        .map_err(|why| why.rejection().map(|r| r.code().to_owned()).unwrap_or_default())
}

#[test]
fn every_kind_opens_with_its_secret_and_no_other() {
    let key = secret(b"sixteen bytes or more");
    let token = b"a token".as_slice();
    let kinds = [
        SlotSecret::RandomKey(&key),
        SlotSecret::Passphrase { phrase: &key, cost: CHEAP },
        SlotSecret::Sealed { key: &key, token },
        SlotSecret::Peer { key: &key, token },
    ];
    for kind in kinds {
        let slot = sealed(kind, Some(&kmi()));
        let read = KeySlot::decode(slot.bytes()).unwrap().unwrap();
        assert_eq!(read, slot);
        assert_eq!(open(&read, key.expose()).unwrap(), [0x5a; 32], "{}", slot.kind.name());
        assert_eq!(open(&read, b"another key that is long enough").unwrap_err(), "wrong-key");
        assert_eq!(read.kmi, Some(kmi()));
        assert_eq!(read.label.as_str(), "first");
    }
    assert_eq!(sealed(kinds[2], None).token(), token);
}

#[test]
fn a_slot_is_bound_to_its_volume_its_epoch_and_its_information() {
    let key = secret(b"k");
    let slot = sealed(SlotSecret::RandomKey(&key), Some(&kmi()));
    assert!(slot.open(0, b"k", &[2; 16], 2).is_err());
    assert!(slot.open(0, b"k", &UUID, 3).is_err());
    let other = sealed(SlotSecret::RandomKey(&key), Some(&Kmi { version: 2, ..kmi() }));
    let mut swapped = *slot.bytes();
    swapped[KMI_AT..TOKEN_AT].copy_from_slice(&other.bytes()[KMI_AT..TOKEN_AT]);
    let swapped = KeySlot::decode(&swapped).unwrap().unwrap();
    assert_eq!(swapped.kmi.as_ref().unwrap().version, 2);
    assert_eq!(open(&swapped, b"k").unwrap_err(), "wrong-key");
}

#[test]
fn the_golden_slot_does_not_change() {
    let key = secret(b"golden");
    let slot = sealed(SlotSecret::RandomKey(&key), None);
    assert_eq!(slot.bytes()[..4], [1, 0, 0, 0]);
    assert_eq!(slot.bytes()[16..48], [9; 32]);
    assert_eq!(slot.bytes()[1776..1782], *b"first\0");
    let shown = hex::encode(&slot.bytes()[SEALED_AT..LENGTHS_AT]);
    assert_eq!(
        shown,
        "860819424eae672f761c9eb17dce51030e367cd572205d402e067310005b14de5a5b113516cbaa26b63156725d99904a"
    );
}

#[test]
fn secrets_of_a_wrong_length_and_information_that_does_not_fit_are_refused() {
    let seal = |secret: SlotSecret<'_>, label: &str| {
        let new = NewSlot { secret, kmi: None, label };
        let error = KeySlot::seal(&new, &volume_key(), &UUID, 1).unwrap_err();
        error.rejection().unwrap().code()
    };
    let (short, none, long) = (secret(b"short"), secret(b""), secret(&[1; 513]));
    let fits = secret(&[1; 32]);
    assert_eq!(seal(SlotSecret::RandomKey(&none), ""), "key-length");
    assert_eq!(seal(SlotSecret::RandomKey(&long), ""), "key-length");
    assert_eq!(seal(SlotSecret::Sealed { key: &short, token: b"" }, ""), "key-length");
    let token = &[1; 1025];
    assert_eq!(seal(SlotSecret::Peer { key: &fits, token }, ""), "metadata-malformed");
    assert_eq!(seal(SlotSecret::RandomKey(&fits), LONG), "metadata-malformed");
    let cost = Argon2Cost { memory: 2 << 20, ..CHEAP };
    assert_eq!(seal(SlotSecret::Passphrase { phrase: &fits, cost }, ""), "kdf-too-costly");
}

proptest! {
    #[test]
    fn a_changed_slot_never_opens_and_never_panics(
        changes in proptest::collection::vec((0..KEY_SLOT_BYTES, 1..=255_u8), 1..4)
    ) {
        let key = secret(b"k");
        let slot = sealed(SlotSecret::RandomKey(&key), Some(&kmi()));
        let mut bytes = *slot.bytes();
        for (at, value) in changes {
            bytes[at] ^= value;
        }
        prop_assume!(bytes != *slot.bytes());
        // A pass phrase's cost is the attacker's choice below the limits: not spent here.
        prop_assume!(bytes[0] != 2);
        if let Ok(Some(read)) = KeySlot::decode(&bytes) {
            prop_assert!(open(&read, b"k").is_err());
        }
    }
}
