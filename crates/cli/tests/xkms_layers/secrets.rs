//! Which processes hold the CA's key: the memory of each is looked through for it.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use crate::{
    checks::Checks,
    server::Server,
    world::{World, run},
};

/// Largest mapping that is looked through.
const LARGEST: u64 = 256 << 20;

/// The end of the CA's private key as it is written (SEC 1, inside PKCS #8): the tag of its public
/// half, and that half. A certificate has the half without this tag.
fn written_key(server: &Server<'_>) -> Option<Vec<u8>> {
    let ca = server.ca.to_str()?;
    let said = run("openssl", &["x509", "-in", ca, "-noout", "-pubkey"]);
    let spki = serve::pem::parse_public_key(said.stdout.as_bytes())?;
    let point = spki.get(spki.len().checked_sub(65)?..)?;
    Some([&[0xa1, 0x44, 0x03, 0x42, 0x00], point].concat())
}

/// Whether a process has these bytes in memory that it can write.
fn holds(pid: u64, wanted: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(mut memory) = File::open(format!("/proc/{pid}/mem")) else { return false };
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
        let Some((from, to)) = range.map(|(from, to)| (number(from), number(to))) else {
            return false;
        };
        let mut content = Vec::new();
        memory.seek(SeekFrom::Start(from)).is_ok()
            && memory.by_ref().take((to - from).min(LARGEST)).read_to_end(&mut content).is_ok()
            && content.windows(wanted.len()).any(|part| part == wanted)
    })
}

/// The centre has it, and no process of a trust service has.
pub fn no_ca_key(world: &World, a: &Server<'_>, b: &Server<'_>, checks: &mut Checks) {
    let Some(wanted) = written_key(a) else {
        checks.check("the CA's public key is read", false, "");
        return;
    };
    let text = std::fs::read_to_string(world.path("processes.json")).unwrap_or_default();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let centre = all["centre"]["pid"].as_u64().unwrap_or(0);
    checks.check("the CA's key is found in the centre's memory", holds(centre, &wanted), "");
    for server in [a, b] {
        let keeper = u64::from(server.keeper());
        let none = keeper != 0 && !holds(keeper, &wanted);
        checks.check(&format!("it is not in the keeper of {}", server.host), none, "");
    }
}
