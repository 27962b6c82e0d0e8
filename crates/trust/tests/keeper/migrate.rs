//! Keys that move with their owner, between two keepers: everything arrives, nothing stays, and
//! each wrong turn has its name. The wire is played by the test, statement by statement, so that
//! either keeper can end between any two of them.

use std::sync::Arc;

use model::{
    Digest, HostId,
    api::Bytes,
    keys::{
        KeyExample, StatusValue,
        admin::{AdminReply, AdminRequest, Authorize, OwnerView},
        order::KeyOperation,
        rpc::KeyRequest,
    },
    migration::{Body, Statement},
};
use serve::keys::SigningKey;
use trust::keeper::{Own, Refusal, Settings, Why};

use crate::support::{Rig, authorize, by_key, held, key, named, open_settings, prototype};

pub(crate) fn own(host: &str) -> Own {
    let verdict = Digest::sha256([host.as_bytes()[0]; 32]);
    Own { host: host.parse().unwrap(), verdict }
}

pub(crate) fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

/// A keeper that may move keys.
pub(crate) fn rig() -> Rig {
    let settings = Settings { generate_keys: true, escrow: true, ..open_settings() };
    let rig = Rig::new(settings);
    rig.keeper.moves(Arc::default());
    rig
}

pub(crate) fn owned(name: &str, owner: &str) -> Authorize {
    Authorize { owner: Some(owner.to_owned()), ..authorize(name) }
}

/// Registers a key of an owner.
pub(crate) fn register(rig: &Rig, name: &str, owner: &str, key: Option<&SigningKey>) {
    let phrase = rig.authorize_as(owned(name, owner)).unwrap();
    rig.register_by(&phrase, &prototype(name, key), key).unwrap();
}

pub(crate) fn migrate(rig: &Rig, owner: &str, to: &str) -> Result<OwnerView, String> {
    let (owner, url) = (owner.to_owned(), "https://127.0.0.1:1".to_owned());
    let operator = "alice".to_owned();
    view(rig.keeper.administer(AdminRequest::Migrate { owner, host: host(to), url, operator }))
}

pub(crate) fn view(reply: AdminReply) -> Result<OwnerView, String> {
    if let AdminReply::Refused { name, .. } = reply {
        return Err(name);
    }
    Ok(held!(reply, AdminReply::Migration(view) => view))
}

pub(crate) fn place(rig: &Rig, owner: &str) -> &'static str {
    let asked = AdminRequest::Migration { owner: owner.to_owned() };
    view(rig.keeper.administer(asked)).unwrap().place.name()
}

pub(crate) fn cancel(rig: &Rig, owner: &str) -> Result<OwnerView, String> {
    let (owner, operator) = (owner.to_owned(), "alice".to_owned());
    view(rig.keeper.administer(AdminRequest::CancelMigration { owner, operator }))
}

/// Announces at `at` that an owner's keys come from `from`, with the CA of the keeper there.
pub(crate) fn announce(at: &Rig, owner: &str, (from, source): (&str, Option<&Rig>)) {
    let ca = source.map(|rig| Bytes(rig.keeper.ca_certificate().to_vec()));
    let (owner, operator) = (owner.to_owned(), "bob".to_owned());
    let reply =
        at.keeper.administer(AdminRequest::Expect { owner, from: host(from), ca, operator });
    assert!(matches!(reply, AdminReply::Expected { .. }), "{reply:?}");
}

/// What the source says next.
pub(crate) fn next(rig: &Rig, owner: &str, from: &str) -> Option<Statement> {
    rig.keeper.outgoing(owner, &own(from)).unwrap().map(|next| next.statement)
}

pub(crate) fn incoming(
    rig: &Rig,
    said: &Statement,
    at: &str,
    trusted: bool,
) -> Result<Statement, String> {
    rig.keeper.incoming(said, &own(at), trusted).map_err(name)
}

fn name(why: Why) -> String {
    held!(why, Why::Refused(refusal) => refusal).name().to_owned()
}

