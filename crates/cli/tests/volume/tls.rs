//! The export over TCP: TLS or nothing, and only with a certificate of the right CA.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::fixture::{Dir, Served, content, outside, tool};

/// A CA, and what it certifies, by openssl, named as GnuTLS looks for them in a folder.
fn certificates(dir: &Dir, folder: &str) -> Option<()> {
    fs::create_dir_all(dir.path(folder)).unwrap();
    let at = |name: &str| format!("{}/{name}", dir.text(folder));
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout"];
    let own = [&at("ca-key.pem"), "-out", &at("ca-cert.pem"), "-subj", "/CN=ca"];
    outside("openssl", &[&new[..], &own[..]].concat())?;
    for (name, purpose) in [("server", "serverAuth"), ("client", "clientAuth")] {
        let (key, out) = (at(&format!("{name}-key.pem")), at(&format!("{name}-cert.pem")));
        let (subject, usage) = (format!("/CN={name}"), format!("extendedKeyUsage={purpose}"));
        let (ca, ca_key) = (at("ca-cert.pem"), at("ca-key.pem"));
        let own = [&key, "-out", &out, "-subj", &subject, "-CA", &ca, "-CAkey", &ca_key];
        let more = [
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            &usage,
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ];
        outside("openssl", &[&new[..], &own[..], &more[..]].concat())?;
    }
    Some(())
}

/// A new volume of 8 MiB, served over TCP to clients of the CA in `pki`; the port, and what is
/// written to it.
fn served(dir: &Dir) -> (Served, u16, Vec<u8>) {
    dir.done("create --size 8M --key-file key v");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let served = dir.serve(&format!(
        "v --key-file key --listen 127.0.0.1:{port} --tls-cert pki/server-cert.pem \
         --tls-key pki/server-key.pem --tls-client-ca pki/ca-cert.pem"
    ));
    let disk = content(8 << 20);
    dir.file("source.raw", &disk);
    (served, port, disk)
}

#[test]
fn over_tcp_there_is_tls_with_both_certificates_or_nothing() {
    let dir = Dir::new();
    if certificates(&dir, "pki").is_none() || certificates(&dir, "other").is_none() {
        return;
    }
    let (served, port, disk) = served(&dir);
    let source = dir.text("source.raw");
    let uri = |scheme: &str, folder: &str| {
        format!("{scheme}://localhost:{port}/?tls-certificates={}", dir.text(folder))
    };
    if outside("nbdcopy", &["--flush", &source, &uri("nbds", "pki")]).is_none() {
        return;
    }
    outside("nbdcopy", &[&uri("nbds", "pki"), &dir.text("back.raw")]);
    assert!(dir.read("back.raw") == disk);
    let tried = |uri: &str| {
        let mut command: Command = tool("nbdinfo").unwrap();
        command.arg(uri).stdout(Stdio::null()).status().unwrap().success()
    };
    assert!(tried(&uri("nbds", "pki")));
    assert!(!tried(&uri("nbds", "other")), "certificates of another CA");
    // nbdinfo says that there is something; to read it, there must be TLS.
    let mut plain = tool("nbdcopy").unwrap();
    let args = [format!("nbd://localhost:{port}"), dir.text("plain.raw")];
    let read = plain.args(args).stderr(Stdio::null()).status().unwrap();
    assert!(!read.success(), "no TLS");
    // A client that trusts the server and has no certificate of its own.
    fs::create_dir_all(dir.path("none")).unwrap();
    fs::copy(dir.path("pki/ca-cert.pem"), dir.path("none/ca-cert.pem")).unwrap();
    assert!(!tried(&uri("nbds", "none")), "no client certificate");
    served.stop();
}

#[test]
fn qemu_reads_and_writes_over_tls_and_nothing_without_it() {
    let dir = Dir::new();
    if certificates(&dir, "pki").is_none() || certificates(&dir, "other").is_none() {
        return;
    }
    let (served, port, disk) = served(&dir);
    let credentials = |folder: &str| {
        format!("tls-creds-x509,id=t,endpoint=client,verify-peer=on,dir={}", dir.text(folder))
    };
    let plain = format!("driver=raw,file.driver=nbd,file.host=localhost,file.port={port}");
    let image = format!("{plain},file.tls-creds=t");
    let (source, back) = (dir.text("source.raw"), dir.text("back.raw"));
    let pki = credentials("pki");
    let write = ["convert", "-n", "--object", &pki, "-f", "raw", &source, "--target-image-opts"];
    if outside("qemu-img", &[&write[..], &[image.as_str()]].concat()).is_none() {
        return;
    }
    outside("qemu-img", &["convert", "--object", &pki, "--image-opts", &image, "-O", "raw", &back]);
    assert!(dir.read("back.raw") == disk);
    let refused = |args: &[&str]| {
        let mut command = tool("qemu-img").unwrap();
        !command.arg("info").args(args).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(refused(&["--image-opts", &plain]), "no TLS");
    let other = credentials("other");
    assert!(refused(&["--object", &other, "--image-opts", &image]), "certificates of another CA");
    served.stop();
}

#[test]
fn tcp_without_certificates_is_a_usage_error() {
    let dir = Dir::new();
    dir.done("create --size 1M --key-file key v");
    let line = "serve --socket s.sock v --key-file key --listen 127.0.0.1:0";
    assert_eq!(dir.run(line).0, 2);
}
