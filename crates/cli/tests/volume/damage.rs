//! Altered, exchanged and older files: refused by name, found by `check`, survived by `salvage`.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use crate::fixture::{Dir, content, outside};

const SECTOR: usize = 4096;
const SECTORS: usize = 2048;

/// A written and closed vault volume `v`; what it holds.
fn written(dir: &Dir, more: &str) -> Option<Vec<u8>> {
    dir.done(&format!("create --size 8M --key-file key v {more}"));
    let disk = content(SECTORS * SECTOR);
    let source = dir.file("source.raw", &disk).to_str().unwrap().to_owned();
    let anchor = more.split("--anchor").nth(1).map(|a| format!("--anchor {a}")).unwrap_or_default();
    let served = dir.serve(&format!("v --key-file key {anchor}"));
    let copied = outside("nbdcopy", &["--flush", &source, &served.uri()]);
    served.stop();
    copied.map(|_| disk)
}

/// Where the first version of a sector is: slot `D + s`, `D` from the log's length in the header.
fn place(dir: &Dir, sector: usize) -> u64 {
    let log = u32::from_le_bytes(dir.read("v")[56..60].try_into().unwrap()) as usize;
    ((256 + log + sector) * SECTOR) as u64
}

fn flip(dir: &Dir, at: u64) {
    let file = File::options().read(true).write(true).open(dir.path("v")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn one_flipped_bit_is_named_by_check_and_costs_salvage_one_sector() {
    let dir = Dir::new();
    let Some(mut disk) = written(&dir, "") else { return };
    // A sector of the pattern that is not zeros.
    let bad = 5;
    flip(&dir, place(&dir, bad) + 77);
    let (code, said) = dir.run("check v --key-file key --json");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 3);
    assert_eq!(
        (&said["bad"], &said["bad_sectors"]),
        (&serde_json::json!([bad * SECTOR]), &1.into())
    );
    let (code, said) = dir.run("salvage v out.raw --key-file key --json");
    assert_eq!(code, 3, "{said}");
    let sector = disk[bad * SECTOR..][..SECTOR].to_vec();
    disk[bad * SECTOR..][..SECTOR].fill(0);
    assert!(dir.read("out.raw") == disk, "the rest is whole");
    let (code, said) = dir.run("salvage v all.raw --key-file key --json --release-unverified");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["lost"], &said["unverified"]), (3, &0.into(), &SECTOR.into()));
    // In counter mode the flipped bit is all that comes out wrong.
    disk[bad * SECTOR..][..SECTOR].copy_from_slice(&sector);
    disk[bad * SECTOR + 77] ^= 4;
    assert!(dir.read("all.raw") == disk, "what was altered is there, as it was altered");
    let served = dir.serve("v --key-file key --read-only");
    let args = ["-r", "-f", "raw", "-c", "read 20480 512", &served.uri()];
    let read = crate::fixture::tool("qemu-io").map(|mut tool| tool.args(args).output().unwrap());
    if let Some(read) = read {
        let said = String::from_utf8_lossy(&read.stdout).into_owned();
        assert!(!read.status.success() || said.contains("Input/output error"), "{said}");
    }
    served.stop();
}

#[test]
fn exchanged_sectors_are_found() {
    let dir = Dir::new();
    if written(&dir, "").is_none() {
        return;
    }
    let (a, b) = (place(&dir, 3), place(&dir, 200));
    let file = File::options().read(true).write(true).open(dir.path("v")).unwrap();
    let (mut x, mut y) = ([0; SECTOR], [0; SECTOR]);
    file.read_exact_at(&mut x, a).unwrap();
    file.read_exact_at(&mut y, b).unwrap();
    file.write_all_at(&y, a).unwrap();
    file.write_all_at(&x, b).unwrap();
    let (code, said) = dir.run("check v --key-file key --json");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["bad"]), (3, &serde_json::json!([3 * SECTOR, 200 * SECTOR])));
}

#[test]
fn yesterdays_copy_is_refused_where_there_is_an_anchor_and_served_with_a_warning_where_not() {
    let dir = Dir::new();
    if written(&dir, "--anchor anchor").is_none() {
        return;
    }
    fs::copy(dir.path("v"), dir.path("yesterday")).unwrap();
    dir.serve("v --key-file key --anchor anchor").stop();
    fs::copy(dir.path("yesterday"), dir.path("v")).unwrap();
    let line = "serve --socket s.sock v --key-file key --anchor anchor";
    assert_eq!(dir.refused(line), "rolled-back");
    dir.serve("v --key-file key").stop();
    assert!(String::from_utf8_lossy(&dir.read("serve.log")).contains("freshness is unchecked"));
}

#[test]
fn a_backup_counts_again_after_a_re_anchor_and_every_other_copy_does_not() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key v --anchor anchor");
    dir.serve("v --key-file key --anchor anchor").stop();
    fs::copy(dir.path("v"), dir.path("backup")).unwrap();
    dir.serve("v --key-file key --anchor anchor").stop();
    fs::copy(dir.path("v"), dir.path("newest")).unwrap();
    fs::copy(dir.path("backup"), dir.path("v")).unwrap();
    let check = "check v --key-file key --anchor anchor";
    let refusal = dir.refusal(check);
    assert_eq!(refusal["refused"], "rolled-back");
    assert!(refusal["hint"].as_str().unwrap().contains("volume reanchor"), "{refusal}");
    dir.done("reanchor v --key-file key --anchor anchor");
    assert_eq!(dir.done(check)["freshness_checked"], true);
    dir.serve("v --key-file key --anchor anchor").stop();
    for copy in ["backup", "newest"] {
        let line = format!("check {copy} --key-file key --anchor anchor");
        assert_eq!(dir.refused(&line), "rolled-back", "{copy}");
    }
    // A lost anchor: a new one is raised to the volume, and the older copies stay refused.
    fs::remove_file(dir.path("anchor")).unwrap();
    let lost = "serve --socket s.sock v --key-file key --anchor anchor";
    let (code, said) = dir.run(lost);
    assert!(code == 1 && said.contains("anchor: could not"), "{said}");
    dir.done("reanchor v --key-file key --anchor anchor");
    dir.done(check);
    assert_eq!(dir.refused("check newest --key-file key --anchor anchor"), "rolled-back");
    dir.done("create --size 1M --key-file key w");
    let other = "reanchor w --key-file key --anchor anchor";
    assert_eq!(dir.refused(other), "anchor-mismatch", "another volume's");
}

