//! The export over vhost-user-blk, with a guest in a real QEMU on the other end.

use crate::{
    boot::{self, SECTORS},
    fixture::{Dir, outside, tool},
    formats::make,
};

/// A volume that boots the guest; what opens it.
fn bootable(dir: &Dir, format: &str) -> Option<&'static str> {
    let line = make(dir, format)?;
    let source = dir.file("boot.raw", &boot::disk()).to_str().unwrap().to_owned();
    let served = dir.serve(line);
    outside("nbdcopy", &["--flush", &source, &served.uri()])?;
    served.stop();
    Some(line)
}

#[test]
fn a_guest_boots_from_every_format_and_writes_it_over_vhost_user() {
    for format in ["gcm", "aegis", "luks2", "luks1", "raw"] {
        let dir = Dir::new();
        let Some(qemu) = tool("qemu-system-x86_64") else { return };
        let Some(line) = bootable(&dir, format) else { continue };
        let served = dir.serve(&format!("{line} --vhost-user"));
        let guest = boot::start(qemu, &dir.path(""));
        let said = boot::wait_for(&dir.path(""), SECTORS.into());
        assert!(said.ends_with('E') && said.len() == usize::from(SECTORS), "{format}: {said}");
        drop(guest);
        served.stop();
        let served = dir.serve(&format!("{line} --read-only"));
        outside("nbdcopy", &[&served.uri(), &dir.text("back.raw")]);
        served.stop();
        assert!(boot::is_written(&dir.read("back.raw")), "{format}");
        if format != "raw" {
            dir.done(&format!("check {line}"));
        }
    }
}

#[test]
fn a_guest_of_a_read_only_export_is_told_that_it_cannot_write() {
    let dir = Dir::new();
    let Some(qemu) = tool("qemu-system-x86_64") else { return };
    let Some(line) = bootable(&dir, "gcm") else { return };
    let before = dir.read("v");
    let served = dir.serve(&format!("{line} --vhost-user --read-only"));
    let guest = boot::start(qemu, &dir.path(""));
    assert_eq!(boot::wait_for(&dir.path(""), SECTORS.into()), "F");
    drop(guest);
    served.stop();
    assert!(dir.read("v") == before);
}

#[test]
fn an_export_ends_in_good_order_under_a_guest_and_the_guest_goes_on_with_the_next() {
    let dir = Dir::new();
    let Some(qemu) = tool("qemu-system-x86_64") else { return };
    let Some(line) = bootable(&dir, "gcm") else { return };
    let served = dir.serve(&format!("{line} --vhost-user"));
    let guest = boot::start(qemu, &dir.path(""));
    boot::wait_for(&dir.path(""), 500);
    served.stop();
    let served = dir.serve(&format!("{line} --vhost-user"));
    let said = boot::wait_for(&dir.path(""), SECTORS.into());
    assert!(said.ends_with('E') && said.len() == usize::from(SECTORS), "{said}");
    drop(guest);
    served.stop();
    dir.done(&format!("check {line}"));
}
