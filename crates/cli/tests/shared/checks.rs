//! Counted observations: each is printed as it is made, the last line sums them up.

use std::{collections::BTreeSet, fmt::Display, path::Path, time::Instant};

use crate::world::logs::Logs;

/// Counts checks; one check is one observation on real processes.
#[derive(Debug)]
pub struct Checks {
    name: &'static str,
    passed: u32,
    failed: u32,
    skipped: u32,
    since: Instant,
    refused: BTreeSet<String>,
    logs: Logs,
}

impl Checks {
    pub fn new(name: &'static str) -> Self {
        let (passed, failed, skipped) = (0, 0, 0);
        let (refused, logs) = (BTreeSet::new(), Logs::default());
        Self { name, passed, failed, skipped, since: Instant::now(), refused, logs }
    }

    /// Whose logs are shown beside a check that fails: the lab's in this directory.
    pub fn of_lab(&mut self, dir: &Path) {
        self.logs = Logs::of(dir);
    }

    /// A heading between checks.
    pub fn part(&self, title: &str) {
        println!("\n== {title} [{:.1} s]", self.since.elapsed().as_secs_f32());
    }

    /// One observation.
    pub fn check(&mut self, what: &str, ok: bool, seen: impl Display) {
        let (mark, count) =
            if ok { ("ok    ", &mut self.passed) } else { ("FAILED", &mut self.failed) };
        *count += 1;
        let number = self.passed + self.failed;
        let seen = seen.to_string();
        let seen = if seen.is_empty() { seen } else { format!("  [{}]", seen.trim()) };
        println!("{mark} {number:>3}  {what}{seen}");
        if ok {
            self.logs.pass();
        } else {
            self.explain(seen.is_empty());
        }
    }

    /// What the lab's processes have said since the check before.
    fn explain(&mut self, bare: bool) {
        if bare {
            println!("          nothing was seen that says more");
        }
        let lines = self.logs.grown();
        for line in &lines {
            println!("          | {line}");
        }
        if lines.is_empty() {
            println!("          no process has logged anything since the check before");
        }
    }

    /// Observations that cannot be made on this machine, and why; the last line counts them.
    pub fn skipped(&mut self, count: u32, why: &str) {
        self.skipped += count;
        println!("SKIPPED ({count} checks): {why}");
    }

    /// One observation of a refusal: it has this name, which the audit log must hold in the end.
    pub fn refused(&mut self, what: &str, name: &str, seen: &str, detail: &str) {
        self.refused.insert(name.to_owned());
        let shown = if detail.is_empty() { seen.to_owned() } else { format!("{seen}: {detail}") };
        self.check(what, seen == name, shown);
    }

    /// The names of all refusals that were provoked.
    pub fn refusals(&self) -> &BTreeSet<String> {
        &self.refused
    }

    /// The last line, and whether all went well.
    pub fn finish(self) -> bool {
        let seconds = self.since.elapsed().as_secs_f32();
        println!(
            "\n{:.1} s\n{}: {} checks passed, {} failed{}",
            seconds,
            self.name,
            self.passed,
            self.failed,
            if self.skipped > 0 { format!(", {} SKIPPED", self.skipped) } else { String::new() }
        );
        self.failed == 0 && self.passed > 0
    }
}
