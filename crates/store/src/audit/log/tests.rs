//! The log on real files: appended, crashed, altered, exported.

use std::fs::OpenOptions;

use tempfile::TempDir;

use super::*;
use crate::audit::{
    Checkpoint,
    recover::{Segment, checkpoints_path, leaves_path},
    tree::{leaf_hash, verify_inclusion},
    verify_dir, verify_files,
};

fn event(n: u64) -> AuditEvent {
    AuditEvent::done(n, "operator:alice", "vm-start", format!("vm:v{n}")).detail("x")
}

async fn log_of(entries: u64) -> (TempDir, AuditLog) {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = AuditLog::open(dir.path(), 0).unwrap();
    for n in 0..entries {
        assert_eq!(log.append(event(n)).await.unwrap().seq, n);
    }
    (dir, log)
}

/// Stands in for the authority's signature.
fn envelope(tree: TreeHead) -> String {
    let payload = Checkpoint { log: "test".into(), tree, at: 1 }.to_payload().unwrap();
    serde_json::json!({ "payload": hex::encode(payload), "good": true }).to_string()
}

fn open(envelope: &str) -> Result<TreeHead, String> {
    let envelope: serde_json::Value = serde_json::from_str(envelope).map_err(|e| e.to_string())?;
    if envelope["good"] != true {
        return Err("the signature is not good".into());
    }
    let payload = hex::decode(envelope["payload"].as_str().unwrap()).unwrap();
    TreeHead::from_payload(&payload).map_err(|e| e.to_string())
}

async fn checkpoint(log: &AuditLog) {
    log.record_checkpoint(&envelope(log.tree_head())).await.unwrap();
}

/// Changes line `n` of a file of lines.
fn edit_line(path: &Path, n: usize, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate();
    let lines = lines.map(|(i, line)| if i == n { change(line) } else { format!("{line}\n") });
    fs::write(path, lines.collect::<String>()).unwrap();
}

fn segment(dir: &TempDir) -> PathBuf {
    Segment::new(dir.path(), 0).path
}

