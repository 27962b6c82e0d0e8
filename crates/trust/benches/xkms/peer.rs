//! The peer: `openssl ocsp -multi 2`, with a P-256 key, answering for one certificate.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::load::Question;

/// The responder.
#[derive(Debug)]
pub struct Responder {
    dir: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(arguments).output();
    let output = output.expect("openssl runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Responder {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=peer",
            "-days",
            "30",
        ];
        openssl(dir.path(), &ca);
        let ask =
            ["ocsp", "-issuer", "ca.pem", "-serial", "0x1234", "-no_nonce", "-reqout", "ask.der"];
        openssl(dir.path(), &ask);
        fs::write(dir.path().join("index.txt"), "V\t401231000000Z\t\t1234\tunknown\t/CN=one\n")
            .expect("a file");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let address = free.expect("a free port");
        let child = Command::new("openssl")
            .current_dir(dir.path())
            .args(["ocsp", "-port", &address.port().to_string(), "-index", "index.txt"])
            .args(["-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key", "-multi", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("openssl runs");
        while TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { dir, child, address }
    }

    pub fn question(&self) -> Question {
        Question {
            address: self.address,
            path: "/",
            content_type: "application/ocsp-request",
            bodies: vec![fs::read(self.dir.path().join("ask.der")).expect("a request")],
            status: b"200",
            // id-pkix-ocsp-basic: an answer, not a failure.
            good: &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01],
            keep: false,
            server: self.child.id(),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // Its workers outlive it otherwise, and spin.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.child.wait();
    }
}
