//! Creation, opening, reading and writing of volumes; every refusal of `disk::Rejection`.

use std::{fs, ops::ControlFlow, os::unix::fs::FileExt};

use disk::{
    OpenOptions, Rejection, TrimPolicy, Volume, VolumeError,
    luks2::{NewVolume, SlotKind, create, create_empty, open},
};
use model::{Digest, Secret};
use proptest::prelude::*;

use crate::fixture::{Dir, content, key, kmi, make, new, open_rw, read_all};

fn refusal<T: std::fmt::Debug>(result: Result<T, VolumeError>) -> Rejection {
    result.unwrap_err().rejection().unwrap().clone()
}

#[test]
fn what_is_encrypted_is_what_is_read_and_is_not_in_the_file() {
    let dir = Dir::new();
    let mut plain = content(3 << 20);
    plain[1_000_000..1_000_016].copy_from_slice(b"A MARKER IN HERE");
    let path = dir.volume(&plain);
    assert_eq!(read_all(&open_rw(&path)), plain);
    let file = fs::read(&path).unwrap();
    assert_eq!(file.len(), (16 << 20) + plain.len());
    assert!(!file.windows(16).any(|w| w == b"A MARKER IN HERE"));
    assert!(!file[16 << 20..].chunks(4096).any(|s| s.iter().all(|&b| b == 0)));
    assert_eq!(dir.names(), ["source.raw", "v.luks"]);
}

#[test]
fn a_source_that_ends_inside_a_sector_is_padded_with_zeros() {
    let dir = Dir::new();
    let plain = content(5 * 4096 + 512);
    let volume = open_rw(&dir.volume(&plain));
    assert_eq!(volume.size(), 6 * 4096);
    let all = read_all(&volume);
    assert_eq!(all[..plain.len()], plain);
    assert!(all[plain.len()..].iter().all(|&b| b == 0));
}

#[test]
fn an_empty_volume_is_sparse_and_has_exactly_the_size_asked_for() {
    use std::os::unix::fs::MetadataExt;
    let dir = Dir::new();
    let path = dir.empty(1 << 30);
    assert_eq!(open_rw(&path).size(), 1 << 30);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 4 << 20);
}

#[test]
fn a_wrong_key_is_refused() {
    let dir = Dir::new();
    let path = dir.volume(&content(4096));
    let wrong = Secret::new(vec![1; 32]);
    assert_eq!(refusal(open(&path, &wrong, &OpenOptions::default())), Rejection::WrongKey);
}

#[test]
fn a_key_of_no_bytes_or_too_many_is_refused() {
    let dir = Dir::new();
    let path = dir.volume(&content(4096));
    for length in [0, 513] {
        let secret = Secret::new(vec![1; length]);
        let opened = open(&path, &secret, &OpenOptions::default());
        assert_eq!(refusal(opened), Rejection::KeyLength);
        let other = dir.path("other");
        let made = create_empty(&new(&other, &secret, None), 4096);
        assert_eq!(refusal(made), Rejection::KeyLength);
    }
    assert_eq!(dir.names(), ["source.raw", "v.luks"]);
}

#[test]
fn the_kmi_is_stored_and_another_one_is_not_found() {
    let dir = Dir::new();
    let path = dir.volume(&content(4096));
    assert_eq!(open_rw(&path).kmi(), Some(&kmi(1)));
    let asking = |version| OpenOptions { kmi: Some(kmi(version)), ..OpenOptions::default() };
    assert!(open(&path, &key(), &asking(1)).is_ok());
    assert_eq!(refusal(open(&path, &key(), &asking(2))), Rejection::KmiNotFound);
}

#[test]
fn readers_share_a_volume() {
    let dir = Dir::new();
    let path = dir.volume(&content(4096));
    let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
    let first = open(&path, &key(), &read_only).unwrap();
    let second = open(&path, &key(), &read_only).unwrap();
    assert_eq!(read_all(&first), read_all(&second));
    assert!(first.write(0, &mut [0; 4096]).is_err());
    assert!(first.trim(0, 4096).is_err());
}

