//! Striped locks that keep a read-modify-write of part of a sector apart from every other write of
//! that sector. Whole-sector writes share a stripe; a partial write has it alone. Reads take none.
//!
//! A stripe covers every 64th MiB. A range takes its stripes in ascending order, so two ranges
//! never wait for each other.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const STRIPES: u64 = 64;
const STRIPE_SHIFT: u32 = 20;

/// The locks of one volume.
#[derive(Debug)]
pub(crate) struct Stripes(Vec<RwLock<()>>);

/// Held while a write is in progress.
#[derive(Debug)]
pub(crate) enum Held<'a> {
    One { _guard: RwLockReadGuard<'a, ()> },
    Many { _guards: Vec<RwLockReadGuard<'a, ()>> },
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| RwLock::new(())).collect())
    }

    /// Shares the stripes of `offset .. offset + length`.
    pub(crate) fn shared(&self, offset: u64, length: u64) -> Held<'_> {
        let first = offset >> STRIPE_SHIFT;
        let last = offset.saturating_add(length.saturating_sub(1)) >> STRIPE_SHIFT;
        if first == last
            && let Some(lock) = self.lock(first)
        {
            return Held::One { _guard: lock.read().unwrap_or_else(PoisonError::into_inner) };
        }
        let count = last.saturating_sub(first).saturating_add(1);
        let wanted = |stripe: u64| {
            // Distance from the first stripe, going round.
            let from_first = stripe.wrapping_sub(first) % STRIPES;
            from_first < count
        };
        let guards = (0..STRIPES)
            .filter(|&stripe| wanted(stripe))
            .filter_map(|stripe| self.lock(stripe))
            .map(|lock| lock.read().unwrap_or_else(PoisonError::into_inner))
            .collect();
        Held::Many { _guards: guards }
    }

    /// Takes alone the stripe of the sector at `offset`.
    pub(crate) fn alone(&self, offset: u64) -> Option<RwLockWriteGuard<'_, ()>> {
        let lock = self.lock(offset >> STRIPE_SHIFT)?;
        Some(lock.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self, stripe: u64) -> Option<&RwLock<()>> {
        usize::try_from(stripe % STRIPES).ok().and_then(|i| self.0.get(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_over_a_stripe_boundary_keeps_both_stripes() {
        let stripes = Stripes::new();
        let held = stripes.shared((63 << 20) + 1, 1 << 20);
        assert!(stripes.0[63].try_write().is_err());
        assert!(stripes.0[0].try_write().is_err());
        assert!(stripes.0[1].try_write().is_ok());
        drop(held);
        assert!(stripes.0[0].try_write().is_ok());
    }

    #[test]
    fn a_range_longer_than_all_stripes_keeps_each_once() {
        let stripes = Stripes::new();
        let held = stripes.shared(5 << 20, 200 << 20);
        assert!(stripes.0.iter().all(|s| s.try_write().is_err()));
        drop(held);
    }
}
