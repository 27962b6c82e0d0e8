//! Keys that are exchanged while the volume is served: the I/O goes on.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::fixture::{Dir, content, outside, tool};

const SIZE: usize = 24 << 20;
const LINE: &str = "v --key-file key --control c.sock";

/// A served volume's content.
fn filled(dir: &Dir) -> Option<Vec<u8>> {
    dir.file("new", b"fedcba9876543210fedcba9876543210");
    dir.done("create --size 24M --key-file key v");
    let disk = content(SIZE);
    let source = dir.file("source.raw", &disk).to_str().unwrap().to_owned();
    let served = dir.serve("v --key-file key");
    let copied = outside("nbdcopy", &["--flush", &source, &served.uri()]);
    served.stop();
    copied.map(|_| disk)
}

fn read(dir: &Dir, uri: &str) -> Vec<u8> {
    outside("nbdcopy", &[uri, &dir.text("back.raw")]);
    dir.read("back.raw")
}

#[test]
fn a_key_slot_is_exchanged_under_a_served_volume() {
    let dir = Dir::new();
    let Some(disk) = filled(&dir) else { return };
    let served = dir.serve(LINE);
    let done = dir.done("rekey --socket c.sock --new-key-file new");
    assert_eq!((&done["key_slot"], &done["data"]), (&0.into(), &false.into()));
    dir.file("phrase", b"correct horse battery staple");
    dir.done("rekey --socket c.sock --keep --new-passphrase-file phrase");
    assert!(read(&dir, &served.uri()) == disk);
    assert_eq!(dir.run("rekey --socket c.sock").0, 2, "no new key");
    assert_eq!(dir.run("rekey --socket c.sock --key-file key --new-key-file new").0, 2);
    dir.file("long", &[7; 513]);
    assert_eq!(dir.refused("rekey --socket c.sock --new-key-file long"), "key-length");
    served.stop();
    assert!(!dir.path("c.sock").exists());
    assert_eq!(dir.refused("check v --key-file key"), "wrong-key");
    dir.done("check v --key-file new");
    dir.done("check v --passphrase-file phrase");
    let (code, said) = dir.run("rekey --socket c.sock --new-key-file new");
    assert!(code == 1 && said.contains("c.sock"), "{said}");
}

#[test]
fn the_key_of_all_data_is_exchanged_while_a_client_writes() {
    let dir = Dir::new();
    let Some(mut disk) = filled(&dir) else { return };
    let served = dir.serve(LINE);
    let (uri, ended) = (served.uri(), AtomicBool::new(false));
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0_u8;
            // At least one round lies within the re-keying.
            while rounds < 2 || !ended.load(Ordering::SeqCst) && rounds < 250 {
                rounds += 1;
                let mut program = tool("qemu-io")?;
                program.args(["-f", "raw", &uri]);
                for at in [4096, (12 << 20) + 512, (24 << 20) - 65536] {
                    let write = format!("write -P {rounds} {at} 65536");
                    let read = format!("read -P {rounds} {at} 65536");
                    program.args(["-c", &write, "-c", &read]);
                }
                let output = program.output().unwrap();
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success() && !said.contains("failed"), "{said}");
            }
            Some(rounds)
        });
        let done = dir.done("rekey --socket c.sock --data --new-key-file new");
        assert_eq!((&done["data"], &done["resumed"]), (&true.into(), &false.into()));
        ended.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    if let Some(last) = written {
        for at in [4096, (12 << 20) + 512, (24 << 20) - 65536] {
            disk[at..at + 65536].fill(last);
        }
    }
    assert!(read(&dir, &served.uri()) == disk);
    // The slot that opened it was of the old epoch: the new one is exchanged now.
    dir.done("rekey --socket c.sock --new-key-file key");
    served.stop();
    assert_eq!(dir.refused("check v --key-file new"), "wrong-key");
    dir.done("check v --key-file key");
    let shown = dir.done("inspect v");
    assert_eq!((shown["epoch"].as_u64(), shown["rekeying"].as_bool()), (Some(2), Some(false)));
}

#[test]
fn a_re_keying_that_a_kill_interrupts_goes_on_with_the_new_key() {
    let dir = Dir::new();
    let Some(disk) = filled(&dir) else { return };
    let served = dir.serve(LINE);
    let line = "rekey --socket c.sock --data --new-key-file new";
    let mut asking = dir.volume(line).stderr(std::process::Stdio::null()).spawn().unwrap();
    // From the first step on the header says so.
    while dir.done("inspect v")["epoch"] == 1 {
        assert!(asking.try_wait().unwrap().is_none_or(|ended| ended.success()));
    }
    served.kill();
    asking.wait().unwrap();
    std::fs::remove_file(dir.path("c.sock")).unwrap();
    let interrupted = dir.done("inspect v")["rekeying"] == true;
    assert_eq!(dir.refused("check v --key-file key"), "wrong-key");
    let served = dir.serve("v --key-file new --control c.sock");
    let done = dir.done(line);
    assert_eq!(done["resumed"], interrupted);
    assert!(read(&dir, &served.uri()) == disk);
    served.stop();
    assert_eq!(dir.done("inspect v")["rekeying"], false);
    dir.done("check v --key-file new");
}

#[test]
fn what_has_no_keys_to_exchange_is_refused() {
    let dir = Dir::new();
    dir.file("raw", &[0; 1 << 20]);
    assert_eq!(dir.refused("serve --socket s.sock --control c.sock --format raw raw"), "not-vault");
    dir.done("create --size 1M --key-file key v");
    dir.done("snapshot create v one --key-file key");
    let served = dir.serve(LINE);
    let refusal = dir.refusal("rekey --socket c.sock --data --new-key-file key");
    assert_eq!(refusal["refused"], "unsupported");
    assert!(refusal["hint"].as_str().unwrap().contains("snapshots first"), "{refusal}");
    dir.done("rekey --socket c.sock --new-key-file key");
    served.stop();
}
