//! The running trust service as a client sees it: where it is, whose key signs its answers, and a
//! small HTTP client.

use std::{
    cell::{Cell, RefCell},
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
};

use xkms::{
    client::{Client, ClientRejection, Exchange, ServiceTrust, Step, sign_order},
    dsig::{PublicKey, SignaturePolicy, Signer, SigningKey},
    message::*,
    passphrase::{Preparation, SharedSecret, revocation_code_identifier},
    service::AuthenticationKey,
    soap::{self, Version},
    uri,
    xml::{Document, Limits},
};

use crate::world::{PATIENCE, World, eventually, is_gone, run};

/// The trust service of the lab's first host.
pub struct Server<'w> {
    pub world: &'w World,
    pub url: String,
    pub ca: PathBuf,
    /// Its folder: configuration and state.
    pub dir: PathBuf,
    pub scratch: tempfile::TempDir,
    /// The key that signs its answers.
    pub key: RefCell<Option<PublicKey>>,
    /// The host's name.
    pub host: String,
    /// How its lab is brought up.
    lab: &'static [&'static str],
    counter: Cell<u32>,
}

impl<'w> Server<'w> {
    pub fn of(world: &'w World, lab: &'static [&'static str]) -> Option<Self> {
        Self::at(world, lab, 0)
    }

    /// That of another host.
    pub fn at(world: &'w World, lab: &'static [&'static str], host: usize) -> Option<Self> {
        let record = world.record();
        let host = record["hosts"].get(host)?;
        Some(Self {
            url: host["xkms_url"].as_str()?.to_owned(),
            ca: host["xkms_ca_file"].as_str()?.into(),
            dir: Path::new(host["dir"].as_str()?).join("trust"),
            scratch: tempfile::tempdir().expect("a folder"),
            key: RefCell::new(None),
            counter: Cell::new(0),
            host: host["name"].as_str()?.to_owned(),
            lab,
            world,
        })
    }

    /// `http://host:port` without a path.
    pub fn base(&self) -> &str {
        self.url.trim_end_matches("/xkms")
    }

    pub fn address(&self) -> &str {
        self.base().trim_start_matches("http://")
    }

    /// A file that is thrown away in the end.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes a file that is thrown away in the end; its path as text.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    }

    /// An Id that was not used before.
    pub fn id(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("I{}-{}", std::process::id(), self.counter.get())
    }

    pub fn head(&self) -> RequestHead {
        RequestHead::new(&self.id(), &self.url)
    }

    /// Posts a document; status and answer.
    pub fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        exchange(self.address(), path, ("text/xml", body)).unwrap_or((0, Vec::new()))
    }

    /// Posts JSON; status and answer.
    pub fn post_json(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let text = body.to_string();
        let sent = ("application/json", text.as_bytes());
        let (status, answer) = exchange(self.address(), path, sent).unwrap_or((0, Vec::new()));
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// How our client speaks to it.
    pub fn client<'k>(&self, version: Version, signer: Option<&'k dyn Signer>) -> Client<'k> {
        let key = self.key.borrow().clone();
        Client {
            service: self.url.clone(),
            version,
            signer,
            trust: match key {
                Some(key) => ServiceTrust::Key(AuthenticationKey::Public(key)),
                None => ServiceTrust::UnsignedAnswersAccepted,
            },
            signatures: SignaturePolicy::default(),
        }
    }

