//! CRLs as evidence: each way in which one may not count, and each kind that does.

use std::time::Duration;

use pki::{
    Anchors, Aspect, Ca, CaSpec, CrlEntry, CrlPlan, CrlRejection, CrlSubjects, Evidence, Finding,
    Ground, Issued, Pool, Profile, Purpose, Refusal, Revocation, RevocationGround,
    RevocationReason, Terms, Usage, Validation, Validity, Verdict, validate,
};
use time::OffsetDateTime;

use crate::support::{DAY, NOW, day, p256, year};

struct World {
    root: Ca,
    leaf: Issued,
}

fn entry(serial: [u8; 16], reason: RevocationReason) -> CrlEntry {
    CrlEntry { revocation: Revocation { serial, at: NOW, reason }, issuer: None }
}

fn root() -> Ca {
    let spec = CaSpec { common_name: "Root".to_owned(), path_length: 1, validity: year() };
    Ca::create_root(&spec).unwrap().0
}

impl World {
    fn new() -> Self {
        let root = root();
        let profile = Profile::Client { operator: "admin".to_owned() };
        let leaf = root.issue(&profile, &p256(), year()).unwrap();
        Self { root, leaf }
    }

    fn crl(&self, plan: &CrlPlan, entries: &[CrlEntry]) -> Vec<u8> {
        self.root.issue_crl_by(plan, entries).unwrap()
    }

    fn revoked(&self, reason: RevocationReason) -> Vec<CrlEntry> {
        vec![entry(self.leaf.serial, reason)]
    }

    fn at(&self, evidence: &Evidence, at: OffsetDateTime) -> Validation {
        let anchors = Anchors::new(&[self.root.certificate()]).unwrap();
        let terms = Terms::new(at, Usage::For(Purpose::TlsClient));
        validate(&self.leaf.der, &Pool::default(), &anchors, Some(evidence), &terms).unwrap()
    }

    fn with(&self, crls: &[Vec<u8>]) -> Validation {
        self.at(&evidence(crls), NOW)
    }
}

fn evidence(crls: &[Vec<u8>]) -> Evidence {
    let mut evidence = Evidence::new();
    crls.iter().for_each(|crl| evidence.add_crl(crl).unwrap());
    evidence
}

fn refused(validation: &Validation) -> Option<CrlRejection> {
    match validation.refusal() {
        Some(Refusal::Crl(rejection)) => Some(rejection),
        _ => None,
    }
}

const KEY: RevocationReason = RevocationReason::KeyCompromise;

#[test]
fn without_a_crl_that_counts_nothing_is_valid_and_the_refusal_says_why() {
    let (world, other) = (World::new(), World::new());
    let none = world.with(&[]);
    assert_eq!(
        (none.verdict(), refused(&none)),
        (Verdict::Indeterminate, Some(CrlRejection::Missing))
    );
    let wrong = other.crl(&CrlPlan::full(1, day()), &[]);
    // Of the same name, but its key identifier is another's: nobody here signed it.
    assert_eq!(refused(&world.with(&[wrong.clone()])), Some(CrlRejection::Issuer));
    // Somebody brings the certificate of that other one: it signed it, and no path leads to it.
    let pool = Pool::new([other.root.certificate()]).unwrap();
    let anchors = Anchors::new(&[world.root.certificate()]).unwrap();
    let terms = Terms::new(NOW, Usage::For(Purpose::TlsClient));
    let crls = evidence(&[wrong]);
    let unproven = validate(&world.leaf.der, &pool, &anchors, Some(&crls), &terms).unwrap();
    let why = refused(&unproven).map(CrlRejection::code);
    assert_eq!((unproven.verdict(), why), (Verdict::Indeterminate, Some("crl-issuer-unproven")));
    let good = world.crl(&CrlPlan::full(1, day()), &[]);
    assert_eq!(world.with(&[good.clone()]).verdict(), Verdict::Valid);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&world.with(&[forged])), Some(CrlRejection::Signature));
    let late = world.at(&evidence(&[good.clone()]), NOW + 2 * DAY);
    assert_eq!(refused(&late), Some(CrlRejection::Stale));
    let early = world
        .at(&evidence(&[world.crl(&CrlPlan::full(1, Validity::new(NOW + DAY, DAY)), &[])]), NOW);
    assert_eq!(refused(&early), Some(CrlRejection::Stale));
    // Without evidence nothing was checked, and nobody says otherwise.
    let anchors = Anchors::new(&[world.root.certificate()]).unwrap();
    let terms = Terms::new(NOW, Usage::Any);
    let bare = validate(&world.leaf.der, &Pool::default(), &anchors, None, &terms).unwrap();
    assert_eq!(bare.verdict(), Verdict::Indeterminate);
    assert_eq!(bare.status().open().collect::<Vec<_>>(), [Aspect::RevocationStatus]);
    assert_eq!(bare.refusal(), Some(Refusal::NotChecked));
}

#[test]
fn a_grace_is_said_where_it_was_used() {
    let world = World::new();
    let crl = world.crl(&CrlPlan::full(1, day()), &[]);
    let mut evidence = Evidence::new().with_grace(Duration::from_secs(3600));
    evidence.add_crl(&crl).unwrap();
    let ground = |at| {
        let validation = world.at(&evidence, at);
        match validation.status().finding(Aspect::RevocationStatus) {
            Finding::Good(Ground::NotRevoked(grounds)) => Some(grounds[0]),
            _ => None,
        }
    };
    assert_eq!(ground(NOW), Some(RevocationGround::Crl(NOW)));
    let late = NOW + DAY + Duration::from_secs(1800);
    assert_eq!(ground(late), Some(RevocationGround::CrlInGrace(NOW)));
    assert_eq!(ground(NOW + DAY + Duration::from_secs(3601)), None);
}

