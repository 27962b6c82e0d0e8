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

fn parts() -> Result<(PathBuf, PathBuf), String> {
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
        Some(missing) => Err(format!("{} is not there", missing.display())),
        None => Ok((built, image)),
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

/// Does a step, and keeps the record as the machine would.
async fn step(
    worker: &mut Worker,
    (record, started): (&mut Record, &Mutex<Processes>),
    step: Step,
) -> Found {
    let begun = worker.host.clock.monotonic();
    let found = worker.perform(record, step).await.unwrap_or_else(|t| panic!("{step:?}: {t}"));
    println!("{step:?}: {} ms", worker.elapsed_ms(begun));
    if let Found::Runs(role, process) = &found {
        record.running.set(*role, Some(*process));
    }
    if let Step::End(role) = step {
        record.running.set(role, None);
    }
    *started.lock().unwrap() = record.running;
    found
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
    let (built, image) = match parts() {
        Ok(parts) => parts,
        Err(missing) => {
            println!("Skipped: {missing}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut worker, mut inbox, _swtpm) = worker(dir.path(), &built).await;
    let mut record = record(&image);
    record.spec.format = format;
    record.spec.transport = transport;
    let started = Arc::new(Mutex::new(Processes::default()));
    let _cleanup = Cleanup(Arc::clone(&started));
    worker.boot_keys = Some(Secret::new(vec![7; 128]));
    for first in [
        Step::Create(Volume::Boot),
        Step::Spawn(Role::Vtpm),
        Step::Manufacture,
        Step::Spawn(Role::Disk(Volume::Boot)),
        Step::Spawn(Role::Qemu),
        Step::AwaitBoot,
    ] {
        step(&mut worker, (&mut record, &started), first).await;
    }
    println!("{:?}", worker.progress().take_times());
    console_says(&worker, "vouchsafe-guest: marker-written").await;

    worker.data_key = Some(Secret::new(vec![8; 32]));
    for second in
        [Step::Create(Volume::Data), Step::Spawn(Role::Disk(Volume::Data)), Step::Plug, Step::Plug]
    {
        step(&mut worker, (&mut record, &started), second).await;
    }
    console_says(&worker, "data-volume-open 16777216").await;

    let disk = record.running.get(Role::Disk(Volume::Boot)).unwrap();
    assert!(crate::process::cut(disk).await);
    record.running.set(Role::Disk(Volume::Boot), None);
    step(&mut worker, (&mut record, &started), Step::Spawn(Role::Disk(Volume::Boot))).await;
    worker.forget(true, true, false);
    step(&mut worker, (&mut record, &started), Step::Attach).await;
    worker.console.take().await.unwrap();
    let logs = worker.fresh_logs().await;
    assert!(logs.is_some_and(|logs| logs.bios.len() > 1000));

    step(&mut worker, (&mut record, &started), Step::Pause).await;
    step(&mut worker, (&mut record, &started), Step::Continue).await;
    for last in [
        Step::PowerOff,
        Step::End(Role::Qemu),
        Step::End(Role::Disk(Volume::Data)),
        Step::End(Role::Disk(Volume::Boot)),
        Step::End(Role::Vtpm),
    ] {
        step(&mut worker, (&mut record, &started), last).await;
    }
    inbox.close();
    assert!(powered_off(inbox).await);
}

async fn powered_off(mut inbox: mpsc::Receiver<Event>) -> bool {
    let mut powered_off = false;
    while let Some(event) = inbox.recv().await {
        powered_off |= matches!(event, Event::PoweredOff { reset: false });
    }
    powered_off
}

#[tokio::test(flavor = "multi_thread")]
async fn yesterdays_copy_of_a_volume_is_refused_by_name_and_so_is_an_unknown_one() {
    let (built, image) = match parts() {
        Ok(parts) => parts,
        Err(missing) => {
            println!("Skipped: {missing}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut worker, _inbox, _swtpm) = worker(dir.path(), &built).await;
    let mut record = record(&image);
    record.spec.format = VolumeFormat::Vault;
    let started = Arc::new(Mutex::new(Processes::default()));
    let _cleanup = Cleanup(Arc::clone(&started));
    worker.data_key = Some(Secret::new(vec![8; 32]));
    let data = Role::Disk(Volume::Data);
    let file = worker.paths.image(Volume::Data);
    step(&mut worker, (&mut record, &started), Step::Create(Volume::Data)).await;
    let mut copies = Vec::new();
    for _ in 0..2 {
        step(&mut worker, (&mut record, &started), Step::Spawn(data)).await;
        step(&mut worker, (&mut record, &started), Step::End(data)).await;
        copies.push(std::fs::read(&file).unwrap());
    }
    let name = |refused: Trouble| refused.reason.refused;
    std::fs::write(&file, &copies[0]).unwrap();
    let refused = worker.perform(&record, Step::Spawn(data)).await.unwrap_err();
    assert_eq!(name(refused).as_deref(), Some("rolled-back"));
    std::fs::write(&file, &copies[1]).unwrap();
    step(&mut worker, (&mut record, &started), Step::Spawn(data)).await;
    // A disk process that was killed had done nothing that the counter does not know.
    assert!(crate::process::cut(record.running.get(data).unwrap()).await);
    record.running.set(data, None);
    step(&mut worker, (&mut record, &started), Step::Spawn(data)).await;
    step(&mut worker, (&mut record, &started), Step::End(data)).await;
    // What was there before an advance is dead while the guest runs on.
    step(&mut worker, (&mut record, &started), Step::Spawn(data)).await;
    let before = std::fs::read(&file).unwrap();
    worker.advance(&record, Volume::Data).await.unwrap();
    assert!(crate::process::cut(record.running.get(data).unwrap()).await);
    record.running.set(data, None);
    let after = std::fs::read(&file).unwrap();
    std::fs::write(&file, &before).unwrap();
    let refused = worker.perform(&record, Step::Spawn(data)).await.unwrap_err();
    assert_eq!(name(refused).as_deref(), Some("rolled-back"));
    std::fs::write(&file, &after).unwrap();
    step(&mut worker, (&mut record, &started), Step::Spawn(data)).await;
    step(&mut worker, (&mut record, &started), Step::End(data)).await;
    record.epoch = model::Epoch(2);
    let refused = worker.perform(&record, Step::Spawn(data)).await.unwrap_err();
    assert_eq!(name(refused).as_deref(), Some("anchor-missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_authoritys_record_a_host_that_was_set_back_is_refused_and_a_volume_is_handed_over()
{
    let (built, image) = match parts() {
        Ok(parts) => parts,
        Err(missing) => {
            println!("Skipped: {missing}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut worker, _inbox, _swtpm) = worker(dir.path(), &built).await;
    let mut record = record(&image);
    record.spec.format = VolumeFormat::Vault;
    let started = Arc::new(Mutex::new(Processes::default()));
    let _cleanup = Cleanup(Arc::clone(&started));
    worker.data_key = Some(Secret::new(vec![8; 32]));
    let data = Role::Disk(Volume::Data);
    let file = worker.paths.image(Volume::Data);
    step(&mut worker, (&mut record, &started), Step::Create(Volume::Data)).await;
    let mut runs = Vec::new();
    let key = worker.host.guard.host_key().await.unwrap();
    for _ in 0..2 {
        step(&mut worker, (&mut record, &started), Step::Spawn(data)).await;
        step(&mut worker, (&mut record, &started), Step::End(data)).await;
        let standing = worker.host.anchors.standing(&key, &worker.vm, record.epoch).await.unwrap();
        assert!(standing[0].head.rest);
        runs.push((standing[0].count, std::fs::read(&file).unwrap()));
    }
    let told = |count, handed_over| AnchorStart { count, handed_over };
    let name = |refused: Trouble| refused.reason.refused.unwrap_or_default();
    // The table, the volume and the TPM agree, and the record counts further.
    worker.recorded.insert(Volume::Data, told(runs[1].0 + 1, false));
    assert_eq!(name(worker.perform(&record, Step::Spawn(data)).await.unwrap_err()), "rolled-back");
    let anew = worker.perform(&record, Step::Create(Volume::Data)).await.unwrap_err();
    assert_eq!(name(anew), "rolled-back");
    assert!(file.exists());
    // Another machine has no count of it: it takes the copy that the record counts, and no other.
    worker.host.anchors.forget(&key, &worker.vm).await.unwrap();
    worker.recorded.insert(Volume::Data, told(runs[1].0, false));
    let refused = worker.perform(&record, Step::Spawn(data)).await.unwrap_err();
    assert_eq!(name(refused), "anchor-missing");
    worker.recorded.insert(Volume::Data, told(runs[1].0, true));
    std::fs::write(&file, &runs[0].1).unwrap();
    assert_eq!(name(worker.perform(&record, Step::Spawn(data)).await.unwrap_err()), "rolled-back");
    std::fs::write(&file, &runs[1].1).unwrap();
    step(&mut worker, (&mut record, &started), Step::Spawn(data)).await;
    step(&mut worker, (&mut record, &started), Step::End(data)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vtpm_gets_an_rsa_ek_only_if_the_vm_asks_for_one() {
    let (built, image) = match parts() {
        Ok(parts) => parts,
        Err(missing) => {
            println!("Skipped: {missing}");
            return;
        }
    };
    for rsa in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut worker, _inbox, _swtpm) = worker(dir.path(), &built).await;
        let mut record = record(&image);
        record.spec.vtpm_rsa_ek = rsa;
        let started = Arc::new(Mutex::new(Processes::default()));
        let _cleanup = Cleanup(Arc::clone(&started));
        worker.boot_keys = Some(Secret::new(vec![7; 128]));
        step(&mut worker, (&mut record, &started), Step::Spawn(Role::Vtpm)).await;
        let made = step(&mut worker, (&mut record, &started), Step::Manufacture).await;
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
