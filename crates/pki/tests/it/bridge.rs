//! Bridges, loops, and pools that are built to explode the search.

use std::{collections::BTreeSet, fs};

use pki::{
    Anchors, Aspect, CertRejection, Finding, Limits, Oid, Pool, Refusal, Terms, Usage, Validation,
    Verdict, validate,
};

use crate::{
    corpus::Dice,
    forge::{
        MAPPINGS, NAME_CONSTRAINTS, Name, POLICIES, Plan, mappings, name_constraints, policies,
    },
    support::{NOW, openssl, write_pem},
};

/// Two PKIs, each with policies of its own, that meet at a bridge. We trust A.
struct Bridge {
    root: Vec<u8>,
    pool: Vec<Vec<u8>>,
}

const POLICY: u8 = 1;

impl Bridge {
    fn new() -> Self {
        let root = Plan::root("A/Root A", 0).make();
        // A's policy 1 is the bridge's 2, which is B's 3.
        let to_bridge = Plan::ca("Bridge/Bridge", 1, "A/Root A", 0)
            .with(&POLICIES, false, policies(&[POLICY]))
            .with(&MAPPINGS, true, mappings(&[(POLICY, 2)]));
        let to_b = Self::to_b().with(
            &NAME_CONSTRAINTS,
            true,
            name_constraints(&[Name::Organization("B")], &[]),
        );
        let ca = Plan::ca("B/CA B", 3, "B/Root B", 2).with(&POLICIES, false, policies(&[3]));
        // And the way back, which makes loops.
        let back = Plan::ca("Bridge/Bridge", 1, "B/Root B", 2);
        let to_a = Plan::ca("A/Root A", 0, "Bridge/Bridge", 1);
        let own = Plan::root("B/Root B", 2);
        let pool = [to_bridge, to_b, ca, back, to_a, own].iter().map(Plan::make).collect();
        Self { root, pool }
    }

    fn to_b() -> Plan {
        Plan::ca("B/Root B", 2, "Bridge/Bridge", 1).with(&POLICIES, false, policies(&[2])).with(
            &MAPPINGS,
            true,
            mappings(&[(2, 3)]),
        )
    }

    fn leaf(name: &str, policy: u8) -> Vec<u8> {
        Plan::new(name, 4, "B/CA B", 3).with(&POLICIES, false, policies(&[policy])).make()
    }

    fn judge(&self, pool: &[Vec<u8>], leaf: &[u8]) -> Validation {
        let anchors = Anchors::new(&[&self.root]).unwrap();
        let mut terms = Terms::new(NOW, Usage::Any);
        terms.policies = BTreeSet::from([Oid::new_unwrap("1.2.3.1")]);
        terms.require_policy = true;
        validate(leaf, &Pool::new(pool).unwrap(), &anchors, None, &terms).unwrap()
    }
}

fn why(validation: &Validation) -> Option<CertRejection> {
    match validation.status().refusal() {
        Some(Refusal::Certificate(rejection)) => Some(rejection),
        _ => None,
    }
}

