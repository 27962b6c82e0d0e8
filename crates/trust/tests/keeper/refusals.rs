//! Every refusal of the keeper, provoked and found in the audit log under its name.

use std::collections::BTreeSet;

use model::{
    api::Bytes,
    keys::{
        KeyExample, KeyUse, Query, UseWith,
        admin::{AdminReply, AdminRequest, Authorize},
        order::{AboutBinding, KeyFailure, KeyOperation, Order, Requester},
        rpc::{KeyAnswer, KeyRequest},
    },
};
use trust::keeper::{Approval, Refusal, Settings};

use crate::{
    recover,
    support::{
        Rig, authorize, by_certificate, by_key, done, key, named, open_settings, order, prototype,
        secret,
    },
};

#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    /// The last refusal in the log is this one, and the client was told its kind.
    fn check(&mut self, rig: &Rig, answer: KeyAnswer, name: &str) {
        let refusal = Refusal::ALL.iter().find(|one| one.name() == name).unwrap();
        let KeyAnswer::Failed(failure) = answer else { panic!("{name}: {answer:?}") };
        assert_eq!(failure, refusal.failure(), "{name}");
        assert_eq!(rig.last_refusal(), name);
        self.0.insert(name.to_owned());
    }

    /// What the operator was told is in the log too.
    fn told(&mut self, rig: &Rig, reply: AdminReply, name: &str) {
        let AdminReply::Refused { name: told, hint, .. } = reply else { panic!("{reply:?}") };
        assert_eq!((told.as_str(), rig.last_refusal().as_str()), (name, name));
        assert!(!hint.is_empty());
        self.0.insert(name.to_owned());
    }
}

fn register(
    rig: &Rig,
    phrase: &str,
    change: impl FnOnce(&mut Order, &mut model::keys::order::Prototype),
) -> KeyAnswer {
    let pair = key();
    let mut asked = prototype("bob", Some(&pair));
    let holder = rig.holder(KeyOperation::Register, &named("bob"), phrase);
    let mut order = order(holder.unwrap_or_default(), Some(&pair));
    change(&mut order, &mut asked);
    rig.keeper.serve(KeyRequest::Register { order, asked })
}

#[test]
fn every_refusal_of_a_registration_has_its_name() {
    let mut seen = Seen::default();
    let rig = Rig::new(Settings { any_use_with: false, ..open_settings() });
    let limited = Authorize {
        uses: vec![KeyUse::Signature],
        use_with: vec![https("web.example.org")],
        ..authorize("bob")
    };
    let phrase = rig.authorize_as(limited).unwrap();
    let answer = register(&rig, &phrase, |order, _| {
        order.requester =
            Requester::NotBound { protocol: "urn:otp".to_owned(), value: secret(b"1") };
    });
    seen.check(&rig, answer, "authentication-kind");
    let unknown = format!("authorization/{}", "0".repeat(32));
    let answer = register(&rig, &phrase, |order, _| order.requester = Requester::Key(unknown));
    seen.check(&rig, answer, "authorization-unknown");
    let answer = register(&rig, &phrase, |_, asked| asked.name = Some("\u{7}".to_owned()));
    seen.check(&rig, answer, "name-invalid");
    let answer = register(&rig, &phrase, |_, asked| asked.uses = vec![KeyUse::Encryption]);
    seen.check(&rig, answer, "use-not-authorized");
    let answer = register(&rig, &phrase, |_, asked| asked.use_with = vec![https("other.example")]);
    seen.check(&rig, answer, "use-with-not-authorized");
    let answer = register(&rig, &phrase, |_, asked| asked.use_with = vec![https("-")]);
    seen.check(&rig, answer, "use-with-invalid");
    let answer = register(&rig, &phrase, |_, asked| asked.not_on_or_after = Some(1));
    seen.check(&rig, answer, "interval-empty");
    let answer = register(&rig, &phrase, |_, asked| asked.key = None);
    seen.check(&rig, answer, "key-generation-off");
    let answer = register(&rig, &phrase, |order, _| order.possessed = None);
    seen.check(&rig, answer, "possession-missing");
    let stranger = Bytes(key().spki().to_vec());
    let answer = register(&rig, &phrase, |order, _| order.possessed = Some(stranger));
    seen.check(&rig, answer, "possession-other");
    let answer = register(&rig, &phrase, |order, asked| {
        asked.key = Some(Bytes(b"no key".to_vec()));
        order.possessed.clone_from(&asked.key);
    });
    seen.check(&rig, answer, "key-not-certifiable");
    // None of these used the phrase up.
    let answer =
        register(&rig, &phrase, |_, asked| asked.use_with = vec![https("web.example.org")]);
    assert!(done(answer).is_ok());
    let answer = register(&rig, &phrase, |_, _| ());
    seen.check(&rig, answer, "authorization-used");
    let expired = rig.authorize("bob");
    let holder = rig.holder(KeyOperation::Register, &named("bob"), &expired).unwrap();
    rig.clock.pass(3601);
    assert!(rig.holder(KeyOperation::Register, &named("bob"), &expired).is_none());
    let answer = register(&rig, &expired, |order, _| order.requester = Requester::Key(holder));
    seen.check(&rig, answer, "authorization-expired");
    assert_eq!(seen.0.len(), 13);
}

