//! What goes over the wire between two trust services, and what is refused there.

use std::{
    io::{Read, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    checks::Checks,
    sites::{HOSTS, Sites},
    world::run,
};

/// A wire tap: everything between A and B goes through it, and is kept.
struct Tap {
    url: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(target: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("https://{}", listener.local_addr()?);
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&seen);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let kept = Arc::clone(&kept);
                    thread::spawn(move || pass(from, to, &kept));
                }
            }
        });
        Ok(Self { url, seen })
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16384];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        kept.lock().expect("nobody panics with it").extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// A migration over a wire that somebody listens to.
pub fn watched(sites: &mut Sites<'_>, checks: &mut Checks) {
    let name = "tapped-key";
    let registered = sites.register(0, name, "tapped");
    checks.check("a key of a VM is registered at A", registered.is_ok(), format!("{registered:?}"));
    let file = sites.world.path("hosts/b/trust/peer-address");
    let target = std::fs::read_to_string(file).unwrap_or_default();
    let Ok(tap) = Tap::before(target.trim().to_owned()) else { return };
    let said = sites.key(0, &["migrate", "--owner", "tapped", "--to", "b", "--url", &tap.url]);
    checks.check(
        "`vouchsafe key migrate` moves everything of the VM",
        said.code == 0,
        said.complaint(),
    );
    let answers = [0, 1].map(|at| sites.answers(at, name));
    let moved = answers == [Some(false), Some(true)];
    checks.check("after it B answers for the key, and A does not", moved, format!("{answers:?}"));
    let seen = tap.seen.lock().expect("nobody panics with it");
    let list = sites.key(1, &["list"]).json();
    let bindings = list["bindings"].as_array().cloned().unwrap_or_default();
    let ours = bindings.iter().find(|one| one["binding"]["name"] == name);
    let key = ours.and_then(|one| one["binding"]["key"].as_str()).unwrap_or_default().to_owned();
    let raw = serve::pem::parse_public_key(
        format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n").as_bytes(),
    );
    let has = |part: &[u8]| !part.is_empty() && seen.windows(part.len()).any(|at| at == part);
    let clean = !key.is_empty()
        && !has(key.as_bytes())
        && !has(name.as_bytes())
        && !raw.is_some_and(|raw| has(&raw));
    let what = "a capture of the wire holds neither the key nor its name";
    checks.check(what, clean && seen.len() > 4096, format!("{} bytes, key {key}", seen.len()));
}

/// Each wrong turn has its name.
pub fn refused(sites: &Sites<'_>, checks: &mut Checks) {
    let again = sites.key(0, &["migrate", "--owner", "tapped", "--to", "b"]);
    checks.check(
        "what has moved away does not move again: owner-moved",
        again.refusal() == "owner-moved",
        again.refusal(),
    );
    let late = sites.key(0, &["authorize", "--name", "late", "--owner", "tapped"]);
    checks.check(
        "nothing new for it at A: owner-moved",
        late.refusal() == "owner-moved",
        late.refusal(),
    );
    let nobody = sites.key(0, &["migrate", "--owner", "nobody", "--to", "b"]);
    checks.check(
        "an owner without keys: owner-unknown",
        nobody.refusal() == "owner-unknown",
        nobody.refusal(),
    );
    let file = sites.world.path(&format!("hosts/{}/trust/peer-address", HOSTS[1]));
    let target = std::fs::read_to_string(file).unwrap_or_default();
    let url = format!("https://{}/v1/migrations", target.trim());
    let body = r#"{"statement":"e30=","signature":"e30=","passport":"e30="}"#;
    let json = "content-type: application/json";
    let said = run("curl", &["-sk", "-H", json, "-d", body, &url]);
    let bare = said.json()["name"] == "passport-missing";
    checks.check("a caller without a passport: passport-missing", bare, said.stdout);
    let record = sites.world.record();
    let file = |field: &str| record["authority"][field].as_str().unwrap_or_default().to_owned();
    let (cert, key) = (file("client_cert"), file("client_key"));
    let said = run("curl", &["-sk", "--cert", &cert, "--key", &key, "-H", json, "-d", body, &url]);
    let operator = said.json()["name"] == "passport-missing";
    checks.check("an operator's certificate is no passport", operator, said.stdout);
}
