//! What the queue promises, in dispatch turns: deterministic, without a clock.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { tenant: 1000, all: 100_000, credit: 16 };

fn tenant(n: usize) -> Tenant {
    format!("t{n}").parse().unwrap()
}

fn push<T>(queue: &mut FairQueue<T>, tenant: &Tenant, order: T) -> Result<usize, Full> {
    let ahead = queue.admit(tenant)?;
    queue.enter(tenant, order);
    Ok(ahead)
}

/// A generator of numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Queueing delays, in turns, of each tenant's orders: `arrivals` says how many orders a tenant
/// sends before a turn.
fn delays(
    tenants: usize,
    turns: u64,
    mut arrivals: impl FnMut(usize, u64) -> usize,
) -> Vec<Vec<u64>> {
    let mut queue = FairQueue::new(BOUNDS);
    let mut all = vec![Vec::new(); tenants];
    for turn in 0..turns {
        for n in 0..tenants {
            for _ in 0..arrivals(n, turn) {
                // What is turned away is not queued, and so not delayed.
                let _ = push(&mut queue, &tenant(n), (n, turn));
            }
        }
        if let Some((n, since)) = queue.pop() {
            all[n].push(turn - since);
            queue.ended(&tenant(n));
        }
    }
    all
}

fn mean(delays: &[u64]) -> f64 {
    delays.iter().sum::<u64>() as f64 / delays.len() as f64
}

fn percentile(delays: &[u64], percent: usize) -> u64 {
    let mut sorted = delays.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) * percent / 100]
}

/// Eight tenants that use 72 % of the turns in random bursts of up to eight; the first may flood.
fn bursts(flood: bool) -> Vec<Vec<u64>> {
    let mut dice = Dice(7);
    delays(8, 60_000, move |n, turn| {
        // Drawn in either case, so that the others send exactly the same.
        let burst = if dice.below(50) == 0 { 1 + dice.below(8) } else { 0 };
        // The others end a little earlier, so that all that they sent has its turn.
        let burst = if turn < 59_000 { usize::try_from(burst).unwrap() } else { 0 };
        if n == 0 && flood { 20 } else { burst }
    })
}

#[test]
fn a_flood_makes_the_delay_of_others_grow_by_less_than_a_fifth() {
    let (calm, flooded) = (bursts(false), bursts(true));
    let others = |all: &[Vec<u64>]| all[1..].concat();
    let (before, after) = (others(&calm), others(&flooded));
    assert_eq!(before.len(), after.len(), "every order of the others had its turn in both");
    let growth = mean(&after) / mean(&before) - 1.0;
    println!(
        "queueing delay in turns: mean {:.2} -> {:.2} ({:+.1} %), p95 {} -> {}",
        mean(&before),
        mean(&after),
        growth * 100.0,
        percentile(&before, 95),
        percentile(&after, 95),
    );
    assert!(mean(&before) > 1.0, "there is a delay that could grow");
    assert!(growth < 0.2, "the delay grew by {growth}");
    let limit = percentile(&before, 95) * 12 / 10;
    assert!(percentile(&after, 95) <= limit, "the 95th percentile grew by more than a fifth");
    // The flood itself gets what is left, and no more.
    assert!(flooded[0].len() > calm[0].len());
    assert!(mean(&flooded[0]) > 100.0 * mean(&after));
}

#[test]
fn with_one_lane_for_all_the_same_flood_would_delay_everybody() {
    // The same load through the lane of one tenant: what the fair queue is compared with.
    let mut dice = Dice(7);
    let mut queue = FairQueue::new(BOUNDS);
    let mut delay = Vec::new();
    for turn in 0..10_000_u64 {
        for n in 0..8 {
            let burst = if dice.below(50) == 0 { 1 + dice.below(8) } else { 0 };
            let count = if n == 0 { 20 } else { burst };
            for _ in 0..count {
                let _ = push(&mut queue, &tenant(0), (n, turn));
            }
        }
        if let Some((n, since)) = queue.pop() {
            queue.ended(&tenant(0));
            if n > 0 {
                delay.push(turn - since);
            }
        }
    }
    assert!(mean(&delay) > 100.0, "{}", mean(&delay));
}

