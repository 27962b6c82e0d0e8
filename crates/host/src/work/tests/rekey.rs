//! New data keys by a real disk process, anchored in a real TPM. Skipped aloud without the parts.

use model::{OperationId, api::operate::Action};

use super::*;
use crate::vm::record::{Job, NewKey, NewKeys};

const DATA: Volume = Volume::Data;
const SPAWN: Step = Step::Spawn(Role::Disk(DATA));

/// Which data key is decided on, noted as the machine would.
async fn decided(worker: &mut Worker, record: &mut Record) -> u32 {
    let found = worker.perform(record, Step::NextKey(DATA)).await.unwrap();
    let Found::NextKey(DATA, next) = found else { panic!("{found:?}") };
    let mut keys = NewKeys::default();
    keys.set(DATA, NewKey::Next(next));
    record.job = Some(Job {
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

async fn cut(record: &mut Record) {
    let role = Role::Disk(DATA);
    assert!(crate::process::cut(record.running.get(role).unwrap()).await);
    record.running.set(role, None);
}

/// A worker with an empty data volume of this format that its disk process serves; none, said aloud, if
/// the parts are missing.
async fn serving(format: VolumeFormat, dir: &Path) -> Option<(Worker, Record, Cut, Cleanup)> {
    let here = std::env::current_exe().unwrap();
    let built = here.parent().and_then(Path::parent).unwrap().to_owned();
    if !built.join("vouchsafe-disk").exists() || !Path::new("/usr/bin/swtpm").exists() {
        println!("Skipped: vouchsafe-disk or swtpm is not there");
        return None;
    }
    let (mut worker, _, swtpm) = worker(dir, &built).await;
    let mut record = Record::new(spec("v1"), model::Epoch(1), kmi("v1"));
    record.spec.format = format;
    let cleanup = Cleanup(Arc::new(Mutex::new(Processes::default())));
    worker.data_key = Some(Secret::new(vec![8; 32]));
    step(&mut worker, (&mut record, &cleanup.0), Step::Create(DATA)).await;
    step(&mut worker, (&mut record, &cleanup.0), SPAWN).await;
    Some((worker, record, swtpm, cleanup))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_makes_one_data_key_whatever_dies_and_copies_from_before_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some((mut worker, mut record, _swtpm, cleanup)) =
        serving(VolumeFormat::Vault, dir.path()).await
    else {
        return;
    };
    let (file, started) = (worker.paths.image(DATA), &*cleanup.0);
    let before = std::fs::read(&file).unwrap();
    assert_eq!(decided(&mut worker, &mut record).await, 2);
    step(&mut worker, (&mut record, started), Step::Rekey(DATA)).await;
    // The agent died before it could note that: nothing is made twice.
    step(&mut worker, (&mut record, started), Step::Rekey(DATA)).await;
    assert_eq!(worker.disk_status(DATA).await.unwrap().epoch, Some(2));
    cut(&mut record).await;
    let after = std::fs::read(&file).unwrap();
    std::fs::write(&file, &before).unwrap();
    let refused = worker.perform(&record, SPAWN).await.unwrap_err();
    assert_eq!(refused.reason.refused.as_deref(), Some("rolled-back"));
    std::fs::write(&file, &after).unwrap();
    step(&mut worker, (&mut record, started), SPAWN).await;
    // Both die while it goes on; the key that was decided on is made, and no other.
    assert_eq!(decided(&mut worker, &mut record).await, 3);
    let soon = Duration::from_millis(5);
    let _dropped = tokio::time::timeout(soon, worker.perform(&record, Step::Rekey(DATA))).await;
    cut(&mut record).await;
    step(&mut worker, (&mut record, started), SPAWN).await;
    step(&mut worker, (&mut record, started), Step::Rekey(DATA)).await;
    assert_eq!(worker.disk_status(DATA).await.unwrap().epoch, Some(3));
    step(&mut worker, (&mut record, started), Step::End(Role::Disk(DATA))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_no_vault_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let Some((mut worker, mut record, _swtpm, cleanup)) =
        serving(VolumeFormat::Luks2, dir.path()).await
    else {
        return;
    };
    let refused = worker.perform(&record, Step::NextKey(DATA)).await.unwrap_err();
    assert_eq!(refused.reason.refused.as_deref(), Some("not-vault"));
    step(&mut worker, (&mut record, &cleanup.0), Step::End(Role::Disk(DATA))).await;
}
