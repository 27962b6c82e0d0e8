//! Snapshots, sizes, re-keying.

use crate::fixture::{Dir, content, outside};

fn fill(dir: &Dir, name: &str, disk: &[u8]) -> Option<()> {
    let source = dir.file(name, disk).to_str().unwrap().to_owned();
    let served = dir.serve("v --key-file key");
    let copied = outside("nbdcopy", &["--flush", &source, &served.uri()]).map(|_| ());
    served.stop();
    copied
}

fn read(dir: &Dir, line: &str) -> Vec<u8> {
    let served = dir.serve(&format!("v --key-file key --read-only {line}"));
    outside("nbdcopy", &[&served.uri(), &dir.text("back.raw")]);
    served.stop();
    dir.read("back.raw")
}

#[test]
fn snapshots_keep_what_was() {
    let dir = Dir::new();
    dir.done("create --size 4M --key-file key v");
    let before = content(4 << 20);
    let after: Vec<u8> = before.iter().map(|byte| byte ^ 1).collect();
    if fill(&dir, "before", &before).is_none() {
        return;
    }
    dir.done("snapshot create v one --key-file key");
    fill(&dir, "after", &after);
    assert!(read(&dir, "--snapshot one") == before);
    assert!(read(&dir, "") == after);
    assert_eq!(dir.done("snapshot list v --key-file key")["name"], "one");
    let line = "serve --socket s.sock v --key-file key --snapshot two";
    assert_eq!(dir.refused(line), "snapshot-not-found");
    dir.done("snapshot create v two --key-file key");
    dir.done("resize v --size 6M --key-file key");
    assert_eq!(dir.refused("snapshot revert v three --key-file key"), "snapshot-not-found");
    dir.done("snapshot revert v one --key-file key");
    assert!(read(&dir, "") == before, "the size as well");
    // What is written on it leaves both snapshots alone, and what was given up is free again.
    fill(&dir, "again", &after);
    assert!(read(&dir, "--snapshot one") == before);
    assert!(read(&dir, "--snapshot two") == after);
    dir.done("check v --key-file key");
    dir.done("snapshot revert v two --key-file key");
    dir.done("snapshot delete v two --key-file key");
    dir.done("snapshot delete v one --key-file key");
    assert_eq!(dir.run("snapshot list v --key-file key --json"), (0, String::new()));
    assert!(read(&dir, "") == after);
    dir.done("check v --key-file key");
}

#[test]
fn a_volume_grows_and_shrinks_only_over_zeros() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key v");
    let disk = content(1 << 20);
    if fill(&dir, "disk", &disk).is_none() {
        return;
    }
    dir.done("resize v --size 3M --key-file key");
    let mut grown = disk.clone();
    grown.resize(3 << 20, 0);
    assert!(read(&dir, "") == grown);
    dir.done("resize v --size 1M --key-file key");
    assert_eq!(dir.refused("resize v --size 512K --key-file key"), "shrink-loses-data");
    assert!(read(&dir, "") == disk);
}

#[test]
fn the_data_key_is_exchanged_and_the_old_key_opens_nothing() {
    let dir = Dir::new();
    dir.done("create --size 4M --key-file key v");
    let disk = content(4 << 20);
    if fill(&dir, "disk", &disk).is_none() {
        return;
    }
    dir.file("new", b"the new key of the volume");
    dir.done("rekey v --data --key-file key --new-key-file new");
    assert_eq!(dir.refused("check v --key-file key"), "wrong-key");
    dir.file("key", b"the new key of the volume");
    assert!(read(&dir, "") == disk);
    let shown = dir.done("inspect v");
    assert_eq!((shown["epoch"].as_u64(), shown["rekeying"].as_bool()), (Some(2), Some(false)));
}

#[test]
fn a_key_slot_is_exchanged_or_added_without_touching_the_data() {
    let dir = Dir::new();
    dir.done("create --size 4M --key-file key v");
    let disk = content(4 << 20);
    if fill(&dir, "disk", &disk).is_none() {
        return;
    }
    dir.file("phrase", b"correct horse battery staple");
    dir.done("rekey v --keep --key-file key --new-passphrase-file phrase");
    dir.done("check v --passphrase-file phrase");
    assert!(read(&dir, "") == disk);
    dir.file("new", b"the new key of the volume");
    dir.done("rekey v --key-file key --new-key-file new");
    assert_eq!(dir.refused("check v --key-file key"), "wrong-key");
    dir.done("check v --key-file new");
    dir.done("check v --passphrase-file phrase");
    assert_eq!(dir.done("inspect v")["epoch"], 1);
    assert_eq!(dir.run("rekey v --key-file new").0, 2);
    // All key slots are made anew with the data's key: there is nothing to keep.
    assert_eq!(dir.run("rekey v --data --keep --key-file new --new-key-file key").0, 2);
}

#[test]
fn the_data_key_stays_while_there_are_snapshots() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key v");
    dir.done("snapshot create v one --key-file key");
    assert_eq!(dir.refused("snapshot create v one --key-file key"), "snapshot-name");
    assert_eq!(dir.refused("snapshot delete v two --key-file key"), "snapshot-not-found");
    let refusal = dir.refusal("rekey v --data --key-file key");
    assert_eq!(refusal["refused"], "unsupported");
    assert!(refusal["hint"].as_str().unwrap().contains("snapshots first"), "{refusal}");
    dir.done("snapshot delete v one --key-file key");
    dir.done("rekey v --data --key-file key");
    dir.done("check v --key-file key");
}

#[test]
fn what_only_a_vault_can_do_is_refused_for_luks2() {
    let dir = Dir::new();
    dir.done("create --format luks2 --size 1M --key-file key v");
    for line in [
        "resize v --size 2M --key-file key",
        "snapshot create v one --key-file key",
        "snapshot list v --key-file key",
        "rekey v --key-file key --new-key-file key",
        "serve --socket s.sock v --key-file key --anchor a",
        "serve --socket s.sock v --key-file key --snapshot one",
    ] {
        assert_eq!(dir.refused(line), "not-vault", "{line}");
    }
    assert_eq!(
        dir.run("create --format luks2 --cipher aes-256-gcm --size 1M --key-file key w").0,
        2
    );
    assert_eq!(dir.refused("create --format luks2 --size 5000 --key-file key w"), "size-invalid");
    assert_eq!(dir.refused("create --size 9T --key-file key w"), "size-invalid");
    assert!(!dir.path("w").exists());
}
