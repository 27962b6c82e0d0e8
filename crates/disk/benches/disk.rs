//! `make bench-disk`: our exports against qemu-nbd and nbdkit.
//!
//! Every server runs the same six jobs of fio's nbd engine on a tmpfs; LUKS1 is the same image for
//! all. The direct rows run on a file of the disk, past the page cache. Rows `vhost-*` compare our
//! own two exports under a load generator that drives both. Rounds alternate the servers; each row
//! is the median of the rounds. `-cpu` rows are processor time of the server for one operation, or
//! for one gigabyte, and decide: wall figures swing with the machine.
//!
//! Vault rows: `first` writes sectors that were never written, the others rewrite a settled volume.
//!
//! `cargo bench -p disk --bench disk`, with `QUICK=1` for a look at three short rounds.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "a bench program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "disk/fio.rs"]
mod fio;
#[path = "disk/load.rs"]
mod load;
#[path = "disk/master.rs"]
mod master;
#[path = "disk/servers.rs"]
mod servers;

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use self::{
    fio::{Done, JOBS, Job},
    servers::{Place, Running, SIZE, Who},
};

/// Figures of one server at one job, one for each round: rate, and processor time.
type Samples = BTreeMap<(String, &'static str), (Vec<f64>, Vec<f64>)>;

struct Plan {
    rounds: usize,
    millis: u32,
}

fn main() {
    let quick = std::env::var_os("QUICK").is_some();
    let plan =
        if quick { Plan { rounds: 3, millis: 250 } } else { Plan { rounds: 7, millis: 700 } };
    let mut rows = Vec::new();
    println!(
        "{:<44} {:>10} {:>10} {:<8} {:>7}   (ratio: larger is better for us)",
        "case", "ours", "peer", "unit", "ratio"
    );
    let dir = Path::new("/dev/shm").join(format!("vouchsafe-bench-{}", std::process::id()));
    on_tmpfs(&plan, &Place::make(&dir, false), &mut rows);
    let _ = fs::remove_dir_all(&dir);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let dir = target.join(format!("bench-disk-{}", std::process::id()));
    on_disk(&plan, &dir, &mut rows);
    let _ = fs::remove_dir_all(&dir);
    let out = target.join("bench");
    fs::create_dir_all(&out).expect("target/bench");
    let text = serde_json::to_string_pretty(&rows).expect("JSON");
    fs::write(out.join("disk.json"), text).expect("disk.json");
}

/// Runs `job` and notes its figures.
fn measure(
    samples: &mut Samples,
    name: &str,
    job: &'static Job,
    server: &Running,
    run: impl FnOnce() -> Done,
) {
    let before = server.cpu();
    let done = run();
    let cpu = server.cpu() - before;
    let amount = if job.is_sequential() { done.bytes / 1e9 } else { done.operations / 1e6 };
    let (rates, cpus) = samples.entry((name.to_owned(), job.name)).or_default();
    rates.push(done.rate);
    cpus.push(cpu / amount.max(1e-9));
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Two rows, rate and processor time, of `ours` against `peer` at one job.
fn compare(
    rows: &mut Vec<Value>,
    samples: &Samples,
    ours: &str,
    peer: &str,
    job: &'static Job,
    case: &str,
) {
    let find = |who: &str| samples.get(&(who.to_owned(), job.name));
    let (Some(mine), Some(theirs)) = (find(ours), find(peer)) else { return };
    let (unit, cpu_unit, scale) =
        if job.is_sequential() { ("MB/s", "s/GB", 1e6) } else { ("kIOPS", "us/op", 1e3) };
    let mut row = |case: String, unit: &str, mine: f64, theirs: f64, ratio: f64, runs: usize| {
        println!("{case:<44} {mine:>10.3} {theirs:>10.3} {unit:<8} {ratio:>7.2}");
        rows.push(json!({"case": case, "ours": mine, "peer": theirs, "peer_name": peer,
                         "unit": unit, "ratio": ratio, "runs": runs}));
    };
    let (rate, their_rate) = (median(&mine.0) / scale, median(&theirs.0) / scale);
    row(
        format!("{case}-{}-vs-{peer}", job.name),
        unit,
        rate,
        their_rate,
        rate / their_rate,
        mine.0.len(),
    );
    let (cpu, their_cpu) = (median(&mine.1), median(&theirs.1));
    let case = format!("{case}-{}-cpu-vs-{peer}", job.name);
    row(case, cpu_unit, cpu, their_cpu, their_cpu / cpu, mine.1.len());
}

fn on_tmpfs(plan: &Plan, place: &Place, rows: &mut Vec<Value>) {
    const ALL: [Who; 8] = [
        Who::OursLuks1,
        Who::QemuLuks1,
        Who::NbdkitLuks1,
        Who::OursRaw,
        Who::QemuRaw,
        Who::NbdkitFile,
        Who::OursGcm,
        Who::OursAegis,
    ];
    let mut samples = Samples::new();
    // Every image is written once through, so that no row measures first touches by chance.
    for who in [Who::OursLuks1, Who::OursRaw, Who::OursGcm, Who::OursAegis] {
        let server = place.start(who);
        fio::run(&server.socket, &JOBS[1], SIZE, None);
    }
    for round in 0..plan.rounds {
        for at in 0..ALL.len() {
            let who = ALL[(at + round) % ALL.len()];
            let server = place.start(who);
            for job in &JOBS {
                measure(&mut samples, who.name(), job, &server, || {
                    fio::run(&server.socket, job, SIZE, Some(plan.millis))
                });
            }
        }
        first_writes(place, &mut samples);
        both_exports(plan, place, &mut samples);
    }
    for job in &JOBS {
        compare(rows, &samples, "luks1", "qemu-nbd", job, "luks1");
        compare(rows, &samples, "luks1", "nbdkit-luks", job, "luks1");
        compare(rows, &samples, "raw", "qemu-nbd-raw", job, "raw");
        compare(rows, &samples, "raw", "nbdkit-file", job, "raw");
        for vault in ["vault-aegis", "vault-gcm"] {
            compare(rows, &samples, vault, "nbdkit-file", job, vault);
            compare(rows, &samples, vault, "raw", job, vault);
            compare(rows, &samples, vault, "qemu-nbd", job, vault);
        }
        compare(rows, &samples, "vhost", "nbd", job, "vhost");
    }
    for vault in ["vault-aegis-first", "vault-gcm-first"] {
        compare(rows, &samples, vault, "nbdkit-file", &JOBS[1], vault);
        compare(rows, &samples, vault, "raw", &JOBS[1], vault);
    }
}

/// Sequential writes to sectors that were never written, on fresh volumes.
fn first_writes(place: &Place, samples: &mut Samples) {
    for (who, image) in [(Who::OursGcm, "gcm"), (Who::OursAegis, "aegis")] {
        place.make_vault(image);
        let server = place.start(who);
        let name = format!("{}-first", who.name());
        measure(samples, &name, &JOBS[1], &server, || {
            fio::run(&server.socket, &JOBS[1], SIZE, None)
        });
    }
}

/// The same raw image through our two exports, under one load generator.
fn both_exports(plan: &Plan, place: &Place, samples: &mut Samples) {
    let server = place.start(Who::OursRaw);
    for job in &JOBS {
        measure(samples, "nbd", job, &server, || load::nbd(&server.socket, job, SIZE, plan.millis));
    }
    drop(server);
    let server = place.start(Who::OursVhost);
    for job in &JOBS {
        measure(samples, "vhost", job, &server, || {
            load::vhost(&server.socket, job, SIZE, plan.millis)
        });
    }
}

/// Past the page cache, on whatever disk the tree is on.
fn on_disk(plan: &Plan, dir: &Path, rows: &mut Vec<Value>) {
    const ALL: [Who; 4] = [Who::OursLuks1, Who::QemuLuks1, Who::OursRaw, Who::QemuRaw];
    let place = Place::make(dir, true);
    let mut samples = Samples::new();
    for who in [Who::OursLuks1, Who::OursRaw] {
        let server = place.start(who);
        fio::run(&server.socket, &JOBS[1], SIZE, None);
    }
    for round in 0..plan.rounds {
        for at in 0..ALL.len() {
            let who = ALL[(at + round) % ALL.len()];
            let server = place.start(who);
            for job in [&JOBS[0], &JOBS[1], &JOBS[3], &JOBS[5]] {
                measure(&mut samples, who.name(), job, &server, || {
                    fio::run(&server.socket, job, SIZE, Some(plan.millis))
                });
            }
        }
    }
    for job in &JOBS {
        compare(rows, &samples, "luks1", "qemu-nbd", job, "direct-luks1");
        compare(rows, &samples, "raw", "qemu-nbd-raw", job, "direct-raw");
    }
}
