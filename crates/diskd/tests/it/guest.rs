//! A guest of one sector in a real QEMU over vhost-user-blk: it writes sector after sector while
//! the disk process is killed and started again under it.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use crate::process::{Disk, tool, with_volume};

/// Sectors that the guest writes, from 1 to one less.
const SECTORS: u16 = 3_000;

/// A boot sector that writes itself to sector after sector (`int 13h`, function 43h), with the
/// number in the packet at 0x40, and says `.` for each on port 0xe9, at last `E`, or `F` if one
/// fails.
fn boot_sector() -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // ax, ds, es, ss = 0
        0xbc, 0x00, 0x7c, // sp = 0x7c00
        0xbe, 0x40, 0x7c, // next: si = packet
        0xb8, 0x00, 0x43, 0xcd, 0x13, // write
        0x72, 0x17, // if it failed: failed
        0xb0, 0x2e, 0xe6, 0xe9, // say "."
        0xff, 0x06, 0x48, 0x7c, // next sector
        0x81, 0x3e, 0x48, 0x7c, // the last?
    ];
    code.extend(SECTORS.to_le_bytes());
    code.extend([0x72, 0xe6]); // no: next
    code.extend([0xb0, 0x45, 0xe6, 0xe9]); // say "E"
    code.extend([0xf4, 0xeb, 0xfd]); // halt
    code.extend([0xb0, 0x46, 0xe6, 0xe9, 0xeb, 0xf7]); // failed: say "F", halt
    code.resize(512, 0);
    // Packet: its size, one sector, from 0000:7c00, to sector 1.
    code[0x40..0x48].copy_from_slice(&[16, 0, 1, 0, 0, 0x7c, 0, 0]);
    code[0x48] = 1;
    code[510..].copy_from_slice(&[0x55, 0xaa]);
    code
}

struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path) -> Option<Guest> {
    let mut qemu = tool("qemu-system-x86_64")?;
    qemu.args(["-accel", "tcg", "-machine", "q35,memory-backend=m", "-nodefaults"]);
    qemu.args(["-object", "memory-backend-memfd,id=m,size=64M,share=on", "-display", "none"]);
    let socket = dir.join("s.sock");
    qemu.arg("-chardev").arg(format!("socket,id=c,path={},reconnect=1", socket.display()));
    qemu.args(["-device", "vhost-user-blk-pci,chardev=c,bootindex=0"]);
    qemu.arg("-chardev").arg(format!("file,id=e,path={}", dir.join("said").display()));
    qemu.args(["-device", "isa-debugcon,chardev=e,iobase=0xe9"]);
    let errors = fs::File::create(dir.join("errors")).unwrap();
    Some(Guest(qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap()))
}

/// Waits until the guest has said so many characters.
fn wait_for(dir: &Path, count: usize) -> String {
    for _ in 0..1200 {
        let said = fs::read_to_string(dir.join("said")).unwrap_or_default();
        if said.len() >= count || said.contains('F') {
            return said;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let errors = fs::read_to_string(dir.join("errors")).unwrap_or_default();
    let said = fs::read_to_string(dir.join("said")).unwrap_or_default();
    panic!("the guest hangs after {} sectors: {errors}", said.len());
}

#[test]
fn a_guest_writes_on_while_the_disk_process_is_killed_under_it() {
    let mut content = boot_sector();
    content.resize(usize::from(SECTORS) * 512, 0);
    let dir = with_volume(&content);
    let mut disk = Disk::serve(dir.path(), &["--vhost-user"]);
    let Some(guest) = start(dir.path()) else { return };
    for kills in 1..=3 {
        wait_for(dir.path(), kills * 500);
        disk.kill();
        disk = Disk::serve(dir.path(), &["--vhost-user"]);
    }
    let said = wait_for(dir.path(), usize::from(SECTORS));
    assert!(said.ends_with('E') && said.len() == usize::from(SECTORS), "{} said", said.len());
    drop(guest);
    assert_eq!(disk.terminate(), 0);
    let disk = Disk::serve(dir.path(), &["--read-only"]);
    let mut copy = tool("qemu-img").unwrap();
    let uri = crate::process::uri(dir.path());
    copy.args(["convert", "-f", "raw", "-O", "raw", &uri]).arg(dir.path().join("back"));
    assert!(copy.status().unwrap().success());
    let back = fs::read(dir.path().join("back")).unwrap();
    for (number, sector) in (0_u16..).zip(back.chunks(512)).skip(1) {
        assert_eq!(sector[0x48..0x4a], number.to_le_bytes(), "sector {number}");
    }
    assert_eq!(disk.terminate(), 0);
}
