//! Power cuts: random workloads on a medium that forgets what was not synchronised. After each cut
//! the volume opens, every flushed write is there, and nothing is there that the guest never wrote.
//!
//! `make bench-disk-crash` runs the same for minutes. A seed that fails is run alone with
//! `POWER_CUT_SEED=<seed> cargo test -p disk --test power_cut`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    reason = "a test that says what it counted"
)]

#[path = "cuts.rs"]
mod cuts;

use cuts::workload::{Tally, run};

#[test]
fn after_any_power_cut_the_volume_holds_what_was_flushed() {
    let mut tally = Tally::default();
    match std::env::var("POWER_CUT_SEED") {
        Ok(seed) => run(seed.parse().unwrap(), &mut tally),
        Err(_) => (0..44).for_each(|seed| run(seed, &mut tally)),
    }
    let Tally { cuts, images, flushes, through, reverts, .. } = &tally;
    println!(
        "{cuts} cuts, {images} images, {flushes} flushes, {through} writes through, {reverts} reverts"
    );
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
}
