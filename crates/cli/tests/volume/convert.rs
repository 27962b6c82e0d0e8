//! `volume convert`: sources, refusals, going on after a kill.

use std::{process::Stdio, thread::sleep, time::Duration};

use crate::fixture::{Dir, content, outside};

const SIZE: usize = (20 << 20) + 512;

fn same(dir: &Dir, volume: &str, disk: &[u8]) {
    let served = dir.serve(&format!("--read-only --key-file key {volume}"));
    if outside("nbdcopy", &[&served.uri(), &dir.text("back.raw")]).is_some() {
        let back = dir.read("back.raw");
        assert!(back.get(..disk.len()) == Some(disk), "{volume}: the content differs");
        assert!(back[disk.len()..].iter().all(|byte| *byte == 0));
    }
    served.stop();
}

#[test]
fn raw_and_qcow2_images_become_volumes() {
    let dir = Dir::new();
    let disk = content(SIZE);
    dir.file("source.raw", &disk);
    let done = dir.done("convert --to vault --key-file key source.raw raw.vault");
    assert_eq!((done["from"].as_str(), done["size"].as_u64()), (Some("raw"), Some(SIZE as u64)));
    assert!(done["written"].as_u64().unwrap() < SIZE as u64 * 4 / 5, "zeros are left out: {done}");
    same(&dir, "raw.vault", &disk);
    let raw = dir.text("source.raw");
    for (name, options) in [
        ("plain.qcow2", &["-o", "compat=1.1"][..]),
        ("old.qcow2", &["-o", "compat=0.10"]),
        ("small.qcow2", &["-o", "cluster_size=512"]),
        ("packed.qcow2", &["-c"]),
    ] {
        let to = dir.text(name);
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        args.extend(options);
        args.extend([raw.as_str(), to.as_str()]);
        if outside("qemu-img", &args).is_none() {
            return;
        }
        let done = dir.done(&format!("convert --key-file key {name} {name}.vault"));
        assert_eq!(done["from"], "qcow2");
        same(&dir, &format!("{name}.vault"), &disk);
    }
    dir.done("convert --to luks2 --key-file key packed.qcow2 packed.luks2");
    same(&dir, "packed.luks2", &disk);
}

#[test]
fn luks_volumes_become_vaults() {
    let dir = Dir::new();
    let disk = content(SIZE - 512);
    dir.file("source.raw", &disk);
    dir.done("convert --to luks2 --key-file key source.raw a.luks2");
    // The key of the new volume is tried on the source as well, unless another one is said.
    dir.done("convert --to vault --key-file key a.luks2 same.vault");
    same(&dir, "same.vault", &disk);
    dir.file("new", b"another key");
    let refusal = dir.refusal("convert --to vault --key-file new a.luks2 a.vault");
    assert_eq!(refusal["refused"], "wrong-key");
    assert!(refusal["hint"].as_str().unwrap().contains("--source-key-file"), "{refusal}");
    assert!(!dir.path(".a.vault.converting").exists());
    dir.done("convert --key-file new --source-passphrase-file key a.luks2 a.vault");
    dir.done("convert --key-file key --source-key-file new a.vault b.vault");
    same(&dir, "b.vault", &disk);
    dir.file("key", b"another key");
    same(&dir, "a.vault", &disk);
    let (raw, to) = (dir.text("source.raw"), dir.text("b.luks"));
    let secret = format!("secret,id=s,file={}", dir.text("key"));
    let options = "key-secret=s,iter-time=10";
    let args =
        ["convert", "-f", "raw", "-O", "luks", "--object", &secret, "-o", options, &raw, &to];
    if outside("qemu-img", &args).is_none() {
        return;
    }
    let done = dir.done("convert --to vault --key-file key b.luks c.vault");
    assert_eq!(done["from"], "luks1");
    same(&dir, "c.vault", &disk);
}

