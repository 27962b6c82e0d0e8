//! The data key of a served vault is exchanged for a fresh one, while it is written to, and whatever
//! is killed.

use std::{fs, path::Path, thread, time::Duration};

use model::child::disk::{Reply, Request, Status};

use crate::process::{Disk, KMI, ask, pattern, status, tool, uri, with_vault, with_volume};

const SIZE: usize = 24 << 20;

fn rekey(dir: &Path, epoch: u32) -> Reply {
    ask(dir, &Request::Rekey { epoch })
}

fn code(reply: Reply) -> String {
    let Reply::Failed { code, .. } = reply else { panic!("{reply:?}") };
    code
}

/// Waits until it goes on no more.
fn rests(dir: &Path) -> Status {
    for _ in 0..20_000 {
        let status = status(dir);
        if status.rekeying.as_ref().is_none_or(|rekeying| rekeying.stopped.is_some()) {
            return status;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("it does not end");
}

/// Waits until nothing of the epoch before is left, and gives the status of then.
fn ended(dir: &Path) -> Status {
    let status = rests(dir);
    assert_eq!(status.rekeying, None);
    status
}

/// Epoch of the header, and whether data of the one before are left.
fn header(dir: &Path) -> (u32, bool) {
    let seen = disk::vault::inspect(&dir.join("v.luks")).unwrap();
    (seen.epoch, seen.rekeying)
}

/// The disk as a client reads it; nothing, said aloud, without nbdcopy.
fn read(dir: &Path) -> Option<Vec<u8>> {
    let to = dir.join("read.raw");
    // What a client read before is no hint.
    let _ = fs::remove_file(&to);
    assert!(tool("nbdcopy")?.arg(uri(dir)).arg(&to).status().unwrap().success());
    Some(fs::read(to).unwrap())
}

#[test]
fn a_served_vault_gets_a_fresh_data_key_under_the_same_volume_key_while_it_is_written() {
    let dir = with_vault(SIZE);
    let disk = Disk::serve(dir.path(), &["--write-through"]);
    let told = status(dir.path());
    assert_eq!((told.epoch, told.rekeying), (Some(1), None));
    assert_eq!(rekey(dir.path(), 2), Reply::Rekeying {});
    let mut wanted = pattern(SIZE);
    for round in 1..=4_u8 {
        let Some(mut io) = tool("qemu-io") else { return };
        let at = usize::from(round) * 5_000_000;
        io.args(["-f", "raw", "-c", &format!("write -P {round} {at} 65536")]).arg(uri(dir.path()));
        assert!(io.output().unwrap().status.success());
        wanted[at..at + 65536].fill(round);
    }
    assert_eq!(ended(dir.path()).epoch, Some(2));
    // Asked again after the end, it changes nothing.
    assert_eq!(rekey(dir.path(), 2), Reply::Rekeying {});
    assert_eq!(ended(dir.path()).epoch, Some(2));
    assert_eq!(read(dir.path()), Some(wanted.clone()));
    assert_eq!(disk.terminate(), 0);
    let disk = Disk::serve(dir.path(), &["--kmi", KMI]);
    assert_eq!(read(dir.path()), Some(wanted));
    assert_eq!(disk.terminate(), 0);
}

#[test]
fn a_killed_process_goes_on_with_it_by_itself_and_the_same_key_opens_the_volume() {
    let dir = with_vault(SIZE);
    let (mut epoch, mut interrupted) = (1, 0);
    for round in 0..6_u32 {
        let disk = Disk::serve(dir.path(), &["--write-through"]);
        let before = ended(dir.path()).epoch.unwrap();
        assert!(before == epoch || before == epoch + 1, "{before} after {epoch}");
        epoch = before;
        assert_eq!(rekey(dir.path(), epoch + 1), Reply::Rekeying {});
        if round % 2 == 0 {
            // From its first step on the header says so.
            let begun = (0..20_000).any(|_| {
                thread::sleep(Duration::from_millis(1));
                header(dir.path()).0 > epoch
            });
            assert!(begun, "it does not begin");
        } else {
            thread::sleep(Duration::from_millis(u64::from(round * round)));
        }
        disk.kill();
        interrupted += u32::from(header(dir.path()).1);
        let disk = Disk::serve(dir.path(), &["--write-through"]);
        // In good order it stops in the middle as well.
        assert_eq!(disk.terminate(), 0);
    }
    let disk = Disk::serve(dir.path(), &[]);
    ended(dir.path());
    if let Some(found) = read(dir.path()) {
        assert!(found == pattern(SIZE));
    }
    assert_eq!(disk.terminate(), 0);
    assert!(interrupted > 0, "no kill was in its middle");
}

#[test]
fn what_cannot_be_sealed_anew_is_refused_by_name() {
    let dir = with_vault(1 << 20);
    let disk = Disk::serve(dir.path(), &[]);
    assert_eq!(code(rekey(dir.path(), 5)), "epoch-unfit");
    assert_eq!(code(rekey(dir.path(), 0)), "epoch-unfit");
    assert_eq!(disk.terminate(), 0);
    let disk = Disk::serve(dir.path(), &["--read-only"]);
    assert_eq!(code(rekey(dir.path(), 2)), "read-only");
    assert_eq!(disk.terminate(), 0);
    let dir = with_volume(&pattern(4096));
    let disk = Disk::serve(dir.path(), &[]);
    assert_eq!(code(rekey(dir.path(), 2)), "not-vault");
    assert_eq!(disk.terminate(), 0);
}

#[test]
fn a_damaged_sector_stops_it_by_name_and_writing_it_lets_it_go_on() {
    use std::os::unix::fs::FileExt;
    let dir = with_vault(SIZE);
    let path = dir.path().join("v.luks");
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut log = [0; 4];
    file.read_exact_at(&mut log, 56).unwrap();
    let at = (256 + u64::from(u32::from_le_bytes(log)) + 2000) * 4096;
    file.write_all_at(b"damage", at).unwrap();
    let disk = Disk::serve(dir.path(), &[]);
    assert_eq!(rekey(dir.path(), 2), Reply::Rekeying {});
    let told = rests(dir.path());
    let stopped = told.rekeying.unwrap().stopped.unwrap();
    assert_eq!((stopped.code.as_deref(), told.epoch), (Some("sector-damaged"), Some(2)));
    let Some(mut io) = tool("qemu-io") else { return };
    io.args(["-f", "raw", "-c", "write -P 7 8192000 4096"]).arg(uri(dir.path()));
    assert!(io.output().unwrap().status.success());
    assert_eq!(rekey(dir.path(), 2), Reply::Rekeying {});
    ended(dir.path());
    assert_eq!(disk.terminate(), 0);
}