/// Everything that can be said, until there is nothing to say.
pub(crate) fn settle(a: &Rig, b: &Rig, owner: &str, (from, to): (&str, &str)) {
    while let Some(said) = next(a, owner, from) {
        let answer = incoming(b, &said, to, true).unwrap();
        a.keeper.heard(owner, &answer, true).unwrap();
    }
}

/// How many of the two answer for a key name.
pub(crate) fn answering(rigs: [&Rig; 2], name: &str) -> [usize; 2] {
    rigs.map(|rig| rig.locate(named(name)).bindings.len())
}

#[test]
fn everything_of_an_owner_moves_and_nothing_of_another() {
    let (a, b) = (rig(), rig());
    let (web, other) = (key(), key());
    register(&a, "web", "v1", Some(&web));
    register(&a, "made", "v1", None);
    register(&a, "other", "v2", Some(&other));
    let open = a.authorize_as(owned("web", "v1")).unwrap();
    let dropped = a.authorize_as(owned("nobody-has-it", "v1")).unwrap();
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!((place(&a, "v1"), place(&b, "v1")), ("absent", "here"));
    for moved in ["web", "made"] {
        assert_eq!(answering([&a, &b], moved), [0, 1], "{moved}");
        assert_eq!(b.verdict(named(moved)), StatusValue::Valid);
    }
    assert_eq!(answering([&a, &b], "other"), [1, 0]);
    assert_eq!(b.locate(by_key(&web)).bindings.len(), 1);
    // The certificate's own CA comes with it.
    let chain = b.locate(named("web")).bindings.remove(0).certificates;
    assert_eq!(chain[1].0, a.keeper.ca_certificate());
    // What was open stays open, there: a pass phrase, and the key's own right to revoke.
    // But none for a name that has no binding: nobody vouches for it.
    let late = key();
    let wanted = prototype("nobody-has-it", Some(&late));
    assert!(b.register_by(&dropped, &wanted, Some(&late)).is_err());
    assert!(b.register_by(&open, &prototype("web", Some(&late)), Some(&late)).is_ok());
    let about = b.about(KeyOperation::Revoke, by_key(&web), &web);
    let _ = b.keeper.serve(KeyRequest::Revoke(about));
    assert_eq!(b.verdict(by_key(&web)), StatusValue::Invalid);
    // Here, orders about it are refused by name.
    let example = KeyExample { name: Some("web".to_owned()), ..KeyExample::default() };
    let asked =
        KeyRequest::AuthenticationKeys { operation: KeyOperation::Revoke, binding: example };
    let failed = a.keeper.serve(asked);
    assert!(format!("{failed:?}").contains("Failed"), "{failed:?}");
    assert_eq!(a.authorize_as(owned("new", "v1")).unwrap_err(), "owner-moved");
    assert_eq!(migrate(&a, "v1", "c").unwrap_err(), "owner-moved");
    // And back again.
    announce(&a, "v1", ("b", Some(&b)));
    migrate(&b, "v1", "a").unwrap();
    settle(&b, &a, "v1", ("b", "a"));
    assert_eq!(answering([&a, &b], "made"), [1, 0]);
    assert_eq!(a.verdict(by_key(&web)), StatusValue::Invalid);
    assert!(a.authorize_as(owned("new", "v1")).is_ok());
}

#[test]
fn a_private_key_in_escrow_moves_into_the_escrow_of_the_other_and_can_be_recovered_there() {
    let (a, b) = (rig(), rig());
    register(&a, "made", "v1", None);
    let before = a.locate(named("made")).bindings.remove(0);
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    let approve = |operator: &str| {
        b.keeper.administer(AdminRequest::ApproveRecovery {
            id: before.id.clone(),
            operator: operator.to_owned(),
        })
    };
    approve("alice");
    let reply = approve("bob");
    assert!(matches!(reply, AdminReply::RecoveryApproved { missing: 0, .. }), "{reply:?}");
    let gone = a.keeper.administer(AdminRequest::ApproveRecovery {
        id: before.id.clone(),
        operator: "alice".to_owned(),
    });
    assert!(matches!(gone, AdminReply::Refused { .. }), "{gone:?}");
}

