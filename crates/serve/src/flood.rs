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
    fn the_table_is_bounded() {
        let mut gate = FloodGate::new(1);
        for n in 0..20_000_u32 {
            gate.pass(Some(IpAddr::from(n.to_be_bytes())), 0);
        }
        assert!(gate.buckets.len() <= SOURCES);
    }
}
