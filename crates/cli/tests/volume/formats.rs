//! Each format through `volume serve`, written and read by the stock tools.

use serde_json::Value;

use crate::fixture::{Dir, content, outside};

const SIZE: usize = 24 << 20;

/// Makes the volume of this format; `None` if the tool that makes it is not installed.
pub(crate) fn make(dir: &Dir, format: &str) -> Option<&'static str> {
    match format {
        "gcm" => {
            dir.done("create --size 24M --key-file key v");
            Some("v --key-file key")
        }
        "aegis" => {
            dir.done("create --cipher aegis-256x4 --size 24M --passphrase-file key v");
            Some("v --passphrase-file key")
        }
        "luks2" => {
            dir.done("create --format luks2 --size 24M --key-file key v");
            Some("v --key-file key")
        }
        "luks1" => {
            let secret = format!("secret,id=s,file={}", dir.text("key"));
            let options = "key-secret=s,iter-time=10";
            let path = dir.text("v");
            let args =
                ["create", "-q", "-f", "luks", "--object", &secret, "-o", options, &path, "24M"];
            outside("qemu-img", &args).map(|_| "v --key-file key")
        }
        _ => {
            dir.file("v", &vec![0; SIZE]);
            Some("v --format raw")
        }
    }
}

const FORMATS: [&str; 5] = ["gcm", "aegis", "luks2", "luks1", "raw"];

#[test]
fn nbdinfo_nbdcopy_and_qemu_img_agree_about_every_format() {
    for format in FORMATS {
        let dir = Dir::new();
        let Some(line) = make(&dir, format) else { continue };
        let disk = content(SIZE);
        let source = dir.file("source.raw", &disk);
        let served = dir.serve(line);
        let (uri, source) = (served.uri(), source.to_str().unwrap().to_owned());
        let Some(info) = outside("nbdinfo", &["--json", &uri]) else { return };
        let info: Value = serde_json::from_slice(&info.stdout).unwrap();
        assert_eq!(info["exports"][0]["export-size"], SIZE, "{format}");
        assert_eq!(info["exports"][0]["can_multi_conn"], true, "{format}");
        outside("nbdcopy", &["--flush", &source, &uri]);
        served.stop();
        let served = dir.serve(&format!("{line} --read-only"));
        outside("nbdcopy", &[&served.uri(), &dir.text("back.raw")]);
        assert!(dir.read("back.raw") == disk, "{format}: nbdcopy");
        let back = dir.text("back2.raw");
        if outside("qemu-img", &["convert", "-O", "raw", &served.uri(), &back]).is_some() {
            assert!(dir.read("back2.raw") == disk, "{format}: qemu-img");
        }
        served.stop();
        if format != "raw" {
            // Words of 8 bytes stay aligned through every format.
            let marker = &disk[5000..5008];
            let found = dir.read("v").chunks_exact(8).any(|word| word == marker);
            assert!(!found, "{format}: plaintext in the file");
            dir.done(&format!("check {line}"));
        }
    }
}

#[test]
fn qemu_img_writes_every_format() {
    for format in FORMATS {
        let dir = Dir::new();
        let Some(line) = make(&dir, format) else { continue };
        let disk = content(SIZE);
        let source = dir.file("source.raw", &disk).to_str().unwrap().to_owned();
        let served = dir.serve(line);
        let args = ["convert", "-n", "-f", "raw", "-O", "raw", &source, &served.uri()];
        if outside("qemu-img", &args).is_none() {
            return;
        }
        outside("qemu-img", &["compare", "-f", "raw", "-F", "raw", &source, &served.uri()]);
        served.stop();
    }
}

/// Random sizes and offsets with flushes, every read verified, then a second look after the server
/// was killed and started again.
#[test]
fn fio_verifies_every_format_also_after_kill() {
    for format in FORMATS {
        let dir = Dir::new();
        let Some(line) = make(&dir, format) else { continue };
        let served = dir.serve(line);
        let uri = format!("--uri={}", served.uri());
        let job = [
            "--name=v",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bsrange=512-128k",
            "--blockalign=512",
            "--size=16M",
            "--io_size=24M",
            "--iodepth=8",
            "--verify=crc32c",
            "--verify_state_save=0",
            "--randseed=7",
            "--fsync=16",
            "--end_fsync=1",
            "--do_verify=1",
            "--verify_fatal=1",
            "--bs_unaligned=0",
            "--norandommap=0",
        ];
        if outside("fio", &job).is_none() {
            return;
        }
        let before = dir.text("before.raw");
        outside("nbdcopy", &[&served.uri(), &before]);
        served.kill();
        let served = dir.serve(line);
        outside("nbdcopy", &[&served.uri(), &dir.text("after.raw")]);
        assert!(dir.read("before.raw") == dir.read("after.raw"), "{format}: lost by kill");
        served.stop();
    }
}

