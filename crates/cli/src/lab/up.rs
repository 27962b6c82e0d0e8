//! `lab up`: keys, TPMs, authority, hosts, in this order; each step is skipped if it stands.

mod centre;
mod trust;
mod wish;

use std::{fs::File, path::Path, time::Duration};

use model::{
    HostId,
    agent::AgentStatus,
    api::enrol::{ApproveRequest, HostMode, HostView, TokenAnswer, TokenRequest},
};
use serve::{
    client::{Client, ClientLimits},
    clock::{Clock as _, SystemClock},
    fsfile,
    process::{ProcessId, Spawn},
};

use self::wish::CONFIG;
pub use self::wish::Wish;
use super::{
    components::{Component, Distribution, Programs, find_all, measure, own_folder},
    keys::LabKeys,
    layout::Layout,
    measured_boot,
    record::{AuthorityRecord, CentreRecord, HostRecord, LabRecord, Processes, Settings},
    tpm::LabTpm,
};
use crate::{
    args::Manner,
    client::{ClientFile, Target},
    output::{Failure, Printer, quoted},
};

/// How long an authority or agent may take to answer, and a host to be trusted.
const READY_WAIT: Duration = Duration::from_secs(30);

/// Held while a lab changes.
///
/// # Errors
/// [`Failure`] if another command holds it.
pub fn lock(layout: &Layout) -> Result<File, Failure> {
    let file = File::create(layout.lock())?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| Failure::error("another `vouchsafe lab` command is at work here", "wait for it"),
    )?;
    Ok(file)
}

struct Lab {
    layout: Layout,
    programs: Programs,
    distribution: Distribution,
    components: Vec<Component>,
    keys: LabKeys,
    processes: Processes,
    settings: Settings,
}

/// Brings the lab in `dir` up and prints `lab.json`.
///
/// # Errors
/// [`Failure`] naming the step that did not work.
pub async fn run(dir: &Path, wish: &Wish, printer: Printer) -> Result<(), Failure> {
    let (programs, distribution) = find_all(&own_folder()?)?;
    let layout = Layout::create(dir)?;
    let _lock = lock(&layout)?;
    let settings = wish.settings(Settings::read(&layout)?);
    let names = wish.names(&layout)?;
    if wish.hosts.is_some_and(|wished| usize::from(wished) < names.len()) {
        printer.say(&format!("the lab keeps the {} hosts that it has", names.len()));
    }
    for folder in ["run", "log", "keys", "authority", "hosts"] {
        fsfile::create_private_dir(&layout.dir.join(folder))?;
    }
    let bar = printer.progress("measuring this machine");
    let mut lab = Lab {
        components: measure(&programs, &distribution)?,
        keys: LabKeys::open_or_make(&layout)?,
        processes: Processes::read(&layout)?,
        layout,
        programs,
        distribution,
        settings,
    };
    settings.write(&lab.layout)?;
    bar.phase("authority");
    let authority = lab.authority().await?;
    let mut record = LabRecord { authority, hosts: Vec::new(), centre: None };
    for name in names {
        bar.phase(format!("host {name}"));
        let authority = record.authority.as_client_file();
        let host = lab.host(&name, &authority, &mut record.centre).await?;
        record.hosts.push(host);
    }
    record.write(&lab.layout)?;
    bar.finish_and_clear();
    let text = format!(
        "the lab is up: authority at {}, {} with software TPMs (lab mode: they prove nothing \
         against root on this machine)\nnext: vouchsafe vm create v1 --lab {} --image FILE",
        record.authority.url,
        counted(record.hosts.len()),
        quoted(&lab.layout.dir),
    );
    printer.result(&record, &text)
}

impl Lab {
    /// Remembers a process as soon as it runs, so that `down` finds it whatever happens next.
    fn remember(&mut self, role: &str, process: ProcessId) -> Result<(), Failure> {
        self.processes.0.insert(role.to_owned(), process);
        self.processes.write(&self.layout)
    }

