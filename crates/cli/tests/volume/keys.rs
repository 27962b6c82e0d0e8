//! What opens a volume: key file, pass phrase, TPM, and the key-management information.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use crate::fixture::{Dir, outside, tool};

#[test]
fn a_kmi_finds_exactly_its_key() {
    let dir = Dir::new();
    let kmi = |version: u32| {
        let digest = "ab".repeat(32);
        format!(r#"{{"vm":"web","key_id":"sha256:{digest}","version":{version},"epoch":1}}"#)
    };
    dir.done(&format!("create --size 1M --key-file key v --kmi {}", kmi(1)));
    let line = |version| format!("v --key-file key --kmi {}", kmi(version));
    assert_eq!(dir.refused(&format!("serve --socket s.sock {}", line(2))), "kmi-not-found");
    dir.serve(&line(1)).stop();
    let shown = dir.done("inspect v");
    assert_eq!(shown["key_slots"][0]["kmi"]["vm"], "web");
    assert_eq!(shown["verified"], false);
}

#[test]
fn the_content_of_a_key_file_is_the_key_with_its_newline() {
    let dir = Dir::new();
    dir.file("with", b"phrase\n");
    dir.file("without", b"phrase");
    dir.done("create --format luks2 --size 1M --key-file with v");
    dir.done("check v --key-file with");
    assert_eq!(dir.refused("check v --key-file without"), "wrong-key");
}

#[test]
fn what_may_be_a_pass_phrase_in_a_key_file_is_stretched() {
    let dir = Dir::new();
    dir.file("short", b"correct horse");
    for (key, kind) in [("short", "passphrase"), ("key", "random-key")] {
        dir.done(&format!("create --size 1M --key-file {key} {key}.vault"));
        assert_eq!(dir.done(&format!("inspect {key}.vault"))["key_slots"][0]["kind"], kind);
        dir.done(&format!("check {key}.vault --key-file {key}"));
    }
    dir.done("rekey key.vault --key-file key --new-key-file short");
    assert_eq!(dir.done("inspect key.vault")["key_slots"][0]["kind"], "passphrase");
}

/// Runs a command on a terminal of its own, where a line of `typed` is typed at each prompt; whether
/// it succeeded, and all that was shown there. Nothing if there is no tool for it.
fn on_a_terminal(dir: &Dir, line: &str, typed: &[&str]) -> Option<(bool, String)> {
    let command = format!("{} volume {line}", env!("CARGO_BIN_EXE_vouchsafe"));
    let mut script = tool("script")?;
    script.args(["-q", "-e", "-c", &command, "/dev/null"]).current_dir(dir.path(""));
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    for line in typed {
        let mut one = [0];
        // What is typed before the prompt would be shown.
        while !shown.ends_with(b": ") && screen.read(&mut one).unwrap() == 1 {
            shown.push(one[0]);
        }
        shown.push(b'\n');
        keys.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
    screen.read_to_end(&mut shown).unwrap();
    let done = child.wait().unwrap().success();
    Some((done, String::from_utf8_lossy(&shown).into_owned()))
}

#[test]
fn a_pass_phrase_is_asked_for_on_the_terminal_and_not_shown() {
    let dir = Dir::new();
    let create = "create --size 1M --passphrase v";
    let said = format!("{create} --json");
    let Some((done, shown)) = on_a_terminal(&dir, &said, &["correct horse", "other horse"]) else {
        return;
    };
    assert!(!done && shown.contains(r#""refused":"passphrases-differ""#), "{shown}");
    let (done, shown) = on_a_terminal(&dir, create, &["correct horse", "correct horse"]).unwrap();
    assert!(done && shown.contains("New pass phrase") && !shown.contains("horse"), "{shown}");
    let (done, shown) = on_a_terminal(&dir, "check --passphrase v", &["correct horse"]).unwrap();
    assert!(done && !shown.contains("horse"), "{shown}");
    dir.file("phrase", b"correct horse");
    dir.done("check --passphrase-file phrase v");
}

/// A software TPM, ended with the value.
struct Swtpm(Child);

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn swtpm(dir: &Dir) -> Option<Swtpm> {
    let mut command: Command = tool("swtpm")?;
    std::fs::create_dir_all(dir.path("tpm")).unwrap();
    let state = format!("dir={},mode=0600", dir.text("tpm"));
    let server = format!("type=unixio,path={}", dir.text("tpm.sock"));
    let flags = "not-need-init,startup-clear";
    let args = ["socket", "--tpm2", "--tpmstate", &state, "--server", &server, "--flags", flags];
    let child = Swtpm(command.args(args).stdout(Stdio::null()).spawn().unwrap());
    for _ in 0..12_000 {
        if dir.path("tpm.sock").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Some(child)
}

#[test]
fn a_key_that_a_tpm_sealed_opens_with_that_tpm_in_that_state_only() {
    let dir = Dir::new();
    let Some(running) = swtpm(&dir) else { return };
    let tpm = format!("--tpm=unix:{}", dir.text("tpm.sock"));
    dir.done(&format!("create --size 1M v {tpm}"));
    let shown = dir.done("inspect v");
    assert_eq!(shown["key_slots"][0]["kind"], "sealed");
    dir.done(&format!("check v {tpm}"));
    dir.serve(&format!("v {tpm}")).stop();
    // Sealed anew for the same TPM, and all data with it.
    dir.done(&format!("rekey v {tpm} --new-{}", tpm.trim_start_matches("--")));
    dir.done(&format!("rekey v --data {tpm} --new-{}", tpm.trim_start_matches("--")));
    assert_eq!(dir.run(&format!("rekey v --data {tpm}")).0, 2);
    dir.serve(&format!("v {tpm}")).stop();
    drop(running);
    // Another TPM: other seeds.
    std::fs::remove_dir_all(dir.path("tpm")).unwrap();
    let _fresh = swtpm(&dir).unwrap();
    assert_eq!(dir.refused(&format!("check v {tpm}")), "tpm-refused");
    assert!(outside("swtpm", &["--version"]).is_some());
}

#[test]
fn a_counter_of_a_tpm_tells_yesterdays_copy_and_a_tpm_without_it_opens_nothing() {
    let dir = Dir::new();
    let Some(tpm) = swtpm(&dir) else { return };
    let anchor = format!("--anchor tpm:unix:{}", dir.text("tpm.sock"));
    for name in ["v", "w"] {
        dir.done(&format!("create --size 1M --key-file key {anchor} {name}"));
    }
    dir.serve(&format!("v --key-file key {anchor}")).stop();
    std::fs::copy(dir.path("v"), dir.path("yesterday")).unwrap();
    dir.serve(&format!("v --key-file key {anchor}")).kill();
    dir.serve(&format!("v --key-file key {anchor}")).stop();
    // Each volume has a counter of its own.
    dir.serve(&format!("w --key-file key {anchor}")).stop();
    std::fs::copy(dir.path("yesterday"), dir.path("v")).unwrap();
    let line = format!("serve --socket t.sock v --key-file key {anchor}");
    assert_eq!(dir.refused(&line), "rolled-back");
    drop(tpm);
    std::fs::remove_dir_all(dir.path("tpm")).unwrap();
    std::fs::remove_file(dir.path("tpm.sock")).unwrap_or_default();
    let _other = swtpm(&dir);
    assert_eq!(dir.refused(&line), "anchor-missing");
}
