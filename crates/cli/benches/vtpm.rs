//! `make bench-vtpm`: a vTPM with its proxy against what it replaces.
//!
//! - `manufacture-p256`, `manufacture-rsa`: from the start of the process to EKs, host AK and real
//!   certificates in NV, against `swtpm_setup --create-ek-cert --lock-nvram`.
//! - `quote-injected`: quote, PCR values and list through the agent's socket while a guest is
//!   connected, each after the guest measured something, against PCR_Read and Quote on a swtpm of our
//!   own. We read PCRs only where the list does not tell them. `quote-injected-bare`: the same against
//!   Quote alone, from somebody who knows the values already.
//! - `memory-50`: memory (PSS) of one vTPM with its proxy when 50 run, against bare swtpm.
//!
//! `cargo bench -p cli --bench vtpm -- RUNS` (default 9).

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a bench program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "vtpm/ours.rs"]
mod ours;
#[path = "vtpm/peer.rs"]
mod peer;

use std::{path::Path, time::Instant};

use serde_json::{Value, json};

/// How many vTPMs run at once when memory is measured.
const VTPMS: usize = 50;

/// Quotes a run.
const QUOTES: usize = 200;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds that `work` takes.
pub fn time(work: impl FnOnce()) -> f64 {
    let since = Instant::now();
    work();
    since.elapsed().as_secs_f64() * 1000.0
}

fn row(case: &str, unit: &str, ours: f64, peer: f64, peer_name: &str, runs: usize) -> Value {
    let ratio = peer / ours;
    println!("{case:<18} {ours:>9.3} {peer:>9.3} {unit:<4} {ratio:>7.2}   {peer_name}");
    json!({"case": case, "ours": ours, "peer": peer, "peer_name": peer_name, "unit": unit,
           "ratio": ratio, "runs": runs})
}

fn main() {
    let runs: usize = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(9);
    let issuer = ours::Issuer::new();
    println!(
        "case                    ours      peer unit   ratio   (ratio: larger is better for us)"
    );
    let mut rows = manufacture(&issuer, runs);
    rows.extend(quotes(&issuer, runs));
    rows.push(memory(&issuer));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&rows).expect("JSON");
    std::fs::write(dir.join("vtpm.json"), text).expect("vtpm.json");
}

/// Alternating, so that a drift of the machine hits all alike.
fn manufacture(issuer: &ours::Issuer, runs: usize) -> Vec<Value> {
    let (mut p256, mut rsa, mut setup) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut made = Vec::new();
        p256.push(time(|| made.push(ours::Vtpm::manufactured(issuer, false))));
        setup.push(time(peer::setup));
        rsa.push(time(|| made.push(ours::Vtpm::manufactured(issuer, true))));
    }
    let setup = median(setup);
    let name = "swtpm_setup";
    vec![
        row("manufacture-p256", "ms", median(p256), setup, name, runs),
        row("manufacture-rsa", "ms", median(rsa), setup, name, runs),
    ]
}

fn quotes(issuer: &ours::Issuer, runs: usize) -> [Value; 2] {
    let mut vtpm = ours::Vtpm::manufactured(issuer, false);
    let (_control, mut guest) = vtpm.boot();
    let mut direct = peer::Direct::start();
    let (mut injected, mut plain, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let measured = [model::Digest::sha256([9; 32])];
        let one = |_| {
            guest.pcr_extend(10, &measured).expect("extended");
            time(|| vtpm.quote())
        };
        injected.push((0..QUOTES).map(one).sum());
        let one = |_| {
            direct.extend();
            time(|| direct.quote())
        };
        plain.push((0..QUOTES).map(one).sum());
        let one = |_| {
            direct.extend();
            let values = direct.values();
            time(|| direct.quote_expecting(values))
        };
        alone.push((0..QUOTES).map(one).sum());
    }
    let each = |values: Vec<f64>| median(values) / f64::from(u32::try_from(QUOTES).expect("few"));
    let (injected, quotes) = (each(injected), runs * QUOTES);
    let with = "PCR_Read and Quote on an own swtpm";
    let bare = "Quote alone, values known before";
    [
        row("quote-injected", "ms", injected, each(plain), with, quotes),
        row("quote-injected-bare", "ms", injected, each(alone), bare, quotes),
    ]
}

fn memory(issuer: &ours::Issuer) -> Value {
    let vtpms: Vec<_> = (0..VTPMS).map(|_| ours::Vtpm::manufactured(issuer, false)).collect();
    let pids: Vec<u32> = vtpms.iter().flat_map(ours::Vtpm::pids).collect();
    let (ours, swtpm) = (pss_mib(&pids), vtpms.iter().map(ours::Vtpm::swtpm_pid));
    let bare = pss_mib(&swtpm.collect::<Vec<_>>());
    let each = |mib: f64| mib / f64::from(u32::try_from(VTPMS).expect("few"));
    row("memory-50", "MiB", each(ours), each(bare), "swtpm without proxy", VTPMS)
}

/// Proportional set size of processes.
fn pss_mib(pids: &[u32]) -> f64 {
    let pss = |pid: &u32| -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
        let line = text.lines().find(|line| line.starts_with("Pss:")).expect("a line");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    };
    pids.iter().map(pss).sum::<f64>() / 1024.0
}
