//! Stock cryptsetup as the oracle, in user space: it reads what we write, we read what it writes.

use std::{fs, path::Path, process::Command};

use disk::{
    OpenOptions, Volume,
    luks2::{NewVolume, SlotKind, create_empty, open},
};
use model::Secret;

use crate::fixture::{Dir, content, key, open_rw, read_all, run, tool};

fn cryptsetup(args: &[&str]) -> Option<Command> {
    let mut command = tool("cryptsetup")?;
    command.args(args);
    Some(command)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn it_accepts_our_header_and_our_key_and_no_other_key() {
    let dir = Dir::new();
    let path = dir.volume(&content(8192));
    let good = dir.file("key", key().expose());
    let bad = dir.file("bad", &[0; 32]);
    let Some(mut dump) = cryptsetup(&["luksDump", text(&path)]) else { return };
    let shown = String::from_utf8(run(&mut dump).stdout).unwrap();
    for part in ["aes-xts-plain64", "sector: 4096", "vouchsafe-kmi", "Iterations: 1000"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    let test = |key: &Path| {
        let args = ["open", "--test-passphrase", "--key-file", text(key), text(&path)];
        cryptsetup(&args).unwrap().status().unwrap().code()
    };
    assert_eq!(test(&good), Some(0));
    assert_eq!(test(&bad), Some(2));
}

#[test]
fn it_decrypts_our_volume_to_the_exact_source() {
    let dir = Dir::new();
    let plain = content(5 << 20);
    let path = dir.volume(&plain);
    {
        // Through our own data path too, in parts of sectors.
        let volume = open_rw(&path);
        volume.write(4096 * 7 + 5, &mut content(10_000)).unwrap();
        volume.flush().unwrap();
    }
    let mut expected = plain;
    expected[4096 * 7 + 5..4096 * 7 + 10_005].copy_from_slice(&content(10_000));
    let key = dir.file("key", key().expose());
    let header = dir.path("header");
    let args = ["reencrypt", "--decrypt", "--force-offline-reencrypt", "--header"];
    let Some(mut decrypt) = cryptsetup(&args) else { return };
    run(decrypt.arg(&header).arg(&path).arg("--key-file").arg(&key));
    let decrypted = fs::read(&path).unwrap();
    assert!(decrypted[..expected.len()] == expected, "cryptsetup decrypts to something else");
}

#[test]
fn it_opens_our_pass_phrase_slot() {
    let dir = Dir::new();
    let path = dir.path("v.luks");
    let secret = Secret::new(b"correct horse battery staple".to_vec());
    let slot = SlotKind::PassPhrase { memory: 4096, passes: 4 };
    let new = NewVolume { path: &path, secret: &secret, slot, kmi: None, label: "mine" };
    create_empty(&new, 1 << 20).unwrap();
    let key = dir.file("key", secret.expose());
    let args = ["open", "--test-passphrase", "--key-file", text(&key), text(&path)];
    let Some(mut test) = cryptsetup(&args) else { return };
    run(&mut test);
}

/// A volume that cryptsetup formatted and encrypted in place, and its content.
fn stock_made(dir: &Dir, sector: &str, kdf: &[&str]) -> Option<(std::path::PathBuf, Vec<u8>)> {
    let plain = content(4 << 20);
    let path = dir.file("stock", &[plain.as_slice(), &vec![0; 32 << 20]].concat());
    let key = dir.file("key", key().expose());
    let mut encrypt = cryptsetup(&["reencrypt", "--encrypt", "--type", "luks2", "--batch-mode"])?;
    encrypt.args(["--reduce-device-size", "32M", "--force-offline-reencrypt"]);
    encrypt.args(["--sector-size", sector, "--cipher", "aes-xts-plain64", "--key-size", "512"]);
    encrypt.args(kdf);
    run(encrypt.arg(&path).arg("--key-file").arg(&key));
    Some((path, plain))
}

#[test]
fn we_read_what_it_encrypted_with_512_byte_sectors_and_argon2id() {
    let dir = Dir::new();
    let kdf = ["--pbkdf", "argon2id", "--pbkdf-memory", "4096", "--pbkdf-force-iterations", "4"];
    let Some((path, plain)) = stock_made(&dir, "512", &kdf) else { return };
    let volume = open_rw(&path);
    assert_eq!(volume.sector_size(), 512);
    let mut start = vec![0; plain.len()];
    volume.read(0, &mut start).unwrap();
    assert!(start == plain, "we decrypt to something else");
}

#[test]
fn we_read_and_write_what_it_encrypted_with_4096_byte_sectors() {
    let dir = Dir::new();
    let kdf = ["--pbkdf", "pbkdf2", "--hash", "sha512", "--pbkdf-force-iterations", "1000"];
    let Some((path, plain)) = stock_made(&dir, "4096", &kdf) else { return };
    let volume = open_rw(&path);
    assert_eq!(volume.sector_size(), 4096);
    volume.write(1000, &mut [0x77; 5000]).unwrap();
    let mut expected = plain;
    expected[1000..6000].fill(0x77);
    assert!(read_all(&volume)[..expected.len()] == expected, "we decrypt to something else");
}

#[test]
fn we_open_the_slot_that_it_added() {
    let dir = Dir::new();
    let path = dir.volume(&content(8192));
    let (old, new) = (dir.file("key", key().expose()), dir.file("new", b"another secret"));
    let Some(mut add) = cryptsetup(&["luksAddKey", "--batch-mode", "--key-file"]) else { return };
    add.arg(&old).args(["--pbkdf", "argon2id", "--pbkdf-memory", "4096"]);
    run(add.args(["--pbkdf-force-iterations", "4"]).arg(&path).arg(&new));
    let secret = Secret::new(b"another secret".to_vec());
    let volume = open(&path, &secret, &OpenOptions::default()).unwrap();
    assert_eq!(read_all(&volume), content(8192));
    assert!(volume.kmi().is_some(), "cryptsetup must keep our token");
}
