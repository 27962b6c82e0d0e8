//! The orders of one PKI that are not at their end, and the threads that wait for their turn.
//!
//! ```text
//! admit ─► (made durable) ─► enter ─► waiting ── take ──► working ── end ─► gone
//!                                        ▲                   │ not yet
//!                                        └── its time ── later (twice as late each time)
//! ```
//! **Invariant:** each open order is in exactly one of the three; what a worker holds is worked on
//! by nobody else. A PKI that does not answer keeps its own workers, and nobody else's.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    OrderId, Tenant,
    centre::{CentreProgress, DomainStatus, ListedOrder, TenantStatus},
};
use pki::{Ask, Job};
use tokio::sync::Notify;

use super::{
    queue::{Bounds, FairQueue},
    record::OrderRecord,
    refusal::Why,
};

/// The longest that a worker sleeps, so that it sees a clock that was set.
const NAP: Duration = Duration::from_millis(500);
/// Bounds of the advice when to come back, seconds.
const COME_BACK: (u64, u64) = (1, 120);

/// An order that is not at its end.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) id: OrderId,
    pub(crate) record: Arc<OrderRecord>,
    pub(crate) ask: Arc<Ask>,
    pub(crate) job: Job,
}

#[derive(Debug)]
struct Open {
    turn: Turn,
    standing: Standing,
    ended: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    Later,
    Working,
}

#[derive(Debug)]
struct State {
    queue: FairQueue<OrderId>,
    later: BinaryHeap<Reverse<(u64, OrderId)>>,
    open: HashMap<OrderId, Open>,
    working: u32,
    ended: u64,
    put_off: u64,
    stopped: bool,
    /// Milliseconds that an order takes a worker, as it was lately.
    takes_ms: f64,
}

/// The orders of one PKI.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<State>,
    wake: Condvar,
    workers: usize,
}

impl Lane {
    /// No orders yet; so many threads will take turns.
    pub(crate) fn new(bounds: Bounds, workers: usize) -> Self {
        let state = State {
            queue: FairQueue::new(bounds),
            later: BinaryHeap::new(),
            open: HashMap::new(),
            working: 0,
            ended: 0,
            put_off: 0,
            stopped: false,
            takes_ms: 20.0,
        };
        Self { state: Mutex::new(state), wake: Condvar::new(), workers }
    }

    /// How many threads take turns.
    pub(crate) const fn workers(&self) -> usize {
        self.workers
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a place for an order; how many of its tenant's wait.
    ///
    /// # Errors
    /// [`Why::Full`], with the time after which there may be room.
    pub(crate) fn admit(&self, tenant: &Tenant) -> Result<usize, Why> {
        let mut state = self.held();
        let takes = state.takes_ms;
        state.queue.admit(tenant).map_err(|full| {
            let workers = u32::try_from(self.workers).map_or(1.0, f64::from);
            let ahead = u32::try_from(full.ahead).map_or(1.0, f64::from);
            // Half of what is before it: by then there is room for some.
            let ms = Duration::from_secs(1).mul_f64((ahead * takes / workers / 2000.0).min(1e6));
            Why::Full { retry_after: ms.as_secs().clamp(COME_BACK.0, COME_BACK.1) }
        })
    }

    /// Gives a place back: nothing came of it.
    pub(crate) fn release(&self, tenant: &Tenant) {
        self.held().queue.ended(tenant);
    }

    /// Takes an order that has a place and is durable.
    pub(crate) fn enter(&self, turn: Turn) {
        let mut state = self.held();
        let (id, tenant) = (turn.id, turn.record.order.tenant.clone());
        let open = Open { turn, standing: Standing::Waiting, ended: Arc::default() };
        state.open.insert(id, open);
        state.queue.enter(&tenant, id);
        drop(state);
        self.wake.notify_one();
    }

    /// Takes up an order after a restart.
    pub(crate) fn restore(&self, turn: Turn) {
        self.held().queue.readmit(&turn.record.order.tenant);
        self.enter(turn);
    }

    /// The next turns, at most `most`, once there are any; none when the centre ends.
    pub(crate) fn take(&self, most: usize, now: impl Fn() -> u64) -> Vec<Turn> {
        let mut state = self.held();
        loop {
            if state.stopped {
                return Vec::new();
            }
            state.revive(now());
            let mut turns = Vec::new();
            while turns.len() < most {
                let Some(id) = state.queue.pop() else { break };
                let Some(open) = state.open.get_mut(&id) else { continue };
                open.standing = Standing::Working;
                turns.push(open.turn.clone());
            }
            if !turns.is_empty() {
                let count = u32::try_from(turns.len()).unwrap_or(u32::MAX);
                state.working = state.working.saturating_add(count);
                return turns;
            }
            let next = state.later.peek().map(|Reverse((at, _))| at.saturating_sub(now()));
            let nap = next.map_or(NAP, |ms| Duration::from_millis(ms.max(1)).min(NAP));
            let woken = self.wake.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner);
            state = woken.0;
        }
    }