#[test]
fn a_path_leads_over_the_bridge_with_its_policies_mapped_and_its_names_constrained() {
    let bridge = Bridge::new();
    let good = bridge.judge(&bridge.pool, &Bridge::leaf("B/leaf", 3));
    assert_eq!(why(&good), None, "{:?}", good.status());
    assert_eq!(good.status().open().collect::<Vec<_>>(), [Aspect::RevocationStatus]);
    let subjects: Vec<_> =
        good.subjects().iter().map(|one| one.split(',').next().unwrap()).collect();
    assert_eq!(subjects, ["CN=leaf", "CN=CA B", "CN=Root B", "CN=Bridge", "CN=Root A"]);
    assert_eq!(good.policies().iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.2.3.1"]);
    let unmapped = bridge.judge(&bridge.pool, &Bridge::leaf("B/leaf", 2));
    assert_eq!(why(&unmapped), Some(CertRejection::PolicyMissing));
    let outside = bridge.judge(&bridge.pool, &Bridge::leaf("C/leaf", 3));
    assert_eq!(why(&outside), Some(CertRejection::NameNotPermitted));
    assert_eq!(outside.verdict(), Verdict::Invalid);
    // The cross-certificate dropped: not bad, but not known to be good.
    let mut dropped = bridge.pool.clone();
    dropped.remove(1);
    let lost = bridge.judge(&dropped, &Bridge::leaf("B/leaf", 3));
    assert_eq!(
        (lost.verdict(), why(&lost)),
        (Verdict::Indeterminate, Some(CertRejection::IssuerUnknown))
    );
}

#[test]
fn where_the_answer_of_openssl_depends_on_the_order_of_its_pool_ours_does_not() {
    let bridge = Bridge::new();
    let leaf = Bridge::leaf("B/leaf", 3);
    // A second cross-certificate that permits other names only.
    let names = name_constraints(&[Name::Organization("Elsewhere")], &[]);
    let wrong = Bridge::to_b().serial(9).with(&NAME_CONSTRAINTS, true, names).make();
    let dir = tempfile::tempdir().unwrap();
    write_pem(dir.path(), "root.pem", "CERTIFICATE", &bridge.root);
    write_pem(dir.path(), "leaf.pem", "CERTIFICATE", &leaf);
    let mut theirs = BTreeSet::new();
    for at in [0, bridge.pool.len()] {
        let mut pool = bridge.pool.clone();
        pool.insert(at, wrong.clone());
        assert_eq!(why(&bridge.judge(&pool, &leaf)), None);
        let pem = |der: &Vec<u8>| {
            der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap()
        };
        fs::write(dir.path().join("pool.pem"), pool.iter().map(pem).collect::<String>()).unwrap();
        let time = NOW.unix_timestamp().to_string();
        let fixed =
            ["verify", "-no-CApath", "-no-CAstore", "-attime", &time, "-CAfile", "root.pem"];
        let policy =
            ["-policy", "1.2.3.1", "-explicit_policy", "-untrusted", "pool.pem", "leaf.pem"];
        theirs.insert(openssl(dir.path(), &[&fixed[..], &policy[..]].concat()).0);
    }
    assert_eq!(theirs, BTreeSet::from([false, true]));
}

#[test]
fn the_answer_and_the_effort_are_the_same_for_every_order_of_the_pool() {
    let bridge = Bridge::new();
    let mut dice = Dice(99);
    for leaf in [Bridge::leaf("B/leaf", 3), Bridge::leaf("B/leaf", 2), Bridge::leaf("C/leaf", 3)] {
        let mut pool = bridge.pool.clone();
        pool.extend((0..6).map(|serial| Bridge::to_b().serial(serial + 20).make()));
        let first = bridge.judge(&pool, &leaf);
        for _ in 0..20 {
            for at in (1..pool.len()).rev() {
                pool.swap(at, dice.below(at + 1));
            }
            let again = bridge.judge(&pool, &leaf);
            assert_eq!(again.status(), first.status());
            assert_eq!(again.path(), first.path());
            assert_eq!(again.effort(), first.effort());
        }
    }
}

/// What a pool does to the question about `leaf`.
fn against(root: &[u8], pool: &[Vec<u8>], leaf: &[u8]) -> Validation {
    let anchors = Anchors::new(&[root]).unwrap();
    let terms = Terms::new(NOW, Usage::Any);
    validate(leaf, &Pool::new(pool).unwrap(), &anchors, None, &terms).unwrap()
}

fn bounded(validation: &Validation) {
    let (effort, limits) = (validation.effort(), Limits::default());
    assert!(effort.signatures <= limits.signatures + 1, "{effort:?}");
    assert!(effort.steps <= limits.steps + 1 && effort.paths <= limits.paths + 1, "{effort:?}");
}

#[test]
fn ten_thousand_cross_certificates_all_truly_signed_end_in_a_named_refusal_or_the_path() {
    let root = Plan::root("Org/Root", 0).make();
    // 20 CAs, each of which certified each, many times over; only the first is below the root, by
    // a certificate that permits no name of the leaf.
    let mut pool = Vec::new();
    let name = |ca: usize| format!("Mesh/CA {ca}");
    for serial in 0..10_000 {
        let (from, to) = (serial % 20, serial / 20 % 20);
        let plan = Plan::ca(&name(to), to + 1, &name(from), from + 1);
        pool.push(plan.serial(serial as u64).make());
    }
    let names = name_constraints(&[Name::Organization("Elsewhere")], &[]);
    let entrance = Plan::ca(&name(0), 1, "Org/Root", 0).with(&NAME_CONSTRAINTS, true, names).make();
    pool.push(entrance);
    let leaf = Plan::new("Org/leaf", 22, &name(7), 8).make();
    let refused = against(&root, &pool, &leaf);
    bounded(&refused);
    assert_eq!(why(&refused), Some(CertRejection::SearchTooLong));
    assert_eq!(refused.verdict(), Verdict::Indeterminate);
    // With one honest way in, the path is found, for the shortest is tried first.
    pool.push(Plan::ca(&name(7), 8, "Org/Root", 0).make());
    let found = against(&root, &pool, &leaf);
    bounded(&found);
    assert_eq!(why(&found), None);
    assert_eq!(found.path().len(), 3);
}

#[test]
fn ten_thousand_namesakes_of_the_issuer_end_in_a_named_refusal() {
    let root = Plan::root("Org/Root", 0).make();
    let mut pool = Vec::new();
    for serial in 0..10_000 {
        // The same name, as if by the root, but signed by nobody; without key identifiers.
        let mut plan = Plan::ca("Org/CA", 1, "Org/Root", 5).serial(serial);
        plan.edit = |params| params.use_authority_key_identifier_extension = false;
        pool.push(plan.make());
    }
    let leaf = Plan::new("Org/leaf", 22, "Org/CA", 1).make();
    let refused = against(&root, &pool, &leaf);
    bounded(&refused);
    assert_eq!(why(&refused), Some(CertRejection::SearchTooLong));
}

#[test]
fn loops_end() {
    let root = Plan::root("Org/Root", 0).make();
    let pool = [
        Plan::ca("Org/A", 1, "Org/B", 2).make(),
        Plan::ca("Org/B", 2, "Org/C", 3).make(),
        Plan::ca("Org/C", 3, "Org/A", 1).make(),
        Plan::ca("Org/A", 1, "Org/A", 1).make(),
    ];
    let leaf = Plan::new("Org/leaf", 22, "Org/A", 1).make();
    assert_eq!(why(&against(&root, &pool, &leaf)), Some(CertRejection::IssuerUnknown));
    let mut with_way_out = pool.to_vec();
    with_way_out.push(Plan::ca("Org/C", 3, "Org/Root", 0).make());
    let found = against(&root, &with_way_out, &leaf);
    assert_eq!((why(&found), found.path().len()), (None, 5));
}

#[test]
fn each_aspect_says_what_it_rests_on_and_dates_are_told_apart_from_trust() {
    let root = Plan::root("Org/Root", 0).make();
    let mut old = Plan::new("Org/leaf", 22, "Org/Root", 0);
    old.until = NOW - time::Duration::days(1);
    let late = against(&root, &[], &old.make());
    assert_eq!(late.verdict(), Verdict::Invalid);
    assert_eq!(late.status().bad().collect::<Vec<_>>(), [Aspect::ValidityInterval]);
    assert_eq!(late.status().good().collect::<Vec<_>>(), [Aspect::IssuerTrust, Aspect::Signature]);
    let mut forged = Plan::new("Org/leaf", 22, "Org/Root", 3);
    forged.edit = |params| params.use_authority_key_identifier_extension = false;
    let forged = against(&root, &[], &forged.make());
    assert_eq!(forged.status().bad().collect::<Vec<_>>(), [Aspect::Signature]);
    assert!(matches!(forged.status().finding(Aspect::IssuerTrust), Finding::Open(_)));
    let below = Plan::new("Org/leaf", 22, "Org/leaf", 3).make();
    let nobody = against(&root, &[], &below);
    assert_eq!(nobody.verdict(), Verdict::Indeterminate);
    assert_eq!(nobody.status().good().count(), 0);
}