#[test]
fn whichever_keeper_dies_after_whichever_step_the_keys_are_at_one_place_in_the_end() {
    for cut in 0..6 {
        for who in 0..3 {
            let (mut a, mut b) = (rig(), rig());
            let web = key();
            register(&a, "web", "v1", Some(&web));
            announce(&b, "v1", ("a", Some(&a)));
            migrate(&a, "v1", "b").unwrap();
            let mut steps = 0;
            while let Some(said) = next(&a, "v1", "a") {
                let answers = answering([&a, &b], "web");
                assert!(answers.iter().sum::<usize>() <= 1, "{answers:?}");
                let answer = incoming(&b, &said, "b", true).unwrap();
                // The answer is lost with the process that waited for it.
                let lost = steps == cut;
                if lost && who != 1 {
                    a = a.restart();
                }
                if lost && who != 0 {
                    b = b.restart();
                }
                if !lost {
                    a.keeper.heard("v1", &answer, true).unwrap();
                }
                steps += 1;
                assert!(steps < 12, "it does not come to an end");
            }
            assert_eq!(answering([&a, &b], "web"), [0, 1], "cut {cut}, {who}");
            assert_eq!((place(&a, "v1"), place(&b, "v1")), ("absent", "here"));
        }
    }
}

#[test]
fn nothing_changes_while_keys_are_on_their_way_and_a_cancelled_migration_leaves_them() {
    let (a, b) = (rig(), rig());
    let web = key();
    register(&a, "web", "v1", Some(&web));
    assert_eq!(migrate(&a, "v9", "b").unwrap_err(), "owner-unknown");
    assert_eq!(migrate(&a, "../etc", "b").unwrap_err(), "owner-invalid");
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    assert_eq!(migrate(&a, "v1", "c").unwrap_err(), "owner-migrating");
    let offer = next(&a, "v1", "a").unwrap();
    let ready = incoming(&b, &offer, "b", true).unwrap();
    a.keeper.heard("v1", &ready, true).unwrap();
    assert_eq!(place(&a, "v1"), "sending");
    let example = named("web");
    let about = a.about(KeyOperation::Revoke, example, &web);
    let _ = a.keeper.serve(KeyRequest::Revoke(about));
    assert_eq!(a.last_refusal(), "owner-migrating");
    assert_eq!(a.authorize_as(owned("new", "v1")).unwrap_err(), "owner-migrating");
    assert_eq!(b.authorize_as(owned("new", "v1")).unwrap_err(), "owner-migrating");
    assert_eq!(a.verdict(named("web")), StatusValue::Valid);
    let parcel = next(&a, "v1", "a").unwrap();
    incoming(&b, &parcel, "b", true).unwrap();
    assert_eq!((place(&b, "v1"), answering([&a, &b], "web")), ("held", [1, 0]));
    cancel(&a, "v1").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!((place(&a, "v1"), place(&b, "v1")), ("here", "absent"));
    assert!(cancel(&a, "v1").is_err_and(|name| name == "migration-unknown"));
    // What is still on its way of the cancelled one comes too late.
    assert_eq!(incoming(&b, &offer, "b", true).unwrap_err(), "migration-stale");
    assert_eq!(incoming(&b, &parcel, "b", true).unwrap_err(), "migration-unknown");
    assert!(a.authorize_as(owned("new", "v1")).is_ok());
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!(answering([&a, &b], "web"), [0, 1]);
}

