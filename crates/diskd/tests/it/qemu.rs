//! QEMU as the client: `kill -9` of the disk process, a new one on the same socket, and the guest's
//! block device goes on.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, Stdio},
};

use crate::process::{Disk, names, pattern, tool, with_volume};

/// A QEMU without a machine, but with its block layer, spoken to over QMP. What its `qemu-io`
/// commands say is buffered by QEMU until it ends.
struct Qemu {
    child: Child,
    wire: BufReader<UnixStream>,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Qemu {
    fn start(dir: &Path) -> Option<Self> {
        let mut command = tool("qemu-system-x86_64")?;
        let listener = UnixListener::bind(dir.join("qmp.sock")).unwrap();
        command.args(["-machine", "none", "-nodefaults", "-display", "none", "-qmp"]);
        command.arg(format!("unix:{}", dir.join("qmp.sock").display()));
        command.arg("-blockdev").arg(format!(
            "driver=nbd,node-name=d,server.type=unix,server.path={},reconnect-delay=30",
            dir.join("s.sock").display()
        ));
        let said = File::create(dir.join("said")).unwrap();
        let errors = File::create(dir.join("errors")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(said).stderr(errors).spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut qemu = Self { child, wire: BufReader::new(stream) };
        qemu.command(r#"{"execute":"qmp_capabilities"}"#);
        Some(qemu)
    }

    fn command(&mut self, text: &str) -> String {
        writeln!(self.wire.get_mut(), "{text}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.wire.read_line(&mut line).unwrap() > 0, "QEMU ended");
            if line.contains("\"return\"") || line.contains("\"error\"") {
                return line;
            }
        }
    }

    /// A `qemu-io` command on the block device.
    fn io(&mut self, command: &str) {
        let line = format!("qemu-io d \\\"{command}\\\"");
        let told = self.command(&format!(
            r#"{{"execute":"human-monitor-command","arguments":{{"command-line":"{line}"}}}}"#
        ));
        assert!(told.contains(r#"{"return": ""}"#), "{told}");
    }

    /// Ends QEMU; everything that its commands said.
    fn end(mut self, dir: &Path) -> String {
        self.command(r#"{"execute":"quit"}"#);
        self.child.wait().unwrap();
        let read = |name| std::fs::read_to_string(dir.join(name)).unwrap();
        read("said") + &read("errors")
    }
}

#[test]
fn a_guest_disk_survives_kill_and_restart_of_the_disk_process() {
    let dir = with_volume(&pattern(4 << 20));
    let mut disk = Disk::serve(dir.path(), &[]);
    let Some(mut qemu) = Qemu::start(dir.path()) else { return };
    for round in 1..=3 {
        qemu.io(&format!("write -f -P {round} {round}M 64k"));
        disk.kill();
        assert!(names(dir.path()).contains(&"s.sock".to_owned()), "a stale socket is the point");
        disk = Disk::serve(dir.path(), &[]);
        qemu.io(&format!("read -P {round} {round}M 64k"));
    }
    let said = qemu.end(dir.path());
    assert_eq!(said.matches("wrote 65536/65536").count(), 3, "{said}");
    assert_eq!(said.matches("read 65536/65536").count(), 3, "{said}");
    assert!(!said.contains("failed"), "{said}");
    assert_eq!(disk.terminate(), 0);
}

#[test]
fn a_write_that_waits_for_the_disk_process_is_done_by_the_next_one() {
    let dir = with_volume(&pattern(4 << 20));
    let disk = Disk::serve(dir.path(), &[]);
    let Some(mut qemu) = Qemu::start(dir.path()) else { return };
    qemu.io("read 0 64k");
    disk.kill();
    let path = dir.path().to_owned();
    let restarted = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(700));
        Disk::serve(&path, &[])
    });
    // Sent while nobody serves.
    qemu.io("write -f -P 77 1M 64k");
    let _disk = restarted.join().unwrap();
    qemu.io("read -P 77 1M 64k");
    let said = qemu.end(dir.path());
    assert_eq!(said.matches("read 65536/65536").count(), 2, "{said}");
    assert!(said.contains("wrote 65536/65536") && !said.contains("failed"), "{said}");
}
