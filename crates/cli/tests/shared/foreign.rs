//! Foreign PKIs as processes: a CA that speaks CMP (`openssl cmp`), and one that speaks ACME
//! (pebble). Shared with the tests of the key-management centre.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use pki::{Ca, CaSigner, CaSpec, Profile, Validity};
use serve::{
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
    pem,
};

/// How long a certificate or list lasts.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A child process that ends with the test.
pub(crate) struct Foreign(Child);

impl Foreign {
    /// Starts `command`, and waits until it says a line with `word`.
    pub(crate) fn start(command: &mut Command, word: &'static str) -> (Self, String) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (found, wait) = mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("it is piped")),
            Box::new(child.stderr.take().expect("it is piped")),
        ];
        for stream in streams {
            let found = found.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if line.contains(word) {
                        let _ = found.send(line);
                    }
                }
            });
        }
        let foreign = Self(child);
        let line = wait.recv_timeout(Duration::from_secs(180));
        (foreign, line.expect("a line with the word"))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(dir).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

/// From an hour ago to tomorrow.
pub(crate) fn today() -> Validity {
    Validity::backdated(SystemClock.now(), Duration::from_secs(3600), DAY)
}

/// A root CA for some days.
pub(crate) fn root(name: &str) -> Ca {
    let validity = Validity::backdated(SystemClock.now(), DAY, 10 * DAY);
    let spec = CaSpec { common_name: name.to_owned(), path_length: 2, validity };
    Ca::create_root(&spec).expect("a CA").0
}

/// The key of a CA that is elsewhere: it certifies nothing here.
#[derive(Debug)]
pub(crate) struct Elsewhere(pub(crate) Vec<u8>);

impl CaSigner for Elsewhere {
    fn spki(&self) -> &[u8] {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Err("the key is elsewhere".into())
    }
}

/// A server of `openssl cmp` that has this certificate for whoever asks; its URL. The secret is in
/// the file `secret` of `dir`, the CA in `foreign.pem`.
pub(crate) fn serve_cmp(dir: &Path, ca: &Ca, issued: &[u8]) -> (Foreign, String) {
    pem::write_certificates(&dir.join("rsp.pem"), &[issued]).expect("a file");
    pem::write_certificates(&dir.join("foreign.pem"), &[ca.certificate()]).expect("a file");
    serve::fsfile::write_atomic(&dir.join("secret"), b"both know it", 0o600).expect("a file");
    let mut command = Command::new("openssl");
    command.args(["cmp", "-config", "", "-port", "0", "-rsp_cert", "rsp.pem"]);
    command.args(["-rsp_extracerts", "foreign.pem", "-accept_raverified"]);
    command.args(["-srv_ref", "vouchsafe", "-srv_secret", "file:secret"]).current_dir(dir);
    let (server, line) = Foreign::start(&mut command, "ACCEPT");
    let port = line.split(' ').nth(1).and_then(|at| at.rsplit(':').next());
    (server, format!("http://127.0.0.1:{}/pkix/", port.expect("a port is said")))
}

/// pebble, and a DNS server that says 127.0.0.1 to everything.
pub(crate) struct Acme {
    /// Its directory's URL; `web.pem` is the CA of its TLS server, `web-root.pem` the one that it
    /// certifies under.
    pub(crate) directory: String,
    /// Where it looks for proofs.
    pub(crate) challenges: u16,
    _servers: [Foreign; 2],
}

impl Acme {
    pub(crate) fn start(dir: &Path) -> Self {
        let root = root("Web");
        let key = SigningKey::generate().expect("a key");
        let server = Profile::TlsServer {
            name: "pebble".to_owned(),
            dns: vec!["localhost".to_owned()],
            ip: Vec::new(),
        };
        let der = root.issue(&server, key.spki(), today()).expect("a certificate").der;
        pem::write_certificates(&dir.join("srv.pem"), &[&der]).expect("a file");
        pem::write_certificates(&dir.join("web.pem"), &[root.certificate()]).expect("a file");
        let pkcs8 = key.to_pkcs8().expect("a key");
        let text = pem::encode("PRIVATE KEY", pkcs8.expose()).expect("PEM");
        std::fs::write(dir.join("srv.key"), text.as_str()).expect("a file");
        let [dns, manage, listen, challenges, management, tls] = [(); 6].map(|()| free_port());
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        command.args(["-dns01", &format!("127.0.0.1:{dns}")]);
        command.args(["-management", &format!("127.0.0.1:{manage}")]);
        let (dns_server, _) = Foreign::start(&mut command, "tarting management");
        let there = || TcpStream::connect(("127.0.0.1", dns)).is_ok();
        while !there() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{listen}",
            "managementListenAddress": "127.0.0.1:{management}", "certificate": "srv.pem",
            "privateKey": "srv.key", "httpPort": {challenges}, "tlsPort": {tls}}}}}"#
        );
        std::fs::write(dir.join("pebble.json"), config).expect("a file");
        let mut command = Command::new("pebble");
        command.args(["-config", "pebble.json", "-dnsserver", &format!("127.0.0.1:{dns}")]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0").current_dir(dir);
        let (pebble, _) = Foreign::start(&mut command, "ACME directory available");
        let roots = format!("https://localhost:{management}/roots/0");
        let said = Command::new("curl").args(["-sk", &roots]).output().expect("curl runs");
        std::fs::write(dir.join("web-root.pem"), said.stdout).expect("a file");
        let directory = format!("https://localhost:{listen}/dir");
        Self { directory, challenges, _servers: [dns_server, pebble] }
    }
}

/// A web server's own request for a certificate (PKCS #10, DER), and its key
/// (SubjectPublicKeyInfo).
pub(crate) fn web_request(dir: &Path, name: &str) -> (Vec<u8>, Vec<u8>) {
    let curve = "ec_paramgen_curve:P-256";
    openssl(dir, &["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", "web.key"]);
    let (subject, alternative) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    let request = ["req", "-new", "-key", "web.key", "-subj", &subject, "-addext"];
    let out = [alternative.as_str(), "-outform", "DER", "-out", "web.csr"];
    openssl(dir, &[request.as_slice(), &out].concat());
    openssl(dir, &["pkey", "-in", "web.key", "-pubout", "-outform", "DER", "-out", "web.spki"]);
    let read = |file: &str| std::fs::read(dir.join(file)).expect("openssl wrote it");
    (read("web.csr"), read("web.spki"))
}
