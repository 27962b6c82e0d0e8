//! A guest of one sector in a real QEMU over vhost-user-blk, that writes sector after sector. Shared
//! with the tests of `vouchsafe volume serve`.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// Sectors that the guest writes, from 1 to one less.
pub(crate) const SECTORS: u16 = 3_000;

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

/// A running QEMU, killed when this is dropped.
pub(crate) struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `qemu` with the disk of `s.sock` in `dir`.
pub(crate) fn start(mut qemu: Command, dir: &Path) -> Guest {
    qemu.args(["-accel", "tcg", "-machine", "q35,memory-backend=m", "-nodefaults"]);
    qemu.args(["-object", "memory-backend-memfd,id=m,size=64M,share=on", "-display", "none"]);
    let socket = dir.join("s.sock");
    qemu.arg("-chardev").arg(format!("socket,id=c,path={},reconnect=1", socket.display()));
    qemu.args(["-device", "vhost-user-blk-pci,chardev=c,bootindex=0"]);
    qemu.arg("-chardev").arg(format!("file,id=e,path={}", dir.join("said").display()));
    qemu.args(["-device", "isa-debugcon,chardev=e,iobase=0xe9"]);
    let errors = fs::File::create(dir.join("errors")).unwrap();
    Guest(qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap())
}

/// Waits until the guest has said so many characters, or that a write failed; all that it said. It
/// hangs if it says nothing for a minute.
pub(crate) fn wait_for(dir: &Path, count: usize) -> String {
    let read = |name| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let (mut said, mut silent) = (String::new(), 0);
    while silent < 1200 {
        let before = said.len();
        said = read("said");
        if said.len() >= count || said.contains('F') {
            return said;
        }
        silent = if said.len() > before { 0 } else { silent + 1 };
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the guest hangs after {} sectors: {}", said.len(), read("errors"));
}

/// A disk of [`SECTORS`] sectors that boots the guest.
pub(crate) fn disk() -> Vec<u8> {
    let mut content = boot_sector();
    content.resize(usize::from(SECTORS) * 512, 0);
    content
}

/// Whether each sector behind the first is as the guest wrote it.
pub(crate) fn is_written(disk: &[u8]) -> bool {
    let mut sectors = (0_u16..).zip(disk.chunks(512).take(SECTORS.into())).skip(1);
    sectors.all(|(number, sector)| sector[0x48..0x4a] == number.to_le_bytes())
}
