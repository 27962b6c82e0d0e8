//! What is written and not flushed when a vault volume's process is killed: lost, unless writes are
//! durable when they are answered.

use std::fs;

use tempfile::TempDir;

use crate::process::{Disk, KEY, KMI, pattern, tool, uri};

/// Writes without a flush, kills the process, and says whether a new one has what was written.
fn survives(more: &[&str]) -> Option<bool> {
    let dir = TempDir::new().unwrap();
    let (written, read) = (dir.path().join("written.raw"), dir.path().join("read.raw"));
    fs::write(&written, pattern(1 << 20)).unwrap();
    let args = ["create", "--image", "v.luks", "--size", "1048576", "--kmi", KMI];
    let made = Disk::start(dir.path(), KEY, &[&args[..], &["--format", "vault"]].concat());
    assert_eq!(made.end().1, 0);
    let disk = Disk::serve(dir.path(), more);
    // It flushes only if it is told to.
    let sent = tool("nbdcopy")?.arg(&written).arg(uri(dir.path())).status().unwrap();
    assert!(sent.success());
    disk.kill();
    let disk = Disk::serve(dir.path(), more);
    let fetched = tool("nbdcopy")?.arg(uri(dir.path())).arg(&read).status().unwrap();
    assert!(fetched.success());
    assert_eq!(disk.terminate(), 0);
    Some(fs::read(&written).unwrap() == fs::read(&read).unwrap())
}

#[test]
fn what_was_answered_survives_the_process_if_writes_go_through() {
    let Some(through) = survives(&["--write-through"]) else { return };
    assert!(through);
    // Without it nothing is promised before a flush.
    assert_eq!(survives(&[]), Some(false));
}