    /// Runs one request to its end, or to the first time it is told to wait.
    pub fn run<'c>(
        &self,
        client: &'c Client<'c>,
        request: Request,
    ) -> Result<Ended<'c>, ClientRejection> {
        let (mut exchange, mut document) = Exchange::begin(client, request)?;
        loop {
            let (_, body) = self.post("/xkms", document.as_bytes());
            document = match exchange.receive(&body, &self.id())? {
                Step::Send(document) => document,
                Step::Wait => return Ok(Ended::Waits(Box::new(exchange))),
                Step::Done(answer) => return Ok(Ended::Done(answer)),
            };
        }
    }

    /// Asks over SOAP 1.1, without a signature over the whole.
    pub fn ask(&self, request: Request) -> Result<Answer, String> {
        let client = self.client(Version::V11, None);
        match self.run(&client, request) {
            Ok(Ended::Done(answer)) => Ok(*answer),
            Ok(Ended::Waits(_)) => Err("it waits".to_owned()),
            Err(rejection) => Err(rejection.to_string()),
        }
    }

    /// Finds who signs answers: the certificate in one, verified by `openssl` to the CA.
    pub fn learn_key(&self) -> Result<(), String> {
        let query = RequestBody::Locate(QueryKeyBinding { binding: named("nobody"), time: None });
        let text = Request { head: self.head(), body: query }.to_element().to_xml();
        let (_, body) = self.post("/xkms", text.as_bytes());
        let document =
            Document::parse(&body, &Limits::MESSAGE).map_err(|error| error.to_string())?;
        let message = soap::open(&document).1.map_err(|error| error.to_string())?;
        let signature = signature_of(message).ok_or("the answer is not signed")?;
        let info = signature.children().find(|child| child.is(uri::DS, "KeyInfo"));
        let info = KeyInfo::read(info.ok_or("no KeyInfo")?).map_err(|error| error.to_string())?;
        let der = info.certificates().next().ok_or("no certificate")?;
        let certificate = self.put_certificate("message", der);
        self.openssl_verify(&certificate, &[])?;
        let said = run("openssl", &["x509", "-in", &certificate, "-noout", "-pubkey"]);
        let spki = serve::pem::parse_public_key(said.stdout.as_bytes()).ok_or("no public key")?;
        *self.key.borrow_mut() = PublicKey::from_spki(&spki);
        Ok(())
    }

    /// Writes a certificate as PEM; its path.
    pub fn put_certificate(&self, name: &str, der: &[u8]) -> String {
        let pem = serve::pem::certificates(&[der]).expect("PEM");
        self.put(&format!("{name}.pem"), pem)
    }

    /// `openssl verify` to the CA.
    pub fn openssl_verify(&self, certificate: &str, extra: &[&str]) -> Result<(), String> {
        let ca = self.ca.to_str().expect("a plain path");
        let said = run("openssl", &[&["verify", "-CAfile", ca], extra, &[certificate]].concat());
        if said.code == 0 { Ok(()) } else { Err(said.complaint()) }
    }

    /// A pass phrase for `name`.
    pub fn pass_phrase(&self, name: &str) -> Result<String, String> {
        let said =
            self.world.vouchsafe(&["key", "authorize", "--name", name, "--host", &self.host]);
        let phrase = said.json()["pass_phrase"].as_str().map(str::to_owned);
        phrase.ok_or_else(|| format!("{} {}", said.complaint(), said.stdout))
    }

    /// An order to register `key` as `name`.
    pub fn register(&self, name: &str, phrase: &str, key: Option<&SigningKey>) -> Request {
        let secret = secret(phrase);
        let binding = Binding {
            id: Some("B1".to_owned()),
            key_info: Some(info(name, key)),
            usage: if key.is_some() { vec![KeyUsage::Signature] } else { Vec::new() },
            use_with: Vec::new(),
        };
        let code = revocation_code_identifier(secret.revocation_code().expose());
        let mut body = RequestBody::Register {
            prototype: PrototypeKeyBinding {
                binding,
                validity: None,
                revocation_code_identifier: Some(code),
            },
            authentication: Authentication::default(),
            possession: None,
        };
        let mac = SigningKey::mac(&secret.authentication_key());
        sign_order(&mut body, &mac, key.map(|key| key as &dyn Signer)).expect("a signature");
        Request { head: self.head(), body }
    }

    /// What the service says of the key now.
    pub fn status_of(&self, key: &SigningKey) -> Option<Status> {
        let binding =
            Binding { key_info: key.public_key().map(KeyInfo::key), ..Binding::default() };
        let body = RequestBody::Validate(QueryKeyBinding { binding, time: None });
        let answer = self.ask(Request { head: self.head(), body }).ok()?;
        let AnswerBody::Validate(found) = answer.body else { return None };
        found.into_iter().next().map(|found| found.status)
    }

    /// Starts the service anew with `text` as a refinement of its configuration.
    pub fn restart_with(&self, text: &str) -> Result<(), String> {
        let folder = self.dir.join("trust.d");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        fs::write(folder.join("demo.toml"), text).map_err(|error| error.to_string())?;
        self.signal("-TERM");
        self.up_again()
    }

    /// The key (SubjectPublicKeyInfo) that its operators' list has under this name.
    pub fn listed_key(&self, name: &str) -> Option<Vec<u8>> {
        let list = self.world.vouchsafe(&["key", "list", "--host", &self.host]).json();
        let bindings = list["bindings"].as_array()?;
        let ours = bindings.iter().find(|one| one["binding"]["name"] == name)?;
        let key = ours["binding"]["key"].as_str()?;
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n");
        serve::pem::parse_public_key(pem.as_bytes())
    }

    /// The keeper's process.
    pub fn keeper(&self) -> u32 {
        self.world.processes()[format!("trust-{}", self.host)]["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0)
    }

    /// The keeper's child.
    pub fn reader(&self) -> Option<u32> {
        let said = run("pgrep", &["-P", &self.keeper().to_string()]);
        said.stdout.split_whitespace().next()?.parse().ok()
    }

    /// Signals the keeper, and waits until it is gone.
    pub fn signal(&self, signal: &str) {
        let pid = self.keeper().to_string();
        run("kill", &[signal, &pid]);
        eventually(PATIENCE, || is_gone(&pid).then_some(()));
    }

    /// `lab up` starts what does not run.
    pub fn up_again(&self) -> Result<(), String> {
        let said = self.world.lab_up(self.lab);
        if said.code == 0 { Ok(()) } else { Err(said.complaint()) }
    }
}

