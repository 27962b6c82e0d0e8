//! Processes that come, go, die, or find what is not theirs.

use std::{fs, io::Write as _, os::unix::net::UnixStream, thread, time::Duration};

use model::{
    HashAlg,
    child::{
        self,
        vtpm::{Fault, Reply, Request},
    },
};
use serve::process::{Exit, ProcessId, Signal};

use crate::{
    programs::have,
    replay::assert_agrees,
    support::{Process, SHUTDOWN, children, keys, manufactured},
};

fn gone(pid: i32) -> bool {
    (0..12_000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        ProcessId::find(pid).is_none()
    })
}

#[test]
fn qemu_may_quit_and_come_again_and_boots_anew() {
    let Some((_home, process, identity)) = manufactured() else { return };
    let mut agent = process.agent();
    for generation in 1..4 {
        let mut qemu = process.qemu();
        qemu.boot();
        qemu.tpm().pcr_extend(4, &[model::Digest::sha256([4; 32])]).unwrap();
        let quoted = agent.quote(1, &HashAlg::ALL);
        assert_agrees(&quoted, &quoted.observed.entries);
        assert_eq!(quoted.observed.generation, generation);
        assert!(agent.status().qemu_connected);
        if generation == 2 {
            drop(qemu);
        } else {
            qemu.control(SHUTDOWN, &[]);
        }
        while generation == 2 && agent.status().qemu_connected {
            thread::sleep(Duration::from_millis(5));
        }
        // The list of the boot that ended stays readable; a quote has to wait for the next.
        assert_eq!(agent.observed(0).total, 2);
        let fault = agent.fault(&crate::support::Agent::quote_request(1, &[HashAlg::Sha256]));
        assert_eq!(fault, Fault::Resetting);
    }
    while agent.status().qemu_connected {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(agent.manufacture(false), identity);
}

#[test]
fn a_second_qemu_is_turned_away_and_the_first_goes_on() {
    let Some((_home, process, _)) = manufactured() else { return };
    let mut qemu = process.qemu();
    let mut guest = qemu.boot();
    let mut second = UnixStream::connect(process.qemu_socket()).unwrap();
    second.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut second, &mut byte).unwrap_or(0), 0);
    assert_eq!(guest.random(4).unwrap().len(), 4);
}

#[test]
fn a_killed_process_takes_its_swtpm_with_it_and_the_state_opens_again() {
    let Some((home, process, identity)) = manufactured() else { return };
    let mut qemu = process.qemu();
    qemu.boot();
    let swtpm = children(process.id.pid);
    assert_eq!(swtpm.len(), 1);
    process.id.kill().unwrap();
    assert_eq!(process.wait(), Exit::Signal(9));
    assert!(gone(swtpm[0]), "swtpm lives on");
    let process = Process::start(home.path(), &keys(1), 100);
    assert_eq!(process.agent().manufacture(false), identity);
}

#[test]
fn a_process_whose_swtpm_dies_ends_with_an_error() {
    let Some((_home, process, _)) = manufactured() else { return };
    let swtpm = ProcessId::find(children(process.id.pid)[0]).unwrap();
    swtpm.kill().unwrap();
    assert_eq!(process.wait(), Exit::Code(1));
    assert!(!process.control().exists() && !process.qemu_socket().exists());
}

#[test]
fn sigterm_and_shutdown_end_it_in_order() {
    let Some((home, process, identity)) = manufactured() else { return };
    let swtpm = children(process.id.pid)[0];
    process.id.signal(Signal::TERM).unwrap();
    assert_eq!(process.wait(), Exit::Code(0));
    assert!(gone(swtpm));
    let process = Process::start(home.path(), &keys(1), 100);
    let mut agent = process.agent();
    assert_eq!(agent.manufacture(false), identity);
    assert_eq!(agent.ask(&Request::Shutdown {}), Reply::Done {});
    assert_eq!(process.wait(), Exit::Code(0));
    assert!(!process.control().exists());
}

#[test]
fn state_under_another_key_is_refused_by_name() {
    let Some((home, process, _)) = manufactured() else { return };
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("state")).unwrap();
    for entry in fs::read_dir(&process.dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join("state").join(entry.file_name())).unwrap();
    }
    let foreign = Process::spawn(copy.path(), &keys(9), 100);
    assert_eq!(foreign.wait(), Exit::Code(3), "{}", foreign.log());
    let line = r#"{"event":"refused","code":"vtpm-state-foreign""#;
    assert!(foreign.log().contains(line), "{}", foreign.log());
    assert!(!foreign.control().exists());
    drop((foreign, process));
    let process = Process::spawn(home.path(), &keys(2), 100);
    assert_eq!(process.wait(), Exit::Code(3));
}

#[test]
fn state_in_use_is_refused_by_name() {
    let Some((_home, process, _)) = manufactured() else { return };
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&process.dir, other.path().join("state")).unwrap();
    let second = Process::spawn(other.path(), &keys(1), 100);
    assert_eq!(second.wait(), Exit::Code(3), "{}", second.log());
    assert!(second.log().contains(r#""code":"vtpm-in-use""#), "{}", second.log());
    assert!(process.agent().status().manufactured);
}

#[test]
fn keys_of_the_wrong_length_are_no_keys() {
    if !have("swtpm") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let process = Process::spawn(home.path(), &[1; 95], 100);
    assert_eq!(process.wait(), Exit::Code(1));
    assert!(process.log().contains("96 bytes"), "{}", process.log());
}

#[test]
fn what_is_not_a_request_ends_the_connection_only() {
    let Some((_home, process, _)) = manufactured() else { return };
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{}", b"\0\0\0\x05hello"] {
        let mut stream = UnixStream::connect(process.control()).unwrap();
        stream.write_all(bytes).unwrap();
        let reply: Option<Reply> = child::receive(&mut stream).unwrap();
        assert!(matches!(reply, Some(Reply::Failed { fault: Fault::BadRequest, .. })));
        assert!(child::receive::<Reply>(&mut stream).unwrap().is_none());
    }
    assert_eq!(process.agent().fault(&Request::Hello { version: 99 }), Fault::Version);
    let mut qemu = UnixStream::connect(process.qemu_socket()).unwrap();
    qemu.write_all(&[0, 0, 0, 99]).unwrap();
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut qemu, &mut byte).unwrap_or(0), 0);
    assert!(process.agent().status().manufactured);
}

#[test]
fn the_state_and_its_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let Some((_home, process, _)) = manufactured() else { return };
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&process.dir), 0);
    for entry in fs::read_dir(&process.dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0);
    }
    let arguments = fs::read(format!("/proc/{}/cmdline", children(process.id.pid)[0])).unwrap();
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    assert!(arguments.contains("fd=") && !arguments.contains("0101"), "{arguments}");
}
