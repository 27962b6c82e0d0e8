//! The tree against the reference vectors and the definition.

use proptest::prelude::*;

use super::*;

/// The definition of RFC 6962 section 2.1, as plainly as it can be written.
fn mth(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => hash(&[]),
        [one] => leaf_hash(one),
        many => {
            let mut k = 1;
            while k * 2 < many.len() {
                k *= 2;
            }
            node_hash(&mth(&many[..k]), &mth(&many[k..]))
        }
    }
}

/// The leaves of the certificate-transparency reference tests, and the roots over the first n.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn tree_of(entries: &[Vec<u8>]) -> Tree {
    Tree::from_leaves(entries.iter().map(|entry| leaf_hash(entry)))
}

fn head_at(tree: &Tree, size: u64) -> TreeHead {
    TreeHead { size, root: Digest::sha256(tree.root_at(size).unwrap()) }
}

#[test]
fn the_roots_are_those_of_the_reference_tests() {
    let entries: Vec<Vec<u8>> = LEAVES.iter().map(|leaf| hex::decode(leaf).unwrap()).collect();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(hex::encode(mth(&entries[..size])), *root, "definition, size {size}");
        let tree = tree_of(&entries);
        assert_eq!(hex::encode(tree.root_at(size as u64).unwrap()), *root, "tree, size {size}");
    }
}

#[test]
fn the_inclusion_proof_of_the_reference_tests() {
    let entries: Vec<Vec<u8>> = LEAVES.iter().map(|leaf| hex::decode(leaf).unwrap()).collect();
    let proof = tree_of(&entries).inclusion(0, 8).unwrap();
    let proof: Vec<String> = proof.iter().map(hex::encode).collect();
    assert_eq!(
        proof,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
}

#[test]
fn every_proof_of_small_trees_verifies_and_no_other_place_does() {
    let entries: Vec<Vec<u8>> = (0..33_u8).map(|n| vec![n]).collect();
    let tree = tree_of(&entries);
    for new in 0..=33_u64 {
        let head = head_at(&tree, new);
        for old in 0..=new {
            let proof = tree.consistency(old, new).unwrap();
            assert!(verify_consistency(&head_at(&tree, old), &head, &proof), "{old} to {new}");
            if old > 0 && old < new {
                let other = TreeHead { size: old, root: Digest::sha256([9; 32]) };
                assert!(!verify_consistency(&other, &head, &proof), "{old} to {new}");
            }
        }
        for index in 0..new {
            let proof = tree.inclusion(index, new).unwrap();
            let leaf = tree.leaf(index).unwrap();
            assert!(verify_inclusion(&leaf, index, &head, &proof), "{index} of {new}");
            for wrong in (0..=new).filter(|wrong| *wrong != index) {
                assert!(!verify_inclusion(&leaf, wrong, &head, &proof), "{index} as {wrong}");
            }
        }
    }
}

proptest! {
    #[test]
    fn roots_are_those_of_the_definition(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..200), at in any::<prop::sample::Index>()) {
        let size = at.index(entries.len() + 1);
        let tree = tree_of(&entries);
        prop_assert_eq!(tree.root_at(size as u64), Some(mth(&entries[..size])));
    }

    #[test]
    fn arbitrary_proofs_never_panic(index in any::<u64>(), size in any::<u64>(), old in any::<u64>(), proof in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        let head = TreeHead { size, root: Digest::sha256([1; 32]) };
        prop_assert!(!verify_inclusion(&[0; 32], index, &head, &proof));
        let old = TreeHead { size: old, root: Digest::sha256([2; 32]) };
        prop_assert!(!verify_consistency(&old, &head, &proof));
    }
}
