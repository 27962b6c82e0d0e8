//! Orders that wait for an operator.

use model::{
    api::Bytes,
    keys::{
        StatusValue,
        admin::{AdminReply, AdminRequest},
        order::{Counts, KeyFailure, KeyOperation, KeyOutcome, Order, Receipt},
        rpc::{Collected, KeyAnswer, KeyRequest},
    },
};
use serve::keys::SigningKey;
use trust::keeper::{Approval, Settings};

use crate::support::{Rig, held, key, named, open_settings, order, prototype, receipt};

fn settings() -> Settings {
    Settings { approval: Approval::Operator, ..open_settings() }
}

/// Orders a registration that waits.
fn ask(rig: &Rig, name: &str, pair: &SigningKey, under: &str) -> String {
    let phrase = rig.authorize(name);
    assert!(matches!(
        again(rig, name, pair, under, &phrase),
        KeyAnswer::Outcome(KeyOutcome::Later)
    ));
    phrase
}

fn again(rig: &Rig, name: &str, pair: &SigningKey, under: &str, phrase: &str) -> KeyAnswer {
    let holder = rig.holder(KeyOperation::Register, &named(name), phrase).unwrap();
    let order = Order { receipt: receipt(under), may_wait: true, ..order(holder, Some(pair)) };
    rig.keeper.serve(KeyRequest::Register { order, asked: prototype(name, Some(pair)) })
}

fn collect(rig: &Rig, under: &Receipt) -> Option<Collected> {
    held!(rig.keeper.serve(KeyRequest::Collect(under.clone())), KeyAnswer::Collected(collected) => collected)
}

fn counts(rig: &Rig, under: &Receipt) -> Option<Counts> {
    held!(rig.keeper.serve(KeyRequest::Progress(under.clone())), KeyAnswer::Progress(counts) => counts)
}

fn waiting(rig: &Rig) -> Vec<String> {
    held!(rig.keeper.administer(AdminRequest::List { after: None, limit: 10 }), AdminReply::Listed { orders, .. } => orders.into_iter().map(|one| one.order).collect())
}

fn decide(rig: &Rig, order: &str, approve: bool) -> AdminReply {
    let (order, operator) = (order.to_owned(), "alice".to_owned());
    rig.keeper.administer(AdminRequest::Approve { order, operator, approve })
}

#[test]
fn an_order_waits_survives_a_restart_and_is_carried_out_once() {
    let rig = Rig::new(settings());
    let pair = key();
    let phrase = ask(&rig, "bob", &pair, "1");
    assert!(rig.validate(named("bob")).bindings.is_empty());
    let rig = rig.restart();
    assert_eq!(counts(&rig, &receipt("1")), Some(Counts { pending: 1, ..Counts::default() }));
    assert!(matches!(collect(&rig, &receipt("1")), Some(Collected::Outcome(KeyOutcome::Later))));
    assert!(collect(&rig, &receipt("2")).is_none() && counts(&rig, &receipt("2")).is_none());
    // The same order, asked again under another receipt, is the same order.
    let same = again(&rig, "bob", &pair, "2", &phrase);
    assert!(matches!(same, KeyAnswer::Outcome(KeyOutcome::Later)));
    let orders = waiting(&rig);
    assert_eq!(orders.len(), 1);
    assert!(matches!(decide(&rig, &orders[0], true), AdminReply::Decided { refused: None, .. }));
    for under in ["1", "2"] {
        let Some(Collected::Outcome(KeyOutcome::Done(done))) = collect(&rig, &receipt(under))
        else {
            panic!("not carried out");
        };
        assert_eq!(done.bindings[0].key, Bytes(pair.spki().to_vec()));
        assert_eq!(counts(&rig, &receipt(under)).unwrap().success, 1);
    }
    assert_eq!(rig.verdict(named("bob")), StatusValue::Valid);
    assert!(waiting(&rig).is_empty());
    let AdminReply::Refused { name, .. } = decide(&rig, &orders[0], true) else { panic!() };
    assert_eq!(name, "order-unknown");
}

#[test]
fn an_operators_no_is_final() {
    let rig = Rig::new(settings());
    let pair = key();
    let phrase = ask(&rig, "bob", &pair, "1");
    let orders = waiting(&rig);
    let AdminReply::Decided { refused, .. } = decide(&rig, &orders[0], false) else { panic!() };
    assert_eq!(refused.as_deref(), Some("operator-refused"));
    let collected = collect(&rig, &receipt("1"));
    assert!(matches!(collected, Some(Collected::Failed(KeyFailure::Refused))));
    assert_eq!(counts(&rig, &receipt("1")).unwrap().failure, 1);
    let refused = again(&rig, "bob", &pair, "1", &phrase);
    assert!(matches!(refused, KeyAnswer::Failed(KeyFailure::Refused)));
    assert!(rig.validate(named("bob")).bindings.is_empty());
}

#[test]
fn a_client_that_cannot_wait_keeps_its_phrase() {
    let rig = Rig::new(settings());
    let pair = key();
    let phrase = rig.authorize("bob");
    let refused = rig.register_by(&phrase, &prototype("bob", Some(&pair)), Some(&pair));
    assert_eq!(refused.unwrap_err(), KeyFailure::NotSynchronous);
    assert_eq!(rig.last_refusal(), "approval-needed");
    let taken = again(&rig, "bob", &pair, "1", &phrase);
    assert!(matches!(taken, KeyAnswer::Outcome(KeyOutcome::Later)));
}

#[test]
fn a_reissue_waits_too_and_a_revocation_never_does() {
    let rig = Rig::new(settings());
    let pair = key();
    ask(&rig, "bob", &pair, "1");
    decide(&rig, &waiting(&rig)[0], true);
    let mut about = rig.about(KeyOperation::Reissue, named("bob"), &pair);
    about.order = Order { receipt: receipt("2"), may_wait: true, ..about.order };
    let later = rig.keeper.serve(KeyRequest::Reissue(about));
    assert!(matches!(later, KeyAnswer::Outcome(KeyOutcome::Later)));
    decide(&rig, &waiting(&rig)[0], true);
    let done = collect(&rig, &receipt("2"));
    assert!(matches!(done, Some(Collected::Outcome(KeyOutcome::Done(_)))));
    let about = rig.about(KeyOperation::Revoke, named("bob"), &pair);
    let ended = rig.keeper.serve(KeyRequest::Revoke(about));
    assert!(matches!(ended, KeyAnswer::Outcome(KeyOutcome::Done(_))));
}

#[test]
fn what_is_over_is_forgotten_and_what_waits_is_not() {
    let rig = Rig::new(Settings { order_life_s: 60, ..settings() });
    ask(&rig, "bob", &key(), "1");
    ask(&rig, "carol", &key(), "2");
    let first = waiting(&rig)[0].clone();
    decide(&rig, &first, false);
    rig.clock.pass(61);
    rig.keeper.tidy().unwrap();
    assert_eq!(waiting(&rig).len(), 1);
    assert!(collect(&rig, &receipt("1")).is_none());
}
