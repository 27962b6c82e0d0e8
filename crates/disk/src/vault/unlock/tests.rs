//! Tests of the choice between the copies of the header.

use model::Secret;

use super::{
    super::{
        bytes::Text,
        header::{SessionRecord, Suite, depth_for},
        keyarea::Owner,
        refs::Ref,
    },
    *,
};
use crate::vault::{NewSlot, SlotSecret};

struct Volume {
    start: Box<[u8; START_BYTES]>,
    key: VolumeKey,
    header: Header,
}

fn area(secret: &[u8], key: &VolumeKey) -> KeyArea {
    let secret = Secret::new(secret.to_vec());
    let slot = NewSlot { secret: SlotSecret::RandomKey(&secret), kmi: None, label: "" };
    KeyArea::new(&[slot], Owner { uuid: &[1; 16], epoch: 1, key }).unwrap()
}

impl Volume {
    fn new() -> Self {
        let key = VolumeKey(Secret::new([0x5a; 32]));
        let area = area(b"first", &key);
        let header = Header {
            suite: Suite::Aes256Gcm,
            depth: depth_for(4096),
            key_area: KeyAreaSide::A,
            clean: true,
            uuid: [1; 16],
            size: 4096,
            generation: 1,
            anchor_count: 0,
            log_slots: 64,
            epoch: 1,
            session: SessionRecord::default(),
            next_sequence: 1,
            log_number: 1,
            end: 320,
            root: Ref::NULL,
            sessions: Ref::NULL,
            snapshots: Ref::NULL,
            key_area_digest: area.digest(),
            chain_salt: [0; 16],
            rekeyed_pages: 0,
            old_key: None,
            label: Text::default(),
        };
        let mut volume = Self { start: Box::new([0; START_BYTES]), key, header };
        volume.start[2 * SLOT_BYTES..10 * SLOT_BYTES].copy_from_slice(&area.encode());
        volume.put(HeaderCopy::A);
        volume.put(HeaderCopy::B);
        volume
    }

    fn put(&mut self, copy: HeaderCopy) {
        let key = self.key.header_key(&[1; 16]).unwrap();
        let at = usize::try_from(copy.at()).unwrap();
        self.start[at..at + SLOT_BYTES].copy_from_slice(self.header.encode(&key).as_slice());
    }

    fn unlock(&self, secret: &[u8]) -> Result<Unlocked, &'static str> {
        unlock(&self.start, secret, None).map_err(|why| why.rejection().unwrap().code())
    }
}

#[test]
fn the_newer_authentic_copy_counts() {
    let mut volume = Volume::new();
    let both = volume.unlock(b"first").unwrap();
    assert_eq!((both.in_force, both.damage), (HeaderCopy::A, None));
    volume.header.generation = 2;
    volume.put(HeaderCopy::B);
    let newer = volume.unlock(b"first").unwrap();
    assert_eq!((newer.in_force, newer.header.generation), (HeaderCopy::B, 2));
    assert!(newer.damage.unwrap().contains("older"));
    volume.start[4096 + 100] ^= 1;
    let torn = volume.unlock(b"first").unwrap();
    assert_eq!((torn.in_force, torn.header.generation), (HeaderCopy::A, 1));
    assert!(torn.damage.is_some());
}

#[test]
fn what_was_met_furthest_is_the_reason() {
    let mut volume = Volume::new();
    assert_eq!(volume.unlock(b"second").unwrap_err(), "wrong-key");
    volume.start[0] = 0;
    assert_eq!(volume.unlock(b"second").unwrap_err(), "wrong-key");
    volume.start[4096 + 48] ^= 1;
    assert_eq!(volume.unlock(b"first").unwrap_err(), "header-damaged");
    volume.start[3 * SLOT_BYTES] ^= 1;
    assert_eq!(volume.unlock(b"first").unwrap_err(), "key-area-altered");
    volume.start[4096 + 11] = 9;
    assert_eq!(volume.unlock(b"first").unwrap_err(), "header-damaged");
    volume.start[4096 + 8] = 9;
    assert_eq!(volume.unlock(b"first").unwrap_err(), "unsupported");
    volume.start[4096] = 0;
    assert_eq!(volume.unlock(b"first").unwrap_err(), "not-vault");
}

#[test]
fn two_contradicting_copies_of_one_generation_are_refused() {
    let mut volume = Volume::new();
    volume.header.anchor_count = 1;
    volume.put(HeaderCopy::B);
    assert_eq!(volume.unlock(b"first").unwrap_err(), "header-forked");
}

#[test]
fn a_change_of_key_slots_that_was_cut_off_opens_with_either_secret() {
    let mut volume = Volume::new();
    let changed = area(b"second", &volume.key);
    volume.start[10 * SLOT_BYTES..].copy_from_slice(&changed.encode());
    assert_eq!(volume.unlock(b"first").unwrap().header.generation, 1);
    volume.header.generation = 2;
    volume.header.key_area = KeyAreaSide::B;
    volume.header.key_area_digest = changed.digest();
    volume.put(HeaderCopy::B);
    assert_eq!(volume.unlock(b"first").unwrap().header.generation, 1);
    assert_eq!(volume.unlock(b"second").unwrap().header.generation, 2);
    volume.put(HeaderCopy::A);
    assert_eq!(volume.unlock(b"first").unwrap_err(), "wrong-key");
}

#[test]
fn the_key_of_the_epoch_before_comes_out() {
    let mut volume = Volume::new();
    let old = VolumeKey(Secret::new([3; 32]));
    volume.header.old_key = Some(wrap_old(&old, &volume.key, &[1; 16], 1).unwrap());
    volume.put(HeaderCopy::A);
    volume.put(HeaderCopy::B);
    let unlocked = volume.unlock(b"first").unwrap();
    assert_eq!(unlocked.old_key.unwrap().0.expose(), &[3; 32]);
    volume.header.old_key.as_mut().unwrap().tag[0] ^= 1;
    volume.put(HeaderCopy::A);
    volume.put(HeaderCopy::B);
    assert_eq!(volume.unlock(b"first").unwrap_err(), "metadata-malformed");
}