#[test]
fn a_crl_that_goes_back_is_refused_once_a_newer_one_was_seen() {
    let world = World::new();
    let (old, new) = (
        world.crl(&CrlPlan::full(1, day()), &[]),
        world.crl(&CrlPlan::full(2, day()), &world.revoked(KEY)),
    );
    assert_eq!(world.with(&[old.clone()]).verdict(), Verdict::Valid);
    let seen = world.with(&[new]);
    assert_eq!(seen.verdict(), Verdict::Invalid);
    let Some(Refusal::Revoked(revoked)) = seen.refusal() else { panic!() };
    assert_eq!((revoked.depth, revoked.reason), (0, Some(KEY)));
    // A revocation that was found says nothing about the series; a valid answer does.
    let newest = world.with(&[world.crl(&CrlPlan::full(3, day()), &[])]);
    let mut evidence = evidence(&[old]);
    evidence.remember(newest.crl_marks().to_vec());
    assert_eq!(refused(&world.at(&evidence, NOW)), Some(CrlRejection::RolledBack));
    // A forged number does not move the mark.
    let mut forged = world.crl(&CrlPlan::full(9, day()), &[]);
    *forged.last_mut().unwrap() ^= 1;
    assert!(world.with(&[forged]).crl_marks().is_empty());
}

#[test]
fn a_delta_adds_to_a_full_crl_in_date_and_to_nothing_else() {
    let world = World::new();
    let base = world.crl(&CrlPlan::full(1, day()), &[]);
    let delta = world.crl(&CrlPlan::delta(2, 1, day()), &world.revoked(KEY));
    let alone = world.with(&[delta.clone()]);
    assert_eq!(refused(&alone), Some(CrlRejection::BaseMissing));
    assert_eq!(world.with(&[base.clone()]).verdict(), Verdict::Valid);
    assert_eq!(world.with(&[base.clone(), delta.clone()]).verdict(), Verdict::Invalid);
    // Based on a full CRL that is newer than the one at hand.
    let gap = world.crl(&CrlPlan::delta(5, 4, day()), &world.revoked(KEY));
    assert_eq!(world.with(&[base.clone(), gap]).verdict(), Verdict::Valid);
    // In date itself, but the full one is not.
    let stale = world.crl(&CrlPlan::full(1, Validity::backdated(NOW - 2 * DAY, DAY, DAY)), &[]);
    let fresh = world.crl(&CrlPlan::delta(2, 1, day()), &[]);
    assert_eq!(refused(&world.with(&[stale, fresh])), Some(CrlRejection::Stale));
    // Suspended, and released again.
    let held =
        world.crl(&CrlPlan::full(1, day()), &world.revoked(RevocationReason::CertificateHold));
    assert_eq!(world.with(&[held.clone()]).verdict(), Verdict::Invalid);
    let released =
        world.crl(&CrlPlan::delta(2, 1, day()), &world.revoked(RevocationReason::RemoveFromCrl));
    assert_eq!(world.with(&[held, released]).verdict(), Verdict::Valid);
}

#[test]
fn a_crl_speaks_only_within_its_scope() {
    let world = World::new();
    let scoped = |edit: fn(&mut CrlPlan)| {
        let mut plan = CrlPlan::full(1, day());
        edit(&mut plan);
        world.crl(&plan, &[])
    };
    let cas = scoped(|plan| plan.subjects = CrlSubjects::Cas);
    assert_eq!(refused(&world.with(&[cas])), Some(CrlRejection::Missing));
    let users = scoped(|plan| plan.subjects = CrlSubjects::Users);
    assert_eq!(world.with(&[users]).verdict(), Verdict::Valid);
    let some = scoped(|plan| plan.reasons = vec![RevocationReason::KeyCompromise]);
    assert_eq!(refused(&world.with(&[some.clone()])), Some(CrlRejection::ReasonsUncovered));
    let rest = scoped(|plan| {
        use RevocationReason as R;
        plan.reasons = vec![
            R::CaCompromise,
            R::AffiliationChanged,
            R::Superseded,
            R::CessationOfOperation,
            R::CertificateHold,
            R::PrivilegeWithdrawn,
            R::AaCompromise,
        ];
    });
    assert_eq!(world.with(&[some, rest]).verdict(), Verdict::Valid);
    // Of a distribution point that the certificate does not name.
    let point = scoped(|plan| plan.point = Some("http://localhost/a.crl".to_owned()));
    assert_eq!(refused(&world.with(&[point])), Some(CrlRejection::Missing));
    // Indirect, but it is the issuer's own.
    let indirect = scoped(|plan| plan.indirect = true);
    assert_eq!(world.with(&[indirect]).verdict(), Verdict::Valid);
}

#[test]
fn the_answer_does_not_depend_on_the_order_of_the_crls() {
    let world = World::new();
    let crls = [
        world.crl(&CrlPlan::full(1, day()), &[]),
        world.crl(&CrlPlan::full(2, day()), &world.revoked(KEY)),
        world.crl(&CrlPlan::delta(3, 1, day()), &[]),
        world.crl(&CrlPlan::full(4, Validity::new(NOW + DAY, DAY)), &[]),
    ];
    for first in 0..crls.len() {
        let mut turned = crls.to_vec();
        turned.rotate_left(first);
        assert_eq!(world.with(&turned).verdict(), Verdict::Invalid);
        turned.reverse();
        assert_eq!(world.with(&turned).verdict(), Verdict::Invalid);
    }
}
