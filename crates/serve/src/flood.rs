//! Bounds what one source can make a server do, and how many of its refusals fill the audit log: a
//! bucket of tokens for each source, refilled evenly. Pure: `now` comes in.
//!
//! **Invariant:** memory is bounded; what a full table would have to forget is forgotten in favour
//! of the newcomer.

use std::{collections::HashMap, hash::Hash};

/// Sources that are remembered.
const SOURCES: usize = 8192;
const MINUTE: u64 = 60_000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What is left, in requests times milliseconds of a minute.
    left: u64,
    /// When that was.
    at: u64,
    /// Whether a refusal was noted since one passed.
    noted: bool,
}

/// The buckets.
#[derive(Debug)]
pub struct FloodGate<K> {
    per_minute: u64,
    buckets: HashMap<K, Bucket>,
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It passes.
    Free,
    /// It is refused, for the first time since one passed: worth an audit entry.
    First,
    /// It is refused like the one before it: not worth an entry, or the flood would fill the log.
    Again,
}

impl<K: Eq + Hash> FloodGate<K> {
    /// Lets `per_minute` requests of one source pass in a minute.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: u64::from(per_minute.max(1)), buckets: HashMap::new() }
    }

    /// A request from `source` at `now` (Unix milliseconds).
    pub fn pass(&mut self, source: K, now: u64) -> Passage {
        let full = self.per_minute.saturating_mul(MINUTE);
        if !self.buckets.contains_key(&source) && self.buckets.len() >= SOURCES {
            self.buckets.clear();
        }
        let new = Bucket { left: full, at: now, noted: false };
        let bucket = self.buckets.entry(source).or_insert(new);
        let gained = now.saturating_sub(bucket.at).saturating_mul(self.per_minute);
        bucket.left = bucket.left.saturating_add(gained).min(full);
        bucket.at = now;
        if let Some(left) = bucket.left.checked_sub(MINUTE) {
            *bucket = Bucket { left, at: now, noted: false };
            return Passage::Free;
        }
        if std::mem::replace(&mut bucket.noted, true) { Passage::Again } else { Passage::First }
    }
}

/// Names of which the refusals are counted apart.
const NAMES: usize = 1024;

/// Keeps refusals from filling the audit log: of each name so many in a minute are written down;
/// what is over is counted, and said with the next one that is.
#[derive(Debug)]
pub struct Noise {
    gate: FloodGate<String>,
    /// Refusals of each name that were not written down since one was.
    hushed: HashMap<String, u64>,
}

impl Noise {
    /// Lets `per_minute` refusals of one name through in a minute.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self { gate: FloodGate::new(per_minute), hushed: HashMap::new() }
    }

    /// A refusal of this name at `now` (Unix milliseconds): what is to be written down with it;
    /// `None` if it is only counted.
    pub fn heard(&mut self, name: &str, now: u64) -> Option<String> {
        let passage = self.gate.pass(name.to_owned(), now);
        let bounded = self.hushed.len() < NAMES || self.hushed.contains_key(name);
        if passage == Passage::Again && bounded {
            let count = self.hushed.entry(name.to_owned()).or_insert(0);
            *count = count.saturating_add(1);
            return None;
        }
        let flood = match passage {
            Passage::Free => "",
            Passage::First | Passage::Again => "too many: further ones are counted only",
        };
        Some(match self.hushed.remove(name).unwrap_or(0) {
            0 => flood.to_owned(),
            count => format!("{count} more were not written down; {flood}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn an_address_has_its_allowance_and_gets_it_back_with_time() {
        let mut gate = FloodGate::new(3);
        let address = Some(IpAddr::from([127, 0, 0, 1]));
        for _ in 0..3 {
            assert_eq!(gate.pass(address, 1000), Passage::Free);
        }
        assert_eq!(gate.pass(address, 1000), Passage::First);
        assert_eq!(gate.pass(address, 1000), Passage::Again);
        assert_eq!(gate.pass(None, 1000), Passage::Free);
        assert_eq!(gate.pass(address, 21_000), Passage::Free);
        assert_ne!(gate.pass(address, 21_001), Passage::Free);
    }

    #[test]
    fn refusals_over_the_bound_are_counted_and_said_later() {
        let mut noise = Noise::new(2);
        assert_eq!(noise.heard("a", 0).as_deref(), Some(""));
        assert_eq!(noise.heard("a", 0).as_deref(), Some(""));
        assert!(noise.heard("a", 0).unwrap().contains("counted only"));
        assert_eq!(noise.heard("a", 0), None);
        assert_eq!(noise.heard("a", 0), None);
        assert_eq!(noise.heard("b", 0).as_deref(), Some(""));
        assert!(noise.heard("a", 60_000).unwrap().starts_with("2 more"));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut gate = FloodGate::new(1);
        for n in 0..20_000_u32 {
            gate.pass(Some(IpAddr::from(n.to_be_bytes())), 0);
        }
        assert!(gate.buckets.len() <= SOURCES);
    }
}
