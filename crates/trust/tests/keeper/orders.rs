//! Register, locate, validate, reissue, revoke: what an order leaves, and who may give one.

use model::{
    api::Bytes,
    keys::{
        IssuerSerial, KeyExample, KeyFinding, KeyUse, Query, StatusValue, UseWith,
        order::{AboutBinding, KeyFailure, KeyOperation, Order, Requester},
        rpc::{KeyAnswer, KeyRequest},
    },
};
use pki::CertFacts;
use xkms::passphrase::{Preparation, SharedSecret, revocation_code_identifier};

use crate::support::{
    Rig, by_certificate, by_key, done, held, key, named, order, prototype, receipt, secret,
};

fn mail(address: &str) -> UseWith {
    UseWith { application: "urn:ietf:rfc:2633".to_owned(), identifier: address.to_owned() }
}

#[test]
fn a_registered_key_is_found_by_everything_that_is_known_of_it() {
    let rig = Rig::open();
    let pair = key();
    let phrase = rig.authorize("bob");
    let mut asked = prototype("bob", Some(&pair));
    asked.use_with = vec![
        mail("bob@Example.org"),
        UseWith { application: "urn:own".to_owned(), identifier: "x".to_owned() },
    ];
    let made = rig.register_by(&phrase, &asked, Some(&pair)).unwrap();
    let binding = &made.bindings[0];
    assert_eq!(binding.uses, [KeyUse::Signature]);
    assert_eq!(binding.status.as_ref().unwrap().value, StatusValue::Valid);
    let facts = CertFacts::read(&binding.certificates[0].0).unwrap();
    assert_eq!(facts.spki, pair.spki());
    let by_serial = KeyExample {
        issuer_serial: Some(IssuerSerial { issuer: facts.issuer, serial: Bytes(facts.serial) }),
        ..KeyExample::default()
    };
    let by_mail = KeyExample { use_with: vec![mail("bob@example.ORG")], ..KeyExample::default() };
    let all = [named("bob"), by_key(&pair), by_certificate(&binding.certificates[0])];
    for example in all.into_iter().chain([by_serial, by_mail.clone()]) {
        assert_eq!(rig.verdict(example.clone()), StatusValue::Valid);
        let located = rig.locate(example);
        assert_eq!(located.bindings[0].id, binding.id);
        assert!(located.bindings[0].status.is_none());
    }
    let other = KeyExample { name: Some("eve".to_owned()), ..by_mail.clone() };
    assert!(rig.locate(other).bindings.is_empty());
    let other = KeyExample { uses: vec![KeyUse::Encryption], ..by_mail };
    assert!(rig.locate(other).bindings.is_empty());
    assert!(rig.audit().iter().any(|entry| entry.event == "key-registered"));
}

#[test]
fn the_same_order_again_has_the_same_answer_and_another_has_none() {
    let rig = Rig::open();
    let (pair, other) = (key(), key());
    let phrase = rig.authorize("bob");
    let asked = prototype("bob", Some(&pair));
    let first = rig.register_by(&phrase, &asked, Some(&pair)).unwrap();
    let again = rig.register_by(&phrase, &asked, Some(&pair)).unwrap();
    assert_eq!(first.bindings[0].certificates, again.bindings[0].certificates);
    let foreign = prototype("bob", Some(&other));
    let refused = rig.register_by(&phrase, &foreign, Some(&other));
    assert_eq!(refused.unwrap_err(), KeyFailure::NoAuthentication);
    assert_eq!(rig.last_refusal(), "authorization-used");
    assert_eq!(rig.validate(named("bob")).bindings.len(), 1);
}

#[test]
fn one_phrase_makes_one_binding_however_many_ask_at_once() {
    let rig = Rig::open();
    let pair = key();
    let phrase = rig.authorize("bob");
    let asked = prototype("bob", Some(&pair));
    let made = std::thread::scope(|scope| {
        let ask = || rig.register_by(&phrase, &asked, Some(&pair)).unwrap().bindings.remove(0);
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().unwrap().certificates).collect::<Vec<_>>()
    });
    assert!(made.windows(2).all(|two| two[0] == two[1]));
    assert_eq!(rig.validate(named("bob")).bindings.len(), 1);
}

