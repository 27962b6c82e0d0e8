//! Real processes: a guest is launched from its encrypted volume with a vTPM, loses its disk
//! process, is attached to again, and is powered off. No authority takes part, so keys are random and
//! nothing is certified or appraised. Skipped aloud where the parts are missing.

mod rekey;

use std::path::{Path, PathBuf};

use model::api::vm::{Transport, VolumeFormat};
use serve::clock::SystemClock;

use super::*;
use crate::{
    anchors::{self, Next},
    config::Config,
    grant::Ledger,
    guard,
    identity::Link,
    plan::tests::{kmi, spec},
    spool::Spool,
    vm::record::Processes,
};

/// Where the programs are, and the guest's image; none if one is missing, which is said.
fn parts() -> Option<(PathBuf, PathBuf)> {
    let here = std::env::current_exe().unwrap();
    let built = here.parent().and_then(Path::parent).unwrap().to_owned();
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest-image/guest.img");
    let needed = [
        built.join("vouchsafe-vtpm"),
        built.join("vouchsafe-disk"),
        image.clone(),
        "/usr/bin/qemu-system-x86_64".into(),
        "/usr/bin/swtpm".into(),
        "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
    ];
    match needed.iter().find(|path| !path.exists()) {
        Some(missing) => {
            println!("Skipped: {} is not there", missing.display());
            None
        }
        None => Some((built, image)),
    }
}

impl Worker {
    /// As the clock does it.
    async fn advance(&self, record: &Record, volume: Volume) -> Result<(), Trouble> {
        let name = anchors::name(&self.vm, record.epoch, volume);
        let mut party = self.host.anchors.hold(&name, self.paths.disk_control(volume)).await;
        self.take_on(&mut party, Next::Advance).await
    }
}

/// Ends with the test.
struct Cut(ProcessId);

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

async fn worker(dir: &Path, built: &Path) -> (Worker, mpsc::Receiver<Event>, Cut) {
    let config: Config = serde_json::from_value(serde_json::json!({
        "name": "a", "state_dir": dir.join("s"), "run_dir": dir.join("r"), "tpm": "unix:/none",
        "authority": {"url": "https://127.0.0.1:1", "ca_file": "/none"}, "accel": "tcg",
        "binaries": {"vtpm": built.join("vouchsafe-vtpm"), "disk": built.join("vouchsafe-disk")},
    }))
    .unwrap();
    fsfile::create_private_dir(&config.run_dir).unwrap();
    fsfile::create_private_dir(&config.state_dir).unwrap();
    let clock = SystemClock::shared();
    let (swtpm, tpm, guard) = guard::tests::in_session(dir).await;
    let ledger = Ledger::open(&config.state_dir).unwrap();
    let spool = Spool::open(&config.state_dir).unwrap();
    let link = Link::new(clock.clone());
    let host = Host::new(Arc::new(config), clock, tpm, link, (guard, ledger, spool));
    let (events, inbox) = mpsc::channel(64);
    let vm = "v1".parse().unwrap();
    let worker = Worker::new(Arc::new(host), vm, Arc::new(Console::default()), events);
    worker.prepare().unwrap();
    (worker, inbox, Cut(swtpm))
}

fn record(image: &Path) -> Record {
    use std::io::Read as _;
    let mut content = Vec::new();
    std::fs::File::open(image).unwrap().read_to_end(&mut content).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
    let mut spec = spec("v1");
    spec.image.path = image.to_str().unwrap().to_owned();
    spec.image.sha256 = model::Digest::new(model::HashAlg::Sha256, digest.as_ref()).unwrap();
    Record::new(spec, model::Epoch(1), kmi("v1"))
}

/// A worker, its VM's record, and what was started for it; dropped in this order.
struct Bench {
    worker: Worker,
    inbox: mpsc::Receiver<Event>,
    record: Record,
    started: Arc<Mutex<Processes>>,
    _cleanup: Cleanup,
    _swtpm: Cut,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new((built, image): &(PathBuf, PathBuf), format: VolumeFormat) -> Self {
        let mut record = record(image);
        record.spec.format = format;
        Self::of(built, record).await
    }

