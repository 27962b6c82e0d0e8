//! The table on a real (software) TPM.

use model::Digest;

use super::{table::Head, *};
use crate::guard::tests::swtpm;

struct Bench {
    dir: tempfile::TempDir,
    swtpm: serve::process::ProcessId,
    tpm: HostTpm,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.swtpm.kill();
    }
}

impl Bench {
    fn new() -> Option<Self> {
        if !std::path::Path::new("/usr/bin/swtpm").exists() {
            println!("Skipped: swtpm is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (swtpm, tpm) = swtpm(dir.path());
        Some(Self { dir, swtpm, tpm })
    }

    /// The next agent.
    fn anchors(&self) -> Anchors {
        Anchors::new(self.tpm.clone(), self.dir.path())
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("anchors.json")
    }

    async fn refusal(&self) -> Option<String> {
        self.anchors().count(&key(), "v1/1/boot").await.unwrap_err().reason.refused
    }
}

fn key() -> Secret<Vec<u8>> {
    Secret::new(vec![5; 32])
}

/// An increment of this volume.
fn from(name: &str, from: u64) -> Count {
    let head = Head { digest: Digest::sha256([7; 32]), rest: false };
    Count { name: name.to_owned(), from, head: Some(head) }
}

#[tokio::test]
async fn counts_outlive_the_agent_and_no_earlier_table_is_taken() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(bench.refusal().await.as_deref(), Some("anchor-missing"));
    bench.anchors().begin(&key(), "v1/1/boot", 0).await.unwrap();
    let yesterday = std::fs::read(bench.file()).unwrap();
    let zero = [from("v1/1/boot", 0)];
    assert_eq!(bench.anchors().increment(&key(), &zero).await.unwrap(), [true]);
    // Nobody is taken for us who has moved it.
    assert_eq!(bench.anchors().increment(&key(), &zero).await.unwrap(), [false]);
    assert_eq!(bench.anchors().count(&key(), "v1/1/boot").await.unwrap(), 1);
    let today = std::fs::read(bench.file()).unwrap();
    std::fs::write(bench.file(), yesterday).unwrap();
    assert_eq!(bench.refusal().await.as_deref(), Some("rolled-back"));
    std::fs::write(bench.file(), &today).unwrap();
    bench.anchors().count(&key(), "v1/1/boot").await.unwrap();
    // Reading moved it on, too: the very file that was in force is dead.
    std::fs::write(bench.file(), &today).unwrap();
    assert_eq!(bench.refusal().await.as_deref(), Some("rolled-back"));
    // Without the file nothing old is opened.
    std::fs::remove_file(bench.file()).unwrap();
    assert_eq!(bench.refusal().await.as_deref(), Some("anchor-missing"));
}

#[tokio::test]
async fn a_change_that_was_interrupted_before_the_tpm_is_finished() {
    let Some(bench) = Bench::new() else { return };
    bench.anchors().begin(&key(), "v1/1/boot", 3).await.unwrap();
    let counter = bench.tpm.anchor_counter().await.unwrap();
    let volumes = [("v1/1/boot".to_owned(), 4)].into();
    let table = Table { count: counter + 1, volumes, heads: BTreeMap::new() };
    let stored = table.stored(&key()).unwrap();
    std::fs::write(bench.file(), &stored).unwrap();
    assert_eq!(bench.anchors().count(&key(), "v1/1/boot").await.unwrap(), 4);
    std::fs::write(bench.file(), &stored).unwrap();
    assert_eq!(bench.refusal().await.as_deref(), Some("rolled-back"));
}

#[tokio::test]
async fn an_altered_table_and_anothers_key_are_refused_and_a_vm_can_be_forgotten() {
    let Some(bench) = Bench::new() else { return };
    let anchors = bench.anchors();
    for name in ["v1/1/boot", "v10/1/boot"] {
        anchors.begin(&key(), name, 7).await.unwrap();
    }
    anchors.forget(&key(), &"v1".parse().unwrap()).await.unwrap();
    assert!(anchors.count(&key(), "v1/1/boot").await.is_err());
    assert_eq!(anchors.count(&key(), "v10/1/boot").await.unwrap(), 7);
    let other = bench.anchors().count(&Secret::new(vec![6; 32]), "v10/1/boot").await;
    assert_eq!(other.unwrap_err().reason.refused.as_deref(), Some("anchor-damaged"));
    let altered = std::fs::read_to_string(bench.file()).unwrap().replace(":7", ":6");
    std::fs::write(bench.file(), altered).unwrap();
    assert_eq!(bench.refusal().await.as_deref(), Some("anchor-damaged"));
}

#[tokio::test]
async fn one_increment_of_the_tpm_moves_all_volumes_on() {
    let Some(bench) = Bench::new() else { return };
    let anchors = bench.anchors();
    let names = ["v1/1/boot", "v1/1/data", "v2/1/boot"];
    for name in names {
        anchors.begin(&key(), name, 5).await.unwrap();
    }
    let before = bench.tpm.anchor_counter().await.unwrap();
    let all = names.map(|name| from(name, 5));
    assert_eq!(anchors.increment(&key(), &all).await.unwrap(), [true; 3]);
    assert_eq!(bench.tpm.anchor_counter().await.unwrap(), before + 1);
    // Nothing moves, nothing is worn.
    assert_eq!(anchors.increment(&key(), &all).await.unwrap(), [false; 3]);
    assert_eq!(bench.tpm.anchor_counter().await.unwrap(), before + 1);
    for name in names {
        assert_eq!(anchors.count(&key(), name).await.unwrap(), 6);
    }
}

#[tokio::test]
async fn a_table_below_the_authoritys_record_opens_nothing_and_a_volume_is_handed_over() {
    let Some(bench) = Bench::new() else { return };
    let (anchors, name) = (bench.anchors(), "v1/1/boot");
    let told = |count, handed_over| Some(AnchorStart { count, handed_over });
    let refused = async |told| {
        let opened = anchors.opening(&key(), name, told).await;
        opened.unwrap_err().reason.refused.unwrap_or_default()
    };
    assert_eq!(refused(None).await, "anchor-missing");
    assert_eq!(refused(told(4, false)).await, "anchor-missing");
    assert_eq!(anchors.opening(&key(), name, told(4, true)).await.unwrap(), 4);
    assert_eq!(anchors.opening(&key(), name, told(4, false)).await.unwrap(), 4);
    assert_eq!(refused(told(5, false)).await, "rolled-back");
    // What is told to the authority is what the table covers.
    let (vm, epoch) = ("v1".parse().unwrap(), Epoch(1));
    assert_eq!(anchors.standing(&key(), &vm, epoch).await.unwrap(), []);
    let changes = anchors.changes();
    let rest = Head { digest: Digest::sha256([8; 32]), rest: true };
    let last = Count { head: Some(rest), ..from(name, 4) };
    assert_eq!(anchors.increment(&key(), &[last]).await.unwrap(), [true]);
    assert!(changes.has_changed().unwrap());
    let standing = [Standing { volume: Volume::Boot, count: 5, head: rest }];
    assert_eq!(anchors.standing(&key(), &vm, epoch).await.unwrap(), standing);
    // The next agent knows as well.
    assert_eq!(bench.anchors().standing(&key(), &vm, epoch).await.unwrap(), standing);
}

#[tokio::test]
async fn a_services_store_is_counted_in_the_same_table_from_zero_and_outlives_vms() {
    let Some(bench) = Bench::new() else { return };
    let store = services::name(model::api::service::Service::Trust, &[7; 16]);
    assert_eq!(store, format!("@trust/{}", "07".repeat(16)));
    let anchors = bench.anchors();
    let read = anchors.count(&key(), &store).await;
    assert_eq!(read.unwrap_err().reason.refused.as_deref(), Some("anchor-missing"));
    assert_eq!(anchors.begin_store(&key(), &store).await.unwrap(), 0);
    assert_eq!(anchors.advance_store(&key(), &store, 0).await.unwrap(), 1);
    // It moves only from where it is.
    assert_eq!(anchors.advance_store(&key(), &store, 0).await.unwrap(), 1);
    let next = bench.anchors();
    assert_eq!(next.begin_store(&key(), &store).await.unwrap(), 1);
    next.forget(&key(), &"trust".parse().unwrap()).await.unwrap();
    assert_eq!(next.count(&key(), &store).await.unwrap(), 1);
    for n in 1..64 {
        let other = services::name(model::api::service::Service::Centre, &[n; 16]);
        next.begin_store(&key(), &other).await.unwrap();
    }
    let full = services::name(model::api::service::Service::Centre, &[99; 16]);
    let full = next.begin_store(&key(), &full).await.unwrap_err();
    assert_eq!(full.reason.refused.as_deref(), Some("counters-full"));
    assert_eq!(next.begin_store(&key(), &store).await.unwrap(), 1);
}
