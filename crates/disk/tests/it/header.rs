//! Header copies: damage, age, foreign and hostile content under a right checksum.

use std::{fs, fs::File, os::unix::fs::FileExt, path::Path};

use disk::{
    OpenOptions, Rejection, Volume,
    luks2::{BINARY_BYTES, BinaryHeader, Copy, open, read_header},
};
use proptest::prelude::*;

use crate::fixture::{Dir, content, key, open_rw, read_all};

fn refused(path: &Path) -> Rejection {
    let opened = open(path, &key(), &OpenOptions::default());
    opened.unwrap_err().rejection().unwrap().clone()
}

fn smash(path: &Path, at: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Replaces text in the metadata of a header copy and makes its checksum right again.
fn edit(path: &Path, copy: Copy, seqid: u64, change: impl Fn(&str) -> String) {
    let at = if copy == Copy::Primary { 0 } else { 0x4000 };
    let file = File::open(path).unwrap();
    let mut bytes = vec![0; 0x4000];
    file.read_exact_at(&mut bytes, at).unwrap();
    let mut header = BinaryHeader::parse(&bytes, copy).unwrap();
    header.seqid = seqid;
    let json = &bytes[BINARY_BYTES..];
    let end = json.iter().position(|&b| b == 0).unwrap();
    let before = std::str::from_utf8(&json[..end]).unwrap();
    let after = change(before);
    let made = header.encode(copy, after.as_bytes()).unwrap();
    smash(path, at, &made);
}

fn edit_both(path: &Path, from: &str, to: &str) {
    for copy in [Copy::Primary, Copy::Secondary] {
        edit(path, copy, 1, |json| {
            assert!(json.contains(from), "{json} has no {from}");
            json.replacen(from, to, 1)
        });
    }
}

#[test]
fn a_damaged_primary_header_is_replaced_by_the_secondary_and_said_so() {
    let dir = Dir::new();
    let plain = content(8192);
    let path = dir.volume(&plain);
    assert_eq!(open_rw(&path).header_damage(), None);
    for (at, bytes) in [(5000_u64, vec![0xff; 3]), (0, vec![0; 4096])] {
        smash(&path, at, &bytes);
        let volume = open_rw(&path);
        assert!(volume.header_damage().unwrap().contains("primary"));
        assert_eq!(read_all(&volume), plain);
        assert_eq!(read_header(&File::open(&path).unwrap()).unwrap().used, Copy::Secondary);
    }
}

#[test]
fn a_damaged_secondary_header_is_said_too() {
    let dir = Dir::new();
    let path = dir.volume(&content(8192));
    smash(&path, 0x4000 + 100, b"x");
    assert!(open_rw(&path).header_damage().unwrap().contains("secondary"));
}

#[test]
fn two_damaged_headers_are_refused() {
    let dir = Dir::new();
    let path = dir.volume(&content(8192));
    smash(&path, 4500, b"x");
    smash(&path, 0x4000 + 4500, b"x");
    assert_eq!(refused(&path), Rejection::HeaderDamaged);
}

#[test]
fn the_newer_header_counts() {
    let dir = Dir::new();
    let path = dir.volume(&content(8192));
    edit(&path, Copy::Secondary, 2, str::to_owned);
    let copies = read_header(&File::open(&path).unwrap()).unwrap();
    assert_eq!(copies.used, Copy::Secondary);
    assert!(copies.damage.unwrap().contains("older"));
}

#[test]
fn what_we_cannot_honour_is_unsupported() {
    let cases = [
        (r#""type":"crypt""#, r#""type":"linear""#),
        (
            r#""iv_tweak":"0","encryption":"aes-xts-plain64""#,
            r#""iv_tweak":"0","encryption":"aes-cbc-essiv:sha256""#,
        ),
        (r#""sector_size":4096"#, r#""sector_size":4096,"integrity":{"type":"hmac"}"#),
        (r#""sector_size":4096"#, r#""sector_size":4096,"flags":["in-reencryption"]"#),
        (
            r#""keyslots_size""#,
            r#""requirements":{"mandatory":["online-reencrypt"]},"keyslots_size""#,
        ),
        (r#""hash":"sha256","iterations":1000"#, r#""hash":"whirlpool","iterations":1000"#),
        (r#""stripes":4000"#, r#""stripes":4000000"#),
    ];
    for (from, to) in cases {
        let dir = Dir::new();
        let path = dir.volume(&content(8192));
        edit_both(&path, from, to);
        assert_eq!(refused(&path).code(), "unsupported", "{to}");
    }
}

#[test]
fn metadata_that_make_no_sense_are_malformed() {
    let cases = [
        (r#""offset":"32768""#, r#""offset":"0""#),
        (r#""offset":"32768""#, r#""offset":"18446744073709551615""#),
        (r#""offset":"32768""#, r#""offset":32768"#),
        (r#""sector_size":4096"#, r#""sector_size":0"#),
        (r#""segments":["0"]"#, r#""segments":[]"#),
        (r#""size":"258048""#, r#""size":"1000""#),
        (r#"{"keyslots""#, r#"["keyslots""#),
        (r#""size":"dynamic""#, r#""size":"-1""#),
    ];
    for (from, to) in cases {
        let dir = Dir::new();
        let path = dir.volume(&content(8192));
        edit_both(&path, from, to);
        assert_eq!(refused(&path).code(), "metadata-malformed", "{to}");
    }
}

#[test]
fn a_costly_key_derivation_is_refused_before_it_runs() {
    let dir = Dir::new();
    let path = dir.volume(&content(8192));
    edit_both(
        &path,
        r#""hash":"sha256","iterations":1000,"salt""#,
        r#""hash":"sha256","iterations":4000000000,"salt""#,
    );
    assert_eq!(refused(&path), Rejection::KdfTooCostly { slot: 0 });
}

#[test]
fn a_segment_longer_than_the_file_is_truncated() {
    let dir = Dir::new();
    let path = dir.volume(&content(8192));
    edit_both(&path, r#""size":"dynamic""#, r#""size":"12288""#);
    assert_eq!(refused(&path), Rejection::Truncated);
    let path = Dir::new();
    let file = path.volume(&content(8192));
    edit_both(&file, r#""size":"dynamic""#, r#""size":"4096""#);
    assert_eq!(open_rw(&file).size(), 4096);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_header_with_arbitrary_damage_opens_rightly_or_is_refused(
        damage in proptest::collection::vec((0_usize..0x8000, any::<u8>()), 1..6),
    ) {
        let dir = Dir::new();
        let path = dir.volume(&content(4096));
        for (at, byte) in damage {
            smash(&path, at as u64, &[byte]);
        }
        match open(&path, &key(), &OpenOptions::default()) {
            Ok(volume) => prop_assert_eq!(read_all(&volume), content(4096)),
            Err(error) => prop_assert!(error.rejection().is_some(), "{error:?}"),
        }
    }
}