    async fn of(built: &Path, record: Record) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (worker, inbox, swtpm) = worker(dir.path(), built).await;
        let started = Arc::new(Mutex::new(Processes::default()));
        let cleanup = Cleanup(Arc::clone(&started));
        Self { worker, inbox, record, started, _cleanup: cleanup, _swtpm: swtpm, _dir: dir }
    }

    /// With a data volume that counts, not opened; and its file.
    async fn with_vault(parts: &(PathBuf, PathBuf)) -> (Self, PathBuf) {
        let mut bench = Self::new(parts, VolumeFormat::Vault).await;
        bench.worker.data_key = Some(Secret::new(vec![8; 32]));
        bench.step(Step::Create(Volume::Data)).await;
        let file = bench.worker.paths.image(Volume::Data);
        (bench, file)
    }

    /// Does a step, and keeps the record as the machine would.
    async fn step(&mut self, step: Step) -> Found {
        let begun = self.worker.host.clock.monotonic();
        let found = self.worker.perform(&self.record, step).await;
        let found = found.unwrap_or_else(|trouble| panic!("{step:?}: {trouble}"));
        println!("{step:?}: {} ms", self.worker.elapsed_ms(begun));
        if let Found::Runs(role, process) = &found {
            self.record.running.set(*role, Some(*process));
        }
        if let Step::End(role) = step {
            self.record.running.set(role, None);
        }
        *self.started.lock().unwrap() = self.record.running;
        found
    }

    async fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(*step).await;
        }
    }

    /// The name by which a step is refused.
    async fn refusal(&mut self, step: Step) -> String {
        let refused = self.worker.perform(&self.record, step).await.unwrap_err();
        refused.reason.refused.unwrap_or_default()
    }

    /// Kills a process behind the worker's back.
    async fn cut(&mut self, role: Role) {
        assert!(crate::process::cut(self.record.running.get(role).unwrap()).await);
        self.record.running.set(role, None);
    }
}

/// Leaves no process behind, whatever happens.
struct Cleanup(Arc<Mutex<Processes>>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for role in Role::ALL {
            let record = self.0.lock().unwrap();
            if let Some(process) = record.get(role) {
                let _ = process.kill();
            }
        }
    }
}