#[test]
fn images_that_name_other_files_are_refused_by_name() {
    let dir = Dir::new();
    dir.file("base.raw", &content(1 << 20));
    let (base, over, data) = (dir.text("base.raw"), dir.text("over.qcow2"), dir.text("data.raw"));
    let external = dir.text("external.qcow2");
    let backed = ["create", "-q", "-f", "qcow2", "-b", &base, "-F", "raw", &over];
    if outside("qemu-img", &backed).is_none() {
        return;
    }
    assert_eq!(dir.refused("convert --key-file key over.qcow2 v"), "qcow2-backing-file");
    let options = format!("data_file={data},data_file_raw=on");
    outside("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &options, &external, "1M"]);
    assert_eq!(dir.refused("convert --key-file key external.qcow2 v"), "qcow2-external-data-file");
    assert!(!dir.path("v").exists() && !dir.path(".v.converting").exists());
}

#[test]
fn malformed_images_are_refused_and_nothing_is_overwritten() {
    let dir = Dir::new();
    dir.file("source.raw", &content(2 << 20));
    let (raw, image) = (dir.text("source.raw"), dir.text("a.qcow2"));
    let args = ["convert", "-f", "raw", "-O", "qcow2", &raw, &image];
    if outside("qemu-img", &args).is_none() {
        return;
    }
    let good = dir.read("a.qcow2");
    for (at, bytes, wanted) in [
        (20, 40_u32.to_be_bytes().to_vec(), "qcow2-malformed"),
        (24, u64::MAX.to_be_bytes().to_vec(), "qcow2-malformed"),
        (32, 2_u32.to_be_bytes().to_vec(), "qcow2-encrypted"),
        (36, u32::MAX.to_be_bytes().to_vec(), "qcow2-malformed"),
        (40, u64::MAX.to_be_bytes().to_vec(), "qcow2-malformed"),
        (72, (1_u64 << 1).to_be_bytes().to_vec(), "qcow2-corrupt"),
        (72, (1_u64 << 4).to_be_bytes().to_vec(), "qcow2-unsupported"),
        (72, (1_u64 << 9).to_be_bytes().to_vec(), "qcow2-unsupported"),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        dir.file("bad.qcow2", &bad);
        assert_eq!(dir.refused("convert --key-file key bad.qcow2 v"), wanted, "byte {at}");
    }
    dir.file("v", b"precious");
    assert_eq!(dir.refused("convert --key-file key a.qcow2 v"), "already-exists");
    assert_eq!(dir.read("v"), b"precious");
}

#[test]
fn the_rest_of_another_conversion_is_not_taken_for_ones_own() {
    let dir = Dir::new();
    dir.file("source.raw", &content(24 << 20));
    dir.file("other.raw", &content(4096));
    // Killed once its place is on record.
    let line = "convert --to luks2 --key-file key source.raw v";
    let mut child = dir.volume(line).stdout(Stdio::null()).spawn().unwrap();
    let begun = || [".v.converting", ".v.converting.json"].iter().all(|one| dir.path(one).exists());
    while !begun() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.path("v").exists(), "it was over before it was killed");
    let other = "convert --to luks2 --key-file key other.raw v";
    assert_eq!(dir.refused(other), "conversion-of-another-source");
    dir.done(line);
    assert!(!dir.path(".v.converting").exists() && !dir.path(".v.converting.json").exists());
}

#[test]
fn a_killed_conversion_goes_on_and_ends_whole() {
    let dir = Dir::new();
    // LUKS2 writes every byte: long enough to be killed in the middle.
    let disk = content(96 << 20);
    dir.file("source.raw", &disk);
    let line = "convert --to luks2 --key-file key source.raw v";
    let mut kills = 0;
    for attempt in 1..40_u64 {
        let mut child = dir.volume(line).stdout(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(100 * attempt));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(!dir.path("v").exists() || dir.path("v").metadata().unwrap().len() > 96 << 20);
        if kills == 1 {
            dir.file("other.raw", &content(4096));
            let other = dir.run("convert --to luks2 --key-file key other.raw v --json");
            assert!(!dir.path(".v.converting").exists() || other.0 == 3, "{other:?}");
            if other.0 == 0 {
                std::fs::remove_file(dir.path("v")).unwrap();
            }
        }
    }
    if !dir.path("v").exists() {
        dir.done(line);
    }
    assert!(kills > 0, "never killed in time");
    assert!(!dir.path(".v.converting").exists() && !dir.path(".v.converting.json").exists());
    same(&dir, "v", &disk);
}
