//! Keys that are made here, escrow and recovery.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use model::keys::{
    KeyBinding, KeyUse, StatusValue,
    admin::{AdminReply, AdminRequest},
    order::{AboutBinding, Delivery, Done, KeyFailure, KeyOperation, Order, Prototype},
    rpc::KeyRequest,
};
use trust::keeper::Settings;
use xkms::passphrase::{Preparation, SharedSecret};

use crate::support::{Rig, done, held, key, named, open_settings, order, prototype, receipt, text};

pub(crate) fn settings() -> Settings {
    Settings { generate_keys: true, escrow: true, ..open_settings() }
}

fn asked(name: &str) -> Prototype {
    Prototype { uses: vec![KeyUse::Encryption], ..prototype(name, None) }
}

fn make(rig: &Rig, name: &str) -> (KeyBinding, Delivery) {
    let phrase = rig.authorize(name);
    let mut made = rig.register_by(&phrase, &asked(name), None).unwrap();
    (made.bindings.remove(0), made.private_key.unwrap())
}

fn approve(rig: &Rig, id: &str, operator: &str) -> Result<(u32, Option<String>), String> {
    let request =
        AdminRequest::ApproveRecovery { id: id.to_owned(), operator: operator.to_owned() };
    let reply = rig.keeper.administer(request);
    if let AdminReply::Refused { name, .. } = reply {
        return Err(name);
    }
    Ok(held!(reply, AdminReply::RecoveryApproved { missing, pass_phrase, .. } => {
        (missing, pass_phrase.as_ref().map(text))
    }))
}

fn recover(rig: &Rig, name: &str, phrase: &str) -> Result<Done, KeyFailure> {
    recover_as(rig, name, phrase, "1")
}

fn recover_as(rig: &Rig, name: &str, phrase: &str, id: &str) -> Result<Done, KeyFailure> {
    let holder = rig.holder(KeyOperation::Recover, &named(name), phrase).unwrap_or_default();
    let order = Order { receipt: receipt(id), ..order(holder, None) };
    let about = AboutBinding { order, binding: named(name) };
    done(rig.keeper.serve(KeyRequest::Recover(about)))
}

fn spki(delivery: &Delivery) -> Vec<u8> {
    let pair = KeyPair::from_pkcs8(delivery.key.0.expose()).unwrap();
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    spki.as_ref().to_vec()
}

#[test]
fn a_key_made_here_is_delivered_under_the_phrase_again_if_it_is_asked_again() {
    let rig = Rig::new(Settings { escrow: false, ..settings() });
    let phrase = rig.authorize("bob");
    let first = rig.register_by(&phrase, &asked("bob"), None).unwrap();
    let (binding, delivery) = (&first.bindings[0], first.private_key.as_ref().unwrap());
    assert_eq!(spki(delivery), binding.key.0);
    assert_eq!(binding.uses, [KeyUse::Encryption]);
    let secret = SharedSecret::new(&phrase, Preparation::Saslprep).unwrap();
    assert_eq!(delivery.under.0.expose(), secret.private_key_key(32).expose());
    let again = rig.register_by(&phrase, &asked("bob"), None).unwrap();
    assert_eq!(again.private_key.unwrap().key.0.expose(), delivery.key.0.expose());
    assert_eq!(approve(&rig, &binding.id, "alice"), Err("escrow-off".to_owned()));
}

#[test]
fn two_operators_and_a_phrase_recover_a_key_once_and_the_binding_ends() {
    let rig = Rig::new(settings());
    let (binding, delivery) = make(&rig, "bob");
    assert_eq!(approve(&rig, &binding.id, "alice"), Ok((1, None)));
    assert_eq!(approve(&rig, &binding.id, "alice"), Err("same-operator".to_owned()));
    assert!(recover(&rig, "bob", "not yet").is_err());
    let rig = rig.restart();
    let (missing, phrase) = approve(&rig, &binding.id, "carol").unwrap();
    let (0, Some(phrase)) = (missing, phrase) else { panic!("no phrase") };
    let mut recovered = recover(&rig, "bob", &phrase).unwrap();
    let key = recovered.private_key.take().unwrap();
    assert_eq!(key.key.0.expose(), delivery.key.0.expose());
    assert_eq!(recovered.bindings[0].status.as_ref().unwrap().value, StatusValue::Invalid);
    assert_eq!(rig.verdict(named("bob")), StatusValue::Invalid);
    // The answer may have been lost: the same request has it again, until the phrase ends.
    assert!(recover(&rig, "bob", &phrase).unwrap().private_key.is_some());
    assert!(recover_as(&rig, "bob", &phrase, "2").is_err());
    assert_eq!(rig.last_refusal(), "recovery-not-approved");
    rig.clock.pass(3601);
    assert!(recover(&rig, "bob", &phrase).is_err());
    assert!(rig.audit().iter().any(|entry| entry.event == "key-recovered"));
}

#[test]
fn a_key_that_was_brought_is_not_in_escrow() {
    let rig = Rig::new(settings());
    let binding = rig.register("bob", &key());
    assert_eq!(approve(&rig, &binding.id, "alice"), Err("not-escrowed".to_owned()));
}

#[test]
fn wrong_recovery_phrases_end_the_recovery() {
    let rig = Rig::new(settings());
    let (binding, _) = make(&rig, "bob");
    approve(&rig, &binding.id, "alice").unwrap();
    let phrase = approve(&rig, &binding.id, "carol").unwrap().1.unwrap();
    for _ in 0..5 {
        let (operation, binding) = (KeyOperation::Recover, named("bob"));
        let _ = rig.keeper.serve(KeyRequest::AuthenticationFailed { operation, binding });
    }
    assert_eq!(recover(&rig, "bob", &phrase).unwrap_err(), KeyFailure::NoAuthentication);
    assert!(rig.refusals().contains(&"authorization-exhausted".to_owned()));
    assert_eq!(rig.verdict(named("bob")), StatusValue::Valid);
}

#[test]
fn escrow_follows_a_reissued_certificate() {
    let rig = Rig::new(settings());
    let (binding, delivery) = make(&rig, "bob");
    let phrase = rig.authorize("bob");
    let holder = rig.holder(KeyOperation::Reissue, &named("bob"), &phrase).unwrap();
    let mut order = order(holder, None);
    order.possessed = Some(binding.key.clone());
    let about = AboutBinding { order, binding: named("bob") };
    let new = done(rig.keeper.serve(KeyRequest::Reissue(about))).unwrap().bindings.remove(0);
    assert_eq!(approve(&rig, &binding.id, "alice"), Ok((1, None)));
    approve(&rig, &new.id, "alice").unwrap();
    let phrase = approve(&rig, &new.id, "carol").unwrap().1.unwrap();
    let recovered = recover(&rig, "bob", &phrase).unwrap();
    assert_eq!(recovered.private_key.unwrap().key.0.expose(), delivery.key.0.expose());
}

#[test]
fn nothing_in_the_state_directory_shows_a_key_without_the_escrow_key() {
    let rig = Rig::new(settings());
    let (_, delivery) = make(&rig, "bob");
    let needle = &delivery.key.0.expose()[200..260];
    for file in std::fs::read_dir(rig.dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let content = std::fs::read(&path).unwrap();
            assert!(!content.windows(needle.len()).any(|w| w == needle), "{}", path.display());
        }
    }
}