#[test]
fn damage_in_a_snapshot_is_found_if_snapshots_are_read() {
    let dir = Dir::new();
    let Some(disk) = written(&dir, "") else { return };
    dir.done("snapshot create v one --key-file key");
    let damaged = place(&dir, 5) + 77;
    let other: Vec<u8> = disk.iter().map(|byte| byte ^ 1).collect();
    let source = dir.file("other.raw", &other).to_str().unwrap().to_owned();
    let served = dir.serve("v --key-file key");
    outside("nbdcopy", &["--flush", &source, &served.uri()]);
    served.stop();
    flip(&dir, damaged);
    // The disk has been written anew since: the old version is the snapshot's alone.
    dir.done("check v --key-file key");
    for more in ["--snapshot one", "--all"] {
        let found = dir.refusal(&format!("check v --key-file key {more}"));
        assert_eq!(found["refused"], "sector-damaged", "{more}");
        assert!(found["detail"].as_str().unwrap().starts_with("snapshot one: "), "{found}");
        let state = if more == "--all" { &found["snapshots"][0] } else { &found };
        assert_eq!(state["bad"], serde_json::json!([5 * SECTOR]), "{more}");
    }
    assert_eq!(dir.refused("check v --key-file key --snapshot two"), "snapshot-not-found");
}

#[test]
fn an_error_names_the_file_and_a_file_of_no_format_what_to_do_with_it() {
    let dir = Dir::new();
    for line in ["check --key-file key nowhere", "serve --socket s.sock --key-file key nowhere"] {
        let (code, said) = dir.run(line);
        assert!(code == 1 && said.contains("nowhere: could not"), "{line}: {said}");
    }
    dir.file("empty", b"");
    dir.file("disk.qcow2", b"QFI\xfb....");
    dir.file("raw", &[7; 8192]);
    for (name, next) in [("empty", "cut short"), ("disk.qcow2", "convert"), ("raw", "--format raw")]
    {
        for verb in ["inspect", "check --key-file key", "serve --socket s.sock --key-file key"] {
            let found = dir.refusal(&format!("{verb} {name}"));
            assert_eq!(found["refused"], "format-unknown", "{verb} {name}");
            assert!(found["hint"].as_str().unwrap().contains(next), "{verb} {name}: {found}");
        }
    }
    dir.done("create --size 1M --key-file key v");
    let (code, said) =
        dir.run("serve --socket s.sock v --key-file key --anchor tpm:unix:nowhere.sock");
    assert!(code == 1 && said.contains("tpm:unix:SOCKET"), "{said}");
}

#[test]
fn another_volumes_anchor_is_refused() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key v --anchor one");
    dir.done("create --size 1M --key-file key w --anchor two");
    let line = "serve --socket s.sock v --key-file key --anchor two";
    assert_eq!(dir.refused(line), "anchor-mismatch");
}

#[test]
fn a_volume_whose_anchor_cannot_be_begun_is_not_made() {
    let dir = Dir::new();
    assert_eq!(dir.run("create --size 1M --key-file key v --anchor nowhere/a").0, 1);
    assert_eq!(dir.refused("create --size 1M --key-file key v --anchor key"), "already-exists");
    assert!(!dir.path("v").exists());
    dir.done("create --size 1M --key-file key v --anchor a");
    let (code, said) = dir.run("serve --socket s.sock v --key-file key --anchor b");
    assert!(code == 1 && said.contains("b: could not read the anchor"), "{said}");
    assert!(!dir.path("b.lock").exists() && !dir.path("s.sock").exists());
}

#[test]
fn headers_and_keys_are_refused_by_name() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key v");
    dir.file("wrong", b"another key");
    dir.file("long", &[7; 513]);
    assert_eq!(dir.refused("check v --key-file wrong"), "wrong-key");
    assert_eq!(dir.refused("check v --key-file long"), "key-length");
    assert_eq!(dir.refused("check v"), "key-missing");
    assert_eq!(dir.refused("create --size 1M --key-file key v"), "already-exists");
    let good = dir.read("v");
    for (at, wanted) in [(336, "header-damaged"), (2 * 4096 + 1776, "key-area-altered")] {
        dir.file("v", &good);
        flip(&dir, at);
        if at < 4096 {
            dir.done("check v --key-file key");
            flip(&dir, at + 4096);
        }
        assert_eq!(dir.refused("check v --key-file key"), wanted, "byte {at}");
    }
    dir.file("v", &good[..good.len() / 8]);
    assert_eq!(dir.refused("check v --key-file key"), "volume-truncated");
}

#[test]
fn a_served_volume_is_not_opened_twice() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key v");
    let served = dir.serve("v --key-file key");
    assert_eq!(dir.refused("serve --socket t.sock v --key-file key"), "volume-in-use");
    served.stop();
}
