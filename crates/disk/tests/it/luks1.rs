//! LUKS1 images of qemu-img and cryptsetup, served unchanged: we read what they wrote, they read
//! what we write.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use disk::{Format, OpenOptions, Volume, open};
use model::Secret;

use crate::fixture::{Dir, content, read_all, run, tool};

const PASS: &[u8] = b"correct horse battery staple";
const SIZE: usize = 4 << 20;

fn secret() -> Secret<Vec<u8>> {
    Secret::new(PASS.to_vec())
}

fn ours(path: &Path) -> std::sync::Arc<dyn Volume> {
    open(path, Some(&secret()), &OpenOptions::default()).unwrap().volume()
}

/// An image that qemu-img made of `plain`, with more options of its luks driver.
fn by_qemu(dir: &Dir, plain: &[u8], options: &str) -> Option<PathBuf> {
    let (source, path) = (dir.file("plain", plain), dir.path("q.luks"));
    let mut convert = tool("qemu-img")?;
    convert.arg("convert").arg("--object").arg(object(dir));
    convert.args(["-f", "raw", "-O", "luks", "-o"]);
    convert.arg(format!("key-secret=k,iter-time=10{options}"));
    run(convert.arg(source).arg(&path));
    Some(path)
}

fn object(dir: &Dir) -> String {
    format!("secret,id=k,file={}", dir.file("pass", PASS).display())
}

/// What QEMU reads in the image.
fn read_by_qemu(dir: &Dir, path: &Path) -> Vec<u8> {
    let out = dir.path("back");
    let mut convert = tool("qemu-img").unwrap();
    convert.args(["convert", "--object", &object(dir), "--image-opts", "-O", "raw"]);
    convert.arg(format!("driver=luks,key-secret=k,file.filename={}", path.display()));
    run(convert.arg(&out));
    fs::read(out).unwrap()
}

/// An image that cryptsetup formatted.
fn by_cryptsetup(dir: &Dir, options: &[&str]) -> Option<PathBuf> {
    let path = dir.file("c.luks", &[]);
    fs::File::options().write(true).open(&path).unwrap().set_len(8 << 20).unwrap();
    let mut format = tool("cryptsetup")?;
    format.args(["luksFormat", "--type", "luks1", "--batch-mode", "--pbkdf-force-iterations"]);
    format.args(["1000", "--key-file"]).arg(dir.file("pass", PASS)).args(options);
    run(format.arg(&path));
    Some(path)
}

#[test]
fn an_image_of_qemu_img_is_read_and_written_and_qemu_reads_it_again() {
    let dir = Dir::new();
    let Some(path) = by_qemu(&dir, &content(SIZE), "") else { return };
    let mut expected = content(SIZE);
    {
        let volume = ours(&path);
        assert_eq!((volume.format(), volume.sector_size()), ("luks1", 512));
        assert!(read_all(&*volume) == expected, "we decrypt to something else");
        volume.write(777, &mut [0x5a; 5000]).unwrap();
        volume.write(1 << 20, &mut content(256 << 10)).unwrap();
        volume.write_zeroes(3 << 20, 100_000).unwrap();
        volume.flush().unwrap();
    }
    expected[777..5777].fill(0x5a);
    expected[1 << 20..(1 << 20) + (256 << 10)].copy_from_slice(&content(256 << 10));
    expected[3 << 20..(3 << 20) + 100_000].fill(0);
    assert!(read_by_qemu(&dir, &path) == expected, "QEMU decrypts to something else");
}

#[test]
fn every_hash_and_both_key_sizes_open() {
    for options in [",hash-alg=sha1", ",hash-alg=sha512", ",cipher-alg=aes-128"] {
        let dir = Dir::new();
        let plain = content(300 << 10);
        let Some(path) = by_qemu(&dir, &plain, options) else { return };
        let volume = ours(&path);
        assert!(read_all(&*volume) == plain, "{options}");
        volume.write(512, &mut [7; 1024]).unwrap();
        drop(volume);
        assert_eq!(read_by_qemu(&dir, &path)[512..1536], [7; 1024], "{options}");
    }
}

#[test]
fn images_of_cryptsetup_are_written_and_qemu_reads_them() {
    for bits in ["256", "512"] {
        let dir = Dir::new();
        let options = ["--cipher", "aes-xts-plain64", "--key-size", bits];
        let Some(path) = by_cryptsetup(&dir, &options) else { return };
        let volume = ours(&path);
        let mut plain = content(1 << 20);
        volume.write(4096, &mut plain).unwrap();
        volume.flush().unwrap();
        drop(volume);
        assert!(read_by_qemu(&dir, &path)[4096..][..1 << 20] == content(1 << 20), "{bits}");
    }
}

