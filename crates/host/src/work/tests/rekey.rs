//! New data keys by a real disk process, anchored in a real TPM. Skipped aloud without the parts.

use model::{OperationId, api::operate::Action};

use super::*;
use crate::vm::record::{Job, NewKey, NewKeys};

const DATA: Volume = Volume::Data;
const SPAWN: Step = Step::Spawn(Role::Disk(DATA));

impl Bench {
    /// Which data key is decided on, noted as the machine would.
    async fn decided(&mut self) -> u32 {
        let found = self.worker.perform(&self.record, Step::NextKey(DATA)).await.unwrap();
        let Found::NextKey(DATA, next) = found else { panic!("{found:?}") };
        let mut keys = NewKeys::default();
        keys.set(DATA, NewKey::Next(next));
        self.record.job = Some(Job {
            id: OperationId([1; 16]),
            action: Action::Rekey,
            local: false,
            deposit: false,
            keys,
            timings: Vec::new(),
            outcome: None,
            delivered: false,
        });
        next
    }

    async fn epoch(&self) -> Option<u32> {
        self.worker.disk_status(DATA).await.unwrap().epoch
    }
}

/// A worker with an empty data volume of this format that its disk process serves; none, said aloud, if
/// the parts are missing.
async fn serving(format: VolumeFormat) -> Option<Bench> {
    let here = std::env::current_exe().unwrap();
    let built = here.parent().and_then(Path::parent).unwrap().to_owned();
    if !built.join("vouchsafe-disk").exists() || !Path::new("/usr/bin/swtpm").exists() {
        println!("Skipped: vouchsafe-disk or swtpm is not there");
        return None;
    }
    let mut record = Record::new(spec("v1"), model::Epoch(1), kmi("v1"));
    record.spec.format = format;
    let mut bench = Bench::of(&built, record).await;
    bench.worker.data_key = Some(Secret::new(vec![8; 32]));
    bench.steps(&[Step::Create(DATA), SPAWN]).await;
    Some(bench)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_makes_one_data_key_whatever_dies_and_copies_from_before_are_refused() {
    let Some(mut bench) = serving(VolumeFormat::Vault).await else { return };
    let disk = Role::Disk(DATA);
    let file = bench.worker.paths.image(DATA);
    let before = std::fs::read(&file).unwrap();
    assert_eq!(bench.decided().await, 2);
    // The agent died before it could note the first: nothing is made twice.
    bench.steps(&[Step::Rekey(DATA), Step::Rekey(DATA)]).await;
    assert_eq!(bench.epoch().await, Some(2));
    bench.cut(disk).await;
    let after = std::fs::read(&file).unwrap();
    std::fs::write(&file, &before).unwrap();
    assert_eq!(bench.refusal(SPAWN).await, "rolled-back");
    std::fs::write(&file, &after).unwrap();
    bench.step(SPAWN).await;
    // Both die while it goes on; the key that was decided on is made, and no other.
    assert_eq!(bench.decided().await, 3);
    let soon = Duration::from_millis(5);
    let rekey = bench.worker.perform(&bench.record, Step::Rekey(DATA));
    let _dropped = tokio::time::timeout(soon, rekey).await;
    bench.cut(disk).await;
    bench.steps(&[SPAWN, Step::Rekey(DATA)]).await;
    assert_eq!(bench.epoch().await, Some(3));
    bench.step(Step::End(disk)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_no_vault_is_refused_by_name() {
    let Some(mut bench) = serving(VolumeFormat::Luks2).await else { return };
    assert_eq!(bench.refusal(Step::NextKey(DATA)).await, "not-vault");
    bench.step(Step::End(Role::Disk(DATA))).await;
}
