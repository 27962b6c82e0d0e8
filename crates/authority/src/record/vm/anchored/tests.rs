//! One test for each reason not to take a count, or not to grant a volume.

use model::{Digest, Epoch, api::operate::Outcome};

use super::*;
use crate::record::{
    host::tests::host,
    vm::{change::Accepted, tests::started},
};

const BOOT: GrantPurpose = GrantPurpose::Boot;
const FIRST: OperationId = OperationId([1; 16]);

fn vault() -> VmRecord {
    let mut vm = started("a", 1);
    vm.spec.format = VolumeFormat::Vault;
    vm
}

/// `a`, with another TPM.
fn replaced() -> HostRecord {
    let mut host = host("a");
    host.identity.ak_name = "another".to_owned();
    host
}

fn told(count: u64, n: u8, rest: bool) -> AnchorReport {
    let head = Digest::sha256([n; 32]);
    AnchorReport { epoch: Epoch(1), volume: BOOT, count, head, rest }
}

fn counted(vm: &VmRecord, report: &AnchorReport) -> VmRecord {
    vm.counted(&host("a"), report, 7).unwrap().0
}

fn refused<T>(result: Result<T, AnchorRejection>) -> &'static str {
    match result {
        Ok(_) => "nothing was refused",
        Err(rejection) => rejection.name(),
    }
}

/// It ran on `a` and was stopped in good order.
fn rested() -> VmRecord {
    let vm = counted(&vault().settled(FIRST, &Outcome::Done), &told(4, 4, false));
    counted(&vm.stopped_by_report(), &told(5, 5, true))
}

impl VmRecord {
    fn stopped_by_report(&self) -> Self {
        Self { state: VmState::Stopped, open: None, ..self.clone() }
    }

    fn again(&self, n: u8) -> Self {
        match self.start(&"a".parse().unwrap(), OperationId([n; 16]), 9).unwrap() {
            Accepted::New { vm, .. } => *vm,
            other @ (Accepted::Already(_) | Accepted::Settled(_)) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_lower_or_forked_report_is_refused_and_so_is_one_of_no_home() {
    let vm = counted(&vault(), &told(4, 4, false));
    let by = |report: &AnchorReport| refused(vm.counted(&host("a"), report, 8));
    assert_eq!(by(&told(3, 3, false)), "rolled-back");
    assert_eq!(by(&told(4, 9, false)), "volume-forked");
    assert_eq!(by(&AnchorReport { epoch: Epoch(0), ..told(5, 5, false) }), "grant-epoch-moved");
    assert_eq!(refused(vm.counted(&host("b"), &told(5, 5, false), 8)), "vm-homed-elsewhere");
    assert_eq!(refused(vm.counted(&replaced(), &told(5, 5, false), 8)), "volume-not-handed-over");
    assert_eq!(refused(started("a", 1).counted(&host("a"), &told(1, 1, false), 8)), {
        "volume-not-anchored"
    });
}

#[test]
fn the_grant_says_the_count_and_a_repeated_end_does_not_end_the_run_that_it_begins() {
    let next = OperationId([2; 16]);
    let (vm, start) = rested().again(2).opens(BOOT, &host("a"), next).unwrap();
    assert_eq!(start, Some(Start { count: 5, handed_over: false }));
    assert!(vm.view().anchors.iter().all(|anchor| anchor.in_use.is_some()));
    let same = counted(&vm, &told(5, 5, true));
    assert_eq!(same, vm);
    // Nothing came of the start: then it does.
    let failed = Outcome::Failed { detail: String::new(), hint: String::new() };
    let ended = counted(&vm.settled(next, &failed).stopped_by_report(), &told(5, 5, true));
    assert!(ended.view().anchors.iter().all(|anchor| anchor.in_use.is_none()));
}

#[test]
fn a_host_with_another_tpm_gets_the_volume_only_after_the_last_word_of_the_first() {
    let next = OperationId([2; 16]);
    let running = counted(&vault(), &told(4, 4, false)).stopped_by_report().again(2);
    assert_eq!(refused(running.opens(BOOT, &replaced(), next)), "volume-not-handed-over");
    let (vm, start) = rested().again(2).opens(BOOT, &replaced(), next).unwrap();
    assert_eq!(start, Some(Start { count: 5, handed_over: true }));
    assert_eq!(refused(vm.opens(BOOT, &host("a"), next)), "volume-not-handed-over");
    let (vm, moved) = vm.counted(&replaced(), &told(7, 7, false), 9).unwrap();
    assert_eq!(moved.unwrap().event, "volume-handed-over");
    assert_eq!(vm.opens(BOOT, &replaced(), next).unwrap().1.unwrap().count, 7);
}

#[test]
fn two_operators_have_it_opened_and_that_is_said() {
    let lost = counted(&vault(), &told(4, 4, false)).stopped_by_report();
    let approved = lost.reanchored("alice", "lost", 8).unwrap().reanchored("bob", "", 8).unwrap();
    let next = OperationId([2; 16]);
    let (vm, start) = approved.again(2).opens(BOOT, &replaced(), next).unwrap();
    assert_eq!(start, Some(Start { count: 4, handed_over: true }));
    let (_, moved) = vm.counted(&replaced(), &told(6, 6, false), 9).unwrap();
    let moved = moved.unwrap();
    assert_eq!(moved.event, "volume-reanchored");
    assert!(moved.detail.contains("alice") && moved.detail.contains("bob"), "{}", moved.detail);
}

#[test]
fn a_fence_forgets_the_counts_with_the_epoch() {
    let fenced = rested().fenced(Epoch(0)).unwrap();
    assert!(fenced.anchors.is_empty() && !rested().anchors_words().is_empty());
}
