//! Doing a VM's steps: the only place where a [`Step`] touches files, processes and the wire. Each
//! is idempotent, so that after a crash it is simply done again.

mod appraise;
mod keys;
mod launch;
mod rekey;
mod stop;
#[cfg(test)]
mod tests;
mod volume;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Secret, VmId, api::anchor::AnchorStart};
use serve::{fsfile, process::ProcessId};
use tokio::{net::UnixStream, sync::mpsc};

use crate::{
    console::Console,
    host::Host,
    plan::{LaunchPlan, Role, VmPaths, Volume},
    qmp::{self, Qmp},
    trouble::Trouble,
    vm::{
        record::Record,
        step::{Event, Result as Found, Step},
    },
};

/// How long a process may take until it answers on its control socket.
const READY: Duration = Duration::from_secs(60);

/// How long a question to a process or to QEMU may take.
const ANSWER: Duration = Duration::from_secs(10);

/// What a VM's driver holds beside its record: keys, connections, the console.
#[derive(Debug)]
pub(crate) struct Worker {
    host: Arc<Host>,
    vm: VmId,
    paths: VmPaths,
    boot_keys: Option<Secret<Vec<u8>>>,
    data_key: Option<Secret<Vec<u8>>>,
    /// Volumes that the grant of this start takes for the newest, whatever they count.
    reanchored: Vec<Volume>,
    /// What the grants of this start say that the volumes count by the authority's record.
    recorded: BTreeMap<Volume, AnchorStart>,
    qmp: Option<Qmp>,
    evidence: Option<UnixStream>,
    console: Arc<Console>,
    events: mpsc::Sender<Event>,
    progress: Progress,
    /// When the vTPM process of this launch was started.
    vtpm_started: Option<Duration>,
}

/// Percent of the step under way, and times that steps measured themselves; shared with the
/// driver, which looks while a step is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    percent: Option<u8>,
    times: Vec<(String, u64)>,
}

impl Progress {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn percent(&self, percent: Option<u8>) {
        self.told().percent = percent;
    }

    fn measured(&self, what: &str, ms: u64) {
        self.told().times.push((what.to_owned(), ms));
    }

    /// Percent of the step under way, if it is known.
    pub(crate) fn now(&self) -> Option<u8> {
        self.told().percent
    }

    /// Takes the times that were measured since it was last asked.
    pub(crate) fn take_times(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.told().times)
    }
}

impl Worker {
    /// A worker for one VM; `events` is its driver's inbox.
    pub(crate) fn new(
        host: Arc<Host>,
        vm: VmId,
        console: Arc<Console>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let paths = VmPaths::new(&host.config, &vm);
        Self {
            host,
            vm,
            paths,
            boot_keys: None,
            data_key: None,
            reanchored: Vec::new(),
            recorded: BTreeMap::new(),
            qmp: None,
            evidence: None,
            console,
            events,
            progress: Progress::default(),
            vtpm_started: None,
        }
    }

    /// What the step under way tells.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Forgets keys and connections that the machine no longer counts on.
    pub(crate) fn forget(&mut self, boot_keys: bool, data_key: bool, attached: bool) {
        if !boot_keys {
            self.boot_keys = None;
        }
        if !data_key {
            self.data_key = None;
        }
        if !attached {
            self.qmp = None;
            self.evidence = None;
            self.console.detach();
        }
    }

