//! A centre for one test: an authority with its own TPM, an EK CA, an endorser, an operator.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use attest::{
    envelope::{Envelope, Kind, SoftwareKey},
    eventlog::EventLog,
    reference::ReferenceValues,
};
use model::{
    HostId,
    api::enrol::{TokenAnswer, TokenRequest},
};
use pki::{Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use serde::{Serialize, de::DeserializeOwned};
use serve::{
    client::{Call, CallError, Client, ClientLimits, Identity},
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
    pem,
};
use tempfile::TempDir;
use tpm::{Actor, Address};

use crate::host_client::{HostClient, measured_boot};

/// PCRs that the tests' reference values cover.
pub(crate) const PCRS: [u8; 3] = [0, 7, 14];

/// A software TPM as a process.
pub(crate) struct SoftwareTpm {
    child: Child,
    pub(crate) address: String,
    pub(crate) actor: Actor,
}

impl SoftwareTpm {
    pub(crate) fn start(dir: &Path, name: &str) -> Self {
        let state = dir.join(format!("{name}.tpm"));
        std::fs::create_dir_all(&state).unwrap();
        let socket = dir.join(format!("{name}.sock"));
        let _ = std::fs::remove_file(&socket);
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear"])
            .args(["--tpmstate", &format!("dir={}", state.display())])
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .args(["--ctrl", &format!("type=unixio,path={}.ctrl", socket.display())])
            .stdin(Stdio::null())
            .spawn()
            .expect("swtpm is installed");
        wait_for(&socket);
        let address = format!("unix:{}", socket.display());
        let actor = Actor::start(address.parse::<Address>().unwrap()).unwrap();
        let software = Self { child, address, actor };
        // The socket is there a moment before anybody listens on it.
        for _ in 0..12_000 {
            if software.actor.run(|tpm| tpm.startup()).is_ok() {
                return software;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("swtpm does not answer");
    }
}

impl SoftwareTpm {
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn wait_for(path: &Path) {
    for _ in 0..12_000 {
        if path.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{} did not appear", path.display());
}

/// What a test changes in the configuration: lines put before or under `[policy]`, `[limits]`.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) top: String,
    pub(crate) policy: String,
    pub(crate) limits: String,
}

/// An authority that was initialised; it runs while `process` is there.
pub(crate) struct Centre {
    pub(crate) dir: TempDir,
    pub(crate) tpm: SoftwareTpm,
    pub(crate) ek_ca: Ca,
    pub(crate) init: serde_json::Value,
    endorser: SoftwareKey,
    process: Option<Child>,
}

impl Centre {
    /// An authority that runs.
    pub(crate) fn start() -> Self {
        Self::with(&Settings::default())
    }

    /// An authority that runs with these settings.
    pub(crate) fn with(settings: &Settings) -> Self {
        let mut centre = Self::prepare(settings);
        centre.run();
        centre
    }

    /// An authority that does not run yet.
    pub(crate) fn prepare(settings: &Settings) -> Self {
        let dir = tempfile::Builder::new().prefix("va").tempdir().unwrap();
        let tpm = SoftwareTpm::start(dir.path(), "authority");
        let year = Duration::from_secs(365 * 86_400);
        let validity =
            Validity::backdated(SystemClock.now(), Duration::from_secs(3 * 86_400), year);
        let spec = CaSpec { common_name: "EK CA".to_owned(), path_length: 0, validity };
        let (ek_ca, _key) = Ca::create_root(&spec).unwrap();
        pem::write_certificates(&dir.path().join("ek-ca.pem"), &[ek_ca.certificate()]).unwrap();
        let endorser = SigningKey::generate().unwrap();
        let public = pem::encode("PUBLIC KEY", endorser.spki()).unwrap();
        std::fs::write(dir.path().join("endorser.pub"), public).unwrap();
        let endorser = SoftwareKey::from_pkcs8(endorser.to_pkcs8().unwrap().expose()).unwrap();
        let mut centre =
            Self { dir, tpm, ek_ca, init: serde_json::Value::Null, endorser, process: None };
        centre.endorse(&measured_boot());
        centre.configure(settings);
        let output = centre.command(&["init", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        centre.init = serde_json::from_slice(&output.stdout).unwrap();
        centre
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path("state").join(name)
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, settings: &Settings) {
        let Settings { top, policy, limits } = settings;
        let text = format!(
            "state_dir = 'state'\nlisten = '127.0.0.1:0'\naddress_file = 'address'\n\
             tpm = '{}'\nek_roots = ['ek-ca.pem']\nallow_software_tpm = true\n\
             reference_values = 'reference.json'\n{top}\n\
             [endorsers]\nkeys = ['endorser.pub']\n[policy]\n{policy}\n[limits]\n{limits}\n\
             [log]\nfilter = 'warn'\n",
            self.tpm.address
        );
        std::fs::write(self.path("authority.toml"), text).unwrap();
    }

    /// Signs a machine's log as the reference.
    pub(crate) fn endorse(&self, log: &[u8]) {
        let log = EventLog::parse(log).unwrap();
        let values = ReferenceValues::from_log("tests", SystemClock.unix_ms(), &log, &PCRS);
        let envelope = Envelope::sign(Kind::ReferenceValues, &values, &[&self.endorser]).unwrap();
        std::fs::write(self.path("reference.json"), envelope.to_json()).unwrap();
    }

    /// Runs a command of the binary to its end.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vouchsafe-authority"))
            .args(arguments)
            .arg("--config")
            .arg(self.path("authority.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn run(&mut self) {
        let _ = std::fs::remove_file(self.path("address"));
        let child = Command::new(env!("CARGO_BIN_EXE_vouchsafe-authority"))
            .arg("--config")
            .arg(self.path("authority.toml"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(child);
        wait_for(&self.path("address"));
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn stop(&mut self) -> i32 {
        let mut child = self.process.take().expect("it runs");
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(status.unwrap().success());
        child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Waits for the server to end by itself; its exit status.
    pub(crate) fn wait(&mut self) -> i32 {
        let mut child = self.process.take().expect("it runs");
        child.wait().unwrap().code().unwrap_or(-1)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the authority's TPM as a power cut does.
    pub(crate) fn power_off(&mut self) {
        self.tpm.kill();
    }

    /// Starts the authority's TPM again, with what its state directory holds.
    pub(crate) fn power_on(&mut self) {
        self.tpm = SoftwareTpm::start(self.dir.path(), "authority");
    }

    pub(crate) fn url(&self) -> String {
        let address = std::fs::read_to_string(self.path("address")).unwrap();
        format!("https://{}", address.trim())
    }

    pub(crate) fn anchors(&self) -> Vec<Vec<u8>> {
        pem::read_certificates(&self.state("ca.pem")).unwrap()
    }

    /// A caller with this certificate, or none.
    pub(crate) fn caller(&self, identity: Option<&Identity>) -> Caller {
        Caller::new(&self.url(), &self.anchors(), identity)
    }

    /// The first operator.
    pub(crate) fn operator(&self) -> Caller {
        let files = (self.state("operator.pem"), self.state("operator.key"));
        self.caller(Some(&Identity::read(&files.0, &files.1).unwrap()))
    }

    /// Another operator, made beside the server.
    pub(crate) fn second_operator(&self) -> Caller {
        let out = self.path("second");
        std::fs::create_dir_all(&out).unwrap();
        let made = self.command(&["operator", "--name", "bob", "--out", out.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        let files = (out.join("bob.pem"), out.join("bob.key"));
        self.caller(Some(&Identity::read(&files.0, &files.1).unwrap()))
    }

    pub(crate) fn token(&self, host: &str) -> String {
        let host: HostId = host.parse().unwrap();
        let answer: TokenAnswer =
            self.operator().post("/v1/tokens", &TokenRequest { host }).unwrap();
        answer.token
    }

    /// A machine with a TPM of its own that booted as endorsed; not enrolled.
    pub(crate) fn machine(&self, name: &str) -> HostClient {
        let tpm = SoftwareTpm::start(self.dir.path(), name);
        let mut host = HostClient::new(name, tpm, &self.url(), self.anchors());
        host.certify_ek(|spki| self.ek_certificate(spki));
        host
    }

    pub(crate) fn ek_certificate(&self, spki: &[u8]) -> Vec<u8> {
        let tpm = TpmModel {
            manufacturer: "id:00001014".to_owned(),
            model: "swtpm".to_owned(),
            version: "id:20191023".to_owned(),
        };
        let day = Duration::from_secs(86_400);
        let validity = Validity::backdated(SystemClock.now(), day, day * 300);
        self.ek_ca.issue(&Profile::HostEk { tpm }, spki, validity).unwrap().der
    }

    /// A host that is enrolled and approved.
    pub(crate) fn host(&self, name: &str) -> HostClient {
        let host = self.enrolled(name);
        self.approve(name, false);
        host
    }

    /// A host that is enrolled and waits for approval.
    pub(crate) fn enrolled(&self, name: &str) -> HostClient {
        let host = self.machine(name);
        let request = host.enrol_request(&self.token(name));
        host.enrol(&request).unwrap();
        host
    }

    pub(crate) fn approve(&self, name: &str, audit_only: bool) {
        let body = serde_json::json!({ "audit_only": audit_only });
        let path = format!("/v1/hosts/{name}/approve");
        let _: serde_json::Value = self.operator().post(&path, &body).unwrap();
    }

    /// The names of all refusals in the audit log.
    pub(crate) fn audited_refusals(&self) -> Vec<String> {
        let page: serde_json::Value = self.operator().get("/v1/audit?from=0&limit=1000").unwrap();
        let entries = page["entries"].as_array().unwrap();
        let names = entries.iter().filter_map(|entry| entry["outcome"]["refused"].as_str());
        names.map(str::to_owned).collect()
    }

    /// The events in the audit log that were done.
    pub(crate) fn audited_events(&self) -> Vec<String> {
        let page: serde_json::Value = self.operator().get("/v1/audit?from=0&limit=1000").unwrap();
        let entries = page["entries"].as_array().unwrap();
        let done = entries.iter().filter(|entry| entry["outcome"] == "done");
        done.filter_map(|entry| entry["event"].as_str()).map(str::to_owned).collect()
    }
}

impl Drop for Centre {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Calls that wait for their answers.
pub(crate) struct Caller {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// The name of a refusal, or words for what else went wrong.
pub(crate) type Refused = String;

fn name_of(error: CallError) -> Refused {
    error.refusal().map_or_else(|| serve::exit::chain(&error), str::to_owned)
}

impl Caller {
    pub(crate) fn new(url: &str, anchors: &[Vec<u8>], identity: Option<&Identity>) -> Self {
        let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
        let client = Client::https(url, anchors, identity, SystemClock::shared(), limits).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { client, runtime }
    }

    pub(crate) fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, CallError> {
        self.runtime.block_on(self.client.call(call))
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refused> {
        self.runtime.block_on(self.client.get(path)).map_err(name_of)
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Refused> {
        self.runtime.block_on(self.client.post(path, body)).map_err(name_of)
    }

    /// A request without a body.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        method: http::Method,
        path: &str,
    ) -> Result<T, Refused> {
        self.call(Call::new(method, path)).map_err(name_of)
    }
}
