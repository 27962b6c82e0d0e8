//! The manner `hybrid`: a keeper without a CA, in front of a centre in this process.

use std::{sync::Arc, time::Duration};

use model::keys::{
    Anchor, KeyExample, Query, StatusValue,
    admin::{AdminReply, AdminRequest},
    order::{KeyFailure, KeyOperation, KeyOutcome, Order, Receipt},
    rpc::{Collected, KeyAnswer, KeyRequest},
};
use serve::{keys::SigningKey, shutdown::Shutdown};
use trust::keeper::{AtCentre, Keeper, Manner, Settings};

use crate::{
    fake::Fake,
    support::{Rig, alone, by_key, held, key, named, open_settings, order, prototype, receipt},
};

pub(crate) fn settings(manner: Manner) -> Settings {
    let centre = AtCentre {
        url: "https://127.0.0.1:1".to_owned(),
        tenant: "acme".parse().unwrap(),
        domain: "own".parse().unwrap(),
        max_age_s: 300,
        negative_age_s: 10,
        wait_s: 5,
        questions_at_once: 4,
    };
    Settings { manner: Some(manner), centre: Some(centre), ..open_settings() }
}

pub(crate) fn attended(rig: &Rig) -> Shutdown {
    let stop = Shutdown::new();
    rig.keeper.attend_centre(&stop).unwrap();
    stop
}

pub(crate) fn rig(manner: Manner) -> (Rig, Arc<Fake>, Shutdown) {
    let fake = Arc::new(Fake::new());
    let rig = Rig::at_centre(settings(manner), fake.clone());
    let stop = attended(&rig);
    (rig, fake, stop)
}

pub(crate) fn eventually<T>(what: impl Fn() -> Option<T>) -> T {
    for _ in 0..2400 {
        if let Some(value) = what() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it did not come");
}

/// Orders a registration by a client that can wait.
fn ask(rig: &Rig, name: &str, pair: &SigningKey, under: &str) -> Receipt {
    ask_by(rig, (name, &rig.authorize(name)), pair, under)
}

pub(crate) fn ask_by(
    rig: &Rig,
    (name, phrase): (&str, &str),
    pair: &SigningKey,
    under: &str,
) -> Receipt {
    let holder = rig.holder(KeyOperation::Register, &named(name), phrase).unwrap();
    let order = Order { receipt: receipt(under), may_wait: true, ..order(holder, Some(pair)) };
    let asked = prototype(name, Some(pair));
    let answer = rig.keeper.serve(KeyRequest::Register { order, asked });
    assert!(matches!(answer, KeyAnswer::Outcome(KeyOutcome::Later)), "{answer:?}");
    receipt(under)
}

pub(crate) fn collected(rig: &Rig, under: &Receipt) -> bool {
    let answer = rig.keeper.serve(KeyRequest::Collect(under.clone()));
    matches!(answer, KeyAnswer::Collected(Some(Collected::Outcome(KeyOutcome::Done(_)))))
}

#[test]
fn a_key_is_certified_by_the_centre_and_found_here_without_it() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    let pair = key();
    let binding = rig.register("bob", &pair);
    assert_eq!(binding.status.unwrap().value, StatusValue::Valid);
    assert_eq!(binding.certificates.len(), 2);
    assert_eq!(binding.certificates[1].0, fake.anchor());
    fake.away(true);
    let found = rig.validate(by_key(&pair));
    assert_eq!(found.bindings[0].status.as_ref().unwrap().value, StatusValue::Valid);
    let knowledge = found.knowledge.unwrap();
    assert_eq!((knowledge.anchor, knowledge.pki_calls), (Anchor::TrustService, 0));
    assert_eq!(fake.questions(), 0);
}

#[test]
fn knowledge_that_is_too_old_leaves_revocation_open() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    let pair = key();
    rig.register("bob", &pair);
    fake.away(true);
    rig.clock.pass(301);
    let found = rig.validate(by_key(&pair));
    let status = found.bindings[0].status.clone().unwrap();
    assert_eq!(status.value, StatusValue::Indeterminate);
    assert_eq!(status.refusal.as_deref(), Some("knowledge-too-old"));
    fake.away(false);
    eventually(|| (rig.verdict(by_key(&pair)) == StatusValue::Valid).then_some(()));
}

