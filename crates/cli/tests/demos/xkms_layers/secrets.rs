//! That a trust service in the default manner holds no CA's key: by what it says, what it has open,
//! and every key that is sealed in its store. The last is looked at by opening a copy with the root
//! key, and the same look finds the CA's key in a service of the manner `full`.

use std::{fs, sync::Arc};

use base64::Engine as _;
use model::Secret;
use serve::keys::SigningKey;
use store::{KeyId, LocalStore, Prefix, Range, SealKeys, SealedStore};

use crate::{checks::Checks, server::Server};

/// The public keys of everything secret in the store of a service that does not run.
fn kept_keys(server: &Server<'_>) -> Result<Vec<Vec<u8>>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let state = server.dir.join("state");
    let copy = server.file("store-copy.redb");
    fs::copy(state.join("store.redb"), &copy).map_err(|error| text(&error))?;
    let root = fs::read(state.join("root.key")).map_err(|error| text(&error))?;
    let root: [u8; 32] = root.try_into().map_err(|_| "the root key's length".to_owned())?;
    let store = LocalStore::open(&copy).map_err(|error| text(&error))?;
    let sealed = SealedStore::new(Arc::new(store), SealKeys::new(KeyId(1), Secret::new(root)));
    let prefix = Prefix::new("secret/").map_err(|error| text(&error))?;
    let range = store::wait(sealed.range(Range::prefix(prefix)));
    let range = range.map_err(|error| text(&error))?;
    let keys = range.entries.iter().map(|entry| {
        let value: serde_json::Value = serde_json::from_slice(entry.value.expose()).ok()?;
        let key = base64::engine::general_purpose::STANDARD.decode(value["key"].as_str()?).ok()?;
        Some(SigningKey::from_pkcs8(&Secret::new(key)).ok()?.spki().to_vec())
    });
    let keys: Option<Vec<_>> = keys.collect();
    keys.filter(|keys| !keys.is_empty()).ok_or_else(|| "no key is read there".to_owned())
}

/// The public key of the CA that a service names.
fn ca_key(server: &Server<'_>) -> Option<Vec<u8>> {
    let ca = serve::pem::read_certificates(&server.ca).ok()?;
    Some(pki::CertFacts::read(ca.first()?).ok()?.spki)
}

/// No CA's key, in a service of the default manner that runs; it is ended and started again.
pub fn no_ca(server: &Server<'_>, checks: &mut Checks) {
    let said = server.world.vouchsafe(&["key", "status", "--host", &server.host]).json();
    let manner = said["centre"]["manner"].clone();
    checks.check("`vouchsafe key status`: hybrid, at a centre", manner == "hybrid", manner);
    let strange = open_files(server);
    let what = "keeper and reader have open what is their own only: no key file, no token";
    checks.check(what, strange.is_empty(), strange.join(" "));
    server.signal("-TERM");
    let (keys, ca) = (kept_keys(server), ca_key(server));
    let none = matches!((&keys, &ca), (Ok(keys), Some(ca)) if !keys.contains(ca));
    let seen = keys.map(|keys| format!("{} keys", keys.len())).unwrap_or_else(|said| said);
    checks.check("none of the keys in its sealed store is the CA's", none, seen);
    let up = server.up_again();
    checks.check("it runs again", up.is_ok(), up.err().unwrap_or_default());
}

/// The same look, where there is one; the service ends.
pub fn own_ca(server: &Server<'_>, checks: &mut Checks) {
    server.signal("-TERM");
    let (keys, ca) = (kept_keys(server), ca_key(server));
    let found = matches!((&keys, &ca), (Ok(keys), Some(ca)) if keys.contains(ca));
    let what = "in the manner `full` the same look finds the CA's key";
    checks.check(what, found, keys.err().unwrap_or_default());
}

/// What both processes have open that is no socket, pipe or memory and not in the service's state.
fn open_files(server: &Server<'_>) -> Vec<String> {
    let state = server.dir.join("state");
    let own = [state.join("store.redb"), state.join("audit"), server.world.path("log")];
    let mut strange = Vec::new();
    for pid in [Some(server.keeper()), server.reader()].into_iter().flatten() {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let targets: Vec<_> =
            entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        if targets.is_empty() {
            strange.push(format!("nothing is seen of {pid}"));
        }
        strange.extend(targets.iter().filter_map(|target| {
            let text = target.to_str()?;
            let harmless = ["socket:", "pipe:", "anon_inode:", "/dev/null", "/memfd:"];
            let is_own = own.iter().any(|own| target.starts_with(own));
            let fine = is_own || harmless.iter().any(|word| text.starts_with(word));
            (!fine).then(|| text.to_owned())
        }));
    }
    strange
}
