//! A cloud of many servers as queues: each trust service is one processor, the centre has some, each
//! takes questions in the order in which they come. A question that its server's library answers ends
//! there; any other goes on to the centre. Work takes what was measured of the real processes (their
//! processor time), and varies as measured.

use crate::{
    layers::{
        dice::Dice,
        figures::{one_of, percentile, share},
    },
    load::Processors,
};

/// What was measured.
#[derive(Clone, Debug)]
pub struct Costs {
    pub local: Processors,
    pub forwarded: Processors,
    pub order: Processors,
    /// How single times vary around their mean.
    pub shape: Vec<f64>,
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Park {
    pub services: usize,
    pub centre_cores: usize,
    /// Questions a second of all clients.
    pub rate: f64,
    /// Share that libraries answer.
    pub hit: f64,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub p50: f64,
    pub p99: f64,
    /// Share of their processors that is used.
    pub trust: f64,
    pub centre: f64,
    pub saturated: bool,
}

/// Questions that are simulated at most, and seconds.
const QUESTIONS: f64 = 300_000.0;
const SECONDS: f64 = 600.0;
/// From server to centre and back, milliseconds.
const TRIP: f64 = 0.5;

impl Park {
    pub fn run(&self, costs: &Costs) -> Seen {
        let seconds = (QUESTIONS / self.rate).min(SECONDS);
        let mut dice = Dice::new(0x51);
        let mut free = vec![0.0_f64; self.services];
        let (mut busy, mut at, mut done, mut onward) = (0.0, 0.0, Vec::new(), Vec::new());
        loop {
            at += -(1.0 - share(&mut dice)).ln() / self.rate * 1000.0;
            if at >= seconds * 1000.0 {
                break;
            }
            let (service, known) = (one_of(&mut dice, self.services), share(&mut dice) < self.hit);
            let mean = if known { costs.local.trust } else { costs.forwarded.trust };
            let work = mean * costs.shape[one_of(&mut dice, costs.shape.len())];
            let end = free[service].max(at) + work;
            free[service] = end;
            busy += work;
            if known { done.push(end - at) } else { onward.push((end, at)) }
        }
        let centre = self.centre(costs, &mut dice, onward, &mut done);
        let services = f64::from(u32::try_from(self.services).expect("few"));
        let cores = f64::from(u32::try_from(self.centre_cores).expect("few"));
        let trust = busy / (seconds * 1000.0 * services);
        let centre = centre / (seconds * 1000.0 * cores);
        let saturated = trust >= 1.0 || centre >= 1.0;
        let (p50, p99) = (percentile(&done, 500), percentile(&done, 990));
        Seen { p50, p99, trust: trust.min(1.0), centre: centre.min(1.0), saturated }
    }

    /// What goes on to the centre, in the order in which it arrives; the work that it has with it.
    fn centre(
        &self,
        costs: &Costs,
        dice: &mut Dice,
        mut onward: Vec<(f64, f64)>,
        done: &mut Vec<f64>,
    ) -> f64 {
        onward.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut free = vec![0.0_f64; self.centre_cores];
        let mut busy = 0.0;
        for (arrives, begun) in onward {
            let work = costs.forwarded.centre * costs.shape[one_of(dice, costs.shape.len())];
            let first = free.iter_mut().min_by(|one, other| one.total_cmp(other));
            let first = first.expect("a processor");
            let end = first.max(arrives + TRIP / 2.0) + work;
            *first = end;
            busy += work;
            done.push(end + TRIP / 2.0 - begun);
        }
        busy
    }
}