    /// A TPM that runs; says whether it had to be powered on.
    fn tpm(&mut self, owner: &str, state: &Path) -> Result<(LabTpm, bool), Failure> {
        let tpm = LabTpm::at(&self.layout.tpm_socket(owner))?;
        let role = format!("{owner}-tpm");
        if self.processes.alive(&role).is_some() {
            return Ok((tpm, false));
        }
        let log = self.layout.log(&role);
        let process = tpm.power_on(&self.distribution.swtpm, state, &log)?;
        self.remember(&role, process)?;
        Ok((tpm, true))
    }

    async fn authority(&mut self) -> Result<AuthorityRecord, Failure> {
        let dir = self.layout.authority();
        let (tpm, _) = self.tpm("authority", &dir.join("tpm"))?;
        let reference =
            measured_boot::endorse(&self.components, self.keys.endorser(), SystemClock.unix_ms())?;
        fsfile::write_atomic(&dir.join("reference.json"), &reference.to_json(), 0o600)?;
        let config = dir.join("authority.toml");
        // Hosts know the authority by its address, so a restarted one listens where it did before.
        let bound_before = dir.join("address");
        let listen = std::fs::read_to_string(&bound_before).ok();
        let listen = listen.as_deref().unwrap_or("127.0.0.1:0");
        let lease = self.settings.lease_seconds;
        let text = super::render::authority(&self.layout, &tpm.address(), listen, lease)?;
        fsfile::write_atomic(&config, text.as_bytes(), 0o600)?;
        let state = dir.join("state");
        let address = self.layout.run().join("authority.address");
        if self.processes.alive("authority").is_none() {
            super::init::authority(&self.programs.authority, &config)?;
            fsfile::remove(&address)?;
            let process = Spawn::new(&self.programs.authority)
                .arg("--config")
                .arg(&config)
                .log_file(self.layout.log("authority"))
                .spawn()?;
            self.remember("authority", process)?;
        }
        let pid = self.processes.alive("authority").map_or(0, |process| process.pid);
        let bound = self.wait_for_address(&address).await?;
        fsfile::write_atomic(&bound_before, bound.as_bytes(), 0o600)?;
        Ok(AuthorityRecord {
            url: format!("https://{bound}"),
            ca_file: state.join("ca.pem"),
            client_cert: state.join("operator.pem"),
            client_key: state.join("operator.key"),
            pid,
        })
    }

