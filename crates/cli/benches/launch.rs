//! `make bench-launch`: a trusted launch against plain QEMU, OVMF and swtpm of the same image, not
//! encrypted. All are timed from the start of the vTPM's process to the kernel's first line on the
//! serial console, in alternating rounds; the median of the rounds' ratios counts, because the
//! machine is shared. What the agent does outside QEMU is reported apart.
//!
//! Both sides have the SHA-256 bank alone: ours from its manufacture, the peer's by
//! `swtpm_setup --pcr-banks sha256` beforehand, not timed. A stock swtpm lists the other algorithms
//! all the same, and OVMF hashes with each that is listed; our vTPM lists what is allocated. So that
//! this gain is not taken for ours alone, case `launch-all-banks` is a VM with all four banks, whose
//! firmware does exactly the peer's work.
//!
//! `cargo bench -p cli --bench launch -- ROUNDS` (default 9).

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "a bench program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "launch/plain.rs"]
mod plain;
#[path = "launch/trusted.rs"]
mod trusted;
#[path = "../tests/shared/world.rs"]
mod world;

use std::{path::Path, time::Duration};

use serde_json::json;
use world::{World, image};

/// How long either may take to the kernel's first line.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What the kernel says first.
pub const FIRST_LINE: &str = "Linux version";

/// How often a console is looked at.
pub const LOOK: Duration = Duration::from_millis(10);

/// Seconds to the kernel's first line, and the agent's milliseconds outside QEMU.
#[derive(Default)]
struct Round {
    ours: f64,
    all_banks: f64,
    plain: f64,
    outside_ms: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

fn main() {
    let rounds: usize = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(9);
    let Some(image) = image("guest.img") else { return };
    let world = World::up(&["--hosts", "1"]).expect("the lab comes up");
    trusted::prepare(&world, &image);
    let rounds: Vec<_> = (0..rounds).map(|number| round(&world, &image, number)).collect();
    report(&rounds);
}

/// One launch of each; the order turns, so that a drift of the machine hits all alike.
fn round(world: &World, image: &Path, number: usize) -> Round {
    let mut round = Round::default();
    for place in 0..3 {
        match (number + place) % 3 {
            0 => (round.ours, round.outside_ms) = trusted::launch(world, trusted::ONE_BANK),
            1 => round.plain = plain::launch(world, image),
            _ => round.all_banks = trusted::launch(world, trusted::ALL_BANKS).0,
        }
    }
    println!(
        "round {}: trusted {:.2} s, with all banks {:.2} s, plain {:.2} s, outside QEMU {:.0} ms",
        number + 1,
        round.ours,
        round.all_banks,
        round.plain,
        round.outside_ms
    );
    round
}

fn report(rounds: &[Round]) {
    let over = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let peer = "QEMU + OVMF + swtpm (SHA-256 bank), image not encrypted";
    let (plain, outside_ms) = (over(|r| r.plain), over(|r| r.outside_ms));
    let cases = [
        ("launch", over(|r| r.ours), over(|r| r.plain / r.ours)),
        ("launch-all-banks", over(|r| r.all_banks), over(|r| r.plain / r.all_banks)),
    ];
    println!("\ncase               ours      peer      ratio (larger is better for us)");
    let mut rows = Vec::new();
    for (case, ours, ratio) in cases {
        println!("{case:<17}  {ours:.2} s    {plain:.2} s    {ratio:.3}   {peer}");
        rows.push(json!({"case": case, "ours": ours, "peer": plain, "peer_name": peer,
            "unit": "s", "ratio": ratio, "runs": rounds.len()}));
    }
    println!("outside-qemu       {outside_ms:.0} ms");
    rows.push(json!({"case": "outside-qemu", "ours": outside_ms, "peer": null,
        "peer_name": null, "unit": "ms", "ratio": null, "runs": rounds.len()}));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&rows).expect("JSON");
    std::fs::write(dir.join("launch.json"), text).expect("launch.json");
}
