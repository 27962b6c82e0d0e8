//! Approvals for a host's guard, on its own TPM: they open the seal while the lease lasts, and die
//! with the policy that they were made under; a lease does not.

use std::{thread, time::Duration};

use model::{
    KeyOrigin, Secret,
    api::{
        audit::AuditCheckpoint,
        enrol::{GuardApproval, HostSession},
        operate::Operation,
        policy::PolicyView,
        vm::VmView,
    },
};
use serde_json::json;
use serve::client::Call;
use tpm::{
    Auth, AuthValue, Hierarchy, KeyBlob, Object, Tpm, TpmError, handle,
    lease::{self, Approver, Lease},
    template,
};

use crate::{
    host_client::{HostClient, SessionKeys},
    launch::spec,
    support::Centre,
};

fn counter(host: &HostClient, increments: u32) -> u64 {
    let job = move |tpm: &mut Tpm| -> Result<u64, TpmError> {
        let index = lease::counter();
        if tpm.nv_public(index.index)?.is_none() {
            tpm.nv_define(Hierarchy::Owner, Auth::none(), &index, &AuthValue::empty())?;
            tpm.nv_increment(None, Auth::none(), index.index)?;
        }
        for _ in 0..increments {
            tpm.nv_increment(None, Auth::none(), index.index)?;
        }
        tpm.nv_read_counter(None, &mut Auth::none(), handle::GUARD_COUNTER)
    };
    host.tpm.actor.run(job).unwrap()
}

fn session(host: &HostClient, counter: Option<u64>) -> HostSession {
    let keys = SessionKeys::new();
    let mut evidence = host.evidence(&host.challenge().unwrap(), &keys);
    evidence.guard_counter = counter;
    host.attest(&evidence).unwrap()
}

fn root(tpm: &mut Tpm) -> Result<Object, TpmError> {
    let template = template::srk_p256();
    tpm.create_primary(Hierarchy::Owner, Auth::none(), &template, &AuthValue::empty())
}

fn seal(host: &HostClient, approver: &Approver) -> KeyBlob {
    let policy = lease::sealed_to(approver, &host.name).digest();
    let job = move |tpm: &mut Tpm| {
        let parent = root(tpm)?;
        tpm.seal(&parent, &policy, &Secret::new(vec![7; 32]))
    };
    host.tpm.actor.run(job).unwrap()
}

fn opens(host: &HostClient, approver: &Approver, blob: &KeyBlob, by: &GuardApproval) -> bool {
    let lease = Lease {
        pcrs: by.pcrs.clone(),
        pcr_digest: by.pcr_digest,
        counter: by.counter,
        clock_until: by.clock_until,
        reset_count: by.reset_count,
    };
    let policy = lease.opening(approver, &host.name, &by.signature.0).unwrap();
    let blob = blob.clone();
    let job = move |tpm: &mut Tpm| {
        let parent = root(tpm)?;
        tpm.unseal(&parent, &blob, &policy)
    };
    match host.tpm.actor.run(job) {
        Ok(key) => key.expose() == &[7; 32],
        Err(error) => {
            assert!(error.is_policy_refusal(), "{error}");
            false
        }
    }
}

#[test]
fn an_approval_opens_the_seal_of_its_host_until_policy_or_state_change() {
    let centre = Centre::start();
    let mut host = centre.host("a");
    let operator = centre.operator();
    let known: AuditCheckpoint = operator.get("/v1/audit/checkpoint").unwrap();
    let approver = Approver::from_spki(&known.signing_key.0).unwrap();
    let told = counter(&host, 0);
    let first = session(&host, Some(told)).guard.unwrap();
    assert_eq!(first.counter, told);
    let blob = seal(&host, &approver);
    assert!(opens(&host, &approver, &blob, &first));

    // Another policy: the counter is to move, and with it the first approval dies.
    let held: PolicyView = operator.get("/v1/policy").unwrap();
    let mut policy = held.policy.clone();
    policy.clock_skew_s += 1;
    let change = PolicyView { generation: held.generation, policy };
    let change = Call::new(http::Method::PUT, "/v1/policy").json(&change).unwrap();
    operator.call::<PolicyView>(change).unwrap();
    let second = session(&host, Some(told)).guard.unwrap();
    assert_eq!(second.counter, told + 1);
    assert!(!opens(&host, &approver, &blob, &second));
    assert!(opens(&host, &approver, &blob, &first));
    counter(&host, 1);
    assert!(opens(&host, &approver, &blob, &second));
    assert!(!opens(&host, &approver, &blob, &first));

    // A state that was not appraised opens nothing; once it is, the same seal opens.
    host.measure(14, "vouchsafe:host", true);
    assert!(!opens(&host, &approver, &blob, &second));
    let third = session(&host, Some(counter(&host, 0))).guard.unwrap();
    assert!(opens(&host, &approver, &blob, &third));
}

#[test]
fn only_an_enforcing_host_that_tells_its_counter_gets_an_approval() {
    let centre = Centre::start();
    let host = centre.host("a");
    assert!(session(&host, None).guard.is_none());
    assert!(session(&host, Some(1)).guard.is_some());
    centre.approve("a", true);
    assert!(session(&host, Some(1)).guard.is_none());
}

#[test]
fn a_silent_home_keeps_its_vm_for_the_lease_that_it_was_given() {
    let centre = Centre::start();
    let _session = centre.host("a").session().unwrap();
    let operator = centre.operator();
    operator.post::<VmView>("/v1/vms", &spec("v1", KeyOrigin::Console)).unwrap();
    operator.post::<Operation>("/v1/vms/v1/start", &json!({"host": "a"})).unwrap();
    let held: PolicyView = operator.get("/v1/policy").unwrap();
    let mut policy = held.policy.clone();
    (policy.lease_s, policy.clock_skew_s) = (1, 1);
    let change = PolicyView { generation: held.generation, policy };
    let change = Call::new(http::Method::PUT, "/v1/policy").json(&change).unwrap();
    operator.call::<PolicyView>(change).unwrap();
    thread::sleep(Duration::from_millis(2500));
    let fenced = operator.post::<VmView>("/v1/vms/v1/fence", &json!({"reason": "it is silent"}));
    assert_eq!(fenced.err().as_deref(), Some("vm-home-alive"));
}
