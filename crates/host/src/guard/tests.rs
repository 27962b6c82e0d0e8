//! The guard on a real (software) TPM: what it opens, and all that it does not.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use attest::envelope::{Sign as _, SoftwareKey};
use model::Digest;
use serve::{
    clock::{Clock, SystemClock},
    keys::SigningKey,
    process::{ProcessId, Spawn},
};
use tpm::{Actor, Address, Tpm, TpmError, lease::Lease};

use super::*;
use crate::config::Config;

/// The system's clock, moved.
#[derive(Debug)]
struct Moved(AtomicU64);

impl Clock for Moved {
    fn now(&self) -> time::OffsetDateTime {
        SystemClock.now() + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// What stands for the authority.
struct Centre(SoftwareKey);

impl Centre {
    fn new() -> Self {
        let key = SigningKey::generate().unwrap();
        Self(SoftwareKey::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap())
    }

    fn approve(&self, host: &str, lease: &Lease) -> GuardApproval {
        let message = lease.message(&host.parse().unwrap()).unwrap();
        GuardApproval {
            pcrs: lease.pcrs.clone(),
            pcr_digest: lease.pcr_digest,
            counter: lease.counter,
            clock_until: lease.clock_until,
            reset_count: lease.reset_count,
            signature: self.0.sign(&message).unwrap().into(),
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    swtpm: ProcessId,
    tpm: HostTpm,
    clock: Arc<Moved>,
    centre: Centre,
}

const PCRS: [u8; 3] = [0, 7, 14];

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.swtpm.kill();
    }
}

impl Bench {
    fn new() -> Option<Self> {
        if !Path::new("/usr/bin/swtpm").exists() {
            println!("Skipped: swtpm is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (swtpm, tpm) = swtpm(dir.path());
        let clock = Arc::new(Moved(AtomicU64::new(0)));
        Some(Self { dir, swtpm, tpm, clock, centre: Centre::new() })
    }

    /// The machine is reset: its TPM starts again from its state.
    fn reset(&mut self) {
        self.swtpm.kill().unwrap();
        while self.swtpm.is_alive() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(self.dir.path().join("tpm")).unwrap();
        (self.swtpm, self.tpm) = swtpm(self.dir.path());
    }

    async fn guard(&self) -> Guard {
        let host = "a".parse().unwrap();
        Guard::open(self.tpm.clone(), self.clock.clone(), host, self.dir.path()).await
    }

    fn on_tpm<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tpm) -> Result<R, TpmError> + Send + 'static,
    ) -> R {
        on_tpm(self.dir.path(), job)
    }

    /// What the authority would approve now.
    async fn state(&self, lease_ms: u64) -> Lease {
        self.state_of(self.dir.path(), lease_ms).await
    }

    async fn state_of(&self, dir: &Path, lease_ms: u64) -> Lease {
        let clock = on_tpm(dir, |tpm| tpm.read_clock()).clock;
        Lease {
            pcrs: PCRS.to_vec(),
            pcr_digest: self.tpm.pcr_digest(PCRS.to_vec()).await.unwrap(),
            counter: self.tpm.guard_counter().await.unwrap(),
            clock_until: clock.clock + lease_ms,
            reset_count: clock.reset_count,
        }
    }

    /// A session: this state is approved for as long.
    async fn renew(&self, guard: &Guard, lease: &Lease, lease_ms: u64) {
        let approval = self.centre.approve("a", lease);
        let until = self.clock.unix_ms() + lease_ms;
        guard.renew(until, &approval, self.centre.0.spki()).await.unwrap();
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("guard.json")
    }

    fn seal(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.file()).unwrap()).unwrap()
    }

    fn paths(&self, vm: &str) -> VmPaths {
        let dir = self.dir.path().to_str().unwrap();
        let paths = VmPaths::new(&Config::example(dir, dir), &vm.parse().unwrap());
        std::fs::create_dir_all(&paths.state).unwrap();
        paths
    }

    /// A guard that has had a session with this much lease left, and keeps `v1`'s boot keys.
    async fn kept(&self, lease_ms: u64) -> Guard {
        let guard = self.guard().await;
        self.renew(&guard, &self.state(lease_ms).await, lease_ms).await;
        let keys = Secret::new(vec![7; 128]);
        let vm = "v1".parse().unwrap();
        guard.keep(&self.paths("v1"), &vm, Epoch(1), Volume::Boot, &keys).await.unwrap();
        guard
    }

    async fn fetch(&self, guard: &Guard) -> Result<Secret<Vec<u8>>, Trouble> {
        let vm = "v1".parse().unwrap();
        guard.fetch(&self.paths("v1"), &vm, Epoch(1), Volume::Boot).await
    }

    fn extend(&self) {
        self.on_tpm(|tpm| tpm.pcr_extend(14, &[Digest::sha256([1; 32])]));
    }

    /// Whether the next agent opens what is cached; the refusal's name if not.
    async fn next_agent(&self) -> Result<(), Option<String>> {
        let guard = self.guard().await;
        self.fetch(&guard).await.map(|_| ()).map_err(|trouble| trouble.reason.refused)
    }
}

