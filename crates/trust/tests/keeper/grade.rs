//! Access between levels: one VM, several identities of different grade; nothing is asked upwards
//! unless an operator allowed it, and each no is in the audit log.

use model::{
    api::Bytes,
    keys::{
        Allowance, Grades, KeyExample, Query,
        admin::{AdminReply, AdminRequest},
        order::KeyFailure,
        rpc::{KeyAnswer, KeyRequest},
    },
};
use serve::keys::SigningKey;

use crate::{
    migrate::{announce, migrate, owned, register, rig, settle},
    support::{Rig, held, key, named},
};

fn set(rig: &Rig, request: AdminRequest) -> Grades {
    held!(rig.keeper.administer(request), AdminReply::Grades(set) => set)
}

fn grade(rig: &Rig, owner: &str, name: &str, grade: u8) -> Grades {
    let (owner, name, operator) = (owner.to_owned(), name.to_owned(), "alice".to_owned());
    set(rig, AdminRequest::Grade { owner, name, grade, operator })
}

fn allow(rig: &Rig, from: u8, to: u8, (locate, validate): (bool, bool)) -> Grades {
    let allowance = Allowance { from, to, locate, validate };
    let (owner, operator) = ("v1".to_owned(), "alice".to_owned());
    set(rig, AdminRequest::Allow { owner, allowance, operator })
}

fn query(example: KeyExample) -> Query {
    Query { binding: example, instant: None, limit: 4 }
}

/// Whether it is answered to a message that this key signed.
fn answered(rig: &Rig, signer: Option<&SigningKey>, question: KeyRequest) -> bool {
    let request = match signer {
        Some(key) => {
            let (signer, question) = (Bytes(key.spki().to_vec()), Box::new(question));
            KeyRequest::AskedBy { signer, question }
        }
        None => question,
    };
    let answer = rig.keeper.serve(request);
    if let KeyAnswer::Failed(failure) = answer {
        assert_eq!(failure, KeyFailure::Refused);
        assert_eq!(rig.last_refusal(), "grade-too-low");
        return false;
    }
    !held!(answer, KeyAnswer::Found(found) => found).bindings.is_empty()
}

fn validates(rig: &Rig, signer: Option<&SigningKey>, name: &str) -> bool {
    answered(rig, signer, KeyRequest::Validate(query(named(name))))
}

fn locates(rig: &Rig, signer: Option<&SigningKey>, name: &str) -> bool {
    answered(rig, signer, KeyRequest::Locate(query(named(name))))
}

#[test]
fn an_identity_of_a_lower_grade_asks_nothing_of_a_higher_one_unless_it_was_allowed() {
    let rig = rig();
    let (web, bank, other) = (key(), key(), key());
    register(&rig, "web", "v1", Some(&web));
    register(&rig, "bank", "v1", Some(&bank));
    register(&rig, "other", "v2", Some(&other));
    assert!(validates(&rig, None, "bank"), "no grade, no rule");
    grade(&rig, "v1", "bank", 3);
    grade(&rig, "v1", "web", 1);
    grade(&rig, "v2", "other", 9);
    // Nobody, a stranger, a lower one, another owner's, however high.
    for signer in [None, Some(&key()), Some(&web), Some(&other)] {
        assert!(!validates(&rig, signer, "bank") && !locates(&rig, signer, "bank"));
    }
    let entry = rig.audit().pop().unwrap();
    assert!(entry.actor.starts_with("key:") && entry.subject == "key:bank", "{entry:?}");
    // Itself, and downwards.
    assert!(validates(&rig, Some(&bank), "bank") && validates(&rig, Some(&bank), "web"));
    // By another description of the same key, too.
    let by_key = KeyExample { key: Some(Bytes(bank.spki().to_vec())), ..KeyExample::default() };
    assert!(!answered(&rig, Some(&web), KeyRequest::Locate(query(by_key))));
    // What is allowed, is allowed as far as it says.
    allow(&rig, 1, 3, (false, true));
    assert!(validates(&rig, Some(&web), "bank") && !locates(&rig, Some(&web), "bank"));
    assert!(!validates(&rig, None, "bank") && !validates(&rig, Some(&other), "bank"));
    grade(&rig, "v1", "bank", 4);
    assert!(!validates(&rig, Some(&web), "bank"));
    assert!(allow(&rig, 0, 4, (false, true)).allowed.len() == 2);
    assert!(validates(&rig, None, "bank"));
    allow(&rig, 0, 4, (false, false));
    assert!(!validates(&rig, None, "bank"));
    assert!(grade(&rig, "v1", "bank", 0).names.len() == 1);
    assert!(validates(&rig, None, "bank"));
    // What is no question is not asked this way.
    let (signer, question) = (Bytes(web.spki().to_vec()), Box::new(KeyRequest::Crl));
    let asked = rig.keeper.serve(KeyRequest::AskedBy { signer, question });
    assert!(matches!(asked, KeyAnswer::Failed(KeyFailure::NotSupported)), "{asked:?}");
}

#[test]
fn a_key_that_was_revoked_has_no_grade_any_more() {
    let rig = rig();
    let (web, bank) = (key(), key());
    register(&rig, "web", "v1", Some(&web));
    register(&rig, "bank", "v1", Some(&bank));
    let id = rig.validate(named("web")).bindings.remove(0).id;
    grade(&rig, "v1", "web", 3);
    grade(&rig, "v1", "bank", 3);
    assert!(validates(&rig, Some(&web), "bank"));
    let operator = "alice".to_owned();
    let reply = rig.keeper.administer(AdminRequest::Revoke { id, operator });
    assert!(matches!(reply, AdminReply::Revoked { .. }), "{reply:?}");
    assert!(!validates(&rig, Some(&web), "bank"));
}

#[test]
fn grades_move_with_their_owner_and_stay_through_a_restart() {
    let (a, b) = (rig(), rig());
    let bank = key();
    register(&a, "bank", "v1", Some(&bank));
    grade(&a, "v1", "bank", 2);
    let phrase = a.authorize_as(owned("bank", "v1")).unwrap();
    assert!(!phrase.is_empty());
    announce(&b, "v1", ("a", Some(&a)));
    migrate(&a, "v1", "b").unwrap();
    settle(&a, &b, "v1", ("a", "b"));
    let b = b.restart();
    assert!(!validates(&b, None, "bank") && validates(&b, Some(&bank), "bank"));
    let refused = a.keeper.administer(AdminRequest::Grade {
        owner: "v1".to_owned(),
        name: "bank".to_owned(),
        grade: 0,
        operator: "alice".to_owned(),
    });
    assert!(matches!(refused, AdminReply::Refused { name, .. } if name == "owner-moved"));
    assert!(set(&a, AdminRequest::Grades { owner: "v1".to_owned() }).names.is_empty());
}
