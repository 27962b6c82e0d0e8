//! ACME against pebble, with names that are proven to it over HTTP and DNS on loopback.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::Secret;
use pki::{
    Acme, AcmeConfig, Ask, Ca, CaSpec, Challenge, ChallengeKind, Challenger, Enrolment, HttpAnswer,
    HttpRequest, KeyUses, Outcome, Profile, Progress, Provider, ProviderError, Renewal, RequestId,
    RevocationAsk, RevocationReason, Transport, TransportError, UserCert, UserName, Validity,
};
use time::OffsetDateTime;

use crate::{
    http::{Loopback, Records, Server, line_with, there_is},
    support::{DAY, key_pair, must, p256},
};

const ID: RequestId = RequestId([5; 16]);

type Files = Arc<Mutex<HashMap<String, String>>>;

/// pebble, a DNS server that says 127.0.0.1 to everything, and a web server for challenges.
struct World {
    dir: tempfile::TempDir,
    net: Loopback,
    records: Records,
    url: String,
    manage_dns: u16,
    files: Files,
    said: Arc<Mutex<Vec<String>>>,
    _servers: [Server; 2],
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn validity() -> Validity {
    Validity::backdated(OffsetDateTime::now_utc(), DAY, DAY)
}

impl World {
    /// `bad_nonces`: how many percent of good nonces pebble refuses.
    fn new(test: &str, bad_nonces: u8) -> Option<Self> {
        if !there_is("pebble", test) || !there_is("pebble-challtestsrv", test) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let long = Validity::new(OffsetDateTime::now_utc(), 2 * DAY);
        let spec = CaSpec { common_name: "Web".to_owned(), path_length: 0, validity: long };
        let (root, _) = Ca::create_root(&spec).unwrap();
        let server = Profile::TlsServer {
            name: "pebble".to_owned(),
            dns: vec!["localhost".to_owned()],
            ip: Vec::new(),
        };
        key_pair(dir.path(), "srv", |spki| root.issue(&server, spki, validity()).unwrap().der);
        let (dns, manage_dns) = (port(), port());
        let dns_server = start_dns(dns, manage_dns);
        let files = Files::default();
        let web = serve_files(files.clone());
        let listen = port();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{listen}",
            "managementListenAddress": "127.0.0.1:{}", "certificate": "srv.pem",
            "privateKey": "srv.key", "httpPort": {web}, "tlsPort": {}}}}}"#,
            port(),
            port()
        );
        fs::write(dir.path().join("config.json"), config).unwrap();
        let mut command = Command::new("pebble");
        command.args(["-config", "config.json", "-dnsserver", &format!("127.0.0.1:{dns}")]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        command.env("PEBBLE_WFE_NONCEREJECT", bad_nonces.to_string());
        let (pebble, stdout, stderr) = Server::start(command.current_dir(dir.path()));
        drop(stderr);
        let said = Arc::new(Mutex::new(Vec::new()));
        line_with(Tee(stdout, said.clone(), String::new()), "ACME directory available");
        let net = Loopback::with_root(root.certificate());
        let url = format!("https://localhost:{listen}/dir");
        let records = Records::default();
        let _servers = [dns_server, pebble];
        Some(Self { dir, net, records, url, manage_dns, files, said, _servers })
    }

    fn provider(&self, key: &[u8], kind: ChallengeKind) -> Acme<&Loopback, &Records, Publisher> {
        let config = AcmeConfig {
            directory: self.url.clone(),
            account_key: Secret::new(key.to_vec()),
            contact: vec!["mailto:admin@example.org".to_owned()],
            terms_agreed: true,
            timeout: Duration::from_secs(120),
        };
        let files = self.files.clone();
        let publisher =
            Publisher { kind, files, manage_dns: self.manage_dns, names: RefCell::default() };
        Acme::new(config, &self.net, &self.records, publisher).unwrap()
    }

    /// A key, and its holder's request for these names.
    fn subject(&self, names: &[&str]) -> Ask {
        let (profile, spki, request) = subject(self.dir.path(), names);
        Ask::Enrol(Enrolment { profile, spki, validity: validity(), request: Some(request) })
    }

    /// How many certificates it made.
    fn made(&self) -> usize {
        let said = self.said.lock().unwrap();
        said.iter().filter(|line| line.contains("Issued certificate serial")).count()
    }
}

fn subject(dir: &Path, names: &[&str]) -> (Profile, Vec<u8>, Vec<u8>) {
    let mut spki = Vec::new();
    key_pair(dir, "user", |key| {
        spki = key.to_vec();
        Vec::new()
    });
    let all = names.iter().map(|name| format!("DNS:{name}")).collect::<Vec<_>>().join(",");
    let names_of = format!("subjectAltName={all}");
    let subject = format!("/CN={}", names[0]);
    let args = ["req", "-new", "-key", "user.key", "-subj", &subject, "-addext", &names_of];
    must(dir, &[args.as_slice(), &["-outform", "DER", "-out", "user.csr"]].concat());
    let profile = Profile::User(UserCert {
        name: names[0].to_owned(),
        names: names.iter().map(|name| UserName::Dns((*name).to_owned())).collect(),
        uses: KeyUses { signature: true, ..KeyUses::default() },
        ..UserCert::default()
    });
    (profile, spki, fs::read(dir.join("user.csr")).unwrap())
}

