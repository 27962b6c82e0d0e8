//! The PKI that both ways lead to: one CA in a process of its own, which speaks CMP and OCSP and
//! publishes a CRL of 1,000 entries, over HTTP. It keeps everything in memory: what its store would
//! cost, it would cost both ways.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use pki::{
    Ca, CaSpec, KeyUses, OcspStatus, Profile, Responder, Revocation, RevocationReason, UserCert,
    Validity,
};
use serve::{
    clock::{Clock as _, SystemClock},
    pem,
};

use super::cmp::{self, Asked};

/// What CMP messages are protected with, for everybody.
pub const REFERENCE: &str = "bench";
const SECRET: &str = "what both sides know";
/// Certificates that were revoked before anything begins.
const REVOKED: usize = 1000;
const DAY: Duration = Duration::from_secs(86_400);

/// The process, which ends with this value.
#[derive(Debug)]
pub struct Pki {
    child: Child,
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
}

impl Pki {
    /// Starts it. Certificates say that the CRL is at `crl_url`.
    pub fn start(crl_url: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pki").tempdir_in("/tmp").expect("a folder");
        let secret = dir.path().join("secret");
        serve::fsfile::write_atomic(&secret, SECRET.as_bytes(), 0o600).expect("a file");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("--pki")
            .arg(dir.path())
            .arg(crl_url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the PKI starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        let address = line.trim().parse().expect("its address");
        Self { child, address, dir }
    }

    /// A file of it, as text.
    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a plain path").to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the CA knows.
struct State {
    ca: Ca,
    responder: Responder,
    crl_url: String,
    issued: BTreeSet<[u8; 16]>,
    revoked: Vec<Revocation>,
    crl: Option<Vec<u8>>,
    number: u64,
}

/// The process's whole life, if these are its arguments; it ends when its parent does.
pub fn run_if_asked() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|word| word == "--pki") else { return false };
    let state = Arc::new(Mutex::new(State::new(Path::new(&arguments[at + 1]), &arguments[at + 2])));
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    println!("{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            thread::spawn(move || converse(&state, &stream));
        }
    });
    let _ = std::io::stdin().read(&mut [0]);
    true
}

impl State {
    fn new(dir: &Path, crl_url: &str) -> Self {
        let now = SystemClock.now();
        let validity = Validity::backdated(now, DAY, 3000 * DAY);
        let common_name = "Example PKI".to_owned();
        let spec = CaSpec { common_name, path_length: 0, validity };
        let (ca, key) = Ca::create_root(&spec).expect("a CA");
        pem::write_certificates(&dir.join("ca.pem"), &[ca.certificate()]).expect("a file");
        let responder = Responder::load(ca.certificate(), &key, ca.certificate());
        let mut revoked = Vec::new();
        for _ in 0..REVOKED {
            let mut serial = [0; 16];
            aws_lc_rs::rand::fill(&mut serial).expect("randomness");
            serial[0] = serial[0] & 0x3f | 0x40;
            revoked.push(Revocation { serial, at: now, reason: RevocationReason::Superseded });
        }
        Self {
            ca,
            responder: responder.expect("a responder"),
            crl_url: crl_url.to_owned(),
            issued: BTreeSet::new(),
            revoked,
            crl: None,
            number: 1,
        }
    }

    fn cmp(&mut self, message: &[u8]) -> Result<Vec<u8>, &'static str> {
        let request = cmp::open(message, SECRET.as_bytes())?;
        let certificate = match &request.asked {
            Asked::Certificate { name, spki } => Some(self.issue(name, spki)?),
            Asked::Revocation { serial } => {
                let serial = fixed(serial).ok_or("the serial number")?;
                let at = SystemClock.now();
                let reason = RevocationReason::CessationOfOperation;
                self.revoked.push(Revocation { serial, at, reason });
                self.crl = None;
                None
            }
            Asked::Confirmation => None,
        };
        Ok(request.answer(certificate.as_deref()))
    }

    fn issue(&mut self, name: &str, spki: &[u8]) -> Result<Vec<u8>, &'static str> {
        let uses = KeyUses { signature: true, ..KeyUses::default() };
        let crl_url = Some(self.crl_url.clone());
        let cert = UserCert { name: name.to_owned(), uses, crl_url, ..UserCert::default() };
        let validity = Validity::backdated(SystemClock.now(), Duration::from_secs(60), 365 * DAY);
        let issued = self.ca.issue(&Profile::User(cert), spki, validity);
        let issued = issued.map_err(|_| "it cannot be certified")?;
        self.issued.insert(issued.serial);
        Ok(issued.der)
    }

    fn ocsp(&self, request: &[u8]) -> Vec<u8> {
        let status = |serial: &[u8]| {
            let serial = fixed(serial).unwrap_or_default();
            let gone = self.revoked.iter().find(|one| one.serial == serial);
            match gone {
                Some(one) => OcspStatus::Revoked { at: one.at, reason: one.reason },
                None if self.issued.contains(&serial) => OcspStatus::Good,
                None => OcspStatus::Unknown,
            }
        };
        let reply = self.responder.respond(request, SystemClock.now(), DAY, status);
        reply.expect("an answer").der
    }

    fn crl(&mut self) -> Vec<u8> {
        if let Some(crl) = &self.crl {
            return crl.clone();
        }
        self.number += 1;
        let validity = Validity::backdated(SystemClock.now(), Duration::from_secs(60), DAY);
        let crl = self.ca.issue_crl(self.number, validity, &self.revoked).expect("a CRL");
        self.crl = Some(crl.clone());
        crl
    }
}

/// A serial number in 16 bytes.
fn fixed(serial: &[u8]) -> Option<[u8; 16]> {
    let used = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len());
    let serial = &serial[used..];
    let mut all = [0; 16];
    let at = all.len().checked_sub(serial.len())?;
    all[at..].copy_from_slice(serial);
    Some(all)
}

fn held(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
fn converse(state: &Mutex<State>, stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some((first, keep, body)) = request(&mut reader) {
        let mut words = first.split(' ');
        let answer = match (words.next(), words.next().map(|path| path.trim_start_matches('/'))) {
            (Some("POST"), Some("cmp")) => {
                held(state).cmp(&body).map(|answer| ("application/pkixcmp", answer))
            }
            (Some("POST"), Some("ocsp")) => {
                Ok(("application/ocsp-response", held(state).ocsp(&body)))
            }
            (Some("GET"), Some("crl.der")) => Ok(("application/pkix-crl", held(state).crl())),
            _ => Err("nothing is here"),
        };
        let (status, kind, body) = match answer {
            Ok((kind, body)) => ("200 OK", kind, body),
            Err(why) => ("400 Bad Request", "text/plain", why.as_bytes().to_vec()),
        };
        let connection = if keep { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
             connection: {connection}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() || !keep {
            return;
        }
    }
}

/// First line, whether the connection is kept, and the body.
fn request(reader: &mut BufReader<&TcpStream>) -> Option<(String, bool, Vec<u8>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
    let (mut keep, mut length) = (first.trim_end().ends_with("HTTP/1.1"), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().ok()?,
            Some(("connection", value)) => keep = value.trim() == "keep-alive",
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first.trim_end().to_owned(), keep, body))
}