#[test]
fn a_store_without_its_root_key_is_not_opened_with_another() {
    let rig = Rig::open();
    rig.keeper.close().unwrap();
    let dir = rig.dir;
    drop(rig.keeper);
    std::fs::remove_file(dir.path().join("root.key")).unwrap();
    let clock = serve::clock::SystemClock::shared();
    let refused = trust::keeper::Keeper::open(crate::support::open_settings(), dir.path(), clock);
    assert!(refused.is_err());
    assert!(!dir.path().join("root.key").exists());
}

#[test]
fn a_reissued_certificate_takes_the_place_of_the_old_one_for_the_same_key() {
    let rig = Rig::open();
    let pair = key();
    let old = rig.register("bob", &pair);
    rig.clock.pass(5);
    let about = rig.about(KeyOperation::Reissue, named("bob"), &pair);
    let new = done(rig.keeper.serve(KeyRequest::Reissue(about))).unwrap().bindings.remove(0);
    assert_ne!(old.certificates[0], new.certificates[0]);
    assert_eq!(old.key, new.key);
    assert_eq!(rig.validate(named("bob")).bindings.len(), 1);
    assert_eq!(rig.verdict(by_certificate(&old.certificates[0])), StatusValue::Valid);
    // A pass phrase does it too, with the proof of possession.
    let phrase = rig.authorize("bob");
    let holder = rig.holder(KeyOperation::Reissue, &named("bob"), &phrase).unwrap();
    let about = AboutBinding { order: order(holder.clone(), None), binding: named("bob") };
    let refused = done(rig.keeper.serve(KeyRequest::Reissue(about)));
    assert_eq!(refused.unwrap_err(), KeyFailure::PossessionRequired);
    let about = AboutBinding { order: order(holder, Some(&pair)), binding: named("bob") };
    let third = done(rig.keeper.serve(KeyRequest::Reissue(about.clone()))).unwrap();
    let again = done(rig.keeper.serve(KeyRequest::Reissue(about))).unwrap();
    assert_eq!(third.bindings[0].certificates, again.bindings[0].certificates);
    // Revoking ends all three.
    let about = rig.about(KeyOperation::Revoke, named("bob"), &pair);
    done(rig.keeper.serve(KeyRequest::Revoke(about))).unwrap();
    for certificate in [&old, &new, &third.bindings[0]].map(|one| &one.certificates[0]) {
        assert_eq!(rig.verdict(by_certificate(certificate)), StatusValue::Invalid);
    }
}

#[test]
fn a_revoked_binding_is_invalid_at_once_and_was_valid_before() {
    let rig = Rig::open();
    let pair = key();
    let binding = rig.register("bob", &pair);
    let before = i64::try_from(clock_ms(&rig)).unwrap();
    rig.clock.pass(10);
    let about = rig.about(KeyOperation::Revoke, named("bob"), &pair);
    let ended = done(rig.keeper.serve(KeyRequest::Revoke(about.clone()))).unwrap();
    let status = ended.bindings[0].status.clone().unwrap();
    assert_eq!(status.value, StatusValue::Invalid);
    assert_eq!(status.refusal.as_deref(), Some("certificate-revoked"));
    assert_eq!(rig.verdict(by_certificate(&binding.certificates[0])), StatusValue::Invalid);
    assert!(rig.locate(named("bob")).bindings.is_empty());
    // Once more: the same.
    assert!(done(rig.keeper.serve(KeyRequest::Revoke(about))).is_ok());
    let at = |instant| {
        let query = Query { binding: named("bob"), instant: Some(instant), limit: 1 };
        held!(rig.keeper.serve(KeyRequest::Validate(query)), KeyAnswer::Found(found) => found.bindings[0].status.clone().unwrap())
    };
    assert_eq!(at(before).value, StatusValue::Valid);
    let expired = at(before + 366 * 86_400_000);
    assert_eq!(expired.aspects.validity_interval, KeyFinding::Bad);
}

