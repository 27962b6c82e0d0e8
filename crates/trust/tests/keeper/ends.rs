//! What is believed of a source, what ends a migration before its end, and what is left of it.

use model::{
    api::Bytes,
    keys::{
        UseWith,
        admin::{AdminReply, AdminRequest, Authorize},
        order::KeyOperation,
        rpc::KeyRequest,
    },
    migration::{self, Body, Statement},
};
use serve::{
    clock::{Clock as _, SystemClock},
    hpke::{self, HpkePublic},
};

use crate::{
    migrate::{
        announce, answering, cancel, incoming, migrate, next, own, owned, place, register, rig,
        settle,
    },
    support::{Rig, by_key, key, named},
};

#[test]
fn without_peers_nothing_moves() {
    let a = Rig::open();
    assert_eq!(migrate(&a, "v1", "b").unwrap_err(), "peers-off");
}

/// A source that was measured, and lies: what it seals for the target is the test's own.
fn sealed(ready: &Statement, content: &serde_json::Value) -> Statement {
    let Body::Ready { key, .. } = &ready.body else { panic!("not ready") };
    let mut said = Statement { verdict: own("a").verdict, ..ready.clone() };
    let info = migration::info(&said, &said.verdict, &ready.verdict);
    let text = serde_json::to_vec(content).unwrap();
    let sealed = hpke::seal(&HpkePublic(key.0.clone()), &info, b"", &text).unwrap();
    said.body = Body::Parcel { enc: Bytes(sealed.enc), ciphertext: Bytes(sealed.ciphertext) };
    said
}

/// An entry as it is sent, of what a keeper answers for a name.
fn entry_of(rig: &Rig, name: &str, owner: &str) -> serde_json::Value {
    let binding = rig.locate(named(name)).bindings.remove(0);
    let id = binding.id.trim_start_matches('k').to_owned();
    let entry = serde_json::json!({
        "certificate": binding.certificates[0],
        "key": binding.key,
        "name": name,
        "uses": binding.uses,
        "use_with": binding.use_with,
        "not_before": binding.not_before,
        "not_on_or_after": binding.not_on_or_after,
        "escrowed": false,
        "owner": owner,
        "chain": [binding.certificates[1]],
    });
    serde_json::json!({ "entry": [id, entry] })
}

#[test]
fn what_a_lying_source_sends_is_not_believed() {
    let (a, b) = (rig(), rig());
    register(&a, "web", "v1", Some(&key()));
    register(&b, "mine", "v2", None);
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    let offer = next(&a, "v1", "a").unwrap();
    let ready = incoming(&b, &offer, "b", true).unwrap();
    let good = entry_of(&a, "web", "v1");
    let changed = |field: &str, value: serde_json::Value| {
        let mut entry = good.clone();
        entry["entry"][1][field] = value;
        entry
    };
    let theirs = entry_of(&b, "mine", "v1");
    let stolen = serde_json::json!({ "private": [theirs["entry"][0], Bytes(vec![1; 32]), 0] });
    let lies = [
        vec![changed("name", "bank".into())],
        vec![changed("not_on_or_after", i64::MAX.into())],
        vec![changed("uses", serde_json::json!(["encryption"]))],
        vec![changed("owner", "v2".into())],
        vec![changed("chain", serde_json::json!([]))],
        // Another owner's binding and private key, under their own certificate.
        vec![theirs],
        vec![good.clone(), stolen],
    ];
    for lie in lies {
        let said = sealed(&ready, &serde_json::json!(lie));
        assert_eq!(incoming(&b, &said, "b", true).unwrap_err(), "parcel-unfit", "{lie:?}");
    }
    assert_eq!(answering([&a, &b], "mine"), [0, 1]);
    let said = sealed(&ready, &serde_json::json!([good]));
    assert!(incoming(&b, &said, "b", true).is_ok());
}

#[test]
fn keys_are_taken_only_from_where_they_were_announced_and_under_the_announced_ca() {
    let (a, b) = (rig(), rig());
    register(&a, "web", "v1", Some(&key()));
    migrate(&a, "v1", "b").unwrap();
    let offer = next(&a, "v1", "a").unwrap();
    assert_eq!(incoming(&b, &offer, "b", true).unwrap_err(), "migration-unexpected");
    announce(&b, "v1", ("c", Some(&a)));
    assert_eq!(incoming(&b, &offer, "b", true).unwrap_err(), "migration-unexpected");
    // What nobody announced leaves no trace, whatever epoch it claims.
    let discard = Statement { body: Body::Discard, ..offer.clone() };
    incoming(&b, &discard, "b", true).unwrap();
    for epoch in [0, u64::MAX] {
        let far = Statement { epoch, ..discard.clone() };
        assert_eq!(incoming(&b, &far, "b", true).unwrap_err(), "epoch-ahead");
    }
    announce(&b, "v1", ("a", None));
    let ready = incoming(&b, &offer, "b", true).unwrap();
    a.keeper.heard("v1", &ready, true).unwrap();
    let parcel = next(&a, "v1", "a").unwrap();
    assert_eq!(incoming(&b, &parcel, "b", true).unwrap_err(), "issuer-unknown");
    announce(&b, "v1", ("a", Some(&a)));
    assert!(incoming(&b, &parcel, "b", true).is_ok());
}

