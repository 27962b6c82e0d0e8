//! Vault volumes as the agent anchors them: made from an image, served under a count, advanced.

use std::fs;

use model::child::disk::{Progress, Reply, Request};
use tempfile::TempDir;

use crate::process::{Disk, KEY, ask, pattern, status, with_vault, with_volume};

fn advance(dir: &TempDir, count: u64) {
    let reply = ask(dir.path(), &Request::Advance { count });
    assert!(matches!(reply, Reply::Advanced { count: now, .. } if now == count), "{reply:?}");
}

/// The refusal of a start under this count.
fn refused(dir: &TempDir, count: &str) -> String {
    let args = ["serve", "--image", "v.luks", "--socket", "s.sock", "--control", "c.sock"];
    let (lines, exit) =
        Disk::start(dir.path(), KEY, &[&args[..], &["--anchor-count", count]].concat()).end();
    assert_eq!(exit, 3, "{lines:?}");
    match lines.last() {
        Some(Progress::Refused { code, .. }) => code.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_advanced_volume_is_served_again_and_yesterdays_copy_is_refused_by_name() {
    let dir = with_vault(1 << 20);
    let disk = Disk::serve(dir.path(), &["--anchor-count", "0"]);
    assert_eq!(status(dir.path()).format, "vault");
    advance(&dir, 1);
    advance(&dir, 2);
    disk.kill();
    let yesterday = fs::read(dir.path().join("v.luks")).unwrap();
    // The header may be one ahead: the counter was not incremented any more.
    let disk = Disk::serve(dir.path(), &["--anchor-count", "1"]);
    advance(&dir, 2);
    advance(&dir, 3);
    advance(&dir, 4);
    assert_eq!(disk.terminate(), 0);
    let today = fs::read(dir.path().join("v.luks")).unwrap();
    fs::write(dir.path().join("v.luks"), yesterday).unwrap();
    assert_eq!(refused(&dir, "4"), "rolled-back");
    fs::write(dir.path().join("v.luks"), today).unwrap();
    assert_eq!(refused(&dir, "2"), "anchor-mismatch");
    let disk = Disk::serve(dir.path(), &["--anchor-count", "4"]);
    assert_eq!(disk.terminate(), 0);
}

#[test]
fn another_image_than_was_meant_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("source.raw"), pattern(1 << 20)).unwrap();
    let other = "00".repeat(32);
    let args = ["create", "--image", "v.luks", "--source", "source.raw", "--format", "vault"];
    let all = [&args[..], &["--source-sha256", &other]].concat();
    let (lines, exit) = Disk::start(dir.path(), KEY, &all).end();
    assert_eq!(exit, 3, "{lines:?}");
    let refused = lines.last().unwrap();
    assert!(
        matches!(refused, Progress::Refused { code, .. } if code == "source-digest-mismatch"),
        "{refused:?}"
    );
    assert!(!dir.path().join("v.luks").exists());
}

#[test]
fn a_volume_without_a_counting_header_says_so() {
    let dir = with_volume(&pattern(1 << 20));
    let disk = Disk::serve(dir.path(), &[]);
    let reply = ask(dir.path(), &Request::Advance { count: 1 });
    assert!(matches!(&reply, Reply::Failed { code, .. } if code == "no-anchor"), "{reply:?}");
    assert_eq!(disk.terminate(), 0);
}