fn start_dns(dns: u16, manage: u16) -> Server {
    let mut command = Command::new("pebble-challtestsrv");
    command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
    command.args(["-dns01", &format!("127.0.0.1:{dns}")]);
    command.args(["-management", &format!("127.0.0.1:{manage}")]);
    let (server, stdout, stderr) = Server::start(&mut command);
    for mut said in [Box::new(stdout) as Box<dyn std::io::Read + Send>, Box::new(stderr)] {
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    }
    for port in [dns, manage] {
        let there = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let pause = || std::thread::sleep(Duration::from_millis(20));
        assert!(
            (0..6000).any(|_| there() || {
                pause();
                false
            }),
            "no DNS server"
        );
    }
    server
}

/// Keeps what goes by.
struct Tee(std::process::ChildStdout, Arc<Mutex<Vec<String>>>, String);

impl std::io::Read for Tee {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(into)?;
        self.2.push_str(&String::from_utf8_lossy(&into[..count]));
        while let Some(end) = self.2.find('\n') {
            self.1.lock().unwrap().push(self.2.drain(..=end).collect());
        }
        Ok(count)
    }
}

/// Serves files to whoever asks; its port.
fn serve_files(files: Files) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = answer(stream, &files);
        }
    });
    port
}

fn answer(mut stream: TcpStream, files: &Files) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes)?;
    let request = String::from_utf8_lossy(&bytes[..count]).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let body = files.lock().unwrap().get(path).cloned();
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    write!(stream, "HTTP/1.0 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Publishes files, or TXT records at the DNS server.
struct Publisher {
    kind: ChallengeKind,
    files: Files,
    manage_dns: u16,
    names: RefCell<Vec<String>>,
}

impl Challenger for Publisher {
    fn kind(&self) -> ChallengeKind {
        self.kind
    }

    fn publish(
        &self,
        challenge: &Challenge,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Challenge { kind, name, token, content } = challenge;
        assert_eq!(*kind, self.kind);
        self.names.borrow_mut().push(name.clone());
        if *kind == ChallengeKind::Http01 {
            let path = format!("/.well-known/acme-challenge/{token}");
            self.files.lock().unwrap().insert(path, content.clone());
            return Ok(());
        }
        let body = format!(r#"{{"host": "_acme-challenge.{name}.", "value": "{content}"}}"#);
        let mut stream = TcpStream::connect(("127.0.0.1", self.manage_dns))?;
        let length = body.len();
        write!(stream, "POST /set-txt HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}")?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    }

    fn withdraw(&self, name: &str) {
        self.names.borrow_mut().retain(|one| one != name);
    }
}

/// Asks until there is an end.
fn drive(
    provider: &impl Provider,
    id: RequestId,
    ask: &Ask,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), ProviderError> {
    let mut now = OffsetDateTime::now_utc();
    for _ in 0..2400 {
        match provider.submit(id, ask, now)? {
            Progress::Done(Outcome::Issued { certificate, chain }) => {
                return Ok((certificate, chain));
            }
            other => assert_eq!(other, Progress::Pending),
        }
        now += Duration::from_secs(5);
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no end");
}

/// An account's key.
fn account(world: &World) -> Vec<u8> {
    key_pair(world.dir.path(), "account", |_| Vec::new()).1
}

#[test]
fn a_certificate_is_ordered_over_http_renewed_and_revoked_though_many_nonces_are_refused() {
    let Some(world) = World::new("ACME over http-01", 40) else { return };
    let key = account(&world);
    let acme = world.provider(&key, ChallengeKind::Http01);
    let ask = world.subject(&["one.example.org", "two.example.org"]);
    let (certificate, chain) = drive(&acme, ID, &ask).unwrap();
    assert_eq!(chain.len(), 1);
    let dir = world.dir.path();
    fs::write(dir.join("out.der"), &certificate).unwrap();
    let text = must(dir, &["x509", "-inform", "DER", "-in", "out.der", "-noout", "-text"]);
    assert!(text.contains("DNS:one.example.org") && text.contains("DNS:two.example.org"), "{text}");
    // Answered again without a word to the CA.
    let count = *world.net.exchanges.borrow();
    assert_eq!(drive(&acme, ID, &ask).unwrap().0, certificate);
    assert_eq!(*world.net.exchanges.borrow(), count);
    let Ask::Enrol(Enrolment { profile, validity, request, .. }) = ask else { return };
    let renewal = Renewal { certificate: certificate.clone(), profile, validity, request };
    let again = world.provider(&key, ChallengeKind::Http01);
    let (renewed, _) = drive(&again, RequestId([6; 16]), &Ask::Renew(renewal)).unwrap();
    assert_ne!(renewed, certificate);
    let reason = RevocationReason::Superseded;
    let revoke = Ask::Revoke(RevocationAsk { certificate, reason });
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    for id in [7, 7, 8] {
        let revoked = acme.submit(RequestId([id; 16]), &revoke, now).unwrap();
        assert_eq!(revoked, Progress::Done(Outcome::Revoked(now)));
    }
}

#[test]
fn a_name_is_proven_over_dns() {
    let Some(world) = World::new("ACME over dns-01", 0) else { return };
    let acme = world.provider(&account(&world), ChallengeKind::Dns01);
    let ask = world.subject(&["dns.example.org"]);
    drive(&acme, ID, &ask).unwrap();
}

#[test]
fn whatever_answer_is_lost_the_same_request_leads_to_one_certificate() {
    let Some(world) = World::new("ACME with lost answers", 0) else { return };
    let key = account(&world);
    let steps =
        ["sign-me-up", "order-plz", "my-order", "authZ", "chalZ", "finalize-order", "certZ"];
    for (at, word) in steps.into_iter().enumerate() {
        let id = RequestId([u8::try_from(at).unwrap(); 16]);
        // A name of its own: an authorisation that the CA re-uses would spare it a step.
        let ask = world.subject(&[format!("lost{at}.example.org").as_str()]);
        *world.net.lose.borrow_mut() = Some(word);
        let before = world.made();
        let lost = drive(&world.provider(&key, ChallengeKind::Http01), id, &ask).expect_err(word);
        assert_eq!(lost.code(), "provider-unavailable", "{word}");
        // The process starts again, with what was recorded.
        let restarted = world.provider(&key, ChallengeKind::Http01);
        let (certificate, _) = drive(&restarted, id, &ask).unwrap();
        assert_eq!(drive(&restarted, id, &ask).unwrap().0, certificate);
        assert_eq!(world.made() - before, 1, "{word}");
    }
}

#[test]
fn a_name_that_is_not_proven_is_refused_for_good_and_other_requests_before_anything_is_sent() {
    let Some(world) = World::new("ACME refusals", 0) else { return };
    let acme = world.provider(&account(&world), ChallengeKind::Http01);
    let refused = |id: u8, ask: &Ask| drive(&acme, RequestId([id; 16]), ask).unwrap_err().code();
    let ask = world.subject(&["free.example.org"]);
    let Ask::Enrol(enrolment) = &ask else { return };
    let without = Enrolment { request: None, ..enrolment.clone() };
    assert_eq!(refused(1, &Ask::Enrol(without)), "provider-unsupported");
    let other_key = Enrolment { spki: p256(), ..enrolment.clone() };
    assert_eq!(refused(2, &Ask::Enrol(other_key)), "provider-issue");
    let mail = Profile::User(UserCert {
        names: vec![UserName::Email("alice@example.org".to_owned())],
        ..UserCert::default()
    });
    let mail = Enrolment { profile: mail, ..enrolment.clone() };
    assert_eq!(refused(3, &Ask::Enrol(mail)), "provider-unsupported");
    assert_eq!(*world.net.exchanges.borrow(), 0);
    // Nothing is published where the CA looks.
    let nowhere = World { files: Files::default(), ..world };
    let acme = nowhere.provider(&account(&nowhere), ChallengeKind::Http01);
    for _ in 0..2 {
        let refused = drive(&acme, ID, &ask).unwrap_err();
        assert_eq!(refused.code(), "provider-refused");
    }
    assert_eq!(nowhere.made(), 0);
}

/// A directory that leads elsewhere.
struct Elsewhere;

impl Transport for Elsewhere {
    fn exchange(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        assert!(request.url.starts_with("https://ca.example/"), "{}", request.url);
        let body = br#"{"newNonce": "https://ca.example@evil.example/nonce",
            "newAccount": "https://evil.example/account", "newOrder": "https://evil.example/order",
            "revokeCert": "https://evil.example/revoke"}"#;
        Ok(HttpAnswer { status: 200, headers: Vec::new(), body: body.to_vec() })
    }
}

#[test]
fn a_directory_leads_to_no_other_host() {
    let dir = tempfile::tempdir().unwrap();
    let config = AcmeConfig {
        directory: "https://ca.example/dir".to_owned(),
        account_key: Secret::new(key_pair(dir.path(), "account", |_| Vec::new()).1),
        contact: Vec::new(),
        terms_agreed: true,
        timeout: Duration::from_secs(1),
    };
    let (kind, files) = (ChallengeKind::Http01, Files::default());
    let publisher = Publisher { kind, files, manage_dns: 0, names: RefCell::default() };
    let records = Records::default();
    let acme = Acme::new(config, Elsewhere, &records, publisher).unwrap();
    let (profile, spki, request) = subject(dir.path(), &["a.example.org"]);
    let request = Some(request);
    let ask = Ask::Enrol(Enrolment { profile, spki, validity: validity(), request });
    let refused = acme.submit(ID, &ask, OffsetDateTime::now_utc()).unwrap_err();
    assert_eq!(refused.code(), "provider-answer-unexpected");
}
