//! Foreign PKIs behind the centre: `openssl cmp` and pebble.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use model::{
    api::Bytes,
    centre::{CentreOrder, CentreProgress, CentreWork, Welcome},
    keys::{KeyUse, UseWith, order::Prototype},
};
use pki::{Ca, CertFacts, KeyUses, Profile, UserCert, Validity};
use serve::{
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
    pem,
};

use crate::support::{DAY, World, carried_out, certificate, order, p256, refusal, root, subject};

/// A child process that ends with the test.
struct Foreign(Child);

impl Foreign {
    /// Starts `command`, and waits until it says a line with `word`.
    fn start(command: &mut Command, word: &'static str) -> (Self, String) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (found, wait) = mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
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
        let line = wait.recv_timeout(Duration::from_secs(30));
        (foreign, line.unwrap_or_else(|_| panic!("no line with {word}")))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn there_is(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !there {
        println!("SKIPPED: {test}: there is no {program} (scripts/install-packages.sh test)");
    }
    there
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {said}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn today() -> Validity {
    Validity::backdated(SystemClock.now(), Duration::from_secs(3600), DAY)
}

/// A server of `openssl cmp` that has this certificate for whoever asks; its URL.
fn serve_cmp(dir: &Path, ca: &Ca, issued: &[u8]) -> (Foreign, String) {
    pem::write_certificates(&dir.join("rsp.pem"), &[issued]).unwrap();
    pem::write_certificates(&dir.join("foreign.pem"), &[ca.certificate()]).unwrap();
    serve::fsfile::write_atomic(&dir.join("secret"), b"both know it", 0o600).unwrap();
    let mut command = Command::new("openssl");
    command.args(["cmp", "-config", "", "-port", "0", "-rsp_cert", "rsp.pem"]);
    command.args(["-rsp_extracerts", "foreign.pem", "-accept_raverified"]);
    command.args(["-srv_ref", "vouchsafe", "-srv_secret", "file:secret"]).current_dir(dir);
    let (server, line) = Foreign::start(&mut command, "ACCEPT");
    let port = line.split(' ').nth(1).unwrap().rsplit(':').next().unwrap();
    (server, format!("http://127.0.0.1:{port}/pkix/"))
}

fn cmp_config(url: &str) -> String {
    format!(
        "
        [[domain]]
        name = 'cmp'
        anchors = ['foreign.pem']
        back_off_ms = 200
        [domain.provider.cmp]
        url = '{url}'
        reference = 'vouchsafe'
        secret = {{ path = 'secret' }}
        [[tenant]]
        name = 'acme'
        domains = ['cmp']
        "
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_carried_out_by_a_ca_that_speaks_cmp_after_it_was_away_and_we_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, spki) = (root("Foreign CA"), p256());
    let uses = KeyUses { signature: true, ..KeyUses::default() };
    let cert = UserCert { name: "alice".to_owned(), uses, ..UserCert::default() };
    let issued = ca.issue(&Profile::User(cert), &spki, today()).unwrap().der;
    let alice = Prototype { uses: vec![KeyUse::Signature], ..subject("alice", spki) };
    let order = order("acme", "cmp", CentreWork::Enrol { subject: alice, request: None });
    // Nobody is there yet: the order is taken, and waits.
    let (server, url) = serve_cmp(dir.path(), &ca, &issued);
    drop(server);
    let world = World::new(&cmp_config(&url), dir.path()).await;
    let a = world.trust("a").await;
    let taken: CentreProgress = a.post("/v1/orders", &order).await.unwrap();
    assert!(!taken.is_final(), "{taken:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let still: CentreProgress = a.get(&format!("/v1/orders/{}", order.id)).await.unwrap();
    assert!(!still.is_final(), "{still:?}");
    let authority = world.end().await;
    // Both come back; nobody sends the order again.
    let (_server, url) = serve_cmp(dir.path(), &ca, &issued);
    let world = World::of(authority, &cmp_config(&url), dir.path()).await;
    let a = world.trust("a").await;
    let done = crate::support::ended(&a, &order).await;
    assert_eq!(certificate(&done), issued);
    assert_eq!(carried_out(&a, &order).await, done);
    world.end().await;
}

/// pebble, and a DNS server that says 127.0.0.1 to everything.
struct Acme {
    directory: String,
    challenges: u16,
    _servers: [Foreign; 2],
}

impl Acme {
    fn start(dir: &Path) -> Self {
        let root = root("Web");
        let key = SigningKey::generate().unwrap();
        let server = Profile::TlsServer {
            name: "pebble".to_owned(),
            dns: vec!["localhost".to_owned()],
            ip: Vec::new(),
        };
        let der = root.issue(&server, key.spki(), today()).unwrap().der;
        pem::write_certificates(&dir.join("srv.pem"), &[&der]).unwrap();
        pem::write_certificates(&dir.join("web.pem"), &[root.certificate()]).unwrap();
        let text = pem::encode("PRIVATE KEY", key.to_pkcs8().unwrap().expose()).unwrap();
        std::fs::write(dir.join("srv.key"), text.as_str()).unwrap();
        let (dns, manage, listen, challenges) =
            (free_port(), free_port(), free_port(), free_port());
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
            "managementListenAddress": "127.0.0.1:{}", "certificate": "srv.pem",
            "privateKey": "srv.key", "httpPort": {challenges}, "tlsPort": {}}}}}"#,
            free_port(),
            free_port()
        );
        std::fs::write(dir.join("pebble.json"), config).unwrap();
        let mut command = Command::new("pebble");
        command.args(["-config", "pebble.json", "-dnsserver", &format!("127.0.0.1:{dns}")]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0").current_dir(dir);
        let (pebble, _) = Foreign::start(&mut command, "ACME directory available");
        let directory = format!("https://localhost:{listen}/dir");
        Self { directory, challenges, _servers: [dns_server, pebble] }
    }

