//! The pages of the tree that are in memory, in shards; bounded, but a page that somebody holds or
//! that changed stays (whoever records the change holds it).

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use super::node::{FAN, Node, NodeId};

const SHARDS: usize = 64;
/// What a page costs in memory, roughly.
const NODE_BYTES: u64 = 40 * FAN as u64;
/// Steps of the clock hand for one page too many.
const STEPS: usize = 8;

/// Spreads page numbers; they are ours, nobody chooses them to collide.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Debug, Default)]
struct Shard {
    nodes: HashMap<NodeId, Arc<Node>, BuildHasherDefault<Spread>>,
    /// The same pages, for the clock hand.
    ring: Vec<Arc<Node>>,
    hand: usize,
}

/// The pages in memory.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    limit: usize,
}

impl Cache {
    /// A cache of about `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        let nodes = usize::try_from(bytes / NODE_BYTES).unwrap_or(usize::MAX);
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, limit: (nodes / SHARDS).max(4) }
    }

    /// Pages that it aims at.
    pub(crate) const fn capacity(&self) -> usize {
        self.limit.saturating_mul(SHARDS)
    }

    /// The page `id`, perhaps not loaded.
    pub(crate) fn get(&self, id: NodeId) -> Arc<Node> {
        let spread = usize::try_from(id.number).unwrap_or(0) ^ (usize::from(id.level) << 3);
        let Some(shard) = self.shards.get(spread % SHARDS) else { return Arc::new(Node::new(id)) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = shard.nodes.get(&id) {
            node.touch();
            return Arc::clone(node);
        }
        shard.make_room(self.limit);
        let node = Arc::new(Node::new(id));
        shard.nodes.insert(id, Arc::clone(&node));
        shard.ring.push(Arc::clone(&node));
        node
    }

    /// Forgets every page that nobody holds.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.ring.retain(|node| Arc::strong_count(node) > 2);
            let Shard { nodes, ring, .. } = &mut *shard;
            nodes.clear();
            nodes.extend(ring.iter().map(|node| (node.id, Arc::clone(node))));
        }
    }
}

impl Shard {
    /// Drops a page if there are `limit` and one can be spared.
    fn make_room(&mut self, limit: usize) {
        let mut steps = 0;
        while self.ring.len() >= limit && steps < STEPS {
            steps += 1;
            if self.hand >= self.ring.len() {
                self.hand = 0;
            }
            let Some(node) = self.ring.get(self.hand) else { return };
            // Held by the map and the ring only; nobody can come by while the shard is locked.
            if Arc::strong_count(node) > 2 || node.cool() {
                self.hand += 1;
                continue;
            }
            self.nodes.remove(&node.id);
            self.ring.swap_remove(self.hand);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_but_keeps_what_is_held() {
        let cache = Cache::new(0);
        let held: Vec<_> =
            (0..64).map(|n| cache.get(NodeId { level: 1, number: n * 64 })).collect();
        for number in 0..10_000 {
            cache.get(NodeId { level: 1, number });
        }
        let count: usize = cache.shards.iter().map(|s| s.lock().unwrap().ring.len()).sum();
        assert!(count < 64 * 4 + 64 + 64, "{count}");
        for node in held {
            assert!(Arc::ptr_eq(&node, &cache.get(node.id)));
        }
        cache.clear();
        let count: usize = cache.shards.iter().map(|s| s.lock().unwrap().nodes.len()).sum();
        assert_eq!(count, 0);
    }
}