#[test]
fn what_another_service_registered_takes_one_call_and_then_none() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    let other = fake.certify_elsewhere("carol", &key());
    let example = KeyExample { certificates: vec![other], ..KeyExample::default() };
    for calls in [1, 0] {
        let knowledge = rig.validate(example.clone()).knowledge.unwrap();
        assert!(matches!(knowledge.anchor, Anchor::Ca(_)));
        assert_eq!(knowledge.pki_calls, calls);
    }
    assert_eq!(fake.questions(), 1);
    // That there is nothing is remembered too, for a shorter time.
    assert!(rig.locate(named("nobody")).bindings.is_empty());
    assert!(rig.locate(named("nobody")).bindings.is_empty());
    assert_eq!(fake.questions(), 2);
    rig.clock.pass(11);
    assert!(rig.locate(named("nobody")).bindings.is_empty());
    assert_eq!(fake.questions(), 3);
}

#[test]
fn one_example_is_asked_once_however_many_ask() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    fake.slow(Duration::from_millis(300));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| rig.locate(named("nobody")));
        }
    });
    assert_eq!(fake.questions(), 1);
}

#[test]
fn an_order_waits_while_the_centre_is_away_and_survives_a_restart() {
    let (rig, fake, stop) = rig(Manner::Hybrid);
    fake.away(true);
    let pair = key();
    let under = ask(&rig, "bob", &pair, "1");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!collected(&rig, &under));
    stop.trigger();
    let rig = rig.restart();
    assert!(!collected(&rig, &under));
    fake.away(false);
    let _stop = attended(&rig);
    eventually(|| collected(&rig, &under).then_some(()));
    assert_eq!(rig.verdict(by_key(&pair)), StatusValue::Valid);
    assert_eq!(fake.certificates_of(&pair), 1);
}

#[test]
fn a_lost_answer_leads_to_one_certificate() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    fake.lose_answers(2);
    let pair = key();
    let under = ask(&rig, "bob", &pair, "1");
    eventually(|| collected(&rig, &under).then_some(()));
    assert_eq!(fake.certificates_of(&pair), 1);
}

#[test]
fn a_client_that_cannot_wait_is_told_so_and_asks_again() {
    let mut settings = settings(Manner::Hybrid);
    settings.centre.as_mut().unwrap().wait_s = 1;
    let fake = Arc::new(Fake::new());
    let rig = Rig::at_centre(settings, fake.clone());
    let _stop = attended(&rig);
    fake.away(true);
    let (pair, phrase) = (key(), rig.authorize("bob"));
    let asked = prototype("bob", Some(&pair));
    let refused = rig.register_by(&phrase, &asked, Some(&pair));
    assert_eq!(refused.unwrap_err(), KeyFailure::NotSynchronous);
    assert_eq!(rig.last_refusal(), "order-under-way");
    fake.away(false);
    let done = eventually(|| rig.register_by(&phrase, &asked, Some(&pair)).ok());
    assert_eq!(done.bindings.len(), 1);
    assert_eq!(fake.certificates_of(&pair), 1);
}

#[test]
fn a_binding_that_was_revoked_is_so_here_at_once_and_at_the_pki_in_the_end() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    let pair = key();
    rig.register("bob", &pair);
    fake.away(true);
    let mut about = rig.about(KeyOperation::Revoke, named("bob"), &pair);
    about.order = Order { receipt: receipt("r"), may_wait: true, ..about.order };
    let later = rig.keeper.serve(KeyRequest::Revoke(about));
    assert!(matches!(later, KeyAnswer::Outcome(KeyOutcome::Later)));
    assert_eq!(rig.verdict(by_key(&pair)), StatusValue::Invalid);
    assert_eq!(fake.revoked(), 0);
    fake.away(false);
    eventually(|| collected(&rig, &receipt("r")).then_some(()));
    assert_eq!(fake.revoked(), 1);
}