#[test]
fn stock_cryptsetup_knows_our_luks2() {
    let dir = Dir::new();
    make(&dir, "luks2").unwrap();
    let (path, key) = (dir.text("v"), dir.text("key"));
    let args = ["open", "--test-passphrase", "--key-file", &key, &path];
    if outside("cryptsetup", &args).is_none() {
        return;
    }
    let dump = outside("cryptsetup", &["luksDump", &path]).unwrap();
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(dump.contains("sector: 4096") && dump.contains("argon2id"), "{dump}");
}

#[test]
fn who_asks_for_a_cipher_never_gets_luks2_without() {
    let dir = Dir::new();
    dir.file("source.raw", &content(1 << 20));
    for cipher in ["aegis-256x4", "aes-256-gcm"] {
        let create = format!("create --format luks2 --cipher {cipher} --size 1M --key-file key v");
        let convert = format!("convert --to luks2 --cipher {cipher} --key-file key source.raw v");
        for line in [create, convert] {
            let (code, said) = dir.run(&line);
            assert!(code == 2 && said.contains("not authenticated"), "{line}: {said}");
        }
    }
    assert!(!dir.path("v").exists() && !dir.path(".v.converting").exists());
}

#[test]
fn an_export_has_the_empty_name_and_the_files_stem() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key a.vault");
    let served = dir.serve("a.vault --key-file key");
    if let Some(list) = outside("nbdinfo", &["--list", &served.uri()]) {
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(list.contains("export=\"\":") && list.contains("export=\"a\":"), "{list}");
    }
    served.stop();
}

#[test]
fn an_ephemeral_volume_is_served_and_leaves_nothing() {
    let dir = Dir::new();
    let served = dir.serve("scratch --ephemeral --size 24M");
    assert!(!dir.path("scratch").exists(), "its file has no name");
    let disk = content(SIZE);
    let source = dir.file("source.raw", &disk).to_str().unwrap().to_owned();
    if outside("nbdcopy", &["--flush", &source, &served.uri()]).is_some() {
        outside("nbdcopy", &[&served.uri(), &dir.text("back.raw")]);
        assert!(dir.read("back.raw") == disk);
    }
    served.stop();
    assert!(!dir.path("scratch").exists());
    for more in ["--key-file key", "--read-only", "--anchor a"] {
        let line = format!("serve --socket s.sock --ephemeral --size 1M {more} v");
        assert_eq!(dir.run(&line).0, 2, "{more}");
    }
    assert_eq!(dir.run("serve --socket s.sock --ephemeral v").0, 2, "without a size");
}

#[test]
fn raw_is_never_guessed() {
    let dir = Dir::new();
    dir.file("v", &vec![0; 1 << 20]);
    assert_eq!(dir.refused("serve --socket s.sock v"), "format-unknown");
}

/// The steps in the log of the server, with their offsets, in order.
fn steps(dir: &Dir, offset: &str) -> Vec<String> {
    let log = String::from_utf8_lossy(&dir.read("serve.log")).into_owned();
    let field = format!("offset={offset} ");
    let lines = log.lines().filter(|line| line.contains(&field));
    let step = |line: &str| line.split("step=").nth(1).map(|rest| rest[1..5].to_owned());
    lines.filter_map(step).collect()
}

#[test]
fn a_block_on_its_way_out_and_in_shows_the_eight_steps() {
    for format in ["gcm", "luks2"] {
        let dir = Dir::new();
        let line = make(&dir, format).unwrap();
        let served = dir.serve(&format!("{line} --trace-steps"));
        let commands = ["-c", "write -P 7 8192 4096", "-c", "read -P 7 8192 4096"];
        let mut args = vec!["-f", "raw"];
        args.extend(commands);
        let uri = served.uri();
        args.push(&uri);
        if outside("qemu-io", &args).is_none() {
            return;
        }
        served.stop();
        let found = steps(&dir, "8192");
        let wanted = ["S310", "S320", "S330", "S340", "S410", "S420", "S430", "S440"];
        assert_eq!(found, wanted, "{format}");
    }
}
