//! The tree over the cache: finding, loading and changing pages, and the lists of those that
//! changed.
//!
//! **Locks:** a page's lock may be held while its parent's is taken (to load it), never the other
//! way round. The lists' locks are innermost.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    cache::Cache,
    keyring::Keyring,
    medium::Medium,
    node::{Freed, Node, NodeId, Replaced, State},
    page::{self, Bounds},
    refs::Ref,
};

/// What an operation needs to know of the disk; it changes only while no operation runs.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) ring: Keyring,
    /// Size of the exported disk in bytes.
    pub(crate) size: u64,
    pub(crate) depth: u8,
    /// What was sealed below this sequence number may belong to a snapshot.
    pub(crate) barrier: u64,
    /// First slot of data.
    pub(crate) first_slot: u64,
    /// No slot that a page leads to is at or behind this one.
    pub(crate) end: u64,
}

impl Shape {
    pub(crate) const fn sectors(&self) -> u64 {
        self.size.div_ceil(4096)
    }

    /// What pages that are read must keep to.
    const fn bounds(&self) -> Bounds {
        Bounds { first_slot: self.first_slot, end: self.end, sectors: self.sectors() }
    }

    /// Level-1 pages.
    pub(crate) const fn leaves(&self) -> u64 {
        self.sectors().div_ceil(128)
    }
}

/// The pages of the live disk.
#[derive(Debug)]
pub(crate) struct Tree {
    medium: Arc<dyn Medium>,
    cache: Cache,
    /// What the page of the highest level is loaded from.
    root: Mutex<Ref>,
    unlogged: Mutex<Vec<Arc<Node>>>,
    changed: Mutex<Vec<Arc<Node>>>,
    changed_count: AtomicUsize,
    /// Slots set aside since the last commit.
    set_aside: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    pub(crate) fn new(medium: Arc<dyn Medium>, root: Ref, cache_bytes: u64) -> Self {
        Self {
            medium,
            cache: Cache::new(cache_bytes),
            root: Mutex::new(root),
            unlogged: Mutex::default(),
            changed: Mutex::default(),
            changed_count: AtomicUsize::new(0),
            set_aside: AtomicU64::new(0),
        }
    }

    pub(crate) fn root(&self) -> Ref {
        *lock(&self.root)
    }

    pub(crate) fn set_root(&self, root: Ref) {
        *lock(&self.root) = root;
    }

    /// Pages in memory that are aimed at.
    pub(crate) const fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Forgets clean pages, after the tree became another.
    pub(crate) fn forget(&self) {
        self.cache.clear();
    }

    pub(crate) fn changed_count(&self) -> usize {
        self.changed_count.load(Ordering::Relaxed)
    }

    pub(crate) fn set_aside_count(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub(crate) fn node(&self, id: NodeId) -> Arc<Node> {
        self.cache.get(id)
    }

    /// Looks at a page.
    pub(crate) fn look<R>(
        &self,
        shape: &Shape,
        node: &Node,
        see: impl FnOnce(&State) -> R,
    ) -> io::Result<R> {
        {
            let state = read(node);
            if let Some(state) = state.as_ref() {
                return Ok(see(state));
            }
        }
        let mut state = write(node);
        self.load(shape, node.id, &mut state).map(|state| see(state))
    }

    /// Changes a page. `change` says what it did through [`Tree::note`], under the page's lock.
    fn alter<R>(
        &self,
        shape: &Shape,
        node: &Node,
        change: impl FnOnce(&mut State) -> R,
    ) -> io::Result<R> {
        let mut state = write(node);
        self.load(shape, node.id, &mut state).map(change)
    }

    fn load<'a>(
        &self,
        shape: &Shape,
        id: NodeId,
        state: &'a mut Option<State>,
    ) -> io::Result<&'a mut State> {
        if state.is_none() {
            let name = self.name_of(shape, id)?;
            *state = Some(if name.is_null() {
                State::empty()
            } else {
                let medium = self.medium.as_ref();
                State::new(page::read(medium, &shape.ring, &name, id, &shape.bounds())?)
            });
        }
        state.as_mut().ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// The reference that leads to the page `id`.
    fn name_of(&self, shape: &Shape, id: NodeId) -> io::Result<Ref> {
        if id.level >= shape.depth {
            return Ok(if id.number == 0 { self.root() } else { Ref::NULL });
        }
        let (parent, index) = id.parent();
        self.look(shape, &self.node(parent), |state| state.get(index))
    }

    /// Gives sectors of one page their new references, from `index` on; `trimmed` if they are null
    /// because of a trim. Returns the slots that are free at once.
    pub(crate) fn install(
        &self,
        shape: &Shape,
        node: &Arc<Node>,
        index: usize,
        names: &[Ref],
        trimmed: bool,
    ) -> io::Result<Vec<Freed>> {
        self.alter(shape, node, |state| {
            let mut free = Vec::new();
            for (at, name) in (index..).zip(names) {
                if name.is_null() && state.get(at).is_null() {
                    continue;
                }
                let done = state.replace(at, *name, shape.barrier, trimmed);
                free.extend(self.record(node, done));
            }
            free
        })
    }

    /// Replaces the reference at `index` only if it still is `old`; says whether it did, and which
    /// slot is free at once.
    pub(crate) fn exchange(
        &self,
        shape: &Shape,
        node: &Arc<Node>,
        index: usize,
        old: &Ref,
        new: Ref,
    ) -> io::Result<(bool, Option<Freed>)> {
        self.alter(shape, node, |state| {
            if state.get(index) != *old {
                return (false, None);
            }
            let done = state.replace(index, new, shape.barrier, false);
            (true, self.record(node, done))
        })
    }

    /// Under the page's lock: a commit that comes between would miss the change.
    fn record(&self, node: &Arc<Node>, done: Replaced) -> Option<Freed> {
        self.note(node, done.first_unlogged, done.first_change);
        if done.set_aside {
            self.set_aside.fetch_add(1, Ordering::Relaxed);
        }
        done.free_now
    }

    /// Puts the reference of a page that was sealed where it belongs, and returns the old one.
    pub(crate) fn adopt(&self, shape: &Shape, id: NodeId, new: Ref) -> io::Result<Ref> {
        if id.level >= shape.depth {
            return Ok(std::mem::replace(&mut *lock(&self.root), new));
        }
        let (parent, index) = id.parent();
        let parent = self.node(parent);
        self.alter(shape, &parent, |state| {
            let (old, first) = state.adopt(index, new);
            self.note(&parent, false, first);
            old
        })
    }

    /// Pins a page that changed.
    pub(crate) fn note(&self, node: &Arc<Node>, unlogged: bool, changed: bool) {
        if unlogged {
            lock(&self.unlogged).push(Arc::clone(node));
        }
        if changed {
            lock(&self.changed).push(Arc::clone(node));
            self.changed_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the list of pages with unlogged references.
    pub(crate) fn take_unlogged(&self) -> Vec<Arc<Node>> {
        self.set_aside.store(0, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.unlogged))
    }

    /// Takes the list of changed pages.
    pub(crate) fn take_changed(&self) -> Vec<Arc<Node>> {
        let taken = std::mem::take(&mut *lock(&self.changed));
        self.changed_count.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }
}

/// The content of a page, to look at.
pub(crate) fn read(node: &Node) -> RwLockReadGuard<'_, Option<State>> {
    node.state.read().unwrap_or_else(PoisonError::into_inner)
}

/// The content of a page, to change.
pub(crate) fn write(node: &Node) -> RwLockWriteGuard<'_, Option<State>> {
    node.state.write().unwrap_or_else(PoisonError::into_inner)
}
