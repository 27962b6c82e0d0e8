//! `serve` as a process: readiness, refusals, the control socket, ends of all kinds.

use std::{fs, io::Write as _, os::unix::net::UnixStream};

use model::child::{
    self,
    disk::{Progress, Reply, Request},
};

use crate::process::{Disk, KEY, KMI, ask, names, pattern, status, tool, uri, with_volume};

fn refused(disk: Disk) -> (String, i32) {
    let (lines, exit) = disk.end();
    match lines.last() {
        Some(Progress::Refused { code, .. }) => (code.clone(), exit),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_control_socket_tells_flushes_and_ends() {
    let dir = with_volume(&pattern(1 << 20));
    let disk = Disk::serve(dir.path(), &["--kmi", KMI]);
    let told = status(dir.path());
    assert_eq!((told.format.as_str(), told.size, told.sector_size), ("luks2", 1 << 20, 4096));
    assert_eq!(told.kmi, serde_json::from_str(KMI).unwrap());
    assert!(!told.read_only && !told.flush_failed && told.header_damaged.is_none());
    assert_eq!(ask(dir.path(), &Request::Flush {}), Reply::Flushed {});
    assert!(matches!(ask(dir.path(), &Request::Shutdown {}), Reply::ShuttingDown { .. }));
    assert_eq!(disk.end().1, 0);
    assert_eq!(names(dir.path()), ["log", "source.raw", "v.luks"]);
}

#[test]
fn a_malformed_control_message_is_answered_and_harms_nobody() {
    let dir = with_volume(&pattern(4096));
    let disk = Disk::serve(dir.path(), &[]);
    for junk in [&b"\0\0\0\x02{}"[..], b"\xff\xff\xff\xffxxxx", b"\0\0\0\x05{\"a\":"] {
        let mut stream = UnixStream::connect(dir.path().join("c.sock")).unwrap();
        stream.write_all(junk).unwrap();
        let reply: Option<Reply> = child::receive(&mut stream).unwrap();
        assert!(matches!(reply, Some(Reply::Failed { code, .. }) if code == "malformed-request"));
    }
    assert_eq!(status(dir.path()).pid.cast_signed(), disk.id.pid);
    assert_eq!(disk.terminate(), 0);
}

#[test]
fn wrong_key_unknown_kmi_and_a_second_server_are_refused_with_status_3() {
    let dir = with_volume(&pattern(4096));
    let wrong = Disk::start_serving(dir.path(), b"another key", &[]);
    assert_eq!(refused(wrong), ("wrong-key".to_owned(), 3));
    let other = KMI.replace("\"epoch\":1", "\"epoch\":2");
    let unknown = Disk::start_serving(dir.path(), KEY, &["--kmi", &other]);
    assert_eq!(refused(unknown), ("kmi-not-found".to_owned(), 3));
    let first = Disk::serve(dir.path(), &[]);
    let second = Disk::start_serving(dir.path(), KEY, &[]);
    assert_eq!(refused(second), ("volume-in-use".to_owned(), 3));
    assert_eq!(status(dir.path()).pid.cast_signed(), first.id.pid);
}

#[test]
fn a_damaged_header_is_told_in_the_status() {
    use std::os::unix::fs::FileExt;
    let dir = with_volume(&pattern(4096));
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("v.luks")).unwrap();
    file.write_all_at(b"damage", 4200).unwrap();
    let _disk = Disk::serve(dir.path(), &[]);
    assert!(status(dir.path()).header_damaged.unwrap().contains("primary"));
}

#[test]
fn sigterm_flushes_and_removes_the_sockets() {
    let dir = with_volume(&pattern(1 << 20));
    let disk = Disk::serve(dir.path(), &[]);
    let Some(mut io) = tool("qemu-io") else { return };
    io.args(["-f", "raw", "-c", "write -P 9 100k 4k"]).arg(uri(dir.path()));
    assert!(io.output().unwrap().status.success());
    assert_eq!(status(dir.path()).counters.writes, 1);
    assert_eq!(disk.terminate(), 0);
    assert_eq!(names(dir.path()), ["log", "source.raw", "v.luks"]);
    let _again = Disk::serve(dir.path(), &["--read-only"]);
    let mut io = tool("qemu-io").unwrap();
    io.args(["-r", "-f", "raw", "-c", "read -P 9 100k 4k"]).arg(uri(dir.path()));
    let output = io.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("failed"), "{output:?}");
    assert!(status(dir.path()).read_only);
}

#[test]
fn the_process_gives_up_what_it_does_not_need() {
    let dir = with_volume(&pattern(4096));
    let disk = Disk::serve(dir.path(), &[]);
    let read = |name: &str| fs::read(format!("/proc/{}/{name}", disk.id.pid)).unwrap();
    let secret = |bytes: &[u8]| bytes.windows(KEY.len()).any(|window| window == KEY);
    for name in ["cmdline", "environ"] {
        assert!(!secret(&read(name)), "the key is in {name}");
    }
    assert!(!secret(&fs::read(dir.path().join("log")).unwrap()));
    let limits = String::from_utf8(read("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let shown = String::from_utf8(read("status")).unwrap();
    assert!(shown.contains("NoNewPrivs:\t1"), "{shown}");
}
