//! The four layers as a lab: a key-management centre whose only PKI is the bench's, trust services that
//! clients reach over TLS with the passports of their hosts, and the relays that stand for networks.
//!
//! ```text
//! client ── site relay (counts) ── trust service ── centre ── wide relay (delays) ── PKI
//! client ── direct relay (counts and delays) ─────────────────────────────────────── PKI
//! ```

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use model::{
    api::{
        Bytes,
        service::{Certified, ServiceKey},
    },
    centre::{CentreCommand, CentreReply},
    child,
    keys::admin::{AdminReply, AdminRequest, Authorize},
    migration::Place,
};
use serde::{Serialize, de::DeserializeOwned};
use serve::{
    client::{Client, ClientLimits},
    keys::SigningKey,
    pem,
};
use xkms::message::{Binding, KeyInfo, QueryKeyBinding, Request, RequestBody, RequestHead};

use super::{
    provider::{Pki, REFERENCE},
    relay::Relay,
    world::{World, eventually, programs, run},
};

/// How long anything may take to get ready.
const READY: Duration = Duration::from_secs(60);

/// One server's trust service.
#[derive(Debug)]
pub struct Site {
    pub name: String,
    /// Where clients connect to.
    pub relay: Relay,
    /// What the lab calls it.
    plain: String,
    dir: PathBuf,
    process: Option<Child>,
}

impl Site {
    /// What clients call it: over TLS, once it has a passport for that.
    pub fn url(&self) -> String {
        match self.process {
            Some(_) => self.secured(),
            None => self.plain.clone(),
        }
    }

    fn secured(&self) -> String {
        format!("https://{}/xkms", self.relay.address)
    }

    /// The certificate of the key that signs its answers.
    pub fn message_certificate(&self) -> PathBuf {
        self.dir.join("message.pem")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("state").join(model::keys::admin::SOCKET)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The reader dies with it.
            let _ = process.kill().and_then(|()| process.wait());
        }
    }
}

/// Everything that runs.
#[derive(Debug)]
pub struct Lab {
    pub sites: Vec<Site>,
    world: World,
    /// Between the centre and the PKI.
    pub wide: Relay,
    /// Between direct clients and the PKI.
    pub direct: Relay,
    pub pki: Pki,
    /// To the administrators' sockets, which take few at a time.
    admins: Mutex<BTreeMap<PathBuf, UnixStream>>,
}

impl Lab {
    /// Starts a PKI, and a lab of `hosts` servers whose centre orders from it.
    pub fn up(hosts: u8) -> Self {
        let (wide, direct) = (Relay::new(), Relay::new());
        let pki = Pki::start(&format!("http://{}/crl.der", direct.address));
        wide.lead_to(pki.address);
        direct.lead_to(pki.address);
        let names: Vec<String> =
            (b'a'..=b'z').take(usize::from(hosts)).map(|one| char::from(one).to_string()).collect();
        let count = hosts.to_string();
        let wish = ["--hosts", &count, "--manner", "hybrid", "--lease", "3600"];
        let world = World::prepared(&wish, |dir| {
            refine(&dir.join("centre/centre.d"), "pki", &centre(&pki, &wide));
            for name in &names {
                let folder = dir.join("hosts").join(name).join("trust/trust.d");
                refine(&folder, "pki", "[keeper.centre]\ndomain = 'pki'\n");
            }
        });
        let world = world.unwrap_or_else(|said| panic!("lab up: {}", said.complaint()));
        let record = world.record();
        let sites = names.into_iter().enumerate().map(|(at, name)| {
            let dir = world.path(&format!("hosts/{name}/trust"));
            let url = record["hosts"][at]["xkms_url"].as_str().expect("a URL").to_owned();
            let certificate = message_certificate(&url);
            pem::write_certificates(&dir.join("message.pem"), &[certificate]).expect("a file");
            Site { name, relay: Relay::new(), plain: url, dir, process: None }
        });
        Self { sites: sites.collect(), world, wide, direct, pki, admins: Mutex::default() }
    }

    /// (Re)starts the trust services with fresh passports for their TLS: those of the lab ended after
    /// ten minutes.
    pub fn renew(&mut self) {
        self.admins.lock().expect("no panic").clear();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        for at in 0..self.sites.len() {
            let agent = self.world.record()["hosts"][at]["agent_socket"].clone();
            let agent = PathBuf::from(agent.as_str().expect("a path"));
            let running = self.listed(&format!("trust-{}", self.sites[at].name));
            let site = &mut self.sites[at];
            let key = SigningKey::generate().expect("a key");
            let certified: Certified = runtime.block_on(async {
                let client = Client::unix(&agent, ClientLimits::default());
                let asked = ServiceKey { spki: Bytes(key.spki().to_vec()) };
                client.post("/v1/services/trust-guests/certify", &asked).await.expect("a passport")
            });
            let (chain, key_file) = (site.dir.join("tls.pem"), site.dir.join("tls.key"));
            pem::write_certificates(&chain, &[certified.certificate.0]).expect("a file");
            pem::write_key(&key_file, &key.to_pkcs8().expect("a key")).expect("a file");
            let tls = format!(
                "service = '{}'\n[tls]\ncertificates = '{}'\nkey = '{}'\n",
                site.secured(),
                chain.display(),
                key_file.display()
            );
            refine(&site.dir.join("trust.d"), "tls", &tls);
            match site.process.take() {
                Some(mut old) => {
                    run("kill", &["-TERM", &old.id().to_string()]);
                    old.wait().expect("it is ours");
                }
                None => end(running),
            }
            site.start();
        }
    }