#[test]
fn a_reissue_takes_the_place_of_the_old_certificate() {
    let (rig, _fake, _stop) = rig(Manner::Hybrid);
    let pair = key();
    let old = rig.register("bob", &pair);
    let about = rig.about(KeyOperation::Reissue, named("bob"), &pair);
    let answer = rig.keeper.serve(KeyRequest::Reissue(about));
    let done = held!(answer, KeyAnswer::Outcome(KeyOutcome::Done(done)) => done);
    assert_ne!(done.bindings[0].certificates[0], old.certificates[0]);
    assert_eq!(rig.validate(by_key(&pair)).bindings.len(), 1);
}

#[test]
fn a_certificate_for_another_key_is_not_taken() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    fake.confuse_keys();
    let (pair, phrase) = (key(), rig.authorize("bob"));
    let refused = rig.register_by(&phrase, &prototype("bob", Some(&pair)), Some(&pair));
    assert_eq!(refused.unwrap_err(), KeyFailure::Refused);
    assert!(rig.refusals().contains(&"certificate-unfit".to_owned()));
}

#[test]
fn an_order_that_the_pki_refuses_has_failed() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    fake.refuse("provider-refused");
    let (pair, phrase) = (key(), rig.authorize("bob"));
    let refused = rig.register_by(&phrase, &prototype("bob", Some(&pair)), Some(&pair));
    assert_eq!(refused.unwrap_err(), KeyFailure::Refused);
    assert!(rig.refusals().contains(&"provider-refused".to_owned()));
}

#[test]
fn a_proxy_answers_nothing_by_itself() {
    let (rig, fake, _stop) = rig(Manner::Proxy);
    let pair = key();
    rig.register("bob", &pair);
    rig.validate(by_key(&pair));
    rig.validate(by_key(&pair));
    assert_eq!(fake.questions(), 2);
    fake.away(true);
    let query = Query { binding: by_key(&pair), instant: None, limit: 1 };
    let answer = rig.keeper.serve(KeyRequest::Validate(query));
    assert!(matches!(answer, KeyAnswer::Failed(KeyFailure::Busy)));
    assert_eq!(rig.last_refusal(), "centre-away");
}

#[test]
fn no_ca_and_no_user_key_is_made_here() {
    let (rig, fake, _stop) = rig(Manner::Hybrid);
    assert_eq!(rig.keeper.ca_certificate(), fake.anchor());
    let phrase = rig.authorize("bob");
    let refused = rig.register_by(&phrase, &prototype("bob", None), None);
    assert_eq!(refused.unwrap_err(), KeyFailure::NotSupported);
    assert_eq!(rig.last_refusal(), "key-generation-off");
    let ocsp = rig.keeper.serve(KeyRequest::DeltaCrl);
    assert!(matches!(ocsp, KeyAnswer::Failed(KeyFailure::NotSupported)));
    let status = rig.keeper.administer(AdminRequest::Status);
    let centre = held!(status, AdminReply::Status(status) => status.centre).unwrap();
    assert_eq!(centre.manner, "hybrid");
    let generate = Settings { generate_keys: true, ..settings(Manner::Hybrid) };
    assert_eq!(generate.problem().unwrap().0, "keeper.generate_keys");
}

#[test]
fn a_state_keeps_its_manner() {
    let dir = tempfile::tempdir().unwrap();
    let clock = serve::clock::SystemClock::shared();
    let own = Keeper::open(open_settings(), dir.path(), clock.clone()).unwrap();
    own.close().unwrap();
    drop(own);
    let fake = Arc::new(Fake::new());
    let other = Keeper::open_with(
        settings(Manner::Hybrid),
        dir.path(),
        clock.clone(),
        (Some(fake), anchor::Anchoring::none()),
    );
    assert!(other.is_err());
    let (rig, _fake, stop) = rig(Manner::Hybrid);
    stop.trigger();
    rig.keeper.close().unwrap();
    let path = rig.dir.path().to_owned();
    let Rig { keeper, dir, .. } = rig;
    alone(&keeper);
    drop(keeper);
    assert!(Keeper::open(open_settings(), &path, clock).is_err());
    drop(dir);
}
