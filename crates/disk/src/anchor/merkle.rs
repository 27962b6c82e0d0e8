//! A Merkle tree over a list of records, as in RFC 9162, section 2.1: leaves and nodes hashed with
//! different first bytes, so that neither passes for the other.

use aws_lc_rs::digest;
use model::Digest;

/// What shows that a record is in the list behind a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Position of the record.
    pub index: usize,
    /// Records in the list.
    pub total: usize,
    /// The siblings on the way to the root, lowest first.
    pub siblings: Vec<Digest>,
}

/// The root over `leaves`, each the bytes of one record.
pub(super) fn root(leaves: &[Vec<u8>]) -> Digest {
    match leaves {
        [] => hash(&[]),
        [one] => leaf_digest(one),
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node_digest(&root(left), &root(right))
        }
    }
}

/// The proof of the record at `index`, if there is one.
pub(super) fn proof(leaves: &[Vec<u8>], index: usize) -> Option<Proof> {
    let mut siblings = Vec::new();
    let mut rest = leaves;
    let mut at = index;
    if index >= leaves.len() {
        return None;
    }
    while rest.len() > 1 {
        let (left, right) = rest.split_at(split(rest.len()));
        if at < left.len() {
            siblings.push(root(right));
            rest = left;
        } else {
            siblings.push(root(left));
            at -= left.len();
            rest = right;
        }
    }
    siblings.reverse();
    Some(Proof { index, total: leaves.len(), siblings })
}

/// Whether `proof` shows that `record` is in the list behind `root`.
#[must_use]
pub fn verify_proof(record: &[u8], proof: &Proof, root: &Digest) -> bool {
    if proof.index >= proof.total {
        return false;
    }
    // The turns on the way down, to be gone up again.
    let mut turns = Vec::new();
    let (mut at, mut total) = (proof.index, proof.total);
    while total > 1 {
        let left = split(total);
        turns.push(at >= left);
        (at, total) = if at < left { (at, left) } else { (at - left, total - left) };
    }
    if turns.len() != proof.siblings.len() {
        return false;
    }
    let mut digest = leaf_digest(record);
    for (right, sibling) in turns.iter().rev().zip(&proof.siblings) {
        digest = if *right { node_digest(sibling, &digest) } else { node_digest(&digest, sibling) };
    }
    digest == *root
}

/// The largest power of two below `total`, which is at least 2.
fn split(total: usize) -> usize {
    total.next_power_of_two() / 2
}

fn leaf_digest(record: &[u8]) -> Digest {
    hash(&[&[0], record].concat())
}

fn node_digest(left: &Digest, right: &Digest) -> Digest {
    hash(&[&[1], left.as_bytes(), right.as_bytes()].concat())
}

fn hash(bytes: &[u8]) -> Digest {
    let hash = digest::digest(&digest::SHA256, bytes);
    Digest::sha256(hash.as_ref().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(total: usize) -> Vec<Vec<u8>> {
        (0..total).map(|i| vec![u8::try_from(i).unwrap(); 3]).collect()
    }

    #[test]
    fn every_record_of_every_list_has_a_proof_and_no_other_record_has_it() {
        for total in 1..20 {
            let list = leaves(total);
            let top = root(&list);
            for (index, record) in list.iter().enumerate() {
                let shown = proof(&list, index).unwrap();
                assert!(verify_proof(record, &shown, &top));
                assert!(!verify_proof(b"other", &shown, &top));
                let moved = Proof { index: (index + 1) % total, ..shown.clone() };
                assert!(total == 1 || !verify_proof(record, &moved, &top), "{index} of {total}");
                let cut = Proof { siblings: Vec::new(), ..shown };
                assert!(total == 1 || !verify_proof(record, &cut, &top));
            }
            assert_eq!(proof(&list, total), None);
        }
    }

    #[test]
    fn a_node_does_not_pass_for_a_record() {
        let list = leaves(2);
        let (a, b) = (leaf_digest(&list[0]), leaf_digest(&list[1]));
        let node = [[1].as_slice(), a.as_bytes(), b.as_bytes()];
        assert_ne!(root(&[node.concat()]), root(&list));
    }
}
