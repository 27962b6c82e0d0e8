//! `make bench-disk`: our exports against qemu-nbd and nbdkit.
//!
//! Every server runs the same six jobs of fio's nbd engine on a tmpfs; LUKS1 is the same image for
//! all. The direct rows run on a file of the disk, past the page cache. Rows `vhost-*` compare our
//! own two exports under a load generator that drives both, rows `seam-*` the formats without a
//! transport, rows `through-*` a vault as VMs have it, durable before each answer, with one that is
//! durable when it is flushed. Rounds alternate the servers; each row is the median of the rounds. `-cpu` rows are
//! processor time of the server for one operation, or for one gigabyte, and decide: wall figures
//! swing with the machine.
//!
//! Rows `first` write what was never written, on both sides: a vault's sectors, and the holes of a
//! plain file. The others rewrite what is settled.
//!
//! `cargo bench -p disk --bench disk`, with `QUICK=1` for a look at three short rounds; `CASE=a,b`
//! runs only rows whose name has one of these parts, and `ROUNDS=n` so many rounds.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a bench program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "disk/fio.rs"]
mod fio;
#[path = "disk/load.rs"]
mod load;
#[path = "disk/master.rs"]
mod master;
#[path = "disk/rows.rs"]
mod rows;
#[path = "disk/seam.rs"]
mod seam;
#[path = "disk/servers.rs"]
mod servers;

use std::{fs, path::Path};

use self::{
    fio::{Done, JOBS, Job},
    rows::{Pair, Plan, Rows, Samples, pair},
    servers::{Place, Running, SIZE, Who},
};

/// Who is compared with whom on tmpfs.
const ON_TMPFS: [Pair; 10] = [
    pair("luks1", Who::OursLuks1, Who::QemuLuks1),
    pair("luks1", Who::OursLuks1, Who::NbdkitLuks1),
    pair("raw", Who::OursRaw, Who::QemuRaw),
    pair("raw", Who::OursRaw, Who::NbdkitFile),
    pair("vault-aegis", Who::OursAegis, Who::NbdkitFile),
    pair("vault-aegis", Who::OursAegis, Who::OursRaw),
    pair("vault-aegis", Who::OursAegis, Who::QemuLuks1),
    pair("vault-gcm", Who::OursGcm, Who::NbdkitFile),
    pair("vault-gcm", Who::OursGcm, Who::OursRaw),
    pair("vault-gcm", Who::OursGcm, Who::QemuLuks1),
];
/// And past the page cache.
const DIRECT: [Pair; 3] = [
    pair("direct-luks1", Who::OursLuks1, Who::QemuLuks1),
    pair("direct-raw", Who::OursRaw, Who::QemuRaw),
    pair("direct-vault-gcm", Who::OursGcm, Who::QemuLuks1),
];
/// What it costs to answer no write before it is durable, on the same disk with its page cache.
const THROUGH: [Pair; 1] = [pair("through", Who::OursThrough, Who::OursGcm)];

fn main() {
    let plan = Plan::said();
    let mut rows = Rows::new();
    let dir = Path::new("/dev/shm").join(format!("vouchsafe-bench-{}", std::process::id()));
    on_tmpfs(&plan, &Place::make(&dir, false), &mut rows);
    let _ = fs::remove_dir_all(&dir);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    for (pairs, direct) in [(&DIRECT[..], true), (&THROUGH[..], false)] {
        if plan.wants_any(pairs) {
            let dir = target.join(format!("bench-disk-{}", std::process::id()));
            on_disk(&plan, &Place::make(&dir, direct), pairs, &mut rows);
            let _ = fs::remove_dir_all(&dir);
        }
    }
    if plan.is_whole() {
        rows.write(&target.join("bench"));
    }
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
    samples.note(name, job.name, done.rate, cpu / amount.max(1e-9));
}

/// Every server of `pairs` in turn, each at those jobs of its that are wanted.
fn one_round(
    plan: &Plan,
    place: &Place,
    pairs: &[Pair],
    jobs: &[Job],
    samples: &mut Samples,
    round: usize,
) {
    let mut who: Vec<Who> = Vec::new();
    for side in pairs.iter().flat_map(|pair| [pair.ours, pair.peer]) {
        if !who.contains(&side) {
            who.push(side);
        }
    }
    for at in 0..who.len() {
        let who = who[(at + round) % who.len()];
        let wanted = |job: &&'static Job| {
            let mut with = pairs.iter().filter(|pair| pair.ours == who || pair.peer == who);
            with.any(|pair| plan.wants(pair, job.name))
        };
        let jobs: Vec<&'static Job> = JOBS
            .iter()
            .filter(|job| jobs.iter().any(|one| one.name == job.name))
            .filter(wanted)
            .collect();
        if jobs.is_empty() {
            continue;
        }
        let server = place.start(who);
        for job in jobs {
            measure(samples, who.name(), job, &server, || {
                fio::run(&server.socket, job, SIZE, Some(plan.millis))
            });
        }
    }
}