    fn config(&self) -> String {
        format!(
            "
            [[domain]]
            name = 'web'
            anchors = ['web.pem']
            back_off_ms = 100
            [domain.provider.acme]
            directory = '{}'
            terms_agreed = true
            tls_anchors = ['web.pem']
            challenge_listen = '127.0.0.1:{}'
            [[tenant]]
            name = 'acme'
            domains = ['web']
            ",
            self.directory, self.challenges
        )
    }
}

/// An order for a web server's name, with its own request.
fn web_order(dir: &Path, name: &str) -> CentreOrder {
    let curve = "ec_paramgen_curve:P-256";
    openssl(dir, &["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", "web.key"]);
    let (subject_text, alternative) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    let request = ["req", "-new", "-key", "web.key", "-subj", &subject_text, "-addext"];
    let out = [alternative.as_str(), "-outform", "DER", "-out", "web.csr"];
    openssl(dir, &[request.as_slice(), &out].concat());
    openssl(dir, &["pkey", "-in", "web.key", "-pubout", "-outform", "DER", "-out", "web.spki"]);
    let spki = std::fs::read(dir.join("web.spki")).unwrap();
    let use_with =
        vec![UseWith { application: "urn:ietf:rfc:2818".to_owned(), identifier: name.to_owned() }];
    let subject = Prototype { uses: vec![KeyUse::Signature], use_with, ..subject(name, spki) };
    let request = Some(Bytes(std::fs::read(dir.join("web.csr")).unwrap()));
    order("acme", "web", CentreWork::Enrol { subject, request })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_carried_out_by_a_ca_that_speaks_acme_which_finds_the_proof_here() {
    let test = "an order to ACME";
    if !there_is("pebble", test) || !there_is("pebble-challtestsrv", test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let acme = Acme::start(dir.path());
    let world = World::new(&acme.config(), dir.path()).await;
    let a = world.trust("a").await;
    let asked = web_order(dir.path(), "www.example.org");
    let done = certificate(&carried_out(&a, &asked).await);
    let facts = CertFacts::read(&done).unwrap();
    assert_eq!(facts.names, [pki::UserName::Dns("www.example.org".to_owned())]);
    let CentreWork::Enrol { subject, .. } = &asked.work else { panic!() };
    assert_eq!(facts.spki, subject.key.as_ref().unwrap().0);
    // Without the subject's own request it is no order for this PKI, and it says so beforehand.
    let bare = CentreWork::Enrol { subject: subject.clone(), request: None };
    let outcome = a.post::<_, CentreProgress>("/v1/orders", &order("acme", "web", bare)).await;
    assert_eq!(refusal(outcome), "request-missing");
    let hello = model::centre::Hello { peer_url: "https://127.0.0.1:1".to_owned() };
    let welcome: Welcome = a.post("/v1/services/hello", &hello).await.unwrap();
    assert!(welcome.domains[0].wants_request);
    world.end().await;
}
