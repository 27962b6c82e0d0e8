//! Many bindings at once, on an operator's word: all of a batch or none, and nothing twice.

use std::collections::BTreeSet;

use model::keys::{
    StatusValue, UseWith,
    admin::{AdminReply, AdminRequest},
    order::Prototype,
};

use trust::keeper::Manner;

use crate::support::{Rig, by_certificate, by_key, held, key, named, prototype};

fn import(rig: &Rig, bindings: Vec<Prototype>) -> AdminReply {
    let operator = "alice".to_owned();
    rig.keeper.administer(AdminRequest::Import { bindings, operator })
}

fn imported(rig: &Rig, bindings: Vec<Prototype>) -> (u64, u64) {
    held!(import(rig, bindings), AdminReply::Imported { made, present } => (made, present))
}

fn mail(of: &str) -> Vec<UseWith> {
    let (application, identifier) = ("urn:ietf:rfc:2633".to_owned(), format!("{of}@example.org"));
    vec![UseWith { application, identifier }]
}

#[test]
fn the_same_import_again_makes_nothing_and_goes_on_where_it_was_cut_short() {
    let rig = Rig::open();
    let keys: Vec<_> = (0..60).map(|_| key()).collect();
    let all: Vec<Prototype> = keys
        .iter()
        .enumerate()
        .map(|(n, key)| Prototype {
            use_with: mail(&format!("user-{n}")),
            ..prototype(&format!("key-{n}"), Some(key))
        })
        .collect();
    assert_eq!(imported(&rig, all[..25].to_vec()), (25, 0));
    assert_eq!(imported(&rig, all.clone()), (35, 25));
    let rig = rig.restart();
    assert_eq!(imported(&rig, all.clone()), (0, 60));
    // Twice in one batch is once.
    let again = Prototype { name: Some("other".to_owned()), ..all[0].clone() };
    assert_eq!(imported(&rig, vec![again.clone(), again]), (1, 1));
    let mut serials = BTreeSet::new();
    for (n, key) in keys.iter().enumerate().skip(1) {
        let found = rig.validate(by_key(key)).bindings;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name.as_deref(), Some(format!("key-{n}").as_str()));
        assert_eq!(found[0].use_with, mail(&format!("user-{n}")));
        assert_eq!(found[0].key.0, key.spki());
        assert_eq!(rig.verdict(by_certificate(&found[0].certificates[0])), StatusValue::Valid);
        assert!(serials.insert(found[0].id.clone()));
    }
    let done = rig.audit().into_iter().filter(|entry| entry.event == "keys-imported").count();
    assert_eq!(done, 4);
}

#[test]
fn of_a_batch_with_one_that_cannot_be_certified_nothing_is_made() {
    let rig = Rig::open();
    let good = |name: &str| prototype(name, Some(&key()));
    let weak = Prototype { key: Some(vec![0x30, 0].into()), ..good("weak") };
    let without = Prototype { key: None, ..good("without") };
    let nameless = Prototype { name: None, ..good("x") };
    let cases = [
        (weak, "key-not-certifiable"),
        (without, "key-not-certifiable"),
        (nameless, "name-invalid"),
    ];
    for (unfit, rule) in cases {
        let reply = import(&rig, vec![good("a"), good("b"), unfit, good("c")]);
        let (at, name) = held!(reply, AdminReply::Unfit { at, name, .. } => (at, name));
        assert_eq!((at, name.as_str()), (2, rule));
        assert!(rig.validate(named("a")).bindings.is_empty());
    }
}

#[test]
fn a_key_that_was_revoked_is_not_imported() {
    let (rig, key) = (Rig::open(), key());
    assert_eq!(imported(&rig, vec![prototype("a", Some(&key))]), (1, 0));
    let id = rig.validate(named("a")).bindings.remove(0).id;
    let reply = rig.keeper.administer(AdminRequest::Revoke { id, operator: "alice".to_owned() });
    held!(reply, AdminReply::Revoked { .. } => ());
    let name = held!(import(&rig, vec![prototype("b", Some(&key))]), AdminReply::Unfit { name, .. } => name);
    assert_eq!(name, "key-revoked");
}

#[test]
fn where_the_centres_pki_certifies_an_import_is_refused_by_name() {
    let (rig, _fake, _stop) = crate::centre::rig(Manner::Hybrid);
    let reply = import(&rig, vec![prototype("k", Some(&key()))]);
    assert!(matches!(reply, AdminReply::Refused { name, .. } if name == "import-elsewhere"));
    assert_eq!(rig.last_refusal(), "import-elsewhere");
}
