//! Tests of the host's file of virtual counters.

use std::fs;

use super::*;
use crate::anchor::{FileAnchor, verify_proof};

const A: [u8; 16] = [0xa; 16];
const B: [u8; 16] = [0xb; 16];

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        drop(FileAnchor::create(&dir.path().join("tpm"), "host").unwrap());
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("volumes")
    }

    fn attach(&self, first: bool) -> Result<Arc<HostTree>, VolumeError> {
        let tpm = FileAnchor::open(&self.dir.path().join("tpm"), "host").unwrap();
        HostTree::attach(&self.path(), Secret::new([1; 32]), Box::new(tpm), first).map(Arc::new)
    }

    fn tpm(&self) -> u64 {
        FileAnchor::open(&self.dir.path().join("tpm"), "host").unwrap().read().unwrap()
    }
}

fn code(result: Result<Arc<HostTree>, VolumeError>) -> &'static str {
    result.unwrap_err().rejection().map_or("io", Rejection::code)
}

#[test]
fn counters_of_many_volumes_survive_behind_one_counter() {
    let host = Host::new();
    let tree = host.attach(true).unwrap();
    tree.set(A, VolumeRecord::default()).unwrap();
    tree.set(B, VolumeRecord { count: 7, head: [1; 32] }).unwrap();
    assert!(tree.advance(&A, 0, Some([9; 32])).unwrap());
    assert!(!tree.advance(&A, 0, None).unwrap());
    assert!(tree.anchor(B).increment(7).unwrap());
    tree.detach().unwrap();
    drop(tree);
    let tree = host.attach(false).unwrap();
    assert_eq!(tree.record(&A), Some(VolumeRecord { count: 1, head: [9; 32] }));
    assert_eq!(tree.record(&B), Some(VolumeRecord { count: 8, head: [1; 32] }));
    assert_eq!(tree.remove(&A).unwrap().map(|record| record.count), Some(1));
    let (record, proof) = tree.prove(&B).unwrap();
    assert!(verify_proof(&record, &proof, &tree.root()));
    let error = tree.advance(&A, 1, None).unwrap_err();
    assert_eq!(error.rejection(), Some(&Rejection::AnchorMismatch));
}

#[test]
fn an_older_file_is_refused_and_a_lost_one_is_not_made_again() {
    let host = Host::new();
    let tree = host.attach(true).unwrap();
    tree.set(A, VolumeRecord::default()).unwrap();
    let yesterday = fs::read(host.path()).unwrap();
    tree.advance(&A, 0, None).unwrap();
    drop(tree);
    let today = fs::read(host.path()).unwrap();
    fs::write(host.path(), &yesterday).unwrap();
    assert_eq!(code(host.attach(false)), "rolled-back");
    assert_eq!(code(host.attach(true)), "rolled-back");
    let mut altered = today.clone();
    altered[70] ^= 1;
    fs::write(host.path(), &altered).unwrap();
    assert_eq!(code(host.attach(false)), "anchor-damaged");
    fs::remove_file(host.path()).unwrap();
    assert_eq!(code(host.attach(false)), "io");
    fs::write(host.path(), &today).unwrap();
    assert!(host.attach(false).is_ok());
}

#[test]
fn a_crash_at_any_point_leaves_a_file_that_is_accepted() {
    let host = Host::new();
    for _ in 0..5 {
        // Dropped without detaching, as in a crash.
        let tree = host.attach(true).unwrap();
        tree.set(A, VolumeRecord::default()).unwrap();
    }
    // The file is one ahead of the counter: cut off between the two.
    let tree = host.attach(false).unwrap();
    let count = host_count(&tree);
    tree.file.commit(count + 1, false).unwrap();
    drop(tree);
    assert_eq!(host.tpm(), count);
    assert!(host.attach(false).is_ok());
}

fn host_count(tree: &HostTree) -> u64 {
    tree.file.anchor_count()
}

#[test]
fn increments_that_come_together_share_the_real_counter() {
    let host = Host::new();
    let tree = host.attach(true).unwrap();
    let volumes: Vec<[u8; 16]> = (0..8).map(|i| [i; 16]).collect();
    for volume in &volumes {
        tree.set(*volume, VolumeRecord::default()).unwrap();
    }
    let before = host_count(&tree);
    std::thread::scope(|scope| {
        for volume in &volumes {
            let mut anchor = tree.anchor(*volume);
            scope.spawn(move || {
                for from in 0..4 {
                    assert!(anchor.increment(from).unwrap());
                }
            });
        }
    });
    assert!(volumes.iter().all(|volume| tree.record(volume).unwrap().count == 4));
    let spent = host_count(&tree) - before;
    assert!((4..=32).contains(&spent), "{spent} increments");
}
