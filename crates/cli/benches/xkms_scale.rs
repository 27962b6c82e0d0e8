//! `make bench-xkms-scale`: the four layers with many clients.
//!
//! 1. Two trust services (real processes; 20 too, without `QUICK`), one centre, one PKI: what a question
//!    that the library answers, one that goes on to the centre, and an order cost each process.
//! 2. The same processes under the questions of 100 to 10,000 clients: real p50, p99 and processor time.
//! 3. 2, 20 and 200 trust services with 100 to 1,000,000 clients: **simulated**, as queues whose service
//!    times are those of part 1 (`sim-` rows). The simulation is run beside the real rows too, so that
//!    one sees how far it is to be believed.
//! 4. With how many clients the centre's processors are full, by the share of questions that libraries
//!    answer.
//!
//! A client asks one question a minute, at random instants. docs/table-1.md says more.

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
#[path = "xkms_scale/load.rs"]
mod load;
#[path = "xkms_scale/queues.rs"]
mod queues;

use std::time::Duration;

use layers::{
    clients::{self, Ours, Watch},
    figures::{self, figure, mean, percentile},
    lab::Lab,
    provider,
};
use load::{Asking, Processors};
use queues::{Costs, Park};
use serde_json::Value;

/// Questions of one client a second.
const RATE: f64 = 1.0 / 60.0;
/// Shares of questions that the library of the client's server answers.
const HITS: [f64; 3] = [0.5, 0.9, 0.99];
/// Clients, in the real rows and in the simulated ones.
const REAL: [u32; 3] = [100, 1_000, 10_000];
const SIMULATED: [u32; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
/// Trust services in the simulated rows.
const PARKS: [usize; 3] = [2, 20, 200];
/// Processors of the centre in the simulation; a trust service has one.
const CENTRE_CORES: usize = 2;

fn main() {
    if provider::run_if_asked() {
        return;
    }
    let quick = std::env::var_os("QUICK").is_some();
    let length = Duration::from_secs(if quick { 4 } else { 5 });
    let dir = tempfile::Builder::new().prefix("ts").tempdir_in("/tmp").expect("a folder");
    let mut rows = Vec::new();
    let costs = {
        let lab = started(2, dir.path());
        let costs = costs(&lab, dir.path(), if quick { 50 } else { 200 }, &mut rows);
        for clients in REAL {
            for hit in HITS {
                real(&lab, (clients, hit), length, &mut rows);
            }
        }
        costs
    };
    for services in PARKS {
        for clients in SIMULATED {
            for hit in HITS {
                simulated(services, (clients, hit), &costs, &mut rows);
            }
        }
    }
    saturation(&costs, &mut rows);
    // Written before the last part too: twenty servers take long to start.
    figures::write("xkms-scale.json", &rows);
    if !quick {
        let lab = started(20, &dir.path().join("20"));
        real(&lab, (1_000, HITS[1]), length, &mut rows);
    }
    figures::write("xkms-scale.json", &rows);
}

/// A lab with a key at each of its first two trust services, `local-0` and `local-1`.
fn started(hosts: u8, dir: &std::path::Path) -> Lab {
    let lab = Lab::up(hosts);
    std::fs::create_dir_all(dir).expect("a folder");
    let (program, _) = clients::guest_program();
    for at in 0..lab.sites.len() {
        Ours::new(&lab, dir, &program, &format!("local-{at}"), at).register(&lab, Watch::Nothing);
    }
    lab
}

/// What one thing costs, one after the other, on the processes of the first server.
fn costs(lab: &Lab, dir: &std::path::Path, count: u32, rows: &mut Vec<Value>) -> Costs {
    let asking = Asking::of(lab);
    let mut of = |name: &str, what: &mut dyn FnMut(u32)| {
        let before = Processors::of(lab);
        let times: Vec<f64> = (0..count)
            .map(|number| {
                let since = std::time::Instant::now();
                what(number);
                since.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        let spent = Processors::of(lab).since(&before).each(count);
        for (process, ms) in [("trust", spent.trust), ("centre", spent.centre), ("pki", spent.pki)]
        {
            rows.push(figure(&format!("cpu-{name}-{process}"), ms, "ms"));
        }
        rows.push(figure(&format!("p50-{name}"), percentile(&times, 500), "ms"));
        rows.push(figure(&format!("p99-{name}"), percentile(&times, 990), "ms"));
        (spent, times)
    };
    let mut connection = asking.connect(0);
    let (local, times) = of("local", &mut |_| {
        assert!(asking.ask(&mut connection, 0, "local-0"), "it is busy");
    });
    let mut connection = asking.connect(0);
    let (forwarded, _) = of("forwarded", &mut |number| {
        asking.ask(&mut connection, 0, &format!("nobody-{number}"));
    });
    let (program, _) = clients::guest_program();
    let orders: Vec<Ours> =
        (0..count).map(|at| Ours::new(lab, dir, &program, &format!("order-{at}"), 0)).collect();
    let (order, _) = of("order", &mut |number| {
        orders[number as usize].register(lab, Watch::Nothing);
    });
    let mean = mean(&times);
    let shape = times.iter().map(|one| one / mean).collect();
    Costs { local, forwarded, order, shape }
}

/// Real processes under the questions of so many clients.
fn real(lab: &Lab, (clients, hit): (u32, f64), length: Duration, rows: &mut Vec<Value>) {
    let services = lab.sites.len();
    let name = format!("{services}x{clients}-{:.0}%", hit * 100.0);
    let before = Processors::of(lab);
    let (times, refused) = load::open(lab, f64::from(clients) * RATE, hit, length);
    let spent = Processors::of(lab).since(&before);
    let seconds = length.as_secs_f64();
    rows.push(figure(&format!("real-p50-{name}"), percentile(&times, 500), "ms"));
    rows.push(figure(&format!("real-p99-{name}"), percentile(&times, 990), "ms"));
    rows.push(figure(&format!("real-refused-{name}"), 100.0 * refused, "%"));
    rows.push(figure(&format!("real-cpu-trust-{name}"), spent.trust / seconds / 10.0, "%"));
    rows.push(figure(&format!("real-cpu-centre-{name}"), spent.centre / seconds / 10.0, "%"));
}

/// The same, simulated.
fn simulated(services: usize, (clients, hit): (u32, f64), costs: &Costs, rows: &mut Vec<Value>) {
    let name = format!("{services}x{clients}-{:.0}%", hit * 100.0);
    let rate = f64::from(clients) * RATE;
    let park = Park { services, centre_cores: CENTRE_CORES, rate, hit };
    let seen = park.run(costs);
    if seen.saturated {
        println!("{name}: a processor is full, and the queue grows for as long as one looks");
    }
    rows.push(figure(&format!("sim-p50-{name}"), seen.p50, "ms"));
    rows.push(figure(&format!("sim-p99-{name}"), seen.p99, "ms"));
    rows.push(figure(&format!("sim-cpu-trust-{name}"), 100.0 * seen.trust, "%"));
    rows.push(figure(&format!("sim-cpu-centre-{name}"), 100.0 * seen.centre, "%"));
}

/// With how many clients the centre has nothing left.
fn saturation(costs: &Costs, rows: &mut Vec<Value>) {
    let cores = f64::from(u32::try_from(CENTRE_CORES).expect("few"));
    let a_second = |ms: f64| 1000.0 * cores / ms;
    rows.push(figure("centre-questions", a_second(costs.forwarded.centre), "/s"));
    rows.push(figure("centre-orders", a_second(costs.order.centre), "/s"));
    for hit in HITS {
        let clients = a_second(costs.forwarded.centre) / (RATE * (1.0 - hit));
        rows.push(figure(&format!("centre-full-{:.0}%", hit * 100.0), clients, "clients"));
    }
    let each = a_second(costs.local.trust) / cores / RATE;
    rows.push(figure("trust-full", each, "clients of one service and core"));
}
