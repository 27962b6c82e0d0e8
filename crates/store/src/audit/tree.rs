//! The Merkle tree of RFC 6962 section 2.1: leaves are `H(00 || entry)`, nodes `H(01 || left ||
//! right)`, H is SHA-256. All complete subtrees are kept, 64 bytes an entry, so that any older
//! root and any proof takes time logarithmic in the size.

use std::ops::Range;

use model::Digest;

use super::TreeHead;
use crate::engine::record::hash;

/// A hash of a leaf or node.
pub type Hash = [u8; 32];

/// Hash of an entry's bytes.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    hash(&[&[0], entry])
}

/// Hash of two subtrees.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

/// Where a range of leaves is split: the largest power of two below its length.
const fn split(len: u64) -> u64 {
    let mut half = 1;
    while half < len - half {
        half *= 2;
    }
    half
}

/// A tree that only grows.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Hashes of the complete subtrees with 2^level leaves.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// A tree of these leaf hashes.
    #[must_use]
    pub fn from_leaves(leaves: impl IntoIterator<Item = Hash>) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| u64::try_from(leaves.len()).unwrap_or(u64::MAX))
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(row) = self.levels.get_mut(level) else { return };
            row.push(hash);
            if row.len() % 2 == 1 {
                return;
            }
            let mut last = row.iter().rev();
            let (Some(right), Some(left)) = (last.next(), last.next()) else { return };
            hash = node_hash(left, right);
            level += 1;
        }
    }

    /// The hash of leaf `index`.
    #[must_use]
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.node(0, index)
    }

    /// The leaf hashes, in order.
    #[must_use]
    pub fn leaves(&self) -> &[Hash] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    fn node(&self, level: u32, index: u64) -> Option<Hash> {
        let row = self.levels.get(usize::try_from(level).ok()?)?;
        row.get(usize::try_from(index).ok()?).copied()
    }

    /// Size and root.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        let size = self.size();
        let root = self.root_at(size).unwrap_or_else(|| hash(&[]));
        TreeHead { size, root: Digest::sha256(root) }
    }

    /// Root over the first `size` leaves; `None` if there are fewer.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        if size == 0 { Some(hash(&[])) } else { self.subtree(0..size) }
    }

    fn subtree(&self, range: Range<u64>) -> Option<Hash> {
        let len = range.end.checked_sub(range.start).filter(|len| *len > 0)?;
        if len.is_power_of_two() && range.start.is_multiple_of(len) {
            return self.node(len.trailing_zeros(), range.start / len);
        }
        let middle = range.start + split(len);
        let left = self.subtree(range.start..middle)?;
        Some(node_hash(&left, &self.subtree(middle..range.end)?))
    }

    /// Proof that leaf `index` is among the first `size` (RFC 6962 section 2.1.1); `None` if it is
    /// not.
    #[must_use]
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.size() {
            return None;
        }
        let mut proof = Vec::new();
        let mut range = 0..size;
        while range.end - range.start > 1 {
            let middle = range.start + split(range.end - range.start);
            let (here, other) = if index < middle {
                (range.start..middle, middle..range.end)
            } else {
                (middle..range.end, range.start..middle)
            };
            proof.push(self.subtree(other)?);
            range = here;
        }
        proof.reverse();
        Some(proof)
    }

    /// Proof that the first `old` leaves are the beginning of the first `new` (RFC 6962 section
    /// 2.1.2); `None` if there are fewer.
    #[must_use]
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        if old > new || new > self.size() {
            return None;
        }
        if old == 0 || old == new {
            return Some(Vec::new());
        }
        let mut proof = Vec::new();
        let (mut range, mut whole) = (0..new, true);
        while range.end != old {
            let middle = range.start + split(range.end - range.start);
            if old <= middle {
                proof.push(self.subtree(middle..range.end)?);
                range = range.start..middle;
            } else {
                proof.push(self.subtree(range.start..middle)?);
                range = middle..range.end;
                whole = false;
            }
        }
        if !whole {
            proof.push(self.subtree(range)?);
        }
        proof.reverse();
        Some(proof)
    }
}

/// Whether `proof` shows that the leaf with hash `leaf` has this index under `head`
/// (RFC 9162 section 2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, head: &TreeHead, proof: &[Hash]) -> bool {
    if index >= head.size {
        return false;
    }
    let (mut node, mut last) = (index, head.size - 1);
    let mut root = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            root = node_hash(sibling, &root);
            while node % 2 == 0 && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            root = node_hash(&root, sibling);
        }
        node /= 2;
        last /= 2;
    }
    last == 0 && Digest::sha256(root) == head.root
}

/// Whether `proof` shows that `old` is the beginning of `new` (RFC 9162 section 2.1.4.2).
#[must_use]
pub fn verify_consistency(old: &TreeHead, new: &TreeHead, proof: &[Hash]) -> bool {
    if old.size == 0 {
        return proof.is_empty() && old.root == Digest::sha256(hash(&[]));
    }
    if old.size >= new.size {
        return old == new && proof.is_empty();
    }
    let (mut node, mut last) = (old.size - 1, new.size - 1);
    while node % 2 == 1 {
        node /= 2;
        last /= 2;
    }
    let mut rest = proof.iter();
    let seed = if old.size.is_power_of_two() {
        <[u8; 32]>::try_from(old.root.as_bytes()).ok()
    } else {
        rest.next().copied()
    };
    let Some(seed) = seed else { return false };
    let (mut first, mut second) = (seed, seed);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            first = node_hash(sibling, &first);
            second = node_hash(sibling, &second);
            while node % 2 == 0 && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            second = node_hash(&second, sibling);
        }
        node /= 2;
        last /= 2;
    }
    last == 0 && Digest::sha256(first) == old.root && Digest::sha256(second) == new.root
}

#[cfg(test)]
mod tests;