fn on_tmpfs(plan: &Plan, place: &Place, rows: &mut Rows) {
    let mut samples = Samples::default();
    // Every image is written once through, so that no row measures first touches by chance.
    for who in [Who::OursLuks1, Who::OursRaw, Who::OursGcm, Who::OursAegis] {
        if ON_TMPFS.iter().any(|pair| pair.ours == who && plan.wants_any(&[*pair])) {
            let server = place.start(who);
            fio::run(&server.socket, &JOBS[1], SIZE, None);
        }
    }
    for round in 0..plan.rounds {
        one_round(plan, place, &ON_TMPFS, &JOBS, &mut samples, round);
        first_writes(plan, place, &mut samples);
        both_exports(plan, place, &mut samples);
        if plan.has("seam-") {
            seam::round(place, |case, who, time| samples.note(who.name(), case, 1.0, time));
        }
    }
    for job in &JOBS {
        for pair in ON_TMPFS.iter().filter(|pair| plan.wants(pair, job.name)) {
            rows.compare(&samples, pair, job);
        }
        rows.compare_named(&samples, "vhost", "vhost", "nbd", job);
    }
    for (case, ours) in [("vault-aegis-first", Who::OursAegis), ("vault-gcm-first", Who::OursGcm)] {
        for peer in [Who::NbdkitFile, Who::OursRaw] {
            let side = |who: Who| format!("{}-first", who.name());
            rows.compare_named(&samples, case, &side(ours), &side(peer), &JOBS[1]);
        }
    }
    for case in seam::names() {
        for who in [Who::OursLuks1, Who::OursAegis, Who::OursGcm] {
            rows.compare_cpu(&samples, case, who.name(), Who::OursRaw.name());
        }
    }
}

/// Sequential writes to what was never written: fresh volumes, and a fresh file of holes. What each
/// leaves is settled again for the next round.
fn first_writes(plan: &Plan, place: &Place, samples: &mut Samples) {
    let wanted = |who: Who| plan.has(&format!("{}-first", who.name()));
    let vaults = [Who::OursGcm, Who::OursAegis].into_iter().filter(|who| wanted(*who));
    let vaults: Vec<Who> = vaults.collect();
    let plain = if vaults.is_empty() { &[][..] } else { &[Who::NbdkitFile, Who::OursRaw] };
    for &who in vaults.iter().chain(plain) {
        if vaults.contains(&who) {
            place.make_vault(who.image(), who);
        } else {
            place.make_raw(who.image());
        }
        let server = place.start(who);
        let name = format!("{}-first", who.name());
        measure(samples, &name, &JOBS[1], &server, || {
            fio::run(&server.socket, &JOBS[1], SIZE, None)
        });
    }
}

/// The same raw image through our two exports, under one load generator.
fn both_exports(plan: &Plan, place: &Place, samples: &mut Samples) {
    let wanted = |job: &&Job| plan.has(&format!("vhost-{}", job.name));
    for (who, name) in [(Who::OursRaw, "nbd"), (Who::OursVhost, "vhost")] {
        let server = JOBS.iter().any(|job| wanted(&job)).then(|| place.start(who));
        let Some(server) = server else { return };
        for job in JOBS.iter().filter(wanted) {
            let load = if who == Who::OursVhost { load::vhost } else { load::nbd };
            measure(samples, name, job, &server, || load(&server.socket, job, SIZE, plan.millis));
        }
    }
}

/// On whatever disk the tree is on.
fn on_disk(plan: &Plan, place: &Place, pairs: &[Pair], rows: &mut Rows) {
    let mut samples = Samples::default();
    for who in [Who::OursLuks1, Who::OursRaw, Who::OursGcm] {
        let server = place.start(who);
        fio::run(&server.socket, &JOBS[1], SIZE, None);
    }
    let jobs: [&'static Job; 4] = [&JOBS[0], &JOBS[1], &JOBS[3], &JOBS[5]];
    for round in 0..plan.rounds {
        one_round(plan, place, pairs, &jobs.map(|job| *job), &mut samples, round);
    }
    for job in jobs {
        for pair in pairs.iter().filter(|pair| plan.wants(pair, job.name)) {
            rows.compare(&samples, pair, job);
        }
    }
}
