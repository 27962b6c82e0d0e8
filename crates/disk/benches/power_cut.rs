//! Thousands of power cuts: the workloads of `tests/power_cut` for minutes. The number of cuts, and
//! what was lost or invented, which must be nothing.
//!
//! `make bench-disk-crash` writes `target/bench/disk-crash.json`. Arguments: runs, seconds at most.

#[path = "../tests/power_cut/cuts.rs"]
mod cuts;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use cuts::workload::{Tally, run};

const RUNS: u64 = 4000;
const SECONDS: u64 = 240;

fn main() -> ExitCode {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let runs = numbers.next().unwrap_or(RUNS);
    let seconds = numbers.next().unwrap_or(SECONDS);
    let tally = work(runs, Duration::from_secs(seconds));
    match report(&tally) {
        Ok(()) if tally.failures.is_empty() => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

/// The runs, on all cores, as many as the time allows.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn work(runs: u64, limit: Duration) -> Tally {
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let one = || {
        let mut tally = Tally::default();
        while began.elapsed() < limit {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= runs {
                break;
            }
            run(seed, &mut tally);
        }
        tally
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let mut all = Tally::default();
        for worker in workers {
            all.add(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    })
}

fn report(tally: &Tally) -> io::Result<()> {
    let count = |words: &[&str]| {
        let hit = |(_, why): &&(u64, String)| words.iter().any(|word| why.contains(word));
        u64::try_from(tally.failures.iter().filter(hit).count()).unwrap_or(u64::MAX)
    };
    let lost = count(&["lost"]);
    let refused = count(&["not opened"]);
    let wrong = u64::try_from(tally.failures.len()).unwrap_or(u64::MAX) - lost - refused;
    let rows = [
        ("power cuts", tally.cuts, "cuts"),
        ("images opened after a cut", tally.images, "images"),
        ("acknowledged flushes", tally.flushes, "flushes"),
        ("writes answered as durable", tally.through, "writes"),
        ("reverts to a snapshot", tally.reverts, "reverts"),
        ("lost flushes", lost, "runs"),
        ("false opens", wrong, "runs"),
        ("refused opens", refused, "runs"),
    ];
    let mut out = io::stdout().lock();
    let mut json = Vec::new();
    for (case, value, unit) in rows {
        writeln!(out, "{case:<28}{value:>10}")?;
        json.push(serde_json::json!({
            "case": case, "ours": value, "peer": null, "peer_name": null, "unit": unit,
            "ratio": null, "runs": tally.runs,
        }));
    }
    for (seed, why) in &tally.failures {
        writeln!(out, "seed {seed}: {why}")?;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        std::path::PathBuf::from,
    );
    std::fs::create_dir_all(target.join("bench"))?;
    std::fs::write(target.join("bench/disk-crash.json"), serde_json::to_vec_pretty(&json)?)
}
