//! `create` as a process.

use std::{fs, fs::File, thread, time::Duration};

use model::child::disk::Progress;
use serve::process::Signal;
use tempfile::TempDir;

use crate::process::{Disk, KEY, names, pattern};

const CREATE: [&str; 5] = ["create", "--image", "v.luks", "--source", "source.raw"];

fn refused(lines: &[Progress]) -> &str {
    match lines.last() {
        Some(Progress::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn progress_is_told_from_start_to_done() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("source.raw"), pattern(40 << 20)).unwrap();
    let (lines, exit) = Disk::start(dir.path(), KEY, &CREATE).end();
    assert_eq!(exit, 0);
    assert_eq!(lines.first(), Some(&Progress::Started { total: 40 << 20 }));
    assert!(lines.len() > 3, "{lines:?}");
    let Some(Progress::Done { size, source, .. }) = lines.last() else { panic!("{lines:?}") };
    assert_eq!(*size, 40 << 20);
    let digest = source.unwrap().hex();
    fs::remove_file(dir.path().join("v.luks")).unwrap();
    let right = [&CREATE[..], &["--source-sha256", &digest]].concat();
    assert_eq!(Disk::start(dir.path(), KEY, &right).end().1, 0);
}

#[test]
fn a_wrong_digest_and_an_existing_volume_are_refused_with_status_3() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("source.raw"), pattern(100_000)).unwrap();
    let digest = "ab".repeat(32);
    let wrong = [&CREATE[..], &["--source-sha256", &digest]].concat();
    let (lines, exit) = Disk::start(dir.path(), KEY, &wrong).end();
    assert_eq!((refused(&lines), exit), ("source-digest-mismatch", 3));
    assert_eq!(names(dir.path()), ["log", "source.raw"]);
    assert_eq!(Disk::start(dir.path(), KEY, &CREATE).end().1, 0);
    let (lines, exit) = Disk::start(dir.path(), KEY, &CREATE).end();
    assert_eq!((refused(&lines), exit), ("already-exists", 3));
}

#[test]
fn an_empty_volume_needs_a_size_of_whole_sectors() {
    let dir = TempDir::new().unwrap();
    let sized = |size| ["create", "--image", "v.luks", "--size", size];
    let (lines, exit) = Disk::start(dir.path(), KEY, &sized("4097")).end();
    assert_eq!((refused(&lines), exit), ("size-invalid", 3));
    assert_eq!(Disk::start(dir.path(), KEY, &sized("1073741824")).end().1, 0);
}

#[test]
fn a_missing_source_is_a_failure_and_wrong_arguments_are_a_usage_error() {
    let dir = TempDir::new().unwrap();
    let (lines, exit) = Disk::start(dir.path(), KEY, &CREATE).end();
    assert_eq!(exit, 1);
    assert!(matches!(lines.last(), Some(Progress::Failed { .. })), "{lines:?}");
    let neither = ["create", "--image", "v.luks"];
    assert_eq!(Disk::start(dir.path(), KEY, &neither).end(), (vec![], 2));
    assert_eq!(names(dir.path()), ["log"]);
}

/// A long creation, stopped by `signal` in its middle.
fn interrupted(signal: Signal) -> (TempDir, i32) {
    let dir = TempDir::new().unwrap();
    let source = File::create(dir.path().join("source.raw")).unwrap();
    source.set_len(2 << 30).unwrap();
    let mut disk = Disk::start(dir.path(), KEY, &CREATE);
    let mut line = String::new();
    while !line.contains("written") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut disk.stdout, &mut line).unwrap() > 0);
    }
    disk.id.signal(signal).unwrap();
    let exit = disk.end().1;
    (dir, exit)
}

#[test]
fn sigterm_during_creation_leaves_nothing() {
    let (dir, exit) = interrupted(Signal::TERM);
    assert_eq!(exit, 1);
    assert_eq!(names(dir.path()), ["log", "source.raw"]);
}

#[test]
fn kill_during_creation_does_not_hinder_the_next_one() {
    let (dir, _) = interrupted(Signal::KILL);
    assert!(!dir.path().join("v.luks").exists());
    fs::write(dir.path().join("source.raw"), pattern(100_000)).unwrap();
    thread::sleep(Duration::from_millis(10));
    assert_eq!(Disk::start(dir.path(), KEY, &CREATE).end().1, 0);
    assert_eq!(names(dir.path()), ["log", "source.raw", "v.luks"]);
}