#[test]
fn an_operator_of_the_target_can_drop_what_only_was_offered() {
    let (a, b) = (rig(), rig());
    register(&a, "web", "v1", Some(&key()));
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    let offer = next(&a, "v1", "a").unwrap();
    incoming(&b, &offer, "b", true).unwrap();
    assert_eq!(place(&b, "v1"), "ready");
    cancel(&b, "v1").unwrap();
    assert_eq!(place(&b, "v1"), "absent");
    assert_eq!(incoming(&b, &offer, "b", true).unwrap_err(), "migration-stale");
}

#[test]
fn the_issuing_service_can_still_revoke_what_moved_and_the_other_says_what_it_cannot() {
    let (a, b) = (rig(), rig());
    let web = key();
    register(&a, "web", "v1", Some(&web));
    let id = a.locate(named("web")).bindings.remove(0).id;
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    let about = b.about(KeyOperation::Reissue, by_key(&web), &web);
    let _ = b.keeper.serve(KeyRequest::Reissue(about));
    assert_eq!(b.last_refusal(), "issuer-elsewhere");
    let operator = "alice".to_owned();
    let reply = a.keeper.administer(AdminRequest::Revoke { id: id.clone(), operator });
    assert!(matches!(reply, AdminReply::Revoked { .. }), "{reply:?}");
    let crl = a.published(KeyRequest::Crl);
    let crl = pki::Crl::verify(&crl, a.keeper.ca_certificate(), SystemClock.now()).unwrap();
    assert!(crl.is_revoked(&hex::decode(id.trim_start_matches('k')).unwrap()));
}

#[test]
fn who_gave_a_migration_up_can_begin_anew_before_its_target_knows() {
    let (a, b) = (rig(), rig());
    register(&a, "web", "v1", Some(&key()));
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    for _ in 0..2 {
        let said = next(&a, "v1", "a").unwrap();
        let answer = incoming(&b, &said, "b", true).unwrap();
        if said.body == Body::Offer {
            a.keeper.heard("v1", &answer, true).unwrap();
        }
    }
    assert_eq!((place(&a, "v1"), place(&b, "v1")), ("sending", "held"));
    cancel(&a, "v1").unwrap();
    assert!(a.refusals().contains(&"migration-cancelled".to_owned()));
    let late = next(&a, "v1", "a").unwrap();
    // Not elsewhere, where the first one would be left with what it holds.
    assert_eq!(migrate(&a, "v1", "c").unwrap_err(), "owner-migrating");
    migrate(&a, "v1", "b").unwrap();
    // Given up as well before the target heard of it: then both are.
    cancel(&a, "v1").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!((place(&a, "v1"), place(&b, "v1")), ("here", "absent"));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    // The word that gave the first one up may come at any time.
    let _ = incoming(&b, &late, "b", true);
    assert_eq!(answering([&a, &b], "web"), [0, 1]);
}

#[test]
fn an_owner_with_more_than_a_parcel_holds_stays_where_it_is() {
    let (a, b) = (rig(), rig());
    register(&a, "web", "v1", Some(&key()));
    let mailto = |n: usize| UseWith {
        application: "urn:ietf:rfc:2822".to_owned(),
        identifier: format!("{}{n:02}@example.org", "x".repeat(230)),
    };
    let use_with: Vec<UseWith> = (0..32).map(mailto).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..120 {
                    let use_with = use_with.clone();
                    a.authorize_as(Authorize { use_with, ..owned("web", "v1") }).unwrap();
                }
            });
        }
    });
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    let offer = next(&a, "v1", "a").unwrap();
    let ready = incoming(&b, &offer, "b", true).unwrap();
    a.keeper.heard("v1", &ready, true).unwrap();
    let refused = a.keeper.outgoing("v1", &own("a")).unwrap_err();
    assert_eq!(refused.to_string(), trust::keeper::Refusal::OwnerTooLarge.to_string());
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!((place(&a, "v1"), place(&b, "v1")), ("here", "absent"));
}

#[test]
fn whoever_tries_a_key_that_moved_away_finds_its_name_for_it_in_the_log() {
    let (a, b) = (rig(), rig());
    register(&a, "web", "v1", Some(&key()));
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    let (operation, binding) = (KeyOperation::Revoke, named("web"));
    let tried = KeyRequest::AuthenticationFailed { operation, binding };
    for (rig, name) in [(&a, "owner-moved"), (&b, "authentication-failed")] {
        let _ = rig.keeper.serve(tried.clone());
        assert_eq!(rig.last_refusal(), name);
    }
}

#[test]
fn rows_of_records_that_were_forgotten_are_forgotten_too() {
    let settings = trust::keeper::Settings { order_life_s: 60, ..crate::support::open_settings() };
    let rig = Rig::new(settings);
    rig.authorize_as(Authorize { life_s: Some(1), ..owned("web", "v1") }).unwrap();
    assert_eq!(place(&rig, "v1"), "here");
    rig.clock.pass(1);
    rig.keeper.tidy().unwrap();
    assert_eq!(place(&rig, "v1"), "here");
    rig.clock.pass(1000);
    rig.keeper.tidy().unwrap();
    // Nothing is left by which it would still count as one that has keys here.
    assert_eq!(place(&rig, "v1"), "absent");
}
