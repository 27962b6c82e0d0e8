//! `make bench-xkms-table`: Table 1 of document 000 on real processes.
//!
//! Half of the clients go through the four layers (`vouchsafe-guest`, a server's trust service, the
//! key-management centre, the PKI), half speak to the PKI (`openssl cmp`, `openssl verify`, `openssl
//! ocsp`): one CA, the same workload, the same delay before the PKI. docs/table-1.md says what is done
//! and what it shows; the nine cells are `register-`, `query-` and `migrate-` `time`, `bytes`, `memory`:
//! `ours` is our ratio of the four layers to direct clients, `peer` the paper's.
//!
//! `QUICK=1`: few clients, and one delay. `GUEST_CLIENT=FILE`: another client than the one that `make
//! guest-client` builds.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "a bench program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "layers/parts.rs"]
mod layers;
#[path = "xkms_table/rounds.rs"]
mod rounds;

use std::time::Duration;

use layers::{
    clients,
    figures::{self, cell, mean},
    lab::Lab,
    provider,
};
use rounds::{Alone, Round, Workload};
use serde_json::Value;

/// The round trip between cloud and PKI in the nine cells, and the others, milliseconds.
const TRIP: u64 = 20;
const TRIPS: [u64; 2] = [0, 100];

/// Between the starts of two clients, milliseconds.
const GAP: u64 = 50;

/// What is compared, in the order of the paper's table.
const OPERATIONS: [&str; 3] = ["register", "query", "migrate"];

fn main() {
    if provider::run_if_asked() {
        return;
    }
    let quick = std::env::var_os("QUICK").is_some();
    let (each, alone) = if quick { (6, 4) } else { (50, 20) };
    let (program, kind) = clients::guest_program();
    println!("{each} clients each way; vouchsafe-guest: {kind}; delay is a round trip to the PKI");
    let mut lab = Lab::up(2);
    let dir = tempfile::Builder::new().prefix("tb").tempdir_in("/tmp").expect("a folder");
    let mut round = |tag: &str, trip: u64, gap: u64| {
        let (trip, gap) = (Duration::from_millis(trip), Duration::from_millis(gap));
        lab.renew();
        rounds::together(&lab, dir.path(), &program, &Workload { tag, each, trip, gap })
    };
    let main = round("m", TRIP, GAP);
    let mut others = Vec::new();
    if !quick {
        for trip in TRIPS {
            others.push((format!("-{trip}ms"), round(&format!("d{trip}-"), trip, GAP)));
        }
        others.push(("-burst".to_owned(), round("b", TRIP, 0)));
    }
    let trip = Duration::from_millis(TRIP);
    lab.renew();
    let single = rounds::alone(&lab, dir.path(), &program, (alone, trip));
    println!("case                          ratio [95 of 100]   paper   four layers  direct");
    let mut rows = nine(&main, &single);
    println!("\nthe same otherwise");
    for (name, round) in &others {
        rows.extend(times(name, round, [None; 3]));
    }
    rows.extend(parts(&main, &single));
    figures::write("xkms-table.json", &rows);
}

/// The cells of Table 1. Direct clients query by OCSP or by CRL, whichever is better in the cell.
fn nine(round: &Round, single: &Alone) -> Vec<Value> {
    let mut rows = times("", round, [Some(0.91), Some(0.57), Some(0.52)]);
    let papers = [[0.93, 0.95, 0.44], [0.50, 0.40, 0.30]];
    let cells = [
        ("bytes", "B", &single.bytes, &single.crl_bytes),
        ("memory", "KiB", &single.memory, &single.crl_memory),
    ];
    for ((what, unit, measured, crl), papers) in cells.into_iter().zip(papers) {
        for ((operation, (ours, theirs)), paper) in OPERATIONS.iter().zip(measured).zip(papers) {
            let by_crl = *operation == "query" && mean(crl) < mean(theirs);
            let theirs = if by_crl { crl } else { theirs };
            rows.push(cell(&format!("{operation}-{what}"), (ours, theirs), Some(paper), unit));
        }
    }
    rows
}

/// The three times of a round.
fn times(name: &str, round: &Round, paper: [Option<f64>; 3]) -> Vec<Value> {
    let ocsp = round.sums();
    let query = if mean(&ocsp) <= mean(&round.crl) { &ocsp } else { &round.crl };
    let ours: Vec<f64> = round.queries.iter().map(|(ms, _)| *ms).collect();
    vec![
        cell(
            &format!("register-time{name}"),
            (&round.register.0, &round.register.1),
            paper[0],
            "ms",
        ),
        cell(&format!("query-time{name}"), (&ours, query), paper[1], "ms"),
        cell(&format!("migrate-time{name}"), (&round.migrate.0, &round.migrate.1), paper[2], "ms"),
    ]
}

/// What the cells are made of.
fn parts(round: &Round, single: &Alone) -> Vec<Value> {
    let of = |local: bool| -> Vec<f64> {
        let those = round.queries.iter().filter(|(_, one)| *one == local);
        those.map(|(ms, _)| *ms).collect()
    };
    let (local, forwarded, ocsp) = (of(true), of(false), round.sums());
    let status: Vec<f64> = round.ocsp.iter().map(|[_, status]| *status).collect();
    let all: Vec<f64> = [local.as_slice(), &forwarded].concat();
    let share = 100.0 * f64::from(u32::try_from(local.len()).expect("few"))
        / f64::from(u32::try_from(all.len().max(1)).expect("few"));
    let mut rows = vec![
        figures::figure("query-local-share", share, "%"),
        cell("query-time-local", (&local, &ocsp), None, "ms"),
        cell("query-time-ocsp", (&all, &ocsp), None, "ms"),
        cell("query-time-ocsp-alone", (&all, &status), None, "ms"),
        cell("query-time-crl", (&all, &round.crl), None, "ms"),
        cell("query-bytes-ocsp", (&single.bytes[1].0, &single.bytes[1].1), None, "B"),
        cell("query-bytes-crl", (&single.bytes[1].0, &single.crl_bytes), None, "B"),
        cell("query-bytes-kept", (&single.kept_bytes, &single.bytes[1].1), None, "B"),
    ];
    if !forwarded.is_empty() {
        rows.push(cell("query-time-forwarded", (&forwarded, &ocsp), None, "ms"));
    }
    for (at, name) in OPERATIONS.into_iter().enumerate() {
        let (ours, theirs) = &single.anonymous[at];
        rows.push(cell(&format!("{name}-memory-anonymous"), (ours, theirs), None, "KiB"));
        let (ours, theirs) = &single.resident[at];
        rows.push(cell(&format!("{name}-memory-resident"), (ours, theirs), None, "KiB"));
        let (ours, theirs) = &single.times[at];
        rows.push(cell(&format!("{name}-time-alone"), (ours, theirs), None, "ms"));
    }
    rows
}
