//! `make bench-launch`: a trusted launch against plain QEMU, OVMF and swtpm of the same image, not
//! encrypted. Both are timed from the start of the vTPM's process to the kernel's first line on the
//! serial console, in alternating pairs; the median of the pairs' ratios counts, because the machine
//! is shared. What the agent does outside QEMU is reported apart.
//!
//! `cargo bench -p cli --bench launch -- PAIRS` (default 9).

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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let pairs: usize = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(9);
    let Some(image) = image("guest.img") else { return };
    let world = World::up(&["--hosts", "1"]).expect("the lab comes up");
    trusted::prepare(&world, &image);
    let (mut ours, mut plain, mut outside) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Alternate the order, so that a drift of the machine hits both alike.
        let (ours_s, outside_ms, plain_s);
        if pair % 2 == 0 {
            (ours_s, outside_ms) = trusted::launch(&world);
            plain_s = plain::launch(&world, &image);
        } else {
            plain_s = plain::launch(&world, &image);
            (ours_s, outside_ms) = trusted::launch(&world);
        }
        println!(
            "pair {}: trusted {ours_s:.2} s, plain {plain_s:.2} s, outside QEMU {outside_ms:.0} ms",
            pair + 1
        );
        ours.push(ours_s);
        plain.push(plain_s);
        outside.push(outside_ms);
    }
    report(&ours, &plain, &outside);
}

fn report(ours: &[f64], plain: &[f64], outside: &[f64]) {
    let ratios = ours.iter().zip(plain).map(|(ours, plain)| plain / ours).collect();
    let (ours_s, plain_s) = (median(ours.to_vec()), median(plain.to_vec()));
    let (ratio, outside_ms) = (median(ratios), median(outside.to_vec()));
    let peer = "QEMU + OVMF + swtpm, image not encrypted";
    println!("\ncase     ours      peer      ratio (larger is better for us)");
    println!("launch   {ours_s:.2} s    {plain_s:.2} s    {ratio:.3}   {peer}");
    println!("outside  {outside_ms:.0} ms");
    let rows = json!([
        {"case": "launch", "ours": ours_s, "peer": plain_s, "peer_name": peer, "unit": "s",
         "ratio": ratio, "runs": ours.len()},
        {"case": "outside-qemu", "ours": outside_ms, "peer": null, "peer_name": null,
         "unit": "ms", "ratio": null, "runs": ours.len()},
    ]);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&rows).expect("JSON");
    std::fs::write(dir.join("launch.json"), text).expect("launch.json");
}
