//! What is measured, and the rows that come of it.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use super::{fio::Job, servers::Who};

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub case: &'static str,
    pub ours: Who,
    pub peer: Who,
}

pub const fn pair(case: &'static str, ours: Who, peer: Who) -> Pair {
    Pair { case, ours, peer }
}

/// How much is run.
pub struct Plan {
    pub rounds: usize,
    pub millis: u32,
    only: Vec<String>,
}

impl Plan {
    /// What the environment says.
    pub fn said() -> Self {
        let quick = std::env::var_os("QUICK").is_some();
        let (rounds, millis) = if quick { (3, 250) } else { (7, 700) };
        let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(rounds);
        let only = std::env::var("CASE").unwrap_or_default();
        let only = only.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self { rounds, millis, only }
    }

    pub fn is_whole(&self) -> bool {
        self.only.is_empty()
    }

    /// Whether a row of this name is wanted; a name may be the beginning of several.
    pub fn has(&self, name: &str) -> bool {
        let fits = |part: &String| name.contains(part) || part.starts_with(name);
        self.is_whole() || self.only.iter().any(fits)
    }

    pub fn wants(&self, pair: &Pair, job: &str) -> bool {
        self.has(&format!("{}-{job}-vs-{}", pair.case, pair.peer.name()))
    }

    pub fn wants_any(&self, pairs: &[Pair]) -> bool {
        let jobs = || super::JOBS.iter();
        pairs.iter().any(|pair| jobs().any(|job| self.wants(pair, job.name)))
    }
}

/// Figures of one server at one job, one for each round: rate, and processor time.
#[derive(Default)]
pub struct Samples(BTreeMap<(String, &'static str), Both>);

/// Rates, and processor times.
type Both = (Vec<f64>, Vec<f64>);

impl Samples {
    pub fn note(&mut self, who: &str, job: &'static str, rate: f64, cpu: f64) {
        let (rates, cpus) = self.0.entry((who.to_owned(), job)).or_default();
        rates.push(rate);
        cpus.push(cpu);
    }

    fn of(&self, who: &str, job: &'static str) -> Option<&Both> {
        self.0.get(&(who.to_owned(), job))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The table, as it grows.
pub struct Rows(Vec<Value>);

impl Rows {
    pub fn new() -> Self {
        println!(
            "{:<44} {:>10} {:>10} {:<8} {:>7}   (ratio: larger is better for us)",
            "case", "ours", "peer", "unit", "ratio"
        );
        Self(Vec::new())
    }

    fn put(
        &mut self,
        case: &str,
        peer: &str,
        unit: &str,
        both: (f64, f64),
        ratio: f64,
        runs: usize,
    ) {
        let (ours, theirs) = both;
        println!("{case:<44} {ours:>10.3} {theirs:>10.3} {unit:<8} {ratio:>7.2}");
        self.0.push(json!({"case": case, "ours": ours, "peer": theirs, "peer_name": peer,
                           "unit": unit, "ratio": ratio, "runs": runs}));
    }

    /// Two rows, rate and processor time.
    pub fn compare(&mut self, samples: &Samples, pair: &Pair, job: &'static Job) {
        self.compare_named(samples, pair.case, pair.ours.name(), pair.peer.name(), job);
    }

    /// The row names the peer, not the kind of its work: that is in `case`.
    pub fn compare_named(
        &mut self,
        samples: &Samples,
        case: &str,
        ours: &str,
        peer: &str,
        job: &'static Job,
    ) {
        let (Some(mine), Some(theirs)) = (samples.of(ours, job.name), samples.of(peer, job.name))
        else {
            return;
        };
        let (unit, cpu_unit, scale) =
            if job.is_sequential() { ("MB/s", "s/GB", 1e6) } else { ("kIOPS", "us/op", 1e3) };
        let peer = peer.strip_suffix("-first").unwrap_or(peer);
        let both = (median(&mine.0) / scale, median(&theirs.0) / scale);
        let name = format!("{case}-{}-vs-{peer}", job.name);
        self.put(&name, peer, unit, both, both.0 / both.1, mine.0.len());
        let both = (median(&mine.1), median(&theirs.1));
        let name = format!("{case}-{}-cpu-vs-{peer}", job.name);
        self.put(&name, peer, cpu_unit, both, both.1 / both.0, mine.1.len());
    }

    /// One row of processor time alone, microseconds a request.
    pub fn compare_cpu(&mut self, samples: &Samples, case: &'static str, ours: &str, peer: &str) {
        let (Some(mine), Some(theirs)) = (samples.of(ours, case), samples.of(peer, case)) else {
            return;
        };
        let both = (median(&mine.1), median(&theirs.1));
        let name = format!("{case}-{ours}-vs-{peer}");
        self.put(&name, peer, "us/op", both, both.1 / both.0, mine.1.len());
    }

    /// Writes the table for machines.
    pub fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("target/bench");
        let text = serde_json::to_string_pretty(&self.0).expect("JSON");
        fs::write(dir.join("disk.json"), text).expect("disk.json");
    }
}