fn rejection(outcome: Result<super::super::Verified, AuditError>) -> AuditRejection {
    match outcome {
        Err(AuditError::Rejected(rejection)) => rejection,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_untouched_log_verifies_live_and_exported() {
    let (dir, log) = log_of(600).await;
    checkpoint(&log).await;
    for n in 600..605 {
        log.append(event(n)).await.unwrap();
    }
    let verified = verify_dir(dir.path(), &open).unwrap();
    assert_eq!((verified.entries(), verified.signed().size), (605, 600));
    let (f, c) = (dir.path().join("f"), dir.path().join("c"));
    log.export(600, &f, &c).unwrap();
    let verified = verify_files(&f, &c, &open).unwrap();
    assert_eq!((verified.entries(), verified.hashes_damaged()), (600, false));
    assert_eq!(
        log.export(606, &f, &c).unwrap_err().to_string(),
        "entry 605 and all after it are missing"
    );
}

#[tokio::test]
async fn the_first_of_several_altered_entries_is_named() {
    let (dir, log) = log_of(300).await;
    checkpoint(&log).await;
    let (f, c) = (dir.path().join("f"), dir.path().join("c"));
    for first in [0, 1, 137, 299] {
        log.export(300, &f, &c).unwrap();
        edit_line(&f, first, |line| line.replace("alice", "mallory") + "\n");
        edit_line(&f, 299, |line| line.replace("vm:", "vm-") + "\n");
        let found = rejection(verify_files(&f, &c, &open));
        assert_eq!(found, AuditRejection::EntryAltered { seq: first as u64 });
        assert_eq!((found.name(), found.first()), ("entry-altered", Some(first as u64)));
    }
}

#[tokio::test]
async fn removed_inserted_and_cut_entries_are_named() {
    let (dir, log) = log_of(20).await;
    checkpoint(&log).await;
    let (f, c) = (dir.path().join("f"), dir.path().join("c"));
    let first = |change: &dyn Fn(&Path)| {
        log.export(20, &f, &c).unwrap();
        change(&f);
        rejection(verify_files(&f, &c, &open))
    };
    let removed = first(&|f| edit_line(f, 5, |_| String::new()));
    assert_eq!(removed, AuditRejection::EntryAltered { seq: 5 });
    let doubled = first(&|f| edit_line(f, 5, |line| format!("{line}\n{line}\n")));
    assert_eq!(doubled, AuditRejection::EntryAltered { seq: 6 });
    let cut = first(&|f| edit_line(f, 19, |_| String::new()));
    assert_eq!(cut, AuditRejection::EntryMissing { seq: 19 });
    assert_eq!(cut.name(), "entry-missing");
}

#[tokio::test]
async fn altered_hashes_are_bounded_by_earlier_checkpoints() {
    let (dir, log) = log_of(10).await;
    checkpoint(&log).await;
    for n in 10..20 {
        log.append(event(n)).await.unwrap();
    }
    checkpoint(&log).await;
    drop(log);
    let forged = "{\"forged\":true}";
    edit_line(&segment(&dir), 13, |_| format!("{forged}\n"));
    let mut leaves = fs::read(leaves_path(dir.path())).unwrap();
    leaves[13 * 32..14 * 32].copy_from_slice(&leaf_hash(forged.as_bytes()));
    fs::write(leaves_path(dir.path()), leaves).unwrap();
    let found = rejection(verify_dir(dir.path(), &open));
    assert_eq!(found, AuditRejection::EntryAlteredWithin { from: 10, to: 20 });
    assert_eq!(found.first(), Some(10));
}

#[tokio::test]
async fn altered_hashes_alone_do_not_accuse_the_entries() {
    let (dir, log) = log_of(10).await;
    checkpoint(&log).await;
    drop(log);
    let mut leaves = fs::read(leaves_path(dir.path())).unwrap();
    leaves[40] ^= 1;
    fs::write(leaves_path(dir.path()), leaves).unwrap();
    assert!(verify_dir(dir.path(), &open).unwrap().hashes_damaged());
    fs::remove_file(leaves_path(dir.path())).unwrap();
    assert!(verify_dir(dir.path(), &open).unwrap().hashes_damaged());
}

#[tokio::test]
async fn checkpoints_that_are_missing_bad_or_disagree_are_named() {
    let (dir, log) = log_of(3).await;
    assert_eq!(rejection(verify_dir(dir.path(), &open)).name(), "no-checkpoint");
    checkpoint(&log).await;
    let bad = envelope(log.tree_head()).replace("true", "false");
    log.record_checkpoint(&bad).await.unwrap();
    let found = rejection(verify_dir(dir.path(), &open));
    assert_eq!(found.name(), "checkpoint-invalid");
    let other = TreeHead { root: Digest::sha256([1; 32]), ..log.tree_head() };
    fs::write(checkpoints_path(dir.path()), envelope(log.tree_head()) + "\n").unwrap();
    let mut forked = fs::read_to_string(checkpoints_path(dir.path())).unwrap();
    forked += &(envelope(other) + "\n");
    fs::write(checkpoints_path(dir.path()), forked).unwrap();
    assert_eq!(rejection(verify_dir(dir.path(), &open)).name(), "checkpoints-forked");
    let garbage = dir.path().join("c");
    fs::write(&garbage, "garbage\n").unwrap();
    let found = rejection(verify_files(&segment(&dir), &garbage, &open));
    assert_eq!(found.name(), "audit-malformed");
    assert!(log.record_checkpoint("not\njson").await.is_err());
}

#[tokio::test]
async fn a_torn_last_line_is_dropped_and_that_is_an_entry() {
    let (dir, log) = log_of(5).await;
    drop(log);
    let mut file = OpenOptions::new().append(true).open(segment(&dir)).unwrap();
    file.write_all(br#"{"seq":5,"at":1,"act"#).unwrap();
    let mut file = OpenOptions::new().append(true).open(leaves_path(dir.path())).unwrap();
    file.write_all(&[1, 2, 3]).unwrap();
    let (log, recovery) = AuditLog::open(dir.path(), 77).unwrap();
    assert_eq!(recovery, Recovery { entries: 5, kept: 0, dropped: 20 });
    let entries = log.read(0, 100).unwrap();
    assert_eq!(entries.len(), 6);
    assert_eq!((entries[5].event.as_str(), entries[5].at), ("audit-log-repaired", 77));
    checkpoint(&log).await;
    assert_eq!(log.append(event(6)).await.unwrap().seq, 6);
    drop(log);
    assert_eq!(verify_dir(dir.path(), &open).unwrap().entries(), 7);
    let (_, recovery) = AuditLog::open(dir.path(), 78).unwrap();
    assert_eq!(recovery, Recovery { entries: 7, kept: 0, dropped: 0 });
}

#[tokio::test]
async fn whole_lines_without_hashes_are_kept_and_zeroed_hashes_made_again() {
    let (dir, log) = log_of(5).await;
    let head = log.tree_head();
    drop(log);
    let leaves = fs::read(leaves_path(dir.path())).unwrap();
    let torn = [&leaves[..3 * 32], &[0; 2 * 32]].concat();
    fs::write(leaves_path(dir.path()), torn).unwrap();
    let (log, recovery) = AuditLog::open(dir.path(), 0).unwrap();
    assert_eq!(recovery, Recovery { entries: 5, kept: 2, dropped: 0 });
    assert_eq!(log.tree_head(), head);
    assert_eq!(fs::read(leaves_path(dir.path())).unwrap(), leaves);
}

#[tokio::test]
async fn opening_refuses_a_log_that_was_altered_or_cut() {
    let (dir, log) = log_of(5).await;
    let error = AuditLog::open(dir.path(), 0).unwrap_err();
    assert!(matches!(error, AuditError::Store(StoreError::Locked { .. })), "{error:?}");
    drop(log);
    let good = fs::read(segment(&dir)).unwrap();
    edit_line(&segment(&dir), 2, |line| line.replace("alice", "eve") + "\n");
    let altered = AuditLog::open(dir.path(), 0).unwrap_err();
    assert!(matches!(altered, AuditError::Rejected(AuditRejection::EntryAltered { seq: 2 })));
    fs::write(segment(&dir), &good).unwrap();
    edit_line(&segment(&dir), 4, |_| String::new());
    let cut = AuditLog::open(dir.path(), 0).unwrap_err();
    assert!(matches!(cut, AuditError::Rejected(AuditRejection::EntryMissing { seq: 4 })));
    fs::remove_file(segment(&dir)).unwrap();
    assert!(AuditLog::open(dir.path(), 0).is_err());
}

#[tokio::test]
async fn concurrent_appends_get_places_without_gaps_and_proofs() {
    let (_dir, log) = log_of(0).await;
    let log = Arc::new(log);
    let tasks = (0..200).map(|n| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.append(event(n)).await.unwrap() })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut seqs = Vec::new();
    for task in tasks {
        let entry = task.await.unwrap();
        let head = log.tree_head();
        let proof = log.inclusion(entry.seq, head.size).unwrap();
        let leaf = leaf_hash(entry.to_line().unwrap().as_bytes());
        assert!(verify_inclusion(&leaf, entry.seq, &head, &proof));
        seqs.push(entry.seq);
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (0..200).collect::<Vec<_>>());
    assert_eq!(log.read(198, 10).unwrap().len(), 2);
    log.close().await;
    let late = log.append(event(0)).await.unwrap_err();
    assert!(matches!(late, AuditError::Store(StoreError::Closed)), "{late:?}");
}

#[tokio::test]
async fn segments_follow_each_other_and_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = AuditLog::open(dir.path(), 0).unwrap();
    let log = Arc::new(log);
    // Long entries, so that the byte limit ends a segment: 16 MiB at 12 KB an entry.
    let long = "\u{1}".repeat(2048);
    let tasks: Vec<_> = (0..2000_u64)
        .map(|n| {
            let (log, long) = (Arc::clone(&log), long.clone());
            tokio::spawn(async move { log.append(event(n).detail(long)).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(segments(dir.path()).unwrap().len() > 1);
    checkpoint(&log).await;
    let seqs: Vec<u64> = log.read(0, 5000).unwrap().iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (0..2000).collect::<Vec<_>>());
    log.close().await;
    assert_eq!(verify_dir(dir.path(), &open).unwrap().entries(), 2000);
    let (log, recovery) = AuditLog::open(dir.path(), 0).unwrap();
    assert_eq!((recovery.entries, recovery.dropped), (2000, 0));
    assert_eq!(log.append(event(9)).await.unwrap().seq, 2000);
}

#[tokio::test]
async fn a_name_that_is_not_kebab_case_is_refused() {
    let (_dir, log) = log_of(0).await;
    let bad = AuditEvent::done(0, "a", "VM start", "s");
    assert!(matches!(log.append(bad).await, Err(AuditError::Event(_))));
}

/// Which sectors of what was written and not synced reached the disk.
fn torn(bytes: &[u8], kept: usize, sectors: u64, sector: usize) -> Vec<u8> {
    let mut left = bytes.to_vec();
    let pieces = left.split_at_mut(kept).1.chunks_mut(sector).enumerate();
    pieces.filter(|(n, _)| sectors >> (n % 64) & 1 == 0).for_each(|(_, piece)| piece.fill(0));
    left
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// A power cut while a batch is written: its lines, or (these being synced) its hashes.
    #[test]
    fn acknowledged_entries_survive_a_power_cut(acked in 0..20_u64, batch in 0..40_u64, lost in proptest::prelude::any::<u64>(), cut in 0..100_usize, lines in proptest::prelude::any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (dir, log) = log_of(acked).await;
            let lines_kept = fs::metadata(segment(&dir)).unwrap().len();
            let lines_kept = usize::try_from(lines_kept).unwrap();
            for n in acked..acked + batch {
                log.append(event(n)).await.unwrap();
            }
            let before = log.read(0, 100).unwrap();
            drop(log);
            let hashes_kept = usize::try_from(acked).unwrap() * 32;
            let path = leaves_path(dir.path());
            let (all, hashes) = (fs::read(segment(&dir)).unwrap(), fs::read(&path).unwrap());
            if lines {
                let cut = all.len() - (all.len() - lines_kept) * cut / 100;
                fs::write(segment(&dir), torn(&all[..cut], lines_kept, lost, 64)).unwrap();
                fs::write(&path, &hashes[..hashes_kept]).unwrap();
            } else {
                let cut = hashes.len() - (hashes.len() - hashes_kept) * cut / 100;
                fs::write(&path, torn(&hashes[..cut], hashes_kept, lost, 64)).unwrap();
            }
            let (log, recovery) = AuditLog::open(dir.path(), 1).unwrap();
            let after = log.read(0, 100).unwrap();
            let kept = usize::try_from(recovery.entries).unwrap();
            assert!(recovery.entries >= acked);
            assert!(lines || recovery.entries == acked + batch);
            assert_eq!(after[..kept], before[..kept]);
            assert_eq!(after.len() > kept, recovery.dropped > 0);
            checkpoint(&log).await;
            assert_eq!(verify_dir(dir.path(), &open).unwrap().entries(), after.len() as u64);
        });
    }
}