    /// Puts an order off until `at` (Unix milliseconds).
    pub(crate) fn put_off(&self, turn: Turn, at: u64) {
        let mut state = self.held();
        let id = turn.id;
        state.working = state.working.saturating_sub(1);
        state.put_off = state.put_off.saturating_add(1);
        if let Some(open) = state.open.get_mut(&id) {
            open.turn = turn;
            open.standing = Standing::Later;
            state.later.push(Reverse((at, id)));
        }
    }

    /// An order is at its end, and that is durable.
    pub(crate) fn end(&self, id: OrderId, took: Duration) {
        let mut state = self.held();
        let Some(open) = state.open.remove(&id) else { return };
        state.queue.ended(&open.turn.record.order.tenant);
        state.working = state.working.saturating_sub(1);
        state.ended = state.ended.saturating_add(1);
        state.takes_ms = state.takes_ms.mul_add(0.9, took.as_secs_f64() * 100.0);
        drop(state);
        open.ended.notify_waiters();
    }

    /// How far an order is, if it is not at its end; and what tells of its end.
    pub(crate) fn progress(&self, id: OrderId) -> Option<(CentreProgress, Arc<Notify>)> {
        let state = self.held();
        let open = state.open.get(&id)?;
        let tenant = &open.turn.record.order.tenant;
        let progress = match open.standing {
            Standing::Working => CentreProgress::Working,
            Standing::Waiting | Standing::Later => {
                let ahead = u32::try_from(state.queue.ahead(tenant)).unwrap_or(u32::MAX);
                CentreProgress::Queued { ahead }
            }
        };
        Some((progress, Arc::clone(&open.ended)))
    }

    /// Nobody is given a turn any more.
    pub(crate) fn stop(&self) {
        self.held().stopped = true;
        self.wake.notify_all();
    }

    /// How it stands.
    pub(crate) fn status(&self, domain: &super::domain::PkiDomain) -> DomainStatus {
        let state = self.held();
        let open = u32::try_from(state.open.len()).unwrap_or(u32::MAX);
        DomainStatus {
            domain: domain.name().clone(),
            provider: domain.kind().to_owned(),
            queued: open.saturating_sub(state.working),
            working: state.working,
            ended: state.ended,
            put_off: state.put_off,
        }
    }

    /// Tenants with waiting orders, or that were turned away.
    pub(crate) fn tenants(&self, domain: &super::domain::PkiDomain) -> Vec<TenantStatus> {
        let state = self.held();
        let all = state.queue.tenants().filter(|(_, waiting, away)| *waiting > 0 || *away > 0);
        let one = |(tenant, waiting, turned_away): (&Tenant, usize, u64)| TenantStatus {
            tenant: tenant.clone(),
            domain: domain.name().clone(),
            queued: u32::try_from(waiting).unwrap_or(u32::MAX),
            turned_away,
        };
        all.map(one).collect()
    }

    /// Orders that are not at their end.
    pub(crate) fn listed(&self) -> Vec<ListedOrder> {
        let state = self.held();
        let one = |open: &Open| {
            let OrderRecord { order, host, at, .. } = &*open.turn.record;
            ListedOrder {
                id: order.id,
                tenant: order.tenant.clone(),
                domain: order.domain.clone(),
                work: order.work.name().to_owned(),
                at: *at,
                host: host.clone(),
            }
        };
        state.open.values().map(one).collect()
    }
}

impl State {
    /// Puts back in the queue what was put off until now.
    fn revive(&mut self, now: u64) {
        while let Some(Reverse((at, id))) = self.later.peek().copied() {
            if at > now {
                return;
            }
            self.later.pop();
            if let Some(open) = self.open.get_mut(&id) {
                open.standing = Standing::Waiting;
                let tenant = open.turn.record.order.tenant.clone();
                self.queue.again(&tenant, id);
            }
        }
    }
}
