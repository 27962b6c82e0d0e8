//! What no sequence of requests may do to a VM.

use model::{
    Digest, Epoch, Guard, HostId, KeyOrigin, KmiOrigin, OperationId,
    api::{
        Bytes,
        operate::{Action, Outcome},
        vm::{
            ImageRef, OnLeaseEnd, Transport, VmReport, VmSpec, VmState, VolumeFormat,
            VtpmCertificates, VtpmPublics,
        },
    },
};
use proptest::prelude::*;

use super::{KeyState, VmRecord, VmRejection, change::Accepted, change::defined};
use crate::refusal::Rejection as _;

pub(crate) fn spec(origin: KeyOrigin) -> VmSpec {
    VmSpec {
        name: "v1".parse().unwrap(),
        image: ImageRef {
            path: "/images/guest.img".to_owned(),
            sha256: Digest::sha256([9; 32]),
            size: 4096,
        },
        memory_mib: 256,
        cpus: 1,
        data_mib: 16,
        guard: Guard::Tpm,
        origin,
        kmi_origin: KmiOrigin::Console,
        format: VolumeFormat::Luks2,
        transport: Transport::Nbd,
        on_lease_end: OnLeaseEnd::Pause,
        vtpm_rsa_ek: false,
        pcr_banks: model::PcrBanks::default(),
        on_bad_guest: None,
        reference: serde_json::Value::Null,
    }
}

pub(crate) fn vm() -> VmRecord {
    defined(None, spec(KeyOrigin::Console), Digest::sha256([1; 32]), Epoch(0)).unwrap()
}

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn id(n: u8) -> OperationId {
    OperationId([n; 16])
}

fn publics(n: u8, epoch: Epoch) -> VtpmPublics {
    VtpmPublics { epoch, ek_public: Bytes(vec![n]), ek_rsa_public: None, ak_public: Bytes(vec![n]) }
}

fn certificates() -> VtpmCertificates {
    VtpmCertificates {
        ek_certificate: Bytes(vec![]),
        ek_rsa_certificate: None,
        ak_certificate: Bytes(vec![]),
        vtpm_ca: Bytes(vec![]),
    }
}

fn opened(accepted: Accepted) -> VmRecord {
    match accepted {
        Accepted::New { vm, .. } | Accepted::Settled(vm) => *vm,
        Accepted::Already(id) => panic!("{id} was already open"),
    }
}

pub(crate) fn started(on: &str, n: u8) -> VmRecord {
    opened(vm().start(&host(on), id(n), 1).unwrap())
}

fn report(state: VmState, epoch: Epoch) -> VmReport {
    VmReport { state, epoch, detail: String::new() }
}

pub(crate) fn running(on: &str) -> VmRecord {
    let vm = started(on, 1).certified_as(publics(1, Epoch(1)), certificates());
    let vm = vm.reported(&host(on), report(VmState::Running, Epoch(1))).unwrap();
    vm.settled(id(1), &Outcome::Done)
}

#[test]
fn a_kmi_that_the_host_makes_is_awaited_and_names_the_key_from_then_on() {
    let wish = VmSpec { kmi_origin: KmiOrigin::Tcb, ..spec(KeyOrigin::Console) };
    let vm = defined(None, wish, Digest::sha256([1; 32]), Epoch(0)).unwrap();
    assert_eq!(vm.key, KeyState::Awaited);
    let Accepted::New { vm, .. } = vm.start(&host("a"), id(1), 1).unwrap() else {
        panic!("a start is a new operation");
    };
    let named = vm.deposited(&host("a"), id(1), Some(Digest::sha256([7; 32]))).unwrap();
    assert_eq!((named.key, named.kmi().key_id), (KeyState::Held, Digest::sha256([7; 32])));
}

#[test]
fn the_first_start_homes_a_vm_and_no_other_host_may_start_it() {
    let vm = started("a", 1);
    assert_eq!(vm.view().state, VmState::Busy);
    let elsewhere = vm.start(&host("b"), id(2), 2).unwrap_err();
    assert_eq!(elsewhere.name(), "vm-homed-elsewhere");
    let stopped = running("a").settled(id(9), &Outcome::Done);
    assert_eq!(stopped.start(&host("b"), id(2), 2).unwrap_err().name(), "vm-homed-elsewhere");
    assert_eq!(stopped.start(&host("a"), id(2), 2), Err(VmRejection::Running));
}

