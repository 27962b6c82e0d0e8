//! Tests of the header.

use model::Secret;
use proptest::prelude::*;

use super::*;

fn key() -> HeaderKey {
    HeaderKey(Secret::new([5; 32]))
}

fn reference(slot: u64, session: u32) -> Ref {
    Ref::sealed([0xa0; 16], 77, session).at(slot).unwrap()
}

fn header() -> Header {
    Header {
        suite: Suite::Aes256Gcm,
        depth: 2,
        key_area: KeyAreaSide::B,
        clean: true,
        uuid: [0x11; 16],
        size: 1 << 20,
        generation: 9,
        anchor_count: 4,
        log_slots: 64,
        epoch: 3,
        session: SessionRecord { id: 6, epoch: 2, salt: [0x22; 32] },
        next_sequence: 1000,
        log_number: 55,
        end: 700,
        root: reference(320, 6),
        sessions: reference(321, 5),
        snapshots: Ref::NULL,
        key_area_digest: [0x33; 32],
        chain_salt: [0x44; 16],
        rekeyed_pages: 12,
        old_key: Some(WrappedKey { sealed: [0x55; 32], tag: [0x66; 16] }),
        label: Text::new("a label").unwrap(),
    }
}

/// Changes one thing in the header's bytes and says why they are refused.
fn refusal(change: impl FnOnce(&mut [u8])) -> Rejection {
    let mut bytes = header().encode(&key());
    change(bytes.as_mut_slice());
    Header::decode(&bytes).unwrap_err()
}

#[test]
fn a_header_round_trips_and_is_where_the_document_says() {
    let bytes = header().encode(&key());
    assert_eq!(Header::decode(&bytes).unwrap().verify(&key()).unwrap(), header());
    assert_eq!(bytes[..16], *b"VSAFEVLT\x01\x00\x01\x02\x01\x03\x00\x00");
    assert_eq!(bytes[32..40], (1_u64 << 20).to_le_bytes());
    assert_eq!(bytes[40..48], 9_u64.to_le_bytes());
    assert_eq!(bytes[48..56], 4_u64.to_le_bytes());
    assert_eq!(bytes[56..72], *b"\x40\0\0\0\x03\0\0\0\x06\0\0\0\x02\0\0\0");
    assert_eq!(bytes[104..128], *b"\xe8\x03\0\0\0\0\0\0\x37\0\0\0\0\0\0\0\xbc\x02\0\0\0\0\0\0");
    assert_eq!(bytes[144..160], *b"\x40\x01\0\0\0\0\x4d\0\0\0\0\0\x06\0\0\0");
    assert_eq!(bytes[192..224], [0; 32]);
    assert_eq!(bytes[272..276], 12_u32.to_le_bytes());
    assert_eq!(bytes[288..320], [0x55; 32]);
    assert_eq!(bytes[336..346], *b"a label\0\0\0");
}

#[test]
fn the_tag_of_the_golden_header_does_not_change() {
    let bytes = header().encode(&key());
    assert_eq!(
        hex::encode(&bytes[MAC_AT..]),
        "f446e090870cd158a44dddda2cb4199d24d47abef3db106b8c00a4a32f1f816f"
    );
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = header().encode(&key());
    for at in (0..400).chain([MAC_AT, SLOT_BYTES - 1]) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x04;
        let outcome = Header::decode(&bad).and_then(|header| header.verify(&key()));
        assert!(outcome.is_err(), "byte {at}");
    }
    let other = HeaderKey(Secret::new([6; 32]));
    assert_eq!(Header::decode(&bytes).unwrap().verify(&other), Err(Rejection::HeaderDamaged));
}

#[test]
fn another_magic_version_or_suite_has_its_name() {
    assert_eq!(refusal(|b| b[0] = b'X'), Rejection::NotVault);
    assert_eq!(refusal(|b| b[8] = 2).code(), "unsupported");
    assert_eq!(refusal(|b| b[10] = 3).code(), "unsupported");
}

#[test]
fn impossible_fields_are_refused_before_any_key() {
    let changes: [(&str, usize, u8); 13] = [
        ("depth", 11, 3),
        ("key area", 12, 2),
        ("flags", 13, 4),
        ("reserved", 15, 1),
        ("size", 39, 0x80),
        ("length of the log", 56, 63),
        ("epoch", 60, 9),
        ("end", 127, 1),
        ("root in front of the data", 145, 0),
        ("root behind the end", 146, 1),
        ("root of a session to come", 156, 7),
        ("reserved", 276, 1),
        ("reserved", 4000, 1),
    ];
    for (what, at, value) in changes {
        assert_eq!(refusal(|b| b[at] = value).code(), "metadata-malformed", "{what}");
    }
    // The old key without its flag, and a session's epoch that the flag would allow.
    assert_eq!(refusal(|b| b[13] = 1).code(), "metadata-malformed");
    assert_eq!(refusal(|b| b[40..48].fill(0)).code(), "metadata-malformed");
}

#[test]
fn the_depth_is_the_smallest_that_reaches_all_sectors() {
    assert_eq!(depth_for(1), 1);
    assert_eq!(depth_for(128 * 4096), 1);
    assert_eq!(depth_for(128 * 4096 + 1), 2);
    assert_eq!(depth_for(128 * 128 * 4096), 2);
    assert_eq!(depth_for(SIZE_MAX), 5);
}

proptest! {
    #[test]
    fn decoding_arbitrary_bytes_never_panics(
        changes in proptest::collection::vec((0..SLOT_BYTES, any::<u8>()), 0..20)
    ) {
        let mut bytes = header().encode(&key());
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(shape) = Header::decode(&bytes) {
            // What decodes encodes to the same bytes, but for the tag.
            let again = shape.claims().encode(&key());
            prop_assert_eq!(&again[..MAC_AT], &bytes[..MAC_AT]);
        }
    }
}
