//! What must not be believed on a VM's port: somebody in the service's place, somebody between the
//! two, and a client that was changed.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use model::api::service::Service;
use pki::Profile;
use serve::{keys::SigningKey, pem};

use super::{
    guest::{Guest, noted},
    pkis::passport,
    port::Taken,
};
use crate::{
    checks::Checks,
    foreign::{root, today},
    server::Server,
};

/// How long the one in the middle waits for what it passes on.
const LONG: Duration = Duration::from_secs(180);

/// A TLS program of others' on a port, ended with this.
struct Tls(Child);

impl Tls {
    /// A server at the socket `at`.
    fn server(at: &str, [cert, key]: &[String; 2]) -> Self {
        let words = ["s_server", "-quiet", "-tls1_3", "-unlink", "-unix", at];
        Self::run(&[&words[..], &["-cert", cert, "-key", key]].concat())
    }

    /// A client of whoever is at the socket `at`, and takes any server.
    fn client(at: &str) -> Self {
        Self::run(&["s_client", "-quiet", "-tls1_3", "-unix", at])
    }

    fn run(words: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("openssl starts"))
    }
}

impl Tls {
    /// What goes in and what comes out.
    fn ends(&mut self) -> Ends {
        let ends = self.0.stdin.take().zip(self.0.stdout.take());
        ends.expect("both are piped, and taken once")
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that is tried on the port of a VM.
pub fn attacked(server: &Server<'_>, checks: &mut Checks, guest: &Guest<'_>) {
    let mut taken = match Taken::from(server, guest.vm) {
        Ok(taken) => taken,
        Err(error) => {
            checks.check("the VM's port is taken from the trust service", false, error);
            return;
        }
    };
    let at = server.file("impostor.sock");
    if let Err(error) = taken.serve(at.clone()) {
        checks.check("the VM's port is taken", false, error);
        return;
    }
    let at = at.to_str().expect("a plain path");
    impostors(server, checks, guest, at);
    between(server, checks, guest, &mut taken, at);
    drop(taken);
    guest.admitted(checks, "the port is the trust service's again, and the client is admitted");
}

/// A service that is not a measured host's trust service hears nothing.
fn impostors(server: &Server<'_>, checks: &mut Checks, guest: &Guest<'_>, at: &str) {
    let own = ["impostor.pem", "impostor.key"].map(|name| server.put(name, ""));
    let key = SigningKey::generate().expect("a key");
    let verdict = model::Digest::sha256([7; 32]);
    let host = guest.host.parse().expect("a name");
    let profile = Profile::Service { service: Service::TrustGuests, host, verdict };
    let issued = root("Vouchsafe authority").issue(&profile, key.spki(), today()).expect("issued");
    pem::write_certificates(own[0].as_ref(), &[&issued.der]).expect("a file");
    pem::write_key(own[1].as_ref(), &key.to_pkcs8().expect("a key")).expect("a file");
    let what = "a service with a passport of another authority";
    let tls = Tls::server(at, &own);
    guest.refused(checks, what, "service-tampered", false);
    drop(tls);
    let what = "a service with the centre's passport, stolen";
    let _tls = Tls::server(at, &passport(server.world, Service::Centre));
    guest.refused(checks, what, "service-tampered", false);
}

/// Somebody with the very passport that guests expect, between guest and trust service: he passes
/// the challenge on to the VM and its proof back, then sends the proof once more.
fn between(
    server: &Server<'_>,
    checks: &mut Checks,
    guest: &Guest<'_>,
    taken: &mut Taken,
    at: &str,
) {
    let mut near = Tls::server(at, &passport(server.world, Service::TrustGuests));
    let client = server.file("middle.sock");
    if let Err(error) = taken.dial(&client) {
        checks.check("the trust service comes to the port", false, error);
        return;
    }
    let mut far = Tls::client(client.to_str().expect("a plain path"));
    let (said, names) = mpsc::channel();
    let ends = [&mut near, &mut far].map(Tls::ends);
    thread::spawn(move || said.send(middle(ends)));
    let what = "its proof, passed on by somebody in the middle";
    guest.refused(checks, what, "quote-relayed", true);
    let names = names.recv_timeout(LONG).ok().flatten().unwrap_or_default();
    let replayed = names[1] == "quote-replayed" && noted(server.world, guest.host, &names[1]);
    let what = "the same proof, sent again: `quote-replayed`";
    checks.check(what, replayed, names.join(", "));
}

type Ends = (ChildStdin, ChildStdout);

/// Passes one challenge and its answer on, and the answer twice: what the service called that.
fn middle([mut guest, mut service]: [Ends; 2]) -> Option<[String; 2]> {
    let pass = |from: &mut ChildStdout, to: &mut ChildStdin| {
        let message = message(from)?;
        to.write_all(&message).and_then(|()| to.flush()).ok()?;
        Some(message)
    };
    pass(&mut guest.1, &mut service.0)?;
    pass(&mut service.1, &mut guest.0)?;
    let proof = pass(&mut guest.1, &mut service.0)?;
    let relayed = pass(&mut service.1, &mut guest.0)?;
    service.0.write_all(&proof).and_then(|()| service.0.flush()).ok()?;
    let replayed = message(&mut service.1)?;
    Some([relayed, replayed].map(|answer| name_of(&answer)))
}

/// One message of HTTP: its head, and as much as that says.
fn message(from: &mut impl Read) -> Option<Vec<u8>> {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte).ok()?;
        all.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&all).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    from.read_exact(&mut body).ok()?;
    all.extend(body);
    Some(all)
}

/// The name of the refusal that an answer is.
fn name_of(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    problem["name"].as_str().unwrap_or(body).to_owned()
}
