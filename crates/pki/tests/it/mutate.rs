//! Certificates that were altered: never a panic, and never accepted.

use std::sync::LazyLock;

use pki::{Anchors, Crl, Purpose, verify_chain};
use proptest::prelude::*;

use crate::support::{NOW, Pki, day, p256, profiles};

struct Sample {
    leaf: Vec<u8>,
    sub: Vec<u8>,
    crl: Vec<u8>,
    anchors: Anchors,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let pki = Pki::new();
    let [.., host_ek] = profiles();
    Sample {
        leaf: pki.sub.issue(&host_ek, &p256(), day()).unwrap().der,
        sub: pki.sub.certificate().to_vec(),
        crl: pki.sub.issue_crl(1, day(), &[]).unwrap(),
        anchors: pki.anchors(),
    }
});

fn accepted(leaf: &[u8], sub: &[u8]) -> bool {
    verify_chain(leaf, &[sub], &SAMPLE.anchors, NOW, Purpose::EndorsementKey).is_ok()
}

fn altered(der: &[u8], at: prop::sample::Index, bits: u8) -> Vec<u8> {
    let mut der = der.to_vec();
    let at = at.index(der.len());
    der[at] ^= bits;
    der
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_altered_leaf_or_issuer_is_never_accepted(at: prop::sample::Index, bits in 1_u8..) {
        prop_assert!(!accepted(&altered(&SAMPLE.leaf, at, bits), &SAMPLE.sub));
        prop_assert!(!accepted(&SAMPLE.leaf, &altered(&SAMPLE.sub, at, bits)));
    }

    #[test]
    fn a_cut_or_grown_leaf_is_never_accepted(at: prop::sample::Index, more: Vec<u8>) {
        let cut = &SAMPLE.leaf[..at.index(SAMPLE.leaf.len())];
        prop_assert!(!accepted(cut, &SAMPLE.sub));
        let joined = [cut, &more].concat();
        prop_assert!(joined == SAMPLE.leaf || !accepted(&joined, &SAMPLE.sub));
    }

    #[test]
    fn an_altered_crl_is_never_believed(at: prop::sample::Index, bits in 1_u8..) {
        prop_assert!(Crl::verify(&altered(&SAMPLE.crl, at, bits), &SAMPLE.sub, NOW).is_err());
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(!accepted(&noise, &noise));
        prop_assert!(Crl::verify(&noise, &noise, NOW).is_err());
    }
}

#[test]
fn the_unaltered_sample_is_accepted() {
    assert!(accepted(&SAMPLE.leaf, &SAMPLE.sub));
}