    /// Does a step.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn perform(&mut self, record: &Record, step: Step) -> Result<Found, Trouble> {
        self.progress.percent(None);
        match step {
            Step::SetAside => self.set_aside(record),
            Step::NameKey => self.name_key(record).await,
            Step::Deposit => self.deposit(record).await,
            Step::Keys(volume) => self.obtain_keys(record, volume).await,
            Step::Create(volume) => self.create_volume(record, volume).await,
            Step::Spawn(Role::Vtpm) => self.spawn_vtpm(record).await,
            Step::Spawn(Role::Disk(volume)) => self.spawn_disk(record, volume).await,
            Step::Spawn(Role::Qemu) => self.spawn_qemu(record).await,
            Step::Manufacture => self.manufacture(record).await,
            Step::Certify => self.certify(record).await,
            Step::Attach => self.attach(record).await,
            Step::AwaitBoot => self.await_boot().await,
            Step::Appraise => self.appraise(record).await,
            Step::Plug => self.plug(record).await,
            Step::NextKey(volume) => self.next_key(volume).await,
            Step::Rekey(volume) => self.rekey(record, volume).await,
            Step::Pause => self.command("stop").await,
            Step::Continue => self.command("cont").await,
            Step::PowerOff => self.power_off(record).await,
            Step::End(role) => self.end(record, role).await,
            Step::Destroy => self.destroy().await,
        }
    }

    /// Makes the VM's directories.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) fn prepare(&self) -> Result<(), Trouble> {
        fsfile::create_private_dir(&self.paths.state)?;
        Ok(fsfile::create_private_dir(&self.paths.run)?)
    }

    async fn plan(&self, record: &Record) -> Result<LaunchPlan, Trouble> {
        let ability = self.host.ability().await?;
        Ok(LaunchPlan::new(&self.host.config, &record.spec, ability)?)
    }

    /// Tells the driver when the process ends.
    pub(crate) fn watch(&self, role: Role, process: ProcessId) {
        let events = self.events.clone();
        tokio::spawn(async move {
            loop {
                match process.wait_exit(Duration::from_secs(3600)).await {
                    Ok(None) => {}
                    Ok(Some(_)) | Err(_) => break,
                }
                if events.is_closed() {
                    return;
                }
            }
            // The driver may have ended with the agent.
            let _ = events.send(Event::Exited(role, process)).await;
        });
    }

    /// Tells the driver what QEMU tells us.
    fn listen(&self, qmp: &Qmp, mut from: mpsc::Receiver<qmp::Event>) {
        let (events, qmp) = (self.events.clone(), qmp.downgrade());
        tokio::spawn(async move {
            while let Some(event) = from.recv().await {
                let told = match event {
                    qmp::Event::Stop | qmp::Event::Resume => {
                        let Some(qmp) = qmp.upgrade() else { return };
                        match qmp.run_state().await {
                            Ok(state) => Event::Cpus(state),
                            Err(_) => continue,
                        }
                    }
                    qmp::Event::Shutdown { reset, .. } => Event::PoweredOff { reset },
                    qmp::Event::BlockError { .. }
                    | qmp::Event::DeviceDeleted { .. }
                    | qmp::Event::Other(_) => continue,
                };
                if events.send(told).await.is_err() {
                    return;
                }
            }
        });
    }

    fn key_of(&self, volume: Volume) -> Result<&[u8], Trouble> {
        let keys = match volume {
            Volume::Boot => &self.boot_keys,
            Volume::Data => &self.data_key,
        };
        keys.as_ref()
            .and_then(|keys| keys.expose().get(..32))
            .ok_or_else(|| Trouble::failed("the keys are not in memory"))
    }

    /// How long a process's log is now; what comes after is of the next start.
    fn log_length(&self, role: Role) -> usize {
        let length = std::fs::metadata(self.paths.log(role)).map_or(0, |facts| facts.len());
        usize::try_from(length).unwrap_or(usize::MAX)
    }

    fn log_since(&self, role: Role, since: usize) -> Option<String> {
        let log = fsfile::read_limited(&self.paths.log(role), 16 << 20).ok()?;
        Some(String::from_utf8_lossy(log.get(since..)?).into_owned())
    }

    /// Why a process of ours ended, by its last line on stdout, which its log holds too.
    fn last_words(&self, role: Role, since: usize) -> Option<Trouble> {
        let text = self.log_since(role, since)?;
        let words = text.lines().rev().find_map(|l| serde_json::from_str::<LastWords>(l).ok())?;
        Some(match words {
            LastWords::Refused { code, detail } => Trouble::refused(code, detail, ""),
            LastWords::Failed { detail } => Trouble::failed(detail),
        })
    }

    fn elapsed_ms(&self, since: Duration) -> u64 {
        let spent = self.host.clock.monotonic().saturating_sub(since);
        u64::try_from(spent.as_millis()).unwrap_or(u64::MAX)
    }
}

/// How our processes say on stdout that they cannot go on.
#[derive(serde::Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum LastWords {
    Refused { code: String, detail: String },
    Failed { detail: String },
}

/// Removes a file or directory with its content; no error if it is not there.
fn remove_all(path: &Path) -> std::io::Result<()> {
    let result =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