/// cryptsetup decrypts in user space only LUKS2, so it first converts the header; the data stay.
#[test]
fn cryptsetup_accepts_the_key_and_converts_an_image_that_we_wrote() {
    let dir = Dir::new();
    let options = ["--cipher", "aes-xts-plain64", "--key-size", "512"];
    let Some(path) = by_cryptsetup(&dir, &options) else { return };
    ours(&path).write(0, &mut content(1 << 20)).unwrap();
    let pass = dir.path("pass");
    let on = |args: &[&str]| {
        let mut command: Command = tool("cryptsetup").unwrap();
        run(command.args(args).arg("--key-file").arg(&pass).arg(&path));
    };
    on(&["open", "--test-passphrase"]);
    on(&["convert", "--batch-mode", "--type", "luks2"]);
    let header = dir.path("header");
    let mut decrypt = tool("cryptsetup").unwrap();
    decrypt.args(["reencrypt", "--decrypt", "--force-offline-reencrypt", "--header"]);
    run(decrypt.arg(&header).arg(&path).arg("--key-file").arg(&pass));
    let decrypted = fs::read(&path).unwrap();
    assert!(decrypted[..1 << 20] == content(1 << 20), "cryptsetup decrypts to something else");
}

#[test]
fn a_second_key_slot_opens_and_a_wrong_key_is_refused() {
    let dir = Dir::new();
    let Some(path) = by_cryptsetup(&dir, &[]) else { return };
    let other = dir.file("other", b"another");
    let mut add = tool("cryptsetup").unwrap();
    add.args(["luksAddKey", "--batch-mode", "--pbkdf-force-iterations", "1000", "--key-file"]);
    run(add.arg(dir.path("pass")).arg(&path).arg(other));
    let opened =
        |key: &[u8]| open(&path, Some(&Secret::new(key.to_vec())), &OpenOptions::default());
    assert!(opened(b"another").is_ok());
    let refusal = |key: &[u8]| opened(key).unwrap_err().rejection().unwrap().code();
    assert_eq!(refusal(b"wrong"), "wrong-key");
    assert_eq!(refusal(b""), "key-length");
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let dir = Dir::new();
    let refusal = |path: &Path, key: Option<&Secret<Vec<u8>>>| {
        let error = open(path, key, &OpenOptions::default()).unwrap_err();
        error.rejection().unwrap().code()
    };
    let options = ["--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"];
    let Some(path) = by_cryptsetup(&dir, &options) else { return };
    assert_eq!(refusal(&path, Some(&secret())), "unsupported");
    let path = by_cryptsetup(&dir, &[]).unwrap();
    assert_eq!(refusal(&path, None), "key-missing");
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(refusal(&path, Some(&secret())), "volume-truncated");
}

#[test]
fn the_format_is_recognised_and_raw_must_be_said() {
    let dir = Dir::new();
    let path = dir.file("plain", &content(SIZE));
    let said = |format| OpenOptions { format, ..OpenOptions::default() };
    let error = open(&path, Some(&secret()), &said(None)).unwrap_err();
    assert_eq!(error.rejection().unwrap().code(), "format-unknown");
    let volume = open(&path, None, &said(Some(Format::Raw))).unwrap();
    assert!(read_all(&*volume) == content(SIZE), "raw is not the file's content");
    drop(volume);
    let error = open(&path, Some(&secret()), &said(Some(Format::Luks1))).unwrap_err();
    assert_eq!(error.rejection().unwrap().code(), "not-luks1");
    let luks2 = dir.volume(&content(8192));
    let key = crate::fixture::key();
    assert_eq!(open(&luks2, Some(&key), &said(None)).unwrap().format(), "luks2");
}

#[test]
fn a_raw_volume_has_holes_that_read_as_zeros_and_direct_io_sees_the_same() {
    let dir = Dir::new();
    let path = dir.file("plain", &content(SIZE));
    let options = OpenOptions { format: Some(Format::Raw), direct: true, ..OpenOptions::default() };
    let Ok(volume) = open(&path, None, &options) else {
        eprintln!("Skipped: no O_DIRECT here");
        return;
    };
    let mut expected = content(SIZE);
    volume.trim(1 << 20, 1 << 20).unwrap();
    volume.write(2 << 20, &mut [3; 8192]).unwrap();
    volume.write((2 << 20) + 100, &mut [4; 100]).unwrap();
    volume.write_zeroes(5, 1000).unwrap();
    volume.flush().unwrap();
    expected[1 << 20..2 << 20].fill(0);
    expected[2 << 20..(2 << 20) + 8192].fill(3);
    expected[(2 << 20) + 100..(2 << 20) + 200].fill(4);
    expected[5..1005].fill(0);
    assert!(read_all(&*volume) == expected, "another content");
    let extents = volume.extents(0, volume.size(), 16).unwrap();
    assert!(extents.iter().any(|extent| extent.hole && extent.zero), "{extents:?}");
    assert_eq!(extents.iter().map(|extent| extent.length).sum::<u64>(), volume.size());
    drop(volume);
    assert!(fs::read(&path).unwrap() == expected, "another file");
}