async fn console_says(worker: &Worker, words: &str) {
    for _ in 0..600 {
        worker.console.take().await.unwrap();
        if worker.console.holds(words.as_bytes()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the console does not say {words:?}:\n{}", worker.console.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_survives_its_disk_process_and_powers_off() {
    lives(VolumeFormat::Luks2, Transport::Nbd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_lives_on_authenticated_volumes_as_well() {
    lives(VolumeFormat::Vault, Transport::Nbd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_lives_on_volumes_that_share_its_memory() {
    lives(VolumeFormat::Vault, Transport::VhostUser).await;
}

async fn lives(format: VolumeFormat, transport: Transport) {
    let Some(parts) = parts() else { return };
    let mut bench = Bench::new(&parts, format).await;
    bench.record.spec.transport = transport;
    bench.worker.boot_keys = Some(Secret::new(vec![7; 128]));
    let (boot, data) = (Role::Disk(Volume::Boot), Role::Disk(Volume::Data));
    let first = [Step::Create(Volume::Boot), Step::Spawn(Role::Vtpm), Step::Manufacture];
    bench.steps(&first).await;
    bench.steps(&[Step::Spawn(boot), Step::Spawn(Role::Qemu), Step::AwaitBoot]).await;
    println!("{:?}", bench.worker.progress().take_times());
    console_says(&bench.worker, "vouchsafe-guest: marker-written").await;

    bench.worker.data_key = Some(Secret::new(vec![8; 32]));
    bench.steps(&[Step::Create(Volume::Data), Step::Spawn(data), Step::Plug, Step::Plug]).await;
    console_says(&bench.worker, "data-volume-open 16777216").await;

    bench.cut(boot).await;
    bench.step(Step::Spawn(boot)).await;
    bench.worker.forget(true, true, false);
    bench.step(Step::Attach).await;
    bench.worker.console.take().await.unwrap();
    let logs = bench.worker.fresh_logs().await;
    assert!(logs.is_some_and(|logs| logs.bios.len() > 1000));

    bench.steps(&[Step::Pause, Step::Continue, Step::PowerOff]).await;
    let ends = [Role::Qemu, data, boot, Role::Vtpm].map(Step::End);
    bench.steps(&ends).await;
    bench.inbox.close();
    assert!(powered_off(&mut bench.inbox).await);
}

async fn powered_off(inbox: &mut mpsc::Receiver<Event>) -> bool {
    let mut powered_off = false;
    while let Some(event) = inbox.recv().await {
        powered_off |= matches!(event, Event::PoweredOff { reset: false });
    }
    powered_off
}

#[tokio::test(flavor = "multi_thread")]
async fn yesterdays_copy_of_a_volume_is_refused_by_name_and_so_is_an_unknown_one() {
    let Some(parts) = parts() else { return };
    let (mut bench, file) = Bench::with_vault(&parts).await;
    let data = Role::Disk(Volume::Data);
    let (open, close) = (Step::Spawn(data), Step::End(data));
    let mut copies = Vec::new();
    for _ in 0..2 {
        bench.steps(&[open, close]).await;
        copies.push(std::fs::read(&file).unwrap());
    }
    std::fs::write(&file, &copies[0]).unwrap();
    assert_eq!(bench.refusal(open).await, "rolled-back");
    std::fs::write(&file, &copies[1]).unwrap();
    bench.step(open).await;
    // A disk process that was killed had done nothing that the counter does not know.
    bench.cut(data).await;
    bench.steps(&[open, close]).await;
    // What was there before an advance is dead while the guest runs on.
    bench.step(open).await;
    let before = std::fs::read(&file).unwrap();
    bench.worker.advance(&bench.record, Volume::Data).await.unwrap();
    bench.cut(data).await;
    let after = std::fs::read(&file).unwrap();
    std::fs::write(&file, &before).unwrap();
    assert_eq!(bench.refusal(open).await, "rolled-back");
    std::fs::write(&file, &after).unwrap();
    bench.steps(&[open, close]).await;
    bench.record.epoch = model::Epoch(2);
    assert_eq!(bench.refusal(open).await, "anchor-missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_authoritys_record_a_host_that_was_set_back_is_refused_and_a_volume_is_handed_over()
{
    let Some(parts) = parts() else { return };
    let (mut bench, file) = Bench::with_vault(&parts).await;
    let data = Role::Disk(Volume::Data);
    let (open, close) = (Step::Spawn(data), Step::End(data));
    let key = bench.worker.host.guard.host_key().await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..2 {
        bench.steps(&[open, close]).await;
        let (anchors, epoch) = (&bench.worker.host.anchors, bench.record.epoch);
        let standing = anchors.standing(&key, &bench.worker.vm, epoch).await.unwrap();
        assert!(standing[0].head.rest);
        runs.push((standing[0].count, std::fs::read(&file).unwrap()));
    }
    let told = |bench: &mut Bench, count, handed_over| {
        bench.worker.recorded.insert(Volume::Data, AnchorStart { count, handed_over });
    };
    // The table, the volume and the TPM agree, and the record counts further.
    told(&mut bench, runs[1].0 + 1, false);
    assert_eq!(bench.refusal(open).await, "rolled-back");
    assert_eq!(bench.refusal(Step::Create(Volume::Data)).await, "rolled-back");
    assert!(file.exists());
    // Another machine has no count of it: it takes the copy that the record counts, and no other.
    bench.worker.host.anchors.forget(&key, &bench.worker.vm).await.unwrap();
    told(&mut bench, runs[1].0, false);
    assert_eq!(bench.refusal(open).await, "anchor-missing");
    told(&mut bench, runs[1].0, true);
    std::fs::write(&file, &runs[0].1).unwrap();
    assert_eq!(bench.refusal(open).await, "rolled-back");
    std::fs::write(&file, &runs[1].1).unwrap();
    bench.steps(&[open, close]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vtpm_gets_an_rsa_ek_only_if_the_vm_asks_for_one() {
    let Some(parts) = parts() else { return };
    for rsa in [false, true] {
        let mut bench = Bench::new(&parts, VolumeFormat::default()).await;
        bench.record.spec.vtpm_rsa_ek = rsa;
        bench.worker.boot_keys = Some(Secret::new(vec![7; 128]));
        bench.step(Step::Spawn(Role::Vtpm)).await;
        let made = bench.step(Step::Manufacture).await;
        let Found::Publics(publics) = made else { panic!("{made:?}") };
        let Some(ek) = publics.ek_rsa_public else {
            assert!(!rsa);
            continue;
        };
        assert!(rsa);
        let ek = tpm::Public::parse(&ek.0).unwrap();
        let tpm::VerifyingKey::Rsa { modulus, .. } = ek.verifying_key().unwrap() else {
            panic!("no RSA key")
        };
        assert_eq!(modulus.len(), 256);
    }
}
