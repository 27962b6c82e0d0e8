//! A key goes from one host's TPM into another's by the authority's word: two hosts with software
//! TPMs, and the authority between them.

use model::{
    HostId, MigrationId,
    api::{
        Bytes,
        audit::AuditCheckpoint,
        duplication::{DuplicationApproval, DuplicationRequest, StorageParent},
        enrol::HostView,
    },
};
use tpm::{
    Auth, AuthValue, Hierarchy, KeyBlob, Object, Tpm, TpmError, handle, lease::Approver, resident,
    template,
};

use crate::{
    host_client::{HostClient, InSession},
    support::{Centre, Refused},
};

const ID: MigrationId = MigrationId([9; 16]);

fn root(tpm: &mut Tpm) -> Result<Object, TpmError> {
    let empty = AuthValue::empty();
    tpm.create_primary(Hierarchy::Owner, Auth::none(), &template::srk_p256(), &empty)
}

/// A host's parent for a migration from `source`, certified by its AK.
fn parent(host: &HostClient, source: &HostId) -> StorageParent {
    let qualifying = resident::qualifying(&ID, source, &host.name);
    let certified = host.tpm.actor.run(move |tpm| {
        tpm.scoped(|tpm| {
            let ak = tpm.persistent(handle::HOST_AK)?.expect("the AK was persisted");
            let root = root(tpm)?;
            let certified = resident::certified(tpm, (&root, &ak), &qualifying)?;
            Ok::<_, TpmError>((root.public().clone(), certified))
        })
    });
    let (public, certified) = certified.unwrap();
    StorageParent {
        public: Bytes(public.as_bytes().to_vec()),
        attest: Bytes(certified.attest),
        signature: Bytes(certified.signature),
    }
}

fn approve(
    source: &InSession,
    target: &HostId,
    key: &KeyBlob,
    parent: &StorageParent,
) -> Result<DuplicationApproval, Refused> {
    let request = DuplicationRequest {
        migration: ID,
        target: target.clone(),
        key: Bytes(key.public.name().as_bytes().to_vec()),
        parent: parent.clone(),
    };
    source.caller.post("/v1/duplications", &request)
}

/// The authority, as TPMs name it.
fn approver(centre: &Centre) -> Approver {
    let known: AuditCheckpoint = centre.operator().get("/v1/audit/checkpoint").unwrap();
    Approver::from_spki(&known.signing_key.0).unwrap()
}

/// A key in a host's TPM.
fn made(host: &HostClient, approver: &Approver) -> KeyBlob {
    let approver = approver.clone();
    let made = host.tpm.actor.run(move |tpm| {
        tpm.scoped(|tpm| {
            let root = root(tpm)?;
            resident::make(tpm, &root, &approver)
        })
    });
    made.unwrap()
}

fn good(centre: &Centre, names: [&str; 2]) -> [HostClient; 2] {
    let hosts = names.map(|name| centre.host(name));
    centre.endorse(&hosts[0].log);
    hosts
}

#[test]
fn a_key_goes_to_the_parent_that_the_targets_tpm_certified_and_to_no_other() {
    let centre = Centre::start();
    let [a, b] = good(&centre, ["a", "b"]);
    let (source, _target) = (a.session().unwrap(), b.session().unwrap());
    let approver = approver(&centre);
    let key = made(&a, &approver);
    let good = parent(&b, &a.name);
    let word = approve(&source, &b.name, &key, &good).unwrap();
    let public = tpm::Public::parse(&good.public.0).unwrap();
    let (by, sent, signature) = (approver.clone(), key.clone(), word.signature.0.clone());
    let travelling = a.tpm.actor.run(move |tpm| {
        tpm.scoped(|tpm| {
            let root = root(tpm)?;
            resident::leave(tpm, (&root, &sent), &public, (&by, &signature))
        })
    });
    let (travelling, by) = (travelling.unwrap(), approver.clone());
    let there = b.tpm.actor.run(move |tpm| {
        tpm.scoped(|tpm| {
            let root = root(tpm)?;
            resident::arrive(tpm, &root, &by, &travelling)
        })
    });
    assert_eq!(there.unwrap().public, key.public);
    // The same word for a parent in the thief's own TPM: the source's TPM refuses.
    let own = parent(&a, &a.name);
    let public = tpm::Public::parse(&own.public.0).unwrap();
    let refused = a.tpm.actor.run(move |tpm| {
        tpm.scoped(|tpm| {
            let root = root(tpm)?;
            resident::leave(tpm, (&root, &key), &public, (&approver, &word.signature.0))
        })
    });
    assert!(refused.unwrap_err().is_policy_refusal());
    assert!(centre.audited_events().iter().any(|event| event == "key-duplication-approved"));
}

#[test]
fn no_parent_is_approved_that_is_not_the_targets_or_while_a_host_may_not_hold_keys() {
    let centre = Centre::start();
    let [a, b] = good(&centre, ["a", "b"]);
    let (source, target) = (a.session().unwrap(), b.session().unwrap());
    let key = made(&a, &approver(&centre));
    let refused =
        |parent: &StorageParent| approve(&source, &b.name, &key, parent).err().unwrap_or_default();
    // Certified by another host's AK; for a migration from elsewhere; altered.
    assert_eq!(refused(&parent(&a, &a.name)), "key-parent-foreign");
    assert_eq!(refused(&parent(&b, &b.name)), "key-parent-foreign");
    let good = parent(&b, &a.name);
    let other = StorageParent { public: parent(&a, &a.name).public, ..good.clone() };
    assert_eq!(refused(&other), "key-parent-foreign");
    // Somebody else's session asks.
    assert_eq!(approve(&target, &b.name, &key, &good).unwrap_err(), "key-parent-foreign");
    let nobody = "nobody".parse().unwrap();
    assert_eq!(approve(&source, &nobody, &key, &good).unwrap_err(), "ak-not-enrolled");
    let audit_only = serde_json::json!({ "audit_only": true });
    let _: HostView = centre.operator().post("/v1/hosts/b/approve", &audit_only).unwrap();
    assert_eq!(refused(&good), "host-audit-only");
    assert!(centre.audited_refusals().iter().any(|name| name == "key-parent-foreign"));
}