#[test]
fn tenants_that_always_wait_share_the_turns_evenly() {
    let all = delays(5, 10_000, |_, _| 1);
    let counts: Vec<usize> = all.iter().map(Vec::len).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 1, "{counts:?}");
}

#[test]
fn saved_turns_are_bounded() {
    let mut queue = FairQueue::new(BOUNDS);
    for _ in 0..900 {
        push(&mut queue, &tenant(0), 0).unwrap();
    }
    // The second was away for 500 turns, and then sends 100 orders at once.
    for _ in 0..500 {
        queue.pop().unwrap();
    }
    for _ in 0..100 {
        push(&mut queue, &tenant(1), 1).unwrap();
    }
    let turns: Vec<i32> = (0..60).map(|_| queue.pop().unwrap()).collect();
    let first = turns.iter().position(|n| *n == 0).unwrap();
    let credit = usize::try_from(BOUNDS.credit).unwrap();
    assert!(first <= credit + 1, "{turns:?}");
    // After that they take turns.
    let rest = &turns[first..];
    let share = rest.iter().filter(|n| **n == 1).count();
    assert!(share.abs_diff(rest.len() / 2) <= 1, "{turns:?}");
}

#[test]
fn what_is_over_the_bounds_is_turned_away_and_counted() {
    let bounds = Bounds { tenant: 2, all: 3, credit: 4 };
    let mut queue = FairQueue::new(bounds);
    assert_eq!(push(&mut queue, &tenant(0), ()), Ok(0));
    assert_eq!(push(&mut queue, &tenant(0), ()), Ok(1));
    assert_eq!(push(&mut queue, &tenant(0), ()), Err(Full { ahead: 2 }));
    assert_eq!(push(&mut queue, &tenant(1), ()), Ok(0));
    assert_eq!(push(&mut queue, &tenant(1), ()), Err(Full { ahead: 1 }));
    let away: Vec<u64> = queue.tenants().map(|(.., away)| away).collect();
    assert_eq!(away, [1, 1]);
    // Room comes with the end of an order, not with its turn.
    assert!(queue.pop().is_some());
    assert!(push(&mut queue, &tenant(1), ()).is_err());
    queue.ended(&tenant(0));
    assert_eq!(push(&mut queue, &tenant(1), ()), Ok(1));
}

proptest! {
    #[test]
    fn each_order_has_its_turn_once_and_in_its_tenants_order(
        sends in proptest::collection::vec((0_usize..4, any::<bool>()), 0..200),
    ) {
        let mut queue = FairQueue::new(BOUNDS);
        let (mut sent, mut seen) = (vec![Vec::new(); 4], vec![Vec::new(); 4]);
        for (order, (n, take)) in sends.into_iter().enumerate() {
            push(&mut queue, &tenant(n), (n, order)).unwrap();
            sent[n].push(order);
            if take && let Some((n, order)) = queue.pop() {
                seen[n].push(order);
            }
        }
        while let Some((n, order)) = queue.pop() {
            seen[n].push(order);
        }
        prop_assert!(queue.tenants().all(|(_, waiting, _)| waiting == 0));
        prop_assert_eq!(sent, seen);
    }

    #[test]
    fn a_tenant_that_waits_has_its_turn_within_the_credit_of_the_others(
        pushes in proptest::collection::vec(0_usize..6, 1..300),
    ) {
        let mut queue = FairQueue::new(BOUNDS);
        for n in &pushes {
            push(&mut queue, &tenant(*n), *n).unwrap();
        }
        push(&mut queue, &tenant(9), 9).unwrap();
        let bound = 6 * (BOUNDS.credit + 1);
        let waited = (0..).find(|_| queue.pop() == Some(9)).unwrap();
        prop_assert!(u64::try_from(waited).unwrap() <= bound, "{} turns", waited);
    }
}