#[test]
fn the_same_wish_twice_is_one_operation() {
    let vm = started("a", 1);
    assert_eq!(vm.start(&host("a"), id(2), 2), Ok(Accepted::Already(id(1))));
    let stopping = opened(running("a").stop(id(3), 3).unwrap());
    assert_eq!(stopping.stop(id(4), 4), Ok(Accepted::Already(id(3))));
    assert_eq!(stopping.attest(id(4), 4), Err(VmRejection::Busy(id(3))));
}

#[test]
fn a_stop_takes_the_place_of_a_start() {
    let Ok(Accepted::New { superseded, vm, .. }) = started("a", 1).stop(id(2), 2) else {
        panic!("the stop was not accepted");
    };
    assert_eq!(superseded, Some(id(1)));
    let after = vm.settled(id(1), &Outcome::Done);
    assert_eq!(after.open.map(|open| open.action), Some(Action::Stop));
    assert_eq!(after.settled(id(2), &Outcome::Done).state, VmState::Stopped);
}

#[test]
fn data_keys_of_a_running_vault_are_exchanged_and_a_stop_goes_before() {
    assert_eq!(running("a").rekey(id(2), 2), Err(VmRejection::NotVault));
    let vault = |vm: VmRecord| {
        let spec = VmSpec { format: VolumeFormat::Vault, ..vm.spec.clone() };
        VmRecord { spec, ..vm }
    };
    assert_eq!(vault(vm()).rekey(id(2), 2), Err(VmRejection::NotRunning));
    assert_eq!(vault(started("a", 1)).rekey(id(2), 2), Err(VmRejection::Busy(id(1))));
    let rekeyed = opened(vault(running("a")).rekey(id(2), 2).unwrap());
    assert_eq!(rekeyed.view().operation, Some(id(2)));
    assert_eq!(rekeyed.rekey(id(3), 3), Ok(Accepted::Already(id(2))));
    assert_eq!(rekeyed.attest(id(3), 3), Err(VmRejection::Busy(id(2))));
    let Ok(Accepted::New { superseded, .. }) = rekeyed.stop(id(4), 4) else {
        panic!("the stop was not accepted");
    };
    assert_eq!(superseded, Some(id(2)));
    let after = rekeyed.settled(id(2), &Outcome::Done);
    assert_eq!((after.state, after.open), (VmState::Running, None));
}

#[test]
fn a_vtpm_that_has_booted_is_final_in_its_epoch() {
    let vm = started("a", 1).certified_as(publics(1, Epoch(1)), certificates());
    assert!(vm.may_certify(&host("a"), Epoch(1)).is_ok());
    assert!(vm.certified(&publics(1, Epoch(1))).is_some());
    assert!(vm.certified(&publics(2, Epoch(1))).is_none());
    let vm = running("a");
    assert_eq!(vm.may_certify(&host("a"), Epoch(1)), Err(VmRejection::VtpmCertified));
    assert_eq!(vm.may_certify(&host("b"), Epoch(1)).unwrap_err().name(), "vm-homed-elsewhere");
    assert_eq!(vm.may_certify(&host("a"), Epoch(2)).unwrap_err().name(), "vm-epoch-ahead");
}

#[test]
fn a_fence_moves_the_epoch_and_clears_the_home() {
    let vm = running("a").fenced(Epoch(0)).unwrap();
    assert_eq!((vm.epoch, vm.home.clone(), vm.state), (Epoch(2), None, VmState::Defined));
    let late = running("a").fenced(Epoch(0)).unwrap();
    assert!(late.reported(&host("a"), report(VmState::Running, Epoch(1))).is_err());
    assert!(vm.start(&host("b"), id(2), 2).is_ok());
}

#[test]
fn a_key_is_deposited_once_and_only_if_it_is_awaited() {
    assert_eq!(started("a", 1).deposited(&host("a"), id(1), None), Err(VmRejection::KeyDeposited));
    let vm = defined(None, spec(KeyOrigin::Tpm), Digest::sha256([1; 32]), Epoch(0)).unwrap();
    let vm = opened(vm.start(&host("a"), id(1), 1).unwrap());
    assert_eq!(vm.deposited(&host("b"), id(1), None).unwrap_err().name(), "vm-homed-elsewhere");
    let vm = vm.deposited(&host("a"), id(1), None).unwrap();
    assert_eq!(vm.key, KeyState::Held);
    assert_eq!(vm.deposited(&host("a"), id(1), None), Err(VmRejection::KeyDeposited));
}

