//! A trust service of its own, as processes on loopback, with or without TLS.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use pki::{Ca, CaSpec, Profile, Validity};
use serve::{
    client::{CallError, Exchange, RawAnswer, RawRequest},
    clock::{Clock as _, SystemClock},
    fsfile,
    keys::SigningKey,
    pem,
};

use crate::hsm;

/// The service.
pub(crate) struct Service {
    dir: tempfile::TempDir,
    child: Child,
    address: String,
    tls: bool,
    exchange: Exchange,
}

/// A CA for this test; the server's certificate and key are put into `dir`.
fn certify(dir: &Path) -> Vec<u8> {
    let validity = Validity::new(SystemClock.now(), Duration::from_secs(3600));
    let spec = CaSpec { common_name: "test".to_owned(), path_length: 0, validity };
    let (ca, _) = Ca::create_root(&spec).unwrap();
    let key = SigningKey::generate().unwrap();
    let ip = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    let profile = Profile::TlsServer { name: "trust".to_owned(), dns: Vec::new(), ip };
    let leaf = ca.issue(&profile, key.spki(), validity).unwrap().der;
    fs::write(dir.join("tls.pem"), pem::certificates(&[leaf]).unwrap()).unwrap();
    let secret = STANDARD.encode(key.to_pkcs8().unwrap().expose());
    let text = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
    fsfile::write_atomic(&dir.join("tls.key"), text.as_bytes(), 0o600).unwrap();
    ca.certificate().to_vec()
}

impl Service {
    /// Starts one; `open` answers questions that nobody signed.
    pub(crate) async fn start(tls: bool, open: bool) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), tls, open, "").await.unwrap()
    }

    /// The same in a directory that is there, with more in its configuration; what it says on stderr
    /// if it does not come up.
    pub(crate) async fn start_in(
        dir: tempfile::TempDir,
        tls: bool,
        open: bool,
        more: &str,
    ) -> Result<Self, String> {
        let anchors = if tls { vec![certify(dir.path())] } else { Vec::new() };
        let mut text = format!(
            "state_dir = 'state'\nlisten = '127.0.0.1:0'\naddress_file = 'address'\n\
             anchor = {{ by = 'none' }}\n[front]\nopen_queries = {open}\n[log]\nfilter = 'warn'\n{more}"
        );
        if tls {
            text.push_str("[tls]\ncertificates = 'tls.pem'\nkey = 'tls.key'\n");
        }
        let config = dir.path().join("trust.toml");
        fs::write(&config, text).unwrap();
        // Of an earlier start that is over.
        let _ = fs::remove_file(dir.path().join("address"));
        let child = Command::new(env!("CARGO_BIN_EXE_vouchsafe-trust"))
            .arg("--config")
            .arg(&config)
            .env(hsm::CONFIG, dir.path().join("softhsm2.conf"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let clock = SystemClock::shared();
        let exchange = Exchange::new(&anchors, clock, Duration::from_secs(120)).unwrap();
        let mut service = Self { dir, child, address: String::new(), tls, exchange };
        for _ in 0..3600 {
            let text = fs::read_to_string(service.dir.path().join("address")).unwrap_or_default();
            if !text.is_empty() {
                service.address = text.trim().to_owned();
                return Ok(service);
            }
            if service.child.try_wait().unwrap().is_some() {
                return Err(fs::read_to_string(service.dir.path().join("stderr")).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not come up");
    }

    /// Ends it; its directory stays.
    pub(crate) fn end(mut self) -> tempfile::TempDir {
        self.stop();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// Where `path` is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http{}://{}{path}", if self.tls { "s" } else { "" }, self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> RawAnswer {
        self.exchange.run(request(Method::GET, self.url(path), None, Vec::new())).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, kind: &'static str, body: Vec<u8>) -> RawAnswer {
        let request = request(Method::POST, self.url(path), Some(kind), body);
        self.exchange.run(request).await.unwrap()
    }

    /// Reads `path` in clear.
    pub(crate) async fn without_tls(&self, path: &str) -> Result<RawAnswer, CallError> {
        let plain = Exchange::new(&[], SystemClock::shared(), Duration::from_secs(120)).unwrap();
        let url = format!("http://{}{path}", self.address);
        plain.run(request(Method::GET, url, None, Vec::new())).await
    }

    /// Ends it as an operator does, and waits.
    pub(crate) fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    /// Everything in its audit log, as it stands in the files.
    pub(crate) fn audited(&self) -> String {
        let files = fs::read_dir(self.dir.path().join("state/audit")).unwrap();
        let read = |file: std::io::Result<fs::DirEntry>| fs::read(file.unwrap().path());
        let all = files.filter_map(|file| read(file).ok()).flatten().collect::<Vec<u8>>();
        String::from_utf8_lossy(&all).into_owned()
    }
}

fn request(
    method: Method,
    url: String,
    content_type: Option<&'static str>,
    body: Vec<u8>,
) -> RawRequest {
    let within = Duration::from_secs(120);
    RawRequest { method, url, content_type, body, most: 1 << 20, within }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
