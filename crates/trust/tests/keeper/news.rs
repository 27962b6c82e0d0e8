//! News of the centre, in the manner `hybrid`: lists, revocations, migrations; and what it answers no
//! question with.

use std::{sync::Arc, time::Duration};

use model::{
    api::Bytes,
    centre::MigrationStage,
    keys::{
        Anchor, Query, StatusValue,
        order::KeyFailure,
        rpc::{KeyAnswer, KeyRequest},
    },
};
use serve::{
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
};
use trust::keeper::{Keeper, Manner};

use crate::{
    centre::{ask_by, attended, collected, eventually, rig, settings},
    fake::Fake,
    migrate::{announce, incoming, migrate, next, owned, settle},
    support::{Rig, by_certificate, by_key, key, named, prototype},
};

#[test]
fn what_the_pki_revokes_by_itself_is_revoked_here() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    let pair = key();
    let binding = rig.register("bob", &pair);
    fake.revoke_by_itself(&binding.certificates[0]);
    eventually(|| (rig.verdict(by_key(&pair)) == StatusValue::Invalid).then_some(()));
}

#[test]
fn what_the_crl_of_a_ca_below_the_anchor_names_is_revoked_here() {
    let fake = Arc::new(Fake::below_a_root());
    let rig = Rig::at_centre(settings(Manner::Hybrid), fake.clone());
    let _stop = attended(&rig);
    assert_eq!(rig.failure(KeyRequest::Crl), KeyFailure::NotSupported);
    assert_eq!(rig.last_refusal(), "crl-not-there");
    let keys = [key(), key(), key()];
    let names = ["bob", "carol", "dave"];
    let certificates: Vec<_> = names
        .iter()
        .zip(&keys)
        .map(|(name, pair)| rig.register(name, pair).certificates[0].clone())
        .collect();
    let ends = |pair: &SigningKey| {
        eventually(|| (rig.verdict(by_key(pair)) == StatusValue::Invalid).then_some(()));
    };
    fake.publish(1, &[]);
    fake.publish(2, &[&certificates[0]]);
    ends(&keys[0]);
    assert_eq!(rig.verdict(by_key(&keys[1])), StatusValue::Valid);
    // After news were missed too: then all that the list names is looked at.
    fake.forget_news();
    fake.publish(3, &[&certificates[0], &certificates[1]]);
    ends(&keys[1]);
    assert_eq!(rig.verdict(by_key(&keys[2])), StatusValue::Valid);
    let crl = rig.published(KeyRequest::Crl);
    assert!(pki::Crl::verify(&crl, &fake.between()[0].0, time::OffsetDateTime::now_utc()).is_ok());
}

#[test]
fn keys_that_arrive_are_compared_with_the_lists_that_are_here() {
    let (a, fake, _stop_a) = rig(Manner::Hybrid);
    let b = Rig::at_centre(settings(Manner::Hybrid), fake.clone());
    let (bob, carol) = (key(), key());
    for (name, pair) in [("bob", &bob), ("carol", &carol)] {
        let phrase = a.authorize_as(owned(name, "v1")).unwrap();
        a.register_by(&phrase, &prototype(name, Some(pair)), Some(pair)).unwrap();
    }
    let certificate = a.locate(by_key(&bob)).bindings[0].certificates[0].clone();
    // The list comes to the other service before the keys do.
    fake.publish(1, &[&certificate]);
    let _stop_b = attended(&b);
    eventually(|| matches!(b.keeper.serve(KeyRequest::Crl), KeyAnswer::Published(_)).then_some(()));
    for rig in [&a, &b] {
        rig.keeper.moves(Arc::default());
    }
    announce(&b, "v1", ("a", None));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!(b.verdict(by_key(&bob)), StatusValue::Invalid);
    assert_eq!(b.verdict(by_key(&carol)), StatusValue::Valid);
}