#[test]
fn a_deleted_or_revoked_vm_gives_no_keys_and_its_epochs_never_return() {
    assert_eq!(running("a").delete(id(2), 2), Err(VmRejection::Running));
    let revoked = opened(running("a").revoke(id(3), 3));
    assert_eq!(revoked.key, KeyState::Destroyed);
    assert_eq!(revoked.open.map(|open| open.action), Some(Action::Delete));
    assert_eq!(revoked.start(&host("a"), id(4), 4), Err(VmRejection::Revoked));
    let gone = revoked.settled(id(3), &Outcome::Done);
    let again =
        defined(Some(&gone), spec(KeyOrigin::Console), Digest::sha256([2; 32]), Epoch(0)).unwrap();
    assert_eq!(again.epoch, Epoch(2));
    assert_eq!(
        defined(Some(&again), spec(KeyOrigin::Console), Digest::sha256([2; 32]), Epoch(0)),
        Err(VmRejection::Exists)
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start(bool),
    Stop,
    Attest,
    Delete,
    Fence,
    Revoke,
    Settle(u8, bool),
    Report(bool, u8),
    Certify(bool, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Start),
        Just(Step::Stop),
        Just(Step::Attest),
        Just(Step::Delete),
        Just(Step::Fence),
        Just(Step::Revoke),
        (any::<u8>(), any::<bool>()).prop_map(|(n, done)| Step::Settle(n, done)),
        (any::<bool>(), 0..5_u8).prop_map(|(a, s)| Step::Report(a, s)),
        (any::<bool>(), any::<u8>()).prop_map(|(a, n)| Step::Certify(a, n)),
    ]
}

fn apply(vm: &VmRecord, step: Step, n: u8) -> Option<VmRecord> {
    let name = |a: bool| host(if a { "a" } else { "b" });
    let accepted = |accepted| match accepted {
        Accepted::Already(_) => None,
        Accepted::New { vm, .. } | Accepted::Settled(vm) => Some(*vm),
    };
    let states =
        [VmState::Running, VmState::Paused, VmState::Stopped, VmState::Defined, VmState::Retired];
    match step {
        Step::Start(a) => vm.start(&name(a), id(n), 0).ok().and_then(accepted),
        Step::Stop => vm.stop(id(n), 0).ok().and_then(accepted),
        Step::Attest => vm.attest(id(n), 0).ok().and_then(accepted),
        Step::Delete => vm.delete(id(n), 0).ok().and_then(accepted),
        Step::Revoke => accepted(vm.revoke(id(n), 0)),
        Step::Fence => vm.fenced(Epoch(0)).ok(),
        Step::Settle(n, done) => {
            let failed = Outcome::Failed { detail: String::new(), hint: String::new() };
            let outcome = if done { Outcome::Done } else { failed };
            Some(vm.settled(vm.open.map_or(id(n), |open| open.id), &outcome))
        }
        Step::Report(a, s) => {
            let state = states[usize::from(s) % states.len()];
            vm.reported(&name(a), report(state, vm.epoch)).ok()
        }
        Step::Certify(a, n) => {
            vm.may_certify(&name(a), vm.epoch).ok()?;
            Some(vm.certified_as(publics(n, vm.epoch), certificates()))
        }
    }
}

proptest! {
    #[test]
    fn no_sequence_of_requests_breaks_the_invariants(steps in prop::collection::vec(step(), 0..60)) {
        let mut vm = vm();
        for (n, step) in (0_u8..).zip(steps) {
            let Some(after) = apply(&vm, step, n) else { continue };
            prop_assert!(after.epoch >= vm.epoch);
            if !matches!(step, Step::Fence) && vm.home.is_some() {
                prop_assert_eq!(&after.home, &vm.home, "only a fence takes a home away");
            }
            let booted = vm.vtpm.as_ref().filter(|vtpm| vtpm.booted && after.epoch == vm.epoch);
            if let (Some(before), Some(kept)) = (booted, &after.vtpm) {
                prop_assert_eq!(&kept.publics, &before.publics);
            }
            if vm.key == KeyState::Destroyed {
                prop_assert_eq!(after.key, KeyState::Destroyed);
            }
            vm = after;
        }
    }
}
