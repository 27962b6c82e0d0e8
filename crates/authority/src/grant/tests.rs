//! One test for each reason not to grant.

use model::{
    Digest, Epoch, GrantId, Incarnation, OperationId,
    api::{
        grant::{GrantPurpose, GrantRequest},
        operate::{Action, Operation, Outcome},
        policy::Policy,
        vm::VmState,
    },
};

use super::{Asked, GrantRejection, decide};
use crate::{
    record::{
        host::{
            HostRecord,
            tests::{good, host},
        },
        operation::accepted,
        vm::{GuestStanding, KeyState, VmRecord, tests::started},
    },
    refusal::{Refusal, Rejection as _},
};

fn trusted(name: &str) -> HostRecord {
    host(name).approved(false).unwrap().appraised(good(1_000_000))
}

fn request(purpose: GrantPurpose) -> GrantRequest {
    GrantRequest {
        operation: OperationId([1; 16]),
        request: GrantId([9; 16]),
        purpose,
        epoch: Epoch(1),
    }
}

fn guest(at: u64, refused: Option<Refusal>) -> GuestStanding {
    GuestStanding {
        at,
        epoch: Epoch(1),
        verdict: serde_json::Value::Null,
        digest: Digest::sha256([0; 32]),
        refused,
        chain: Vec::new(),
        evidence: Digest::sha256([0; 32]),
    }
}

fn operation(vm: &VmRecord, action: Action, outcome: Option<Outcome>) -> Operation {
    let host = vm.home.clone().unwrap();
    let id = OperationId([1; 16]);
    Operation { outcome, ..accepted(id, vm.spec.name.clone(), action, host, 1) }
}

fn ask(host: &HostRecord, vm: &VmRecord, request: &GrantRequest, used: bool) -> Asked<'static> {
    let (host, vm, request) = (host.clone(), vm.clone(), request.clone());
    let operation = operation(&vm, Action::Start, None);
    Asked {
        host: Box::leak(Box::new(host)),
        vm: Box::leak(Box::new(vm)),
        request: Box::leak(Box::new(request)),
        operation: Some(Box::leak(Box::new(operation))),
        used,
        policy: Box::leak(Box::new(Policy::default())),
        now: 100,
        incarnation: Incarnation(1),
        restored: crate::restore::Restored::default(),
    }
}

fn refused(asked: &Asked<'_>) -> &'static str {
    decide(asked).unwrap_err().name()
}

#[test]
fn a_trusted_home_gets_boot_keys_for_its_open_start() {
    let asked = ask(&trusted("a"), &started("a", 1), &request(GrantPurpose::Boot), false);
    let terms = decide(&asked).unwrap();
    assert_eq!(terms.expires_at, 100 + 60_000);
}

#[test]
fn hosts_that_may_not_hold_keys_get_none() {
    let (vm, boot) = (started("a", 1), request(GrantPurpose::Boot));
    let watched = trusted("a").approved(true).unwrap();
    assert_eq!(refused(&ask(&watched, &vm, &boot, false)), "host-audit-only");
    assert_eq!(refused(&ask(&trusted("a").revoked(1), &vm, &boot, false)), "host-revoked");
    let stale = trusted("a").appraised(good(100));
    assert_eq!(refused(&ask(&stale, &vm, &boot, false)), "host-not-trusted");
    assert_eq!(refused(&ask(&host("a"), &vm, &boot, false)), "host-not-approved");
}

#[test]
fn another_host_epoch_operation_or_a_used_id_gets_none() {
    let (vm, boot) = (started("a", 1), request(GrantPurpose::Boot));
    assert_eq!(refused(&ask(&trusted("b"), &vm, &boot, false)), "vm-homed-elsewhere");
    let other = GrantRequest { epoch: Epoch(2), ..boot.clone() };
    assert_eq!(refused(&ask(&trusted("a"), &vm, &other, false)), "vm-epoch-ahead");
    let other = GrantRequest { operation: OperationId([2; 16]), ..boot.clone() };
    assert_eq!(refused(&ask(&trusted("a"), &vm, &other, false)), "operation-unknown");
    assert_eq!(refused(&ask(&trusted("a"), &vm, &boot, true)), "grant-used");
    let revoked = VmRecord { revoked: true, ..vm.clone() };
    assert_eq!(refused(&ask(&trusted("a"), &revoked, &boot, false)), "vm-revoked");
    let awaited = VmRecord { key: KeyState::Awaited, ..vm };
    assert_eq!(refused(&ask(&trusted("a"), &awaited, &boot, false)), "key-awaited");
}

#[test]
fn the_data_volume_follows_the_guests_fresh_good_verdict() {
    let data = request(GrantPurpose::Data);
    let vm = started("a", 1);
    assert_eq!(refused(&ask(&trusted("a"), &vm, &data, false)), "guest-not-trusted");
    let with = |guest| VmRecord { guest: Some(guest), ..vm.clone() };
    let good = with(guest(50, None));
    assert!(decide(&ask(&trusted("a"), &good, &data, false)).is_ok());
    let bad = with(guest(50, Some(Refusal::invalid("another kernel"))));
    assert_eq!(refused(&ask(&trusted("a"), &bad, &data, false)), "guest-not-trusted");
    let earlier = with(guest(0, None));
    assert_eq!(refused(&ask(&trusted("a"), &earlier, &data, false)), "guest-not-trusted");
    let mut late = ask(&trusted("a"), &good, &data, false);
    late.now = 50 + 300_001;
    assert!(matches!(decide(&late), Err(GrantRejection::Guest(_))));
}

#[test]
fn a_running_vm_is_repaired_in_the_name_of_its_last_good_operation() {
    let boot = request(GrantPurpose::Boot);
    let ended = VmRecord { open: None, ..started("a", 1) };
    let decided = |vm: &VmRecord, operation: &Operation| {
        let asked = ask(&trusted("a"), vm, &boot, false);
        decide(&Asked { operation: Some(operation), ..asked }).is_ok()
    };
    let running = VmRecord { state: VmState::Running, ..ended.clone() };
    let done = operation(&running, Action::Start, Some(Outcome::Done));
    assert!(decided(&running, &done));
    assert!(decided(&VmRecord { state: VmState::Paused, ..ended.clone() }, &done));
    assert!(!decided(&VmRecord { state: VmState::Stopped, ..ended }, &done));
    let failed = Outcome::Failed { detail: String::new(), hint: String::new() };
    assert!(!decided(&running, &operation(&running, Action::Start, Some(failed))));
    assert!(!decided(&running, &operation(&running, Action::Stop, Some(Outcome::Done))));
    let other = Operation { vm: "v2".parse().unwrap(), ..done };
    assert!(!decided(&running, &other));
}
