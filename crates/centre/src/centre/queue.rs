//! The fair queue of one PKI: whose order is next. Pure: no clock, no lock.
//!
//! ```text
//! admit(tenant), enter ─► [tenant's lane, in order] ─┐
//! admit(tenant), enter ─► [tenant's lane, in order] ─┼─► pop: the lane with the earliest tag;
//! again(tenant) ────────► front of the lane          ┘        it moves on by one turn
//! ```
//! Start-time fair queueing with a bounded credit. Each lane has a tag, the virtual time of its next
//! turn; virtual time is the tag of the turn given last. A lane that was empty comes back with its
//! old tag, or with virtual time less the credit, whichever is later: a tenant that asked for less
//! than its share has saved up turns, at most [`Bounds::credit`] of them.
//!
//! **Promises:** a tenant that stays below its share of turns, in bursts of no more than its
//! credit, waits no longer because of what others send; tenants that always have orders waiting
//! share the turns evenly; nobody has more than [`Bounds::tenant`] orders open, all together no more
//! than [`Bounds::all`].

use std::collections::{BTreeMap, VecDeque};

use model::Tenant;

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Orders of one tenant that are not at their end.
    pub tenant: usize,
    /// Orders of all tenants that are not at their end.
    pub all: usize,
    /// Turns that a tenant can save up.
    pub credit: u64,
}

/// There is no room for another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Orders before it, of the same tenant.
    pub ahead: usize,
}

/// Whose turn it is.
#[derive(Debug)]
pub struct FairQueue<T> {
    bounds: Bounds,
    lanes: BTreeMap<Tenant, Lane<T>>,
    /// Tag of the turn given last.
    virtual_time: u64,
    open: usize,
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    tag: u64,
    /// Orders that are not at their end, waiting here or not.
    open: usize,
    turned_away: u64,
}

impl<T> FairQueue<T> {
    /// An empty queue.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, lanes: BTreeMap::new(), virtual_time: bounds.credit, open: 0 }
    }

    /// Keeps a place for an order of this tenant, until [`FairQueue::ended`]; how many of its
    /// orders wait.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admit(&mut self, tenant: &Tenant) -> Result<usize, Full> {
        let (bounds, open) = (self.bounds, self.open);
        let lane = self.lane(tenant);
        let ahead = lane.waiting.len();
        if lane.open >= bounds.tenant || open >= bounds.all {
            lane.turned_away = lane.turned_away.saturating_add(1);
            return Err(Full { ahead });
        }
        self.readmit(tenant);
        Ok(ahead)
    }

    /// The same for an order that was accepted before a restart: there is always room for it.
    pub fn readmit(&mut self, tenant: &Tenant) {
        let lane = self.lane(tenant);
        lane.open = lane.open.saturating_add(1);
        self.open = self.open.saturating_add(1);
    }

    /// Puts an order that was admitted behind its tenant's others.
    pub fn enter(&mut self, tenant: &Tenant, order: T) {
        self.lane(tenant).waiting.push_back(order);
    }

    /// Puts an order that had its turn before its tenant's others, for its next try.
    pub fn again(&mut self, tenant: &Tenant, order: T) {
        self.lane(tenant).waiting.push_front(order);
    }

    /// The next turn.
    pub fn pop(&mut self) -> Option<T> {
        let waiting = self.lanes.values_mut().filter(|lane| !lane.waiting.is_empty());
        let lane = waiting.min_by_key(|lane| lane.tag)?;
        let order = lane.waiting.pop_front()?;
        self.virtual_time = self.virtual_time.max(lane.tag);
        lane.tag = lane.tag.saturating_add(1);
        Some(order)
    }

    /// An order of this tenant is at its end: there is room for another.
    pub fn ended(&mut self, tenant: &Tenant) {
        let Some(lane) = self.lanes.get_mut(tenant) else { return };
        lane.open = lane.open.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
    }

    /// How many orders of this tenant wait for their turn.
    #[must_use]
    pub fn ahead(&self, tenant: &Tenant) -> usize {
        self.lanes.get(tenant).map_or(0, |lane| lane.waiting.len())
    }

    /// Each tenant with its waiting orders and how often it was turned away.
    pub fn tenants(&self) -> impl Iterator<Item = (&Tenant, usize, u64)> {
        self.lanes.iter().map(|(tenant, lane)| (tenant, lane.waiting.len(), lane.turned_away))
    }

    /// The tenant's lane; one that was empty comes back with what credit it has.
    fn lane(&mut self, tenant: &Tenant) -> &mut Lane<T> {
        let earliest = self.virtual_time.saturating_sub(self.bounds.credit);
        let new = || Lane { waiting: VecDeque::new(), tag: earliest, open: 0, turned_away: 0 };
        let lane = self.lanes.entry(tenant.clone()).or_insert_with(new);
        if lane.waiting.is_empty() {
            lane.tag = lane.tag.max(earliest);
        }
        lane
    }
}

#[cfg(test)]
mod tests;