    /// A process of the lab.
    fn listed(&self, role: &str) -> u32 {
        let all = self.world.processes();
        all[role]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
    }

    /// Process of a site's keeper.
    pub fn keeper_pid(&self, at: usize) -> u32 {
        let site = &self.sites[at];
        let own = site.process.as_ref().map(Child::id);
        own.unwrap_or_else(|| self.listed(&format!("trust-{}", site.name)))
    }

    /// Process of the centre.
    pub fn centre_pid(&self) -> u32 {
        self.listed("centre")
    }

    /// The CA that certifies passports.
    pub fn passport_ca(&self) -> PathBuf {
        self.world.record()["authority"]["ca_file"].as_str().expect("a path").into()
    }

    /// Asks a service on its administrators' socket.
    fn ask<Q: Serialize, A: DeserializeOwned>(&self, socket: &Path, question: &Q) -> A {
        let mut admins = self.admins.lock().expect("no panic");
        let stream = admins
            .entry(socket.to_owned())
            .or_insert_with(|| UnixStream::connect(socket).expect("the administrators' socket"));
        child::send(stream, question).expect("it listens");
        child::receive(stream).expect("it answers").expect("an answer")
    }

    /// A pass phrase for a key of `owner`, at one site.
    pub fn authorize(&self, site: usize, name: &str) -> String {
        let asked = AdminRequest::Authorize(Authorize {
            name: name.to_owned(),
            uses: Vec::new(),
            use_with: Vec::new(),
            life_s: None,
            owner: Some(name.to_owned()),
            operator: "bench".to_owned(),
        });
        let reply: AdminReply = self.ask(&self.sites[site].socket(), &asked);
        let AdminReply::Authorized { pass_phrase, .. } = reply else { panic!("{reply:?}") };
        String::from_utf8(pass_phrase.0.expose().clone()).expect("text")
    }

    /// Has the centre move everything of `owner`, and waits until the target answers for it.
    pub fn migrate(&self, owner: &str, from: usize, to: usize) {
        let host = |at: usize| self.sites[at].name.parse().expect("a name");
        let asked = CentreCommand::Migrate {
            owner: owner.to_owned(),
            from: host(from),
            to: host(to),
            operator: "bench".to_owned(),
        };
        let socket = self.world.path("centre/state").join(model::centre::SOCKET);
        let reply: CentreReply = self.ask(&socket, &asked);
        assert!(matches!(reply, CentreReply::Migrating(_)), "{reply:?}");
        let target = self.sites[to].socket();
        let asked = AdminRequest::Migration { owner: owner.to_owned() };
        let since = std::time::Instant::now();
        loop {
            let reply: AdminReply = self.ask(&target, &asked);
            if matches!(&reply, AdminReply::Migration(view) if matches!(view.place, Place::Here { .. }))
            {
                return;
            }
            assert!(since.elapsed() < READY, "{owner} does not arrive: {reply:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Site {
    fn start(&mut self) {
        let _ = fs::remove_file(self.dir.join("address"));
        let log = fs::File::options().append(true).create(true).open(self.dir.join("bench.log"));
        let child = Command::new(programs().join("vouchsafe-trust"))
            .arg("--config")
            .arg(self.dir.join("trust.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        self.process = Some(child.expect("vouchsafe-trust starts"));
        let address = eventually(READY, || {
            fs::read_to_string(self.dir.join("address")).ok()?.trim().parse().ok()
        });
        self.relay.lead_to(address.expect("it listens"));
    }
}

fn end(pid: u32) {
    run("kill", &["-TERM", &pid.to_string()]);
    let gone = || (!Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(());
    eventually(READY, gone).expect("it ends");
}

fn refine(folder: &Path, name: &str, text: &str) {
    for folder in folder.ancestors().take(2).collect::<Vec<_>>().into_iter().rev() {
        serve::fsfile::create_private_dir(folder).expect("a folder");
    }
    fs::write(folder.join(format!("{name}.toml")), text).expect("a file");
}

/// The centre's only PKI. Everything that is not named has its default.
fn centre(pki: &Pki, wide: &Relay) -> String {
    format!(
        "[[centre.domain]]\nname = 'pki'\nanchors = ['{}']\n\
         crl_url = 'http://{wide}/crl.der'\n\
         [centre.domain.provider.cmp]\nurl = 'http://{wide}/cmp'\nreference = '{REFERENCE}'\n\
         secret = {{ path = '{}' }}\n\
         [[centre.tenant]]\nname = 'lab'\ndomains = ['pki']\n",
        pki.file("ca.pem"),
        pki.file("secret"),
        wide = wide.address,
    )
}

/// The certificate in the signature of an answer, over plain HTTP.
fn message_certificate(url: &str) -> Vec<u8> {
    use base64::Engine as _;
    let binding = Binding { key_info: Some(KeyInfo::named("nobody")), ..Binding::default() };
    let body = RequestBody::Locate(QueryKeyBinding { binding, time: None });
    let text = Request { head: RequestHead::new("I1", url), body }.to_element().to_xml();
    let address = url.trim_start_matches("http://").trim_end_matches("/xkms");
    let mut stream = TcpStream::connect(address).expect("the trust service");
    let head = format!(
        "POST /xkms HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/xml\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(&[head, text].concat().into_bytes()).expect("it takes the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, rest) = answer.split_once("X509Certificate>").expect("a certificate");
    let (certificate, _) = rest.split_once('<').expect("its end");
    let letters: String = certificate.chars().filter(|one| !one.is_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(letters).expect("base64")
}
