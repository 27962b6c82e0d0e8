//! A guest over vhost-user-blk writes on while the disk process is killed and started again under it.

use std::fs;

use crate::{
    boot::{self, SECTORS},
    process::{Disk, tool, with_volume},
};

#[test]
fn a_guest_writes_on_while_the_disk_process_is_killed_under_it() {
    let Some(qemu) = tool("qemu-system-x86_64") else { return };
    let dir = with_volume(&boot::disk());
    let mut disk = Disk::serve(dir.path(), &["--vhost-user"]);
    let guest = boot::start(qemu, dir.path());
    for kills in 1..=3 {
        boot::wait_for(dir.path(), kills * 500);
        disk.kill();
        disk = Disk::serve(dir.path(), &["--vhost-user"]);
    }
    let said = boot::wait_for(dir.path(), usize::from(SECTORS));
    assert!(said.ends_with('E') && said.len() == usize::from(SECTORS), "{} said", said.len());
    drop(guest);
    assert_eq!(disk.terminate(), 0);
    let disk = Disk::serve(dir.path(), &["--read-only"]);
    let mut copy = tool("qemu-img").unwrap();
    let uri = crate::process::uri(dir.path());
    copy.args(["convert", "-f", "raw", "-O", "raw", &uri]).arg(dir.path().join("back"));
    assert!(copy.status().unwrap().success());
    assert!(boot::is_written(&fs::read(dir.path().join("back")).unwrap()));
    assert_eq!(disk.terminate(), 0);
}