#[test]
fn five_wrong_phrases_end_the_phrase_and_a_flood_leaves_the_log_small() {
    let mut seen = Seen::default();
    // So few a minute that the bound holds however long the flood takes.
    let rig = Rig::new(Settings { refusals_per_minute: 6, ..open_settings() });
    let phrase = rig.authorize("bob");
    let holder = rig.holder(KeyOperation::Register, &named("bob"), &phrase).unwrap();
    for _ in 0..3000 {
        let (operation, binding) = (KeyOperation::Register, named("bob"));
        let answer = rig.keeper.serve(KeyRequest::AuthenticationFailed { operation, binding });
        assert!(matches!(answer, KeyAnswer::Noted));
    }
    assert!(rig.holder(KeyOperation::Register, &named("bob"), &phrase).is_none());
    assert!(rig.refusals().contains(&"authentication-failed".to_owned()));
    assert!(rig.audit().len() < 150, "{}", rig.audit().len());
    let answer = register(&rig, &phrase, |order, _| order.requester = Requester::Key(holder));
    seen.check(&rig, answer, "authorization-exhausted");
    // Others are not concerned.
    let other = key();
    rig.register("carol", &other);
}

#[test]
fn every_refusal_about_a_binding_has_its_name() {
    let mut seen = Seen::default();
    let rig = Rig::open();
    let (pair, other) = (key(), key());
    let binding = rig.register("bob", &pair);
    rig.register("carol", &other);
    let about = |holder: &str, binding: KeyExample| AboutBinding {
        order: order(holder.to_owned(), None),
        binding,
    };
    let own = format!("binding/{}", &binding.id[1..]);
    let carols = rig.signer(KeyOperation::Revoke, &named("carol"), &other).unwrap();
    let answer = rig.keeper.serve(KeyRequest::Revoke(about(&own, named("nobody"))));
    seen.check(&rig, answer, "binding-unknown");
    let answer = rig.keeper.serve(KeyRequest::Revoke(about(&carols, named("bob"))));
    seen.check(&rig, answer, "holder-other");
    let answer = rig.keeper.serve(KeyRequest::Reissue(about(&carols, named("bob"))));
    seen.check(&rig, answer, "holder-other");
    let answer = rig.keeper.serve(KeyRequest::Recover(about(&own, named("bob"))));
    seen.check(&rig, answer, "escrow-off");
    let code = |binding: KeyExample| {
        let requester = Requester::RevocationCode(secret(&[1; 20]));
        let order = Order { requester, ..order(String::new(), None) };
        rig.keeper.serve(KeyRequest::Revoke(AboutBinding { order, binding }))
    };
    seen.check(&rig, code(named("bob")), "revocation-code-none");
    // Two bindings of one name, and the example fits both.
    let phrase = rig.authorize("bob");
    let second = key();
    let asked = prototype("bob", Some(&second));
    rig.register_by(&phrase, &asked, Some(&second)).unwrap();
    let spent = rig.holder(KeyOperation::Register, &named("bob"), &phrase).unwrap();
    let answer = rig.keeper.serve(KeyRequest::Revoke(about(&spent, named("bob"))));
    seen.check(&rig, answer, "binding-ambiguous");
    let empty = KeyRequest::Revoke(about(&own, KeyExample::default()));
    seen.check(&rig, rig.keeper.serve(empty), "example-empty");
    for _ in 0..7 {
        let certified = rig.about(KeyOperation::Reissue, by_key(&pair), &pair);
        assert!(done(rig.keeper.serve(KeyRequest::Reissue(certified))).is_ok());
    }
    let ninth = rig.about(KeyOperation::Reissue, by_key(&pair), &pair);
    seen.check(&rig, rig.keeper.serve(KeyRequest::Reissue(ninth)), "reissued-too-often");
    let ended = rig.about(KeyOperation::Revoke, by_key(&pair), &pair);
    done(rig.keeper.serve(KeyRequest::Revoke(ended.clone()))).unwrap();
    let answer = rig.keeper.serve(KeyRequest::Reissue(ended));
    seen.check(&rig, answer, "binding-revoked");
    let phrase = rig.authorize("bob");
    let refused = rig.register_by(&phrase, &prototype("bob", Some(&pair)), Some(&pair));
    assert_eq!(refused.unwrap_err(), KeyFailure::Refused);
    assert_eq!(rig.last_refusal(), "key-revoked");
    rig.clock.pass(366 * 86_400);
    let late = rig.about(KeyOperation::Reissue, by_key(&second), &second);
    seen.check(&rig, rig.keeper.serve(KeyRequest::Reissue(late)), "binding-expired");
}

