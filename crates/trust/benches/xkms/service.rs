//! The trust service under measurement: its own process, on loopback.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use model::keys::order::Prototype;
use serve::clock::SystemClock;
use trust::keeper::{Keeper, Settings};
use xkms::{
    dsig::{Curve, PublicKey, Signer, SigningKey},
    message::{Binding, KeyInfo, QueryKeyBinding, Request, RequestBody, RequestHead},
};

use crate::load::{Question, family};

/// Keys that are asked about: more than a service keeps at hand.
const ASKED_ABOUT: u64 = 20_000;

/// A service whose library holds a number of bindings.
#[derive(Debug)]
pub struct Service {
    dir: tempfile::TempDir,
    child: Option<Child>,
    pub address: SocketAddr,
    /// Keys of the library, evenly spread over it: all that are asked about.
    pub keys: Vec<PublicKey>,
}

impl Service {
    /// Fills a new library with `entries`, and serves it.
    pub fn with(entries: u64) -> Self {
        let mut service = Self::prepared(entries);
        service.start();
        service
    }

    /// Fills a new library with `entries`.
    pub fn prepared(entries: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let asked = |number: u64| {
            let key = SigningKey::generate_ec(Curve::P256).expect("a key");
            let key = key.public_key().expect("a public key");
            Prototype {
                key: Some(model::api::Bytes(key.to_spki())),
                name: Some(format!("key-{number}")),
                ..Prototype::default()
            }
        };
        let keys = Vec::new();
        let mut service = Self { dir, child: None, address: ([127, 0, 0, 1], 0).into(), keys };
        let keeper = service.keeper();
        let (mut keys, each) = (Vec::new(), entries.div_ceil(ASKED_ABOUT));
        let all = (0..entries).map(|number| {
            let asked = asked(number);
            if number % each == 0 {
                let key = asked.key.as_ref().expect("a key");
                keys.push(PublicKey::from_spki(&key.0).expect("a key"));
            }
            asked
        });
        let begun = Instant::now();
        assert_eq!(keeper.import(all).expect("an import"), entries);
        println!(
            "                   ({entries} imported in {:.1} s)",
            begun.elapsed().as_secs_f64()
        );
        keeper.tidy().expect("tidied up");
        keeper.close().expect("closed");
        service.keys = keys;
        service
    }

    /// The keeper of the library, in this process: while the service does not run.
    pub fn keeper(&self) -> Keeper {
        let state = self.dir.path().join("state");
        Keeper::open(Settings::default(), &state, SystemClock::shared()).expect("a keeper")
    }

    /// Begins to serve.
    pub fn start(&mut self) {
        let config = self.dir.path().join("trust.toml");
        let text = "state_dir = 'state'\nlisten = '127.0.0.1:0'\naddress_file = 'address'\n\
                    anchor = { by = 'none' }\n[front]\nopen_queries = true\nconnections = 2048\n[log]\nfilter = 'warn'\n";
        std::fs::write(&config, text).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_vouchsafe-trust"))
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("it starts"));
        let address = self.dir.path().join("address");
        let since = Instant::now();
        loop {
            let text = std::fs::read_to_string(&address).unwrap_or_default();
            if let Ok(bound) = text.trim().parse() {
                self.address = bound;
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "it does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Validate, or Locate, of the key, unsigned; the answer is signed.
    pub fn question(&self, validate: bool, keep: bool) -> Question {
        let service = format!("http://{}/xkms", self.address);
        let body = |key: &PublicKey| {
            let key_info = Some(KeyInfo::key(key.clone()));
            let binding = Binding { key_info, ..Binding::default() };
            let query = QueryKeyBinding { binding, time: None };
            let body =
                if validate { RequestBody::Validate(query) } else { RequestBody::Locate(query) };
            let request = Request { head: RequestHead::new("I1", &service), body };
            request.to_element().to_xml().into_bytes()
        };
        Question {
            address: self.address,
            path: "/xkms",
            content_type: "text/xml",
            bodies: self.keys.iter().map(body).collect(),
            status: b"200",
            good: if validate {
                b"StatusValue=\"http://www.w3.org/2002/03/xkms#Valid\""
            } else {
                b"</UnverifiedKeyBinding>"
            },
            keep,
            server: self.server(),
        }
    }

    /// What nothing is served for.
    pub fn nothing(&self, keep: bool) -> Question {
        Question {
            address: self.address,
            path: "/nothing",
            content_type: "text/xml",
            bodies: vec![Vec::new()],
            status: b"404",
            good: b"404 Not Found",
            keep,
            server: self.server(),
        }
    }

    fn server(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Proportional set size of keeper and reader, MiB.
    pub fn memory_mib(&self) -> f64 {
        family(self.server()).into_iter().map(pss_kib).sum::<f64>() / 1024.0
    }

    /// Bytes of the library's file.
    pub fn library(&self) -> PathBuf {
        self.dir.path().join("state/store.redb")
    }
}

fn pss_kib(pid: u32) -> f64 {
    let text =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps_rollup"));
    let text = text.unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The reader dies with it.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}
