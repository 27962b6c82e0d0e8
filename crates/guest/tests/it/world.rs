//! One server: its trust service (the real process), its agent, and a VM with its port and vTPM.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use model::{Digest, Epoch, api::Bytes, guest::Measured};
use vouchsafe_guest::{
    config::Config,
    exchange::{Ask, Client, Reply},
    proof::Prover,
    service::{Connection, Duplex, ServiceError, port::PortStream},
};

use crate::{agent::Agent, qemu::Port, vtpm::Vtpm};

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    trust: Child,
    pub(crate) agent: Arc<Agent>,
    pub(crate) port: Port,
    pub(crate) vtpm: Vtpm,
}

/// The trust service, built with the workspace; none (said aloud) if it is not.
fn program() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_BIN_EXE_vouchsafe-guest"));
    let path = own.with_file_name("vouchsafe-trust");
    if !path.exists() {
        println!("Skipped: vouchsafe-trust is not built");
        return None;
    }
    Some(path)
}

impl World {
    pub(crate) fn up() -> Option<Self> {
        Self::with("")
    }

    /// With these lines more in the trust service's table `guest`.
    pub(crate) fn with(settings: &str) -> Option<Self> {
        let program = program()?;
        let dir = tempfile::Builder::new().prefix("vg").tempdir_in("/tmp").unwrap();
        let vtpm = Vtpm::start(dir.path())?;
        let port = Port::new(dir.path());
        let measured = Measured {
            vm: "v1".parse().unwrap(),
            epoch: Epoch(1),
            trusted: Some(true),
            ek_certificate: Some(Bytes(vtpm.ek_certificate.clone())),
            pcrs: vtpm.observed(),
            port: port.host.to_str().unwrap().to_owned(),
        };
        let agent = Agent::start(dir.path(), measured);
        let config = dir.path().join("trust.toml");
        let digest = |byte: u8| Digest::sha256([byte; 32]);
        let text = format!(
            "state_dir = 'state'\nlisten = '127.0.0.1:0'\nagent_socket = 'agent'\n\
             anchor = {{ by = 'none' }}\n[guest]\nclients = ['{}']\nsoftware = ['{}']\n\
             {settings}",
            digest(3),
            digest(2)
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(dir.path().join("trust.log")).unwrap();
        let trust = Command::new(program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { dir, trust, agent, port, vtpm })
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            ca: self.agent.ca_file.clone(),
            port: Some(self.port.guest.clone()),
            tpm: self.vtpm.address().to_string(),
            ima_log: self.vtpm.list.clone(),
            patience_s: 60,
            ..Config::default()
        }
    }

    /// The same as [`Self::config`], over the network, once somebody answers there.
    pub(crate) fn networked(&self, vm: &str) -> Config {
        drop(self.network());
        let url = Some(format!("https://{}/", self.address()));
        Config { port: None, url, vm: Some(vm.parse().unwrap()), ..self.config() }
    }

    /// Where guests are heard over a network.
    fn address(&self) -> String {
        let file = self.dir.path().join("guests");
        while !file.exists() {
            thread::sleep(Duration::from_millis(10));
        }
        std::fs::read_to_string(file).unwrap()
    }

    /// A connection over the network without any proof. At first the service may have no passport yet:
    /// then it ends each one.
    pub(crate) fn network(&self) -> Connection {
        let connect = || {
            let stream = std::net::TcpStream::connect(self.address()).unwrap();
            self.shaken(Box::new(stream))
        };
        for _ in 0..2400 {
            match connect() {
                Err(ServiceError::Io(_)) => thread::sleep(Duration::from_millis(50)),
                connected => return connected.unwrap(),
            }
        }
        connect().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.config()).unwrap()
    }

    pub(crate) fn prover(&self) -> Prover {
        Prover { tpm: self.vtpm.address(), ima_log: self.vtpm.list.clone(), vm: None }
    }

    /// A connection without any proof.
    pub(crate) fn connection(&self) -> Connection {
        let stream = PortStream::open(&self.port.guest, Duration::from_secs(20)).unwrap();
        self.shaken(Box::new(stream)).unwrap()
    }

    fn shaken(&self, stream: Box<dyn Duplex>) -> Result<Connection, ServiceError> {
        let text = std::fs::read_to_string(&self.agent.ca_file).unwrap();
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        use base64::Engine as _;
        let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
        Connection::tls(stream, &pki::Anchors::new(&[der]).unwrap())
    }

    /// The name by which the client's proof is refused now.
    pub(crate) fn refusal(&self) -> String {
        let reply = self.client().ask(&Ask::Attest {});
        if let Reply::Refused { refused, .. } = reply {
            return refused;
        }
        format!("{reply:?}\n{}", self.log())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("trust.log")).unwrap_or_default()
    }

    /// Kills the process that parses strangers' bytes; the keeper starts another.
    pub(crate) fn kill_reader(&self) {
        let said =
            Command::new("pkill").args(["-KILL", "-P", &self.trust.id().to_string()]).status();
        assert!(said.unwrap().success());
        thread::sleep(Duration::from_millis(200));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.trust.kill();
        let _ = self.trust.wait();
    }
}
