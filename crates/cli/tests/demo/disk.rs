//! What stands on the disk, as stock tools see it.

use std::{fs::File, io::Read, path::Path, sync::Mutex};

use crate::{
    checks::Checks,
    world::{World, run},
};

static MARKER: Mutex<String> = Mutex::new(String::new());

/// The marker that the guest wrote at its first start.
pub fn marker() -> String {
    MARKER.lock().map(|marker| marker.clone()).unwrap_or_default()
}

/// Whether `needle` stands anywhere in the file.
fn contains(path: &Path, needle: &[u8]) -> bool {
    let mut file = File::open(path).expect("the file is there");
    let mut window = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).expect("the file can be read");
        if n == 0 {
            return false;
        }
        window.extend_from_slice(&buffer[..n]);
        if window.windows(needle.len()).any(|part| part == needle) {
            return true;
        }
        let keep = window.len().min(needle.len());
        window.drain(..window.len() - keep);
    }
}

pub fn encrypted(world: &World, checks: &mut Checks) {
    checks.part("the VM's disk on the host");
    let console = world.console("v1");
    let marker = console
        .split_once("marker-written ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or_default()
        .to_owned();
    let volume = world.path("hosts/a/state/vms/v1/boot.img");
    let prefix = b"VOUCHSAFE-MARKER-";
    checks.check(
        "the guest's marker stands nowhere in the volume's file",
        !marker.is_empty() && !contains(&volume, prefix),
        &marker,
    );
    if let Ok(mut kept) = MARKER.lock() {
        *kept = marker;
    }
    let path = volume.to_str().expect("a plain path");
    let said = run("cryptsetup", &["luksDump", path]);
    let facts = ["aes-xts-plain64", "vouchsafe-kmi", "4096 [bytes]"];
    let found = facts.iter().all(|fact| said.stdout.contains(fact));
    checks.check(
        "cryptsetup luksDump reads it: XTS, 4 KiB sectors, our token",
        found,
        said.complaint(),
    );
    let wrong = world.path("wrong.key");
    std::fs::write(&wrong, [0x5a; 32]).expect("a file");
    let key = wrong.to_str().expect("a plain path");
    let said = run("cryptsetup", &["open", "--test-passphrase", "--key-file", key, path]);
    checks.check(
        "without a grant's key it does not open",
        said.code == 2,
        "cryptsetup: no key available",
    );
}
