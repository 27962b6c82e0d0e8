//! `make bench-xkms`: signed answers of the trust service.
//!
//! - `validate-vs-ocsp`, `locate-vs-ocsp`: answers a second against `openssl ocsp -multi 2`, in turn;
//!   both sign with P-256 each time and get a new connection for each request, from 16 clients.
//! - `validate-vs-sign`: the same against bare P-256 signatures on two threads.
//! - `validate-kept`: with connections that are kept, from 16 clients.
//! - `validate-cpu-vs-ocsp`, `locate-cpu-vs-ocsp`, `kept-cpu`: processor time of the server, all its
//!   processes, for one answer, against the OCSP responder's; a busy machine hardly changes it, and
//!   the clients, which share the processors with both servers, are not in it.
//! - `client-cpu`: what the clients themselves take for one question, ours and the peer's.
//! - `http-cpu`, `http-kept-cpu`: the same of an answer that nothing is asked for: HTTP alone.
//! - `stage-N`: processor time of the parts of an answer, each on one thread.
//! - `p99-8`, `p99-64`, `p99-512`: the slowest in a hundred, so many clients on kept connections.
//! - `latency-N`, `memory-N`: one client's median, and memory of both processes, with a library of
//!   N entries, asked about up to 20,000 of them in turn; `latency-N` has the library of one entry as
//!   its peer.
//!
//! `QUICK=1` makes the runs short and leaves out libraries of more than 1,000 entries. `LIBRARIES=N,M`
//! are the sizes instead. `CASE=a,b` runs only the groups (`stages`, `rates`, `p99`, `libraries`) whose name has one of these parts.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a bench program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "xkms/load.rs"]
mod load;
#[path = "xkms/peer.rs"]
mod peer;
#[path = "xkms/service.rs"]
mod service;
#[path = "xkms/stages.rs"]
mod stages;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use load::Question;
use serde_json::{Value, json};
use service::Service;
use xkms::dsig::{Curve, Signer as _, SigningKey};

/// Clients in the cases that count answers.
const CLIENTS: usize = 16;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Plan {
    length: Duration,
    runs: usize,
    libraries: &'static [u64],
}

/// The sizes of libraries that are asked for.
fn sizes(usual: &[u64]) -> Vec<u64> {
    let Ok(asked) = std::env::var("LIBRARIES") else { return usual.to_vec() };
    asked.split(',').map(|size| size.parse().expect("a number of entries")).collect()
}

impl Plan {
    fn new() -> Self {
        if std::env::var_os("QUICK").is_some() {
            Self { length: Duration::from_secs(2), runs: 1, libraries: &[1, 1_000] }
        } else {
            let libraries = &[1, 1_000, 100_000, 1_000_000];
            Self { length: Duration::from_secs(8), runs: 5, libraries }
        }
    }
}

/// One line of the result. `larger` says whether more is better.
fn row(
    case: &str,
    unit: &str,
    ours: f64,
    peer: Option<(f64, &str)>,
    larger: bool,
    runs: usize,
) -> Value {
    let ratio = peer.map(|(peer, _)| if larger { ours / peer } else { peer / ours });
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"));
    println!(
        "{case:<20} {ours:>11.3} {:>11} {unit:<4} {:>7}   {}",
        shown(peer.map(|(peer, _)| peer)),
        shown(ratio),
        peer.map_or("", |(_, name)| name)
    );
    json!({"case": case, "ours": ours, "peer": peer.map(|(peer, _)| peer),
           "peer_name": peer.map(|(_, name)| name), "unit": unit, "ratio": ratio, "runs": runs})
}

/// Whether a group of cases is asked for.
fn wanted(group: &str) -> bool {
    let Ok(asked) = std::env::var("CASE") else { return true };
    asked.split(',').any(|part| group.contains(part))
}

fn main() {
    let plan = Plan::new();
    println!(
        "case                        ours        peer unit   ratio   (ratio: larger is better for us)"
    );
    let mut rows = Vec::new();
    if wanted("stages") {
        rows.extend(stages(plan));
    }
    if wanted("rates") || wanted("p99") {
        let service = Service::with(1);
        if wanted("rates") {
            rows.extend(rates(&service, plan));
        }
        let clients = if wanted("p99") { &[8, 64, 512][..] } else { &[] };
        rows.extend(clients.iter().map(|clients| {
            let question = service.question(true, true);
            let runs = (0..plan.runs).map(|_| question.ask(*clients, plan.length).p99_ms);
            row(&format!("p99-{clients}"), "ms", median(runs.collect()), None, false, plan.runs)
        }));
    }
    if wanted("libraries") {
        rows.extend(libraries(plan));
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&rows).expect("JSON");
    std::fs::write(dir.join("xkms.json"), text).expect("xkms.json");
}