    async fn wait_for_address(&self, file: &Path) -> Result<String, Failure> {
        self.wait_for("authority", "the authority", || async {
            Ok(std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned()))
        })
        .await
    }

    /// Waits for what `probe` finds, as long as the process of `role` runs.
    async fn wait_for<T, F>(
        &self,
        role: &str,
        what: &str,
        probe: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let log = self.layout.log(role);
        wait(what, &log, || async {
            if self.processes.alive(role).is_none() {
                let hint = format!("its log: {}", log.display());
                return Err(Failure::error(format!("{what} ended at once"), hint));
            }
            probe().await
        })
        .await
    }

    async fn host(
        &mut self,
        name: &HostId,
        authority: &ClientFile,
        centre: &mut Option<CentreRecord>,
    ) -> Result<HostRecord, Failure> {
        let dir = self.layout.host(name);
        fsfile::create_private_dir(&dir)?;
        let log = self.power_on_host(name, &dir)?;
        let target = Target::at(authority.clone());
        let token = self.token(&target, name, &dir).await?;
        let config = dir.join(CONFIG);
        let tpm_socket = self.layout.tpm_socket(&format!("host-{name}"));
        let text = super::render::host(&super::render::HostPaths {
            layout: &self.layout,
            name,
            dir: &dir,
            event_log: &log,
            token: &token,
            programs: &self.programs,
            distribution: &self.distribution,
            authority,
            accel: self.settings.accel,
        })?;
        fsfile::write_atomic(&config, text.as_bytes(), 0o600)?;
        let role = format!("host-{name}");
        if self.processes.alive(&role).is_none() {
            let process = Spawn::new(&self.programs.host)
                .arg("--config")
                .arg(&config)
                .log_file(self.layout.log(&role))
                .spawn()?;
            self.remember(&role, process)?;
        }
        self.approve_and_trust(&target, name).await?;
        if self.settings.manner == Manner::Hybrid && centre.is_none() {
            *centre = Some(self.centre(name).await?);
        }
        let (xkms_url, xkms_ca_file) = self.trust(name, centre.as_ref()).await?;
        Ok(HostRecord {
            name: name.clone(),
            agent_socket: self.layout.agent_socket(name),
            tpm_socket,
            pid: self.processes.alive(&role).map_or(0, |process| process.pid),
            dir,
            xkms_url,
            xkms_ca_file,
        })
    }

    /// The host's TPM, manufactured and, if it was powered on just now, measured into.
    fn power_on_host(&mut self, name: &HostId, dir: &Path) -> Result<std::path::PathBuf, Failure> {
        let log = dir.join("event-log.bin");
        let (tpm, powered_on) = self.tpm(&format!("host-{name}"), &dir.join("tpm"))?;
        tpm.manufacture(|ek| self.keys.certify_ek(name, ek))?;
        if powered_on || !log.exists() {
            let events = measured_boot::measure(tpm.actor(), &self.components)?;
            fsfile::write_atomic(&log, &events, 0o600)?;
        }
        Ok(log)
    }

    /// A file with a fresh enrolment token, unless the host is enrolled.
    async fn token(
        &self,
        target: &Target,
        name: &HostId,
        dir: &Path,
    ) -> Result<std::path::PathBuf, Failure> {
        let file = dir.join("token");
        if !file.exists() && enrolled(&target.authority()?, name).await?.is_none() {
            let request = TokenRequest { host: name.clone() };
            let answer: TokenAnswer = target.authority()?.post("/v1/tokens", &request).await?;
            fsfile::write_atomic(&file, answer.token.as_bytes(), 0o600)?;
        }
        Ok(file)
    }

    async fn approve_and_trust(&self, target: &Target, name: &HostId) -> Result<(), Failure> {
        let client = target.authority()?;
        let log = self.layout.log(&format!("host-{name}"));
        let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
        let agent = Client::unix(&self.layout.agent_socket(name), limits);
        wait(&format!("host {name}"), &log, || async {
            let Ok(Some(host)) = enrolled(&client, name).await else { return Ok(None) };
            if host.mode == HostMode::Pending {
                let path = format!("/v1/hosts/{name}/approve");
                client.post::<_, HostView>(&path, &ApproveRequest { audit_only: false }).await?;
            }
            let Ok(status) = agent.get::<AgentStatus>("/v1/status").await else {
                return Ok(None);
            };
            // What the agent heard before the approval is out of date, not an answer.
            let refused = status.session_refused.as_ref().filter(|r| *r != "host-not-approved");
            if let (HostMode::Enforcing, Some(refused)) = (host.mode, refused) {
                return Err(Failure::refused(
                    refused,
                    status.session_error.clone().unwrap_or_default(),
                    format!("`vouchsafe host show {name} --lab {}`", quoted(&self.layout.dir)),
                ));
            }
            Ok((status.session.is_some() && host.trusted).then_some(()))
        })
        .await
    }
}

/// The host, if it is enrolled. It is looked for in the list: to ask for a host that is not there is
/// a refusal, and is audited as one.
async fn enrolled(client: &Client, name: &HostId) -> Result<Option<HostView>, Failure> {
    let hosts: Vec<HostView> = client.get("/v1/hosts").await?;
    Ok(hosts.into_iter().find(|host| host.name == *name))
}

fn counted(hosts: usize) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}

/// Asks `probe` until it has an answer; [`READY_WAIT`] at most.
async fn wait<T, F>(what: &str, log: &Path, probe: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<Option<T>, Failure>>,
{
    let asked = async {
        loop {
            if let Some(answer) = probe().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(READY_WAIT, asked).await.unwrap_or_else(|_| {
        Err(Failure::error(
            format!("{what} was not ready after {} s", READY_WAIT.as_secs()),
            format!("its log: {}", log.display()),
        ))
    })
}