#[test]
fn an_order_and_a_revocation_are_not_lost_while_keys_move_between_two_such_services() {
    let (a, fake, _stop_a) = rig(Manner::Hybrid);
    let b = Rig::at_centre(settings(Manner::Hybrid), fake.clone());
    let _stop_b = attended(&b);
    for rig in [&a, &b] {
        rig.keeper.moves(Arc::default());
    }
    let (bob, carol) = (key(), key());
    let phrase = a.authorize_as(owned("bob", "v1")).unwrap();
    let done = a.register_by(&phrase, &prototype("bob", Some(&bob)), Some(&bob)).unwrap();
    let certificate = done.bindings[0].certificates[0].clone();
    let phrase = a.authorize_as(owned("carol", "v1")).unwrap();
    fake.away(true);
    let under = ask_by(&a, ("carol", &phrase), &carol, "1");
    announce(&b, "v1", ("a", None));
    migrate(&a, "v1", "b").unwrap();
    let mut said = 0;
    while let Some(statement) = next(&a, "v1", "a") {
        let answer = incoming(&b, &statement, "b", true).unwrap();
        a.keeper.heard("v1", &answer, true).unwrap();
        said += 1;
        if said == 1 {
            // The parcel is on its way: what becomes known now finds nothing that may change.
            fake.away(false);
            fake.revoke_by_itself(&certificate);
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!collected(&a, &under));
        }
    }
    // The old service has nothing of its own to say any more.
    let knowledge = a.locate(named("bob")).knowledge.unwrap();
    assert!(matches!(knowledge.anchor, Anchor::Ca(_)));
    assert_eq!(b.verdict(by_certificate(&certificate)), StatusValue::Invalid);
    eventually(|| collected(&b, &under).then_some(()));
    assert_eq!(b.verdict(by_key(&carol)), StatusValue::Valid);
    assert_eq!(fake.certificates_of(&carol), 1);
}

#[test]
fn a_migration_that_the_centre_orders_is_begun_once_and_reported() {
    let (a, fake, _stop_a) = rig(Manner::Hybrid);
    let b = Rig::at_centre(settings(Manner::Hybrid), fake.clone());
    a.keeper.moves(Arc::default());
    b.keeper.moves(Arc::default());
    let bob = key();
    let phrase = a.authorize_as(owned("bob", "v1")).unwrap();
    a.register_by(&phrase, &prototype("bob", Some(&bob)), Some(&bob)).unwrap();
    announce(&b, "v1", ("a", None));
    let id = fake.order_migration("v1", ("a", "b"));
    fake.order_migration("v1", ("a", "b"));
    let first = eventually(|| next(&a, "v1", "a"));
    assert_eq!(first.id, id);
    settle(&a, &b, "v1", ("a", "b"));
    eventually(|| fake.reports().contains(&(id, MigrationStage::Active)).then_some(()));
    assert_eq!(b.locate(named("bob")).knowledge.unwrap().anchor, Anchor::TrustService);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        fake.reports().iter().filter(|(_, stage)| *stage == MigrationStage::Active).count(),
        1
    );
    assert!(!a.refusals().contains(&"owner-moved".to_owned()));
}

#[test]
fn what_the_centre_does_not_answer_now_or_at_all_has_its_name() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    let ask = |name: &str| {
        let query = Query { binding: named(name), instant: None, limit: 1 };
        let failure = rig.failure(KeyRequest::Locate(query));
        (failure, rig.last_refusal())
    };
    fake.busy(true);
    assert_eq!(ask("x"), (KeyFailure::Busy, "centre-busy".to_owned()));
    fake.busy(false);
    fake.refuse("tenant-unknown");
    assert_eq!(ask("y"), (KeyFailure::Refused, "centre-refused".to_owned()));
    // What only a CA of its own can do.
    for request in [KeyRequest::Ocsp(Bytes(vec![0])), KeyRequest::DeltaCrl] {
        assert_eq!(rig.failure(request), KeyFailure::NotSupported);
        assert_eq!(rig.last_refusal(), "issued-elsewhere");
    }
}

#[test]
fn a_first_start_does_not_wait_for_what_will_not_come() {
    let begun = SystemClock.monotonic();
    let open = |fake: &Arc<Fake>| {
        let (dir, clock) = (tempfile::tempdir().unwrap(), SystemClock::shared());
        let fake: Arc<dyn trust::keeper::Centre> = fake.clone();
        let error = Keeper::open_with(
            settings(Manner::Hybrid),
            dir.path(),
            clock,
            (Some(fake), anchor::Anchoring::none()),
        );
        serve::exit::chain(&error.unwrap_err())
    };
    let fake = Arc::new(Fake::new());
    fake.want_requests();
    assert!(open(&fake).contains("PKCS #10"));
    let fake = Arc::new(Fake::new());
    fake.refuse("tenant-unknown");
    assert!(open(&fake).contains("tenant-unknown"));
    assert!(SystemClock.monotonic() - begun < Duration::from_secs(120));
}