/// Where the processor time of an answer goes.
fn stages(plan: Plan) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut service = Service::prepared(1);
    {
        let keeper = service.keeper();
        let question = service.question(true, true);
        let spki = service.keys[0].to_spki();
        for (number, (name, us)) in
            stages::measure(&keeper, &spki, &question.bodies[0]).into_iter().enumerate()
        {
            println!("                   stage {number}: {name}");
            rows.push(row(&format!("stage-{number}"), "us", us, None, false, 1));
        }
        keeper.close().expect("closed");
    }
    service.start();
    for (case, keep) in [("http-cpu", false), ("http-kept-cpu", true)] {
        let load = service.nothing(keep).ask(CLIENTS, plan.length);
        rows.push(row(case, "us", load.cpu_us, None, false, 1));
    }
    rows
}

/// Answers a second, in turn with the peers, so that a drift of the machine hits all alike.
fn rates(service: &Service, plan: Plan) -> Vec<Value> {
    let (validate, locate) = (service.question(true, false), service.question(false, false));
    let kept = service.question(true, true);
    let mut seen: [Vec<f64>; 11] = Default::default();
    for _ in 0..plan.runs {
        let asked = |question: &Question| question.ask(CLIENTS, plan.length);
        // For its turn only: a worker of it that idles may spin.
        let ocsp = || {
            let responder = peer::Responder::start();
            asked(&responder.question())
        };
        let (validate, ocsp, locate) = (asked(&validate), ocsp(), asked(&locate));
        let (bare, kept) = (signatures(plan.length), asked(&kept));
        let rates = [validate.per_second, ocsp.per_second, locate.per_second, bare];
        let times = [kept.per_second, validate.cpu_us, ocsp.cpu_us, locate.cpu_us, kept.cpu_us];
        let clients = [validate.client_us, ocsp.client_us];
        for (all, one) in seen.iter_mut().zip(rates.into_iter().chain(times).chain(clients)) {
            all.push(one);
        }
    }
    let [validate, ocsp, locate, bare, kept, validate_us, ocsp_us, locate_us, kept_us, ours, peers] =
        seen.map(median);
    let (name, runs) = ("openssl ocsp -multi 2", plan.runs);
    let limit = "P-256 signatures on two threads";
    vec![
        row("validate-vs-ocsp", "/s", validate, Some((ocsp, name)), true, runs),
        row("locate-vs-ocsp", "/s", locate, Some((ocsp, name)), true, runs),
        row("validate-vs-sign", "/s", validate, Some((bare, limit)), true, runs),
        row("validate-kept", "/s", kept, Some((bare, limit)), true, runs),
        row("validate-cpu-vs-ocsp", "us", validate_us, Some((ocsp_us, name)), false, runs),
        row("locate-cpu-vs-ocsp", "us", locate_us, Some((ocsp_us, name)), false, runs),
        row("kept-cpu", "us", kept_us, Some((ocsp_us, name)), false, runs),
        row("client-cpu", "us", ours, Some((peers, name)), false, runs),
    ]
}

/// Bare signatures a second on two threads.
fn signatures(length: Duration) -> f64 {
    let each = || {
        let key = SigningKey::generate_ec(Curve::P256).expect("a key");
        let since = Instant::now();
        let mut count = 0_u32;
        while since.elapsed() < length {
            for _ in 0..100 {
                key.sign(b"as long as the signed part of an answer").expect("a signature");
            }
            count += 100;
        }
        f64::from(count) / since.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let other = scope.spawn(each);
        each() + other.join().expect("a thread")
    })
}

/// Latency and memory by the size of the library.
fn libraries(plan: Plan) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut first = None;
    for entries in sizes(plan.libraries) {
        let service = Service::with(entries);
        let question = service.question(true, true);
        let runs = (0..plan.runs).map(|_| question.ask(1, plan.length).median_ms);
        let latency = median(runs.collect());
        let peer = first.map(|first| (first, "a library of one entry"));
        first = first.or(Some(latency));
        rows.push(row(&format!("latency-{entries}"), "ms", latency, peer, false, plan.runs));
        let memory = service.memory_mib();
        rows.push(row(&format!("memory-{entries}"), "MiB", memory, None, false, 1));
        let size = std::fs::metadata(service.library()).map_or(0, |file| file.len() >> 20);
        println!("                   (its library: {size} MiB)");
    }
    rows
}
