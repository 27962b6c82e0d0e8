//! The server's agent as far as the trust service asks it: which VMs run, what was measured in them,
//! passports.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use model::{
    Digest, Epoch,
    agent::{AgentPhase, AgentPids, AgentStatus, AgentVm},
    api::{
        Bytes,
        service::{Certified, Service, ServiceKey},
    },
    guest::Measured,
};
use pki::{Ca, CaSpec, Profile, Validity};

pub(crate) struct Agent {
    /// The authority's CA, PEM.
    pub(crate) ca_file: PathBuf,
    pub(crate) measured: Mutex<Measured>,
    /// How long passports last, seconds; none: there is no authority that gives any.
    pub(crate) life_s: Mutex<Option<u64>>,
    ca: Ca,
}

/// The one VM of this server.
const MEASURED: &str = "/v1/vms/v1/measured";
/// The answer about any other, and of an agent that has no passport to give.
const UNKNOWN: &[u8] =
    br#"{"type":"urn:vouchsafe:error:unknown","title":"no such VM","status":404,"name":"unknown"}"#;
const PROBLEM: &str = "problem+json";

impl Agent {
    pub(crate) fn start(dir: &Path, measured: Measured) -> Arc<Self> {
        let now = time::OffsetDateTime::now_utc();
        let validity = Validity::new(now, Duration::from_secs(3600));
        let spec = CaSpec { common_name: "authority".to_owned(), path_length: 0, validity };
        let ca = Ca::create_root(&spec).unwrap().0;
        let (socket, ca_file) = (dir.join("agent"), dir.join("ca.pem"));
        std::fs::write(&ca_file, pem(ca.certificate())).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let measured = Mutex::new(measured);
        let agent = Arc::new(Self { ca_file, measured, life_s: Mutex::new(Some(600)), ca });
        let serving = Arc::clone(&agent);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let agent = Arc::clone(&serving);
                thread::spawn(move || agent.converse(stream));
            }
        });
        agent
    }

    fn converse(&self, mut stream: UnixStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut line, mut length) = (String::new(), 0);
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
            loop {
                let mut field = String::new();
                reader.read_line(&mut field).unwrap();
                if field.trim().is_empty() {
                    break;
                }
                let (name, value) = field.split_once(':').unwrap();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = self.answer(&path, &body);
            let (status, kind) =
                if answer.is_some() { ("200 OK", "json") } else { ("404 Not Found", PROBLEM) };
            let answer = answer.unwrap_or_else(|| UNKNOWN.to_vec());
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/{kind}\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            if stream.write_all(&[head.into_bytes(), answer].concat()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, path: &str, body: &[u8]) -> Option<Vec<u8>> {
        Some(match path {
            "/v1/status" => serde_json::to_vec(&status()).unwrap(),
            MEASURED => serde_json::to_vec(&*self.measured.lock().unwrap()).unwrap(),
            _ if path.ends_with("/measured") => return None,
            _ => serde_json::to_vec(&self.certify((*self.life_s.lock().unwrap())?, body)).unwrap(),
        })
    }

    fn certify(&self, life_s: u64, body: &[u8]) -> Certified {
        let key: ServiceKey = serde_json::from_slice(body).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let (back, life) = (Duration::from_secs(1), Duration::from_secs(life_s));
        let profile = Profile::Service {
            service: Service::TrustGuests,
            host: "a".parse().unwrap(),
            verdict: Digest::sha256([1; 32]),
        };
        let validity = Validity::backdated(now, back, life);
        let issued = self.ca.issue(&profile, &key.spki.0, validity).unwrap();
        Certified {
            certificate: Bytes(issued.der),
            expires_at: u64::try_from(now.unix_timestamp()).unwrap() * 1000 + life_s * 1000,
            anchors: vec![Bytes(self.ca.certificate().to_vec())],
        }
    }
}

fn status() -> AgentStatus {
    let vm = AgentVm {
        vm: "v1".parse().unwrap(),
        phase: AgentPhase::Running,
        detail: String::new(),
        epoch: Epoch(1),
        trusted: Some(true),
        pids: AgentPids::default(),
        last: None,
    };
    AgentStatus {
        version: String::new(),
        host: "a".parse().unwrap(),
        pid: 1,
        accel: None,
        assurance: "software".to_owned(),
        mode: None,
        session: None,
        session_error: None,
        session_refused: None,
        lease_until: 0,
        spooled: 0,
        vms: vec![vm],
    }
}

pub(crate) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}