pub(crate) fn swtpm(dir: &Path) -> (ProcessId, HostTpm) {
    let path = |name: &str| dir.join(name).display().to_string();
    let swtpm = Spawn::new("/usr/bin/swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .args(["--tpmstate", &format!("dir={}", path(""))])
        .args(["--server", &format!("type=unixio,path={}", path("tpm"))])
        .args(["--ctrl", &format!("type=unixio,path={}", path("ctrl"))])
        .spawn()
        .unwrap();
    for _ in 0..12_000 {
        if dir.join("tpm").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (swtpm, HostTpm::start(&format!("unix:{}", path("tpm"))).unwrap())
}

fn on_tpm<R: Send + 'static>(
    dir: &Path,
    job: impl FnOnce(&mut Tpm) -> Result<R, TpmError> + Send + 'static,
) -> R {
    let place: Address = format!("unix:{}", dir.join("tpm").display()).parse().unwrap();
    Actor::start(place).unwrap().run(job).unwrap()
}

/// A TPM of its own in `dir`, and a guard that has had a session.
pub(crate) async fn in_session(dir: &Path) -> (ProcessId, HostTpm, Guard) {
    let (process, tpm) = swtpm(dir);
    let clock = Arc::new(Moved(AtomicU64::new(0)));
    let bench = Bench {
        dir: tempfile::tempdir().unwrap(),
        swtpm: process,
        tpm: tpm.clone(),
        clock: clock.clone(),
        centre: Centre::new(),
    };
    let lease = bench.state_of(dir, 600_000).await;
    let guard = Guard::open(tpm.clone(), clock, "a".parse().unwrap(), dir).await;
    bench.renew(&guard, &lease, 600_000).await;
    // The TPM outlives the bench.
    std::mem::forget(bench);
    (process, tpm, guard)
}

fn closed() -> Result<(), Option<String>> {
    Err(Some("lease-ended".to_owned()))
}

fn name(result: Result<Secret<Vec<u8>>, Trouble>) -> Option<String> {
    result.unwrap_err().reason.refused
}

#[tokio::test]
async fn the_next_agent_opens_what_this_one_kept_until_the_lease_ends() {
    let Some(bench) = Bench::new() else { return };
    drop(bench.kept(60_000).await);
    let guard = bench.guard().await;
    assert!(!guard.lease_ended());
    assert_eq!(bench.fetch(&guard).await.unwrap().expose(), &[7; 128]);
    bench.clock.0.store(60_001, Ordering::Relaxed);
    assert!(guard.lease_ended());
    assert_eq!(name(bench.fetch(&guard).await).as_deref(), Some("lease-ended"));
    let guard = bench.guard().await;
    assert_eq!(name(bench.fetch(&guard).await).as_deref(), Some("lease-ended"));
}

#[tokio::test]
async fn the_tpm_ends_the_lease_even_if_the_hosts_clock_is_set_back() {
    let Some(bench) = Bench::new() else { return };
    drop(bench.kept(400).await);
    // The wall clock of this agent stands still; the TPM's does not.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stopped = Arc::new(Stopped(bench.clock.unix_ms() - 60_000));
    let host = "a".parse().unwrap();
    let guard = Guard::open(bench.tpm.clone(), stopped, host, bench.dir.path()).await;
    assert_eq!(name(bench.fetch(&guard).await).as_deref(), Some("lease-ended"));
}

#[derive(Debug)]
struct Stopped(u64);

impl Clock for Stopped {
    fn now(&self) -> time::OffsetDateTime {
        time::OffsetDateTime::UNIX_EPOCH + Duration::from_millis(self.0)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

#[tokio::test]
async fn a_host_that_has_changed_opens_nothing_until_its_new_state_is_approved_without_a_new_seal()
{
    let Some(bench) = Bench::new() else { return };
    drop(bench.kept(60_000).await);
    let before = bench.seal();
    bench.extend();
    assert_eq!(bench.next_agent().await, closed());
    let guard = bench.guard().await;
    bench.renew(&guard, &bench.state(60_000).await, 60_000).await;
    // What was cached before the update opens again, by the agent that runs and by the next.
    bench.fetch(&guard).await.unwrap();
    bench.next_agent().await.unwrap();
    let after = bench.seal();
    assert_eq!(before["sealed"], after["sealed"]);
    assert_eq!(after["approvals"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_update_that_is_approved_beforehand_opens_without_the_authority() {
    let Some(bench) = Bench::new() else { return };
    let guard = bench.kept(60_000).await;
    let present = bench.state(60_000).await;
    // The value that PCR 14 will have, appraised on a host that has the update already.
    let twin = Bench::new().unwrap();
    twin.extend();
    let updated = Lease { pcr_digest: twin.state(0).await.pcr_digest, ..present.clone() };
    bench.renew(&guard, &updated, 60_000).await;
    bench.renew(&guard, &present, 60_000).await;
    bench.next_agent().await.unwrap();
    bench.extend();
    bench.next_agent().await.unwrap();
    bench.extend();
    assert!(bench.next_agent().await.is_err());
}

#[tokio::test]
async fn an_approval_of_an_older_policy_generation_is_dead_for_good() {
    let Some(bench) = Bench::new() else { return };
    let guard = bench.kept(60_000).await;
    let old = std::fs::read(bench.file()).unwrap();
    let present = bench.state(60_000).await;
    let next = Lease { counter: present.counter + 1, ..present };
    bench.renew(&guard, &next, 60_000).await;
    bench.next_agent().await.unwrap();
    std::fs::write(bench.file(), old).unwrap();
    assert_eq!(bench.next_agent().await, closed());
    // Not even an index that is defined anew goes back.
    bench.on_tpm(|tpm| {
        let owner = tpm::Hierarchy::Owner;
        tpm.nv_undefine(owner, tpm::Auth::none(), tpm::handle::GUARD_COUNTER)
    });
    assert!(bench.tpm.guard_counter().await.unwrap() > next.counter);
    assert_eq!(bench.next_agent().await, closed());
}

#[tokio::test]
async fn a_restarted_host_waits_for_a_new_approval_and_keeps_its_seal() {
    let Some(mut bench) = Bench::new() else { return };
    drop(bench.kept(60_000).await);
    let before = bench.seal();
    bench.reset();
    assert_eq!(bench.next_agent().await, closed());
    let guard = bench.guard().await;
    bench.renew(&guard, &bench.state(60_000).await, 60_000).await;
    bench.fetch(&guard).await.unwrap();
    let after = bench.seal();
    assert_eq!(before["sealed"], after["sealed"]);
    assert_eq!(after["approvals"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_else_approves_and_no_other_hosts_approval_counts() {
    let Some(bench) = Bench::new() else { return };
    drop(bench.kept(60_000).await);
    let good = bench.seal();
    let lease = bench.state(60_000).await;
    let foreign = [Centre::new().approve("a", &lease), bench.centre.approve("b", &lease)];
    let longer =
        GuardApproval { clock_until: lease.clock_until + 1, ..bench.centre.approve("a", &lease) };
    for approval in foreign.into_iter().chain([longer]) {
        let mut forged = good.clone();
        forged["approvals"][0]["approval"] = serde_json::to_value(approval).unwrap();
        std::fs::write(bench.file(), forged.to_string()).unwrap();
        assert_eq!(bench.next_agent().await, closed());
    }
    let mut longer = good.clone();
    longer["approvals"][0]["lease_until"] = (bench.clock.unix_ms() + 3_600_000).into();
    std::fs::write(bench.file(), longer.to_string()).unwrap();
    assert_eq!(bench.next_agent().await, Err(None));
    std::fs::write(bench.file(), good.to_string()).unwrap();
    bench.next_agent().await.unwrap();
}

#[tokio::test]
async fn a_start_uses_no_tpm_once_the_agent_has_unsealed() {
    let Some(bench) = Bench::new() else { return };
    drop(bench.kept(60_000).await);
    let begun = SystemClock.monotonic();
    let guard = bench.guard().await;
    println!("unsealed in {:?}", SystemClock.monotonic() - begun);
    let begun = SystemClock.monotonic();
    bench.renew(&guard, &bench.state(60_000).await, 60_000).await;
    println!("renewed in {:?}", SystemClock.monotonic() - begun);
    bench.swtpm.kill().unwrap();
    for _ in 0..16 {
        bench.fetch(&guard).await.unwrap();
    }
}

#[tokio::test]
async fn keys_of_another_vm_epoch_or_volume_do_not_open_and_a_revoked_host_opens_none() {
    let Some(bench) = Bench::new() else { return };
    let guard = bench.kept(60_000).await;
    let (v1, v2) = ("v1".parse().unwrap(), "v2".parse().unwrap());
    std::fs::copy(bench.paths("v1").cached(Volume::Boot), bench.paths("v2").cached(Volume::Boot))
        .unwrap();
    let boot = Volume::Boot;
    assert!(guard.fetch(&bench.paths("v2"), &v2, Epoch(1), boot).await.is_err());
    assert!(guard.fetch(&bench.paths("v1"), &v1, Epoch(2), boot).await.is_err());
    assert!(guard.fetch(&bench.paths("v1"), &v1, Epoch(1), Volume::Data).await.is_err());
    assert!(bench.fetch(&guard).await.is_ok());
    let copy = std::fs::read(bench.file()).unwrap();
    let counter = bench.tpm.guard_counter().await.unwrap();
    guard.revoke().await.unwrap();
    guard.revoke().await.unwrap();
    assert!(bench.fetch(&guard).await.is_err());
    assert!(guard.lease_ended());
    assert_eq!(bench.tpm.guard_counter().await.unwrap(), counter + 1);
    std::fs::write(bench.file(), copy).unwrap();
    assert_eq!(bench.next_agent().await, closed());
}