#[test]
fn every_refusal_of_a_question_has_its_name() {
    let rig = Rig::open();
    let ask = |binding: KeyExample, instant| {
        rig.keeper.serve(KeyRequest::Validate(Query { binding, instant, limit: 1 }))
    };
    let failed = |answer, expected: Refusal| {
        let KeyAnswer::Failed(failure) = answer else { panic!("{answer:?}") };
        assert_eq!(failure, expected.failure());
        assert_eq!(rig.last_refusal(), expected.name());
    };
    failed(ask(KeyExample::default(), None), Refusal::ExampleEmpty);
    failed(ask(named("bob"), Some(0)), Refusal::InstantBeforeService);
    failed(ask(by_certificate(&Bytes(vec![0x30, 0])), None), Refusal::ForeignUnreadable);
    let many = KeyExample { certificates: vec![Bytes(vec![0x30, 0]); 17], ..named("") };
    failed(ask(KeyExample { name: None, ..many }, None), Refusal::ForeignUnreadable);
}

#[test]
fn every_refusal_of_an_operator_has_its_name() {
    let mut seen = Seen::default();
    let rig = Rig::new(Settings { pass_phrases: false, ..recover::settings() });
    let reply = rig.keeper.administer(AdminRequest::Authorize(authorize("bob")));
    seen.told(&rig, reply, "pass-phrases-off");
    let unknown = format!("k{}", "0".repeat(32));
    let (id, operator) = (unknown.clone(), "alice".to_owned());
    let reply = rig.keeper.administer(AdminRequest::Revoke { id, operator });
    seen.told(&rig, reply, "binding-unknown");
    let operator = String::new();
    let reply = rig.keeper.administer(AdminRequest::ApproveRecovery { id: unknown, operator });
    seen.told(&rig, reply, "operator-invalid");
    let (order, operator) = ("x".to_owned(), "alice".to_owned());
    let reply = rig.keeper.administer(AdminRequest::Approve { order, operator, approve: true });
    seen.told(&rig, reply, "order-unknown");
    let about = AboutBinding { order: order_of("recovery"), binding: named("bob") };
    let answer = rig.keeper.serve(KeyRequest::Recover(about));
    seen.check(&rig, answer, "binding-unknown");
}

#[test]
fn a_recovery_nobody_approved_is_refused() {
    let mut seen = Seen::default();
    let rig = Rig::new(recover::settings());
    let phrase = rig.authorize("bob");
    let asked = prototype("bob", None);
    let made = rig.register_by(&phrase, &asked, None).unwrap().bindings.remove(0);
    let about = |holder: String, binding| {
        rig.keeper.serve(KeyRequest::Recover(AboutBinding { order: order(holder, None), binding }))
    };
    let answer = about(format!("recovery/{}", &made.id[1..]), named("bob"));
    seen.check(&rig, answer, "recovery-not-approved");
    let brought = rig.register("carol", &key());
    let answer = about(format!("recovery/{}", &brought.id[1..]), named("carol"));
    seen.check(&rig, answer, "not-escrowed");
    let answer = about(format!("recovery/{}", &made.id[1..]), named("carol"));
    seen.check(&rig, answer, "holder-other");
}

#[test]
fn what_the_reader_refused_is_written_down_under_its_name() {
    let rig = Rig::new(Settings { approval: Approval::Operator, ..open_settings() });
    let answer = rig.keeper.serve(KeyRequest::Refused {
        event: "xkms-register".to_owned(),
        refusal: "signature-reference-elsewhere".to_owned(),
        actor: "127.0.0.1".to_owned(),
    });
    assert!(matches!(answer, KeyAnswer::Noted));
    assert_eq!(rig.last_refusal(), "signature-reference-elsewhere");
}

fn order_of(kind: &str) -> Order {
    order(format!("{kind}/{}", "0".repeat(32)), None)
}

fn https(host: &str) -> UseWith {
    UseWith { application: "urn:ietf:rfc:2818".to_owned(), identifier: host.to_owned() }
}