#[test]
fn another_source_than_the_one_meant_is_refused_and_nothing_stays() {
    let dir = Dir::new();
    let source = dir.file("source.raw", &content(100_000));
    let path = dir.path("v.luks");
    let wrong = Digest::sha256([0; 32]);
    let refused = refusal(make(&path, &source, Some(&wrong)));
    assert_eq!(refused.code(), "source-digest-mismatch");
    assert_eq!(dir.names(), ["source.raw"]);
    let Rejection::SourceDigestMismatch { found } = refused else { panic!("{refused:?}") };
    let made = make(&path, &source, Some(&found)).unwrap();
    assert_eq!(made.source, Some(found));
}

#[test]
fn an_existing_file_is_never_replaced() {
    let dir = Dir::new();
    let source = dir.file("source.raw", &content(4096));
    let path = dir.file("v.luks", b"precious");
    assert_eq!(refusal(make(&path, &source, None)), Rejection::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_file_that_appears_during_creation_is_not_replaced_either() {
    let dir = Dir::new();
    let source = dir.file("source.raw", &content(3 << 20));
    let path = dir.path("v.luks");
    let secret = key();
    let made = create(&new(&path, &secret, None), &source, None, &mut |_, _| {
        fs::write(&path, b"precious").unwrap();
        ControlFlow::Continue(())
    });
    assert_eq!(refusal(made), Rejection::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(dir.names(), ["source.raw", "v.luks"]);
}

#[test]
fn two_creations_of_one_volume_exclude_each_other_and_leftovers_do_not() {
    let dir = Dir::new();
    let source = dir.file("source.raw", &content(4096));
    dir.file(".v.luks.partial", b"left by a crash");
    let path = dir.path("v.luks");
    let secret = key();
    let made = create(&new(&path, &secret, None), &source, None, &mut |_, _| {
        assert_eq!(refusal(make(&path, &source, None)), Rejection::InUse);
        ControlFlow::Continue(())
    });
    assert!(made.is_ok());
    assert_eq!(dir.names(), ["source.raw", "v.luks"]);
}

#[test]
fn a_stopped_creation_leaves_nothing() {
    let dir = Dir::new();
    let source = dir.file("source.raw", &content(4096));
    let path = dir.path("v.luks");
    let secret = key();
    let made =
        create(&new(&path, &secret, None), &source, None, &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(made, Err(VolumeError::Cancelled)));
    assert_eq!(dir.names(), ["source.raw"]);
}

#[test]
fn impossible_sizes_are_refused() {
    let dir = Dir::new();
    let path = dir.path("v.luks");
    let secret = key();
    for size in [0, 4095, u64::MAX - 4095, 1 << 63] {
        let refused = refusal(create_empty(&new(&path, &secret, None), size));
        assert_eq!(refused.code(), "size-invalid", "{size}");
    }
    let empty = dir.file("source.raw", b"");
    assert_eq!(refusal(make(&path, &empty, None)).code(), "size-invalid");
    assert_eq!(dir.names(), ["source.raw"]);
}

#[test]
fn a_container_is_not_taken_for_a_raw_image() {
    let dir = Dir::new();
    let source = dir.file("source.qcow2", &[b"QFI\xfb".as_slice(), &[0; 8192]].concat());
    let refused = refusal(make(&dir.path("v.luks"), &source, None));
    assert_eq!(refused.code(), "unsupported");
}

#[test]
fn a_pass_phrase_slot_opens_with_its_pass_phrase() {
    let dir = Dir::new();
    let path = dir.path("v.luks");
    let secret = Secret::new(b"correct horse".to_vec());
    let slot = SlotKind::PassPhrase { memory: 1024, passes: 4 };
    let new = NewVolume { path: &path, secret: &secret, slot, kmi: None, label: "data" };
    create_empty(&new, 8192).unwrap();
    assert!(open(&path, &secret, &OpenOptions::default()).is_ok());
    let wrong = Secret::new(b"correct hors".to_vec());
    assert_eq!(refusal(open(&path, &wrong, &OpenOptions::default())), Rejection::WrongKey);
}

#[test]
fn writing_part_of_a_sector_leaves_the_rest() {
    let dir = Dir::new();
    let mut model = content(5 * 4096);
    let volume = open_rw(&dir.volume(&model));
    for (offset, length) in [(0, 1), (4095, 2), (100, 9000), (4096, 4096), (20_479, 1)] {
        let mut data = vec![0xa5; length];
        model[offset..offset + length].copy_from_slice(&data);
        volume.write(offset as u64, &mut data).unwrap();
        assert_eq!(read_all(&volume), model, "{offset}+{length}");
    }
    volume.write_zeroes(3000, 3000).unwrap();
    model[3000..6000].fill(0);
    assert_eq!(read_all(&volume), model);
    assert!(volume.write(20_479, &mut [0; 2]).is_err());
    assert!(volume.read(u64::MAX, &mut [0; 2]).is_err());
}

#[test]
fn trim_gives_whole_sectors_back_unless_told_to_keep_them() {
    let dir = Dir::new();
    let model = content(64 * 4096);
    let path = dir.volume(&model);
    let keep = OpenOptions { trim: TrimPolicy::Keep, ..OpenOptions::default() };
    let volume = open(&path, &key(), &keep).unwrap();
    volume.trim(0, 64 * 4096).unwrap();
    assert_eq!(read_all(&volume), model);
    drop(volume);
    let volume = open_rw(&path);
    volume.trim(4096 * 3 + 1, 4096 * 20).unwrap();
    let all = read_all(&volume);
    assert_eq!(all[..4096 * 4], model[..4096 * 4]);
    assert_eq!(all[4096 * 23..], model[4096 * 23..]);
    let extents = volume.extents(0, 64 * 4096, 100).unwrap();
    let seen: Vec<(u64, bool)> = extents.iter().map(|e| (e.length / 4096, e.hole)).collect();
    assert_eq!(seen, [(4, false), (19, true), (41, false)]);
    assert!(extents.iter().all(|e| !e.zero));
    let inside = volume.extents(4096 * 10 + 7, 100, 100).unwrap();
    assert_eq!((inside.len(), inside[0].length, inside[0].hole), (1, 100, true));
    assert_eq!(volume.extents(0, 64 * 4096, 1).unwrap().len(), 1);
}

#[test]
fn a_truncated_file_is_refused() {
    let dir = Dir::new();
    let path = dir.volume(&content(4096 * 4));
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((16 << 20) - 1).unwrap();
    let opened = open(&path, &key(), &OpenOptions::default());
    assert_eq!(refusal(opened), Rejection::Truncated);
    file.set_len(16 << 20).unwrap();
    let opened = open(&path, &key(), &OpenOptions::default());
    assert_eq!(refusal(opened).code(), "size-invalid");
}

#[test]
fn a_file_without_a_header_is_not_luks2() {
    let dir = Dir::new();
    for bytes in [vec![], vec![0; 100], vec![7; 1 << 20]] {
        let path = dir.file("junk", &bytes);
        let opened = open(&path, &key(), &OpenOptions::default());
        assert_eq!(refusal(opened), Rejection::NotLuks2);
    }
}

#[test]
fn a_flipped_bit_of_the_key_slot_area_makes_the_key_wrong() {
    let dir = Dir::new();
    let path = dir.volume(&content(4096));
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 32_768 + 12_345).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 32_768 + 12_345).unwrap();
    assert_eq!(refusal(open(&path, &key(), &OpenOptions::default())), Rejection::WrongKey);
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8),
    Zero(usize, usize),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = (0..32_768_usize, 0..10_000_usize);
    let step = prop_oneof![
        4 => (range.clone(), any::<u8>()).prop_map(|((at, n), fill)| Step::Write(at, n, fill)),
        1 => range.prop_map(|(at, n)| Step::Zero(at, n)),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_volume_behaves_like_an_array(steps in steps()) {
        let dir = Dir::new();
        let mut model = content(32_768);
        let path = dir.volume(&model);
        let mut volume = open_rw(&path);
        for step in steps {
            match step {
                Step::Write(at, n, fill) => {
                    let n = n.min(model.len() - at);
                    let mut data: Vec<u8> = content(n).iter().map(|b| b ^ fill).collect();
                    model[at..at + n].copy_from_slice(&data);
                    volume.write(at as u64, &mut data).unwrap();
                }
                Step::Zero(at, n) => {
                    let n = n.min(model.len() - at);
                    model[at..at + n].fill(0);
                    volume.write_zeroes(at as u64, n as u64).unwrap();
                }
                Step::Reopen => {
                    volume.flush().unwrap();
                    drop(volume);
                    volume = open_rw(&path);
                }
            }
            let (from, to) = (model.len() / 3, model.len() / 3 * 2 + 1);
            let mut part = vec![0; to - from];
            volume.read(from as u64, &mut part).unwrap();
            prop_assert_eq!(&part, &model[from..to]);
        }
        prop_assert_eq!(read_all(&volume), model);
    }
}