#[test]
fn what_lies_in_the_future_is_not_known() {
    let rig = Rig::open();
    rig.register("bob", &key());
    let instant = Some(i64::try_from(clock_ms(&rig)).unwrap() + 86_400_000);
    let query = Query { binding: named("bob"), instant, limit: 1 };
    let KeyAnswer::Found(found) = rig.keeper.serve(KeyRequest::Validate(query)) else { panic!() };
    let status = found.bindings[0].status.clone().unwrap();
    assert_eq!(status.value, StatusValue::Indeterminate);
    assert_eq!(status.aspects.revocation_status, KeyFinding::Open);
}

#[test]
fn a_revocation_code_revokes_and_a_wrong_one_does_not() {
    let rig = Rig::open();
    let pair = key();
    let code = SharedSecret::new("Help I Have Revealed My Key", Preparation::Saslprep);
    let code = code.unwrap().revocation_code();
    let mut asked = prototype("bob", Some(&pair));
    asked.revocation_code_identifier = Some(Bytes(revocation_code_identifier(code.expose())));
    let phrase = rig.authorize("bob");
    rig.register_by(&phrase, &asked, Some(&pair)).unwrap();
    let by = |code: &[u8]| {
        let requester = Requester::RevocationCode(secret(code));
        let order = Order { requester, possessed: None, receipt: receipt("c"), may_wait: false };
        done(rig.keeper.serve(KeyRequest::Revoke(AboutBinding { order, binding: named("bob") })))
    };
    for _ in 0..9 {
        assert_eq!(by(&[7; 20]).unwrap_err(), KeyFailure::NoAuthentication);
        assert_eq!(rig.last_refusal(), "revocation-code-wrong");
    }
    assert_eq!(rig.verdict(named("bob")), StatusValue::Valid);
    let ended = by(code.expose()).unwrap();
    assert_eq!(ended.bindings[0].status.as_ref().unwrap().value, StatusValue::Invalid);
    // A flood of them is not compared any more, and fills neither log nor time.
    for _ in 0..3000 {
        assert_eq!(by(&[8; 20]).unwrap_err(), KeyFailure::NoAuthentication);
    }
    assert!(rig.refusals().contains(&"revocation-code-throttled".to_owned()));
    assert!(rig.audit().len() < 1000);
}

#[test]
fn a_restart_forgets_nothing() {
    let rig = Rig::open();
    let pair = key();
    let (binding, identity) = (rig.register("bob", &pair), rig.keeper.message_identity());
    let phrase = rig.authorize("carol");
    let rig = rig.restart();
    assert_eq!(rig.verdict(by_certificate(&binding.certificates[0])), StatusValue::Valid);
    let again = rig.keeper.message_identity();
    assert_eq!((identity.chain, identity.key.expose()), (again.chain, again.key.expose()));
    let other = key();
    let made = rig.register_by(&phrase, &prototype("carol", Some(&other)), Some(&other));
    assert!(made.is_ok());
}

#[test]
fn the_key_of_a_signed_message_is_that_of_a_binding_in_force() {
    let rig = Rig::open();
    let pair = key();
    rig.register("bob", &pair);
    let ask = |hint| held!(rig.keeper.serve(KeyRequest::MessageKey(hint)), KeyAnswer::Key(key) => key.is_some());
    assert!(ask(named("bob")) && ask(by_key(&pair)));
    assert!(!ask(named("eve")) && !ask(KeyExample::default()) && !ask(by_key(&key())));
    let about = rig.about(KeyOperation::Revoke, named("bob"), &pair);
    done(rig.keeper.serve(KeyRequest::Revoke(about))).unwrap();
    assert!(!ask(named("bob")));
}

fn clock_ms(rig: &Rig) -> u64 {
    use serve::clock::Clock as _;
    rig.clock.unix_ms()
}
