//! A private key that is kept under a key in the TPM of its server, and goes with its VM to the TPM of
//! the other.

use std::path::Path;

use super::sites::{HOSTS, Sites};
use crate::{
    checks::Checks,
    tap::{Tap, holds_none},
    xkms_server::waiting::{pkcs1, private_key},
};

/// Both services keep what they make for VMs in the TPM.
pub fn prepare(dir: &Path) {
    for host in HOSTS {
        let folder = dir.join(format!("hosts/{host}/trust/trust.d"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = "[keeper]\ngenerate_keys = true\nescrow = true\nkeep = \"tpm\"\n";
        std::fs::write(folder.join("keep.toml"), text).expect("a file");
    }
}

/// What the service's audit log has, as text.
fn audited(sites: &Sites<'_>, at: usize) -> String {
    let dir = sites.world.path(&format!("hosts/{}/trust/state/audit", HOSTS[at]));
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect()
}

/// A key that the service made, from A's TPM to B's.
pub fn moved(sites: &mut Sites<'_>, checks: &mut Checks) {
    let said = sites.key(0, &["authorize", "--name", "resident", "--owner", "housed"]);
    let phrase = said.json()["pass_phrase"].as_str().unwrap_or_default().to_owned();
    let delivered = |at: usize| {
        let server = &sites.servers[at];
        let answer = server.ask(server.register("resident", &phrase, None));
        pkcs1(private_key(&answer, &phrase).as_ref())
    };
    let key = delivered(0);
    let kept = audited(sites, 0).contains("key-resident-made");
    let what = "A makes a key for a VM, and keeps it under a key in its server's TPM";
    checks.check(what, key.is_some() && kept, said.complaint());
    checks.check("asked again, the TPM opens it again", key.is_some() && delivered(0) == key, "");
    let file = sites.world.path("hosts/b/trust/peer-address");
    let target = std::fs::read_to_string(file).unwrap_or_default();
    let Ok(tap) = Tap::before(target.trim().to_owned()) else { return };
    let said = sites.key(0, &["migrate", "--owner", "housed", "--to", "b", "--url", &tap.url]);
    checks.check("it moves from TPM to TPM", said.code == 0, said.complaint());
    let approved =
        sites.world.audit().iter().any(|entry| entry["event"] == "key-duplication-approved");
    checks.check("to the parent that the authority named, and logged", approved, "");
    let there = delivered(1);
    checks.check("B's TPM opens it: the same key", there.is_some() && there == key, "");
    checks.check("A has nothing of it", delivered(0).is_none(), "");
    let seen = tap.seen();
    let bytes = key.unwrap_or_default();
    let parts: Vec<&[u8]> = bytes.chunks_exact(48).skip(6).collect();
    let clean = !parts.is_empty() && seen.len() > 4096 && holds_none(&seen, &parts);
    checks.check("a capture holds none of it", clean, format!("{} bytes", seen.len()));
}
