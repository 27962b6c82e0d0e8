//! CPU time of vault volumes against a plain file at the seam where exports call: run it in release
//! on a directory in memory. `vault_cpu DIR [MIB] [NAME-PART]`

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program that measures; it stops at the first error"
)]

use std::{fs, path::Path, sync::Arc};

use disk::{
    Format, OpenOptions, Volume,
    vault::{NewSlot, NewVault, SlotSecret, Suite, create},
};
use model::Secret;
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 7;

fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

fn open(path: &Path, raw: bool) -> Arc<dyn Volume> {
    let format = Some(if raw { Format::Raw } else { Format::Vault });
    let options = OpenOptions { format, ..OpenOptions::default() };
    disk::open(path, Some(&key()), &options).expect("open")
}

fn key() -> Secret<Vec<u8>> {
    Secret::new(vec![7; 32])
}

fn make(path: &Path, size: u64, suite: Option<Suite>) {
    let _ = fs::remove_file(path);
    let key = key();
    let slots = [NewSlot { secret: SlotSecret::RandomKey(&key), kmi: None, label: "" }];
    match suite {
        None => fs::File::create(path).and_then(|f| f.set_len(size)).expect("create"),
        Some(suite) => {
            let new = NewVault { path, size, suite, log_bytes: None, label: "", slots: &slots };
            create(&new).expect("create");
        }
    }
}

struct Work<'a> {
    volume: &'a dyn Volume,
    size: u64,
    state: u64,
}

impl Work<'_> {
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 20) % (self.size / 4096) * 4096
    }

    /// Seconds of CPU for `count` requests of `length` bytes; a flush after each `flush` of them.
    fn run(&mut self, write: bool, sequential: bool, length: usize, count: u64, flush: u64) -> f64 {
        let mut buf = vec![0x5a; length];
        let before = cpu();
        for i in 0..count {
            let step = length as u64;
            let at = if sequential { i * step % self.size } else { self.random() };
            if write {
                self.volume.write(at, &mut buf).expect("write");
                if flush != 0 && i % flush == flush - 1 {
                    self.volume.flush().expect("flush");
                }
            } else {
                self.volume.read(at, &mut buf).expect("read");
            }
        }
        cpu() - before
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "/dev/shm".to_owned());
    let mib: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(512);
    let only = args.next().unwrap_or_default();
    let size = mib << 20;
    let path = Path::new(&dir).join(format!("vault_cpu.{}", std::process::id()));
    let kinds =
        [("plain", None), ("gcm", Some(Suite::Aes256Gcm)), ("aegis", Some(Suite::Aegis256X4))];
    let ops = size / 4096 / 2;
    let big = size >> 20;
    let cases = [
        ("first write 1M", true, true, 1 << 20, big, 0),
        ("read 1M", false, true, 1 << 20, big, 0),
        ("rewrite 1M", true, true, 1 << 20, big, 0),
        ("rewrite 1M again", true, true, 1 << 20, big, 0),
        ("random read 4k", false, false, 4096, ops, 0),
        ("random rewrite 4k", true, false, 4096, ops, 0),
        ("random rewrite 4k, flush/32", true, false, 4096, ops / 4, 32),
        ("random read 4k after", false, false, 4096, ops, 0),
        ("read 1M after", false, true, 1 << 20, big, 0),
    ];
    let mut seen = vec![[const { Vec::<f64>::new() }; 3]; cases.len()];
    for _ in 0..ROUNDS {
        for (column, (name, suite)) in kinds.iter().enumerate() {
            if !only.is_empty() && *name != only {
                continue;
            }
            make(&path, size, *suite);
            let volume = open(&path, suite.is_none());
            let mut work = Work { volume: volume.as_ref(), size, state: 1 };
            for (row, case) in cases.iter().enumerate() {
                let seconds = work.run(case.1, case.2, case.3, case.4, case.5);
                seen[row][column].push(seconds / case.4 as f64 * 1e6);
            }
        }
    }
    println!(
        "{:30} {:>9} {:>9} {:>9}   gcm/plain aegis/plain",
        "us a request (median)", "plain", "gcm", "aegis"
    );
    for (case, columns) in cases.iter().zip(&mut seen) {
        let medians: Vec<f64> = columns
            .iter_mut()
            .map(|column| {
                column.sort_by(f64::total_cmp);
                column.get(column.len() / 2).copied().unwrap_or(f64::NAN)
            })
            .collect();
        println!(
            "{:30} {:9.2} {:9.2} {:9.2}   {:9.2} {:9.2}",
            case.0,
            medians[0],
            medians[1],
            medians[2],
            medians[0] / medians[1],
            medians[0] / medians[2]
        );
    }
    let _ = fs::remove_file(&path);
}