#[test]
fn keys_do_not_go_to_a_service_whose_verdict_turned_bad_half_way() {
    for bad_at in ["ready", "receipt"] {
        let (a, b) = (rig(), rig());
        register(&a, "web", "v1", Some(&key()));
        announce(&b, "v1", ("a", Some(&a)));
        migrate(&a, "v1", "b").unwrap();
        while let Some(said) = next(&a, "v1", "a") {
            let answer = incoming(&b, &said, "b", true).unwrap();
            let now = if matches!(answer.body, Body::Ready { .. }) {
                "ready"
            } else if matches!(answer.body, Body::Receipt { .. }) {
                "receipt"
            } else {
                ""
            };
            a.keeper.heard("v1", &answer, now != bad_at).unwrap();
        }
        assert_eq!(answering([&a, &b], "web"), [1, 0], "{bad_at}");
        assert_eq!((place(&a, "v1"), place(&b, "v1")), ("here", "absent"));
        let asked = AdminRequest::Migration { owner: "v1".to_owned() };
        let refused = view(a.keeper.administer(asked)).unwrap().refused;
        assert_eq!(refused.as_deref(), Some("peer-untrusted"));
        assert!(a.refusals().contains(&"peer-untrusted".to_owned()));
    }
}

#[test]
fn statements_that_are_not_of_this_migration_are_refused_by_name() {
    let (a, b) = (rig(), rig());
    let web = key();
    register(&a, "web", "v1", Some(&web));
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    let offer = next(&a, "v1", "a").unwrap();
    assert_eq!(incoming(&b, &offer, "b", false).unwrap_err(), "peer-untrusted");
    assert_eq!(incoming(&b, &offer, "c", true).unwrap_err(), "peer-wrong");
    let ready = incoming(&b, &offer, "b", true).unwrap();
    let stranger = Statement { source: host("c"), ..offer.clone() };
    assert_eq!(incoming(&b, &stranger, "b", true).unwrap_err(), "migration-unexpected");
    a.keeper.heard("v1", &ready, true).unwrap();
    let parcel = next(&a, "v1", "a").unwrap();
    // What it says in clear is who moves what, and nothing of the keys.
    let said = serde_json::to_string(&parcel).unwrap();
    let spki = hex::encode(web.spki());
    assert!(!said.contains("web") && !said.contains(&spki) && !said.contains("certificate"));
    // Sealed for another verdict, epoch or source, or altered: it does not open.
    let altered = [
        Statement { verdict: Digest::sha256([9; 32]), ..parcel.clone() },
        Statement { body: flipped(&parcel.body), ..parcel.clone() },
    ];
    for altered in altered {
        assert_eq!(incoming(&b, &altered, "b", true).unwrap_err(), "parcel-unfit");
    }
    let unasked = Statement { body: Body::Activate, ..parcel.clone() };
    assert_eq!(incoming(&b, &unasked, "b", true).unwrap_err(), "peer-wrong");
    incoming(&b, &parcel, "b", true).unwrap();
    // A receipt of something else takes nothing away here.
    let receipt = Body::Receipt { content: Digest::sha256([1; 32]) };
    a.keeper.heard("v1", &Statement { body: receipt, ..ready.clone() }, true).unwrap();
    assert_eq!(place(&a, "v1"), "withdrawing");
    settle(&a, &b, "v1", ("a", "b"));
    assert_eq!(answering([&a, &b], "web"), [1, 0]);
    let foreign = Statement { target: host("c"), ..ready };
    assert!(a.keeper.heard("v1", &foreign, true).is_err());
    // The target has keys of its own under that owner's name.
    let c = rig();
    register(&c, "mine", "v1", Some(&key()));
    announce(&c, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "c").unwrap();
    let offer = next(&a, "v1", "a").unwrap();
    assert_eq!(incoming(&c, &offer, "c", true).unwrap_err(), Refusal::OwnerPresent.name());
}

fn flipped(body: &Body) -> Body {
    let Body::Parcel { enc, ciphertext } = body.clone() else { panic!("no parcel") };
    let mut ciphertext = ciphertext;
    ciphertext.0[0] ^= 1;
    Body::Parcel { enc, ciphertext }
}
