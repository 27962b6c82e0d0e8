//! The guard on a real (software) TPM: what it opens, and all that it does not.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serve::{
    clock::{Clock, SystemClock},
    process::{ProcessId, Spawn},
};
use tpm::{Actor, Address, TpmError};

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

struct Bench {
    dir: tempfile::TempDir,
    swtpm: ProcessId,
    tpm: HostTpm,
    clock: Arc<Moved>,
}

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
        let path = |name: &str| dir.path().join(name).display().to_string();
        let swtpm = Spawn::new("/usr/bin/swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", path(""))])
            .args(["--server", &format!("type=unixio,path={}", path("tpm"))])
            .args(["--ctrl", &format!("type=unixio,path={}", path("ctrl"))])
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if dir.path().join("tpm").exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let tpm = HostTpm::start(&format!("unix:{}", path("tpm"))).unwrap();
        let clock = Arc::new(Moved(AtomicU64::new(0)));
        Some(Self { dir, swtpm, tpm, clock })
    }

    async fn guard(&self) -> Guard {
        Guard::open(self.tpm.clone(), self.clock.clone(), self.dir.path()).await
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
        guard.renew(self.clock.unix_ms() + lease_ms, &[0, 7, 14]).await.unwrap();
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
        let place: Address =
            format!("unix:{}", self.dir.path().join("tpm").display()).parse().unwrap();
        let digest = Digest::sha256([1; 32]);
        Actor::start(place)
            .unwrap()
            .run(move |tpm| -> Result<(), TpmError> { tpm.pcr_extend(14, &[digest]) })
            .unwrap();
    }
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
    drop(bench.kept(1).await);
    // The wall clock of this agent stands still; the TPM's does not.
    tokio::time::sleep(Duration::from_millis(CLOCK_SLACK + 500)).await;
    let stopped = Arc::new(Stopped(bench.clock.unix_ms() - 10 * CLOCK_SLACK));
    let guard = Guard::open(bench.tpm.clone(), stopped, bench.dir.path()).await;
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
async fn a_host_that_has_changed_opens_nothing() {
    let Some(bench) = Bench::new() else { return };
    drop(bench.kept(60_000).await);
    bench.extend();
    let guard = bench.guard().await;
    assert_eq!(name(bench.fetch(&guard).await).as_deref(), Some("lease-ended"));
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
    guard.revoke().await.unwrap();
    assert!(bench.fetch(&guard).await.is_err());
    assert!(guard.lease_ended());
}