/// How a request ended.
pub enum Ended<'c> {
    Done(Box<Answer>),
    Waits(Box<Exchange<'c>>),
}

pub fn secret(phrase: &str) -> SharedSecret {
    SharedSecret::new(phrase, Preparation::Saslprep).expect("a phrase")
}

/// A key by name.
pub fn named(name: &str) -> Binding {
    Binding { key_info: Some(KeyInfo::named(name)), ..Binding::default() }
}

fn info(name: &str, key: Option<&SigningKey>) -> KeyInfo {
    let mut info = KeyInfo::named(name);
    info.items.extend(key.and_then(Signer::public_key).map(KeyInfoItem::KeyValue));
    info
}

/// What an order about an existing binding names.
pub fn about(name: &str, key: &SigningKey) -> KeyBinding {
    let binding = Binding {
        id: Some("B1".to_owned()),
        key_info: Some(info(name, Some(key))),
        ..Binding::default()
    };
    KeyBinding { binding, validity: None, status: Status::unknown() }
}

/// One HTTP exchange on a connection of its own.
pub fn exchange(
    address: &str,
    path: &str,
    (kind, body): (&str, &[u8]),
) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    // A server that refuses early may close before all is sent.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let at =
        answer.windows(4).position(|part| part == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    Ok((status, answer.split_off(at)))
}

/// Major and minor result as short words.
pub fn result(answer: &Result<Answer, String>) -> String {
    match answer {
        Ok(answer) => {
            let minor = answer.head.minor.as_ref().map(|minor| format!("{minor:?}"));
            format!("{:?} {}", answer.head.major, minor.unwrap_or_default()).trim().to_owned()
        }
        Err(said) => said.clone(),
    }
}
