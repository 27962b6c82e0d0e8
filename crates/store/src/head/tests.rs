//! Every refusal, and the anchor against crashes and copies.

use proptest::prelude::*;

use super::*;
use crate::audit::tree::Tree;

const ID: StoreId = StoreId([1; 16]);

fn commit(lineage: u8, revision: u64) -> Digest {
    let mut bytes = [lineage; 32];
    bytes[..8].copy_from_slice(&revision.to_be_bytes());
    Digest::sha256(bytes)
}

fn state(lineage: u8, revision: u64) -> State {
    State { id: ID, revision, compacted: 0, commit: commit(lineage, revision) }
}

fn head(counter: u64, revision: u64) -> Head {
    let audit = Tree::default().head();
    Head::new(&state(0, revision), audit, counter, Incarnation(0), 5)
}

/// Checks a store of lineage 0 at `revision`.
fn decide(
    stored: Option<&Head>,
    anchored: u64,
    witness: Option<&Head>,
    revision: u64,
) -> Result<Fresh, HeadRejection> {
    let state = state(0, revision);
    let at = |head: Option<&Head>| {
        head.filter(|h| h.revision <= revision).map(|head| commit(0, head.revision))
    };
    let found = Found {
        state: &state,
        commit_at_head: at(stored),
        commit_at_witness: at(witness),
        audit_size: 0,
        audit_root_at_head: Some(Tree::default().head().root),
    };
    check(stored, anchored, witness, &found)
}

#[test]
fn a_head_at_the_counter_or_one_ahead_is_fresh() {
    let level = decide(Some(&head(7, 10)), 7, None, 12).unwrap();
    assert_eq!(
        level.steps(),
        [
            Step::WriteHead { counter: 8 },
            Step::Increment { expect: 8 },
            Step::WriteHead { counter: 9 },
            Step::Increment { expect: 9 },
        ]
    );
    let ahead = decide(Some(&head(8, 10)), 7, None, 12).unwrap();
    assert_eq!(
        ahead.steps(),
        [
            Step::Increment { expect: 8 },
            Step::WriteHead { counter: 9 },
            Step::Increment { expect: 9 },
        ]
    );
}

#[test]
fn every_rejection_is_provoked_and_named() {
    let name = |outcome: Result<Fresh, HeadRejection>| {
        let rejection = outcome.unwrap_err();
        assert!(!rejection.hint().is_empty());
        rejection.name()
    };
    assert_eq!(name(decide(None, 7, None, 1)), "store-head-missing");
    assert_eq!(name(decide(Some(&head(6, 1)), 7, None, 1)), "store-rolled-back");
    assert_eq!(name(decide(Some(&head(9, 1)), 7, None, 1)), "store-anchor-mismatch");
    // The store is behind its own head.
    assert_eq!(name(decide(Some(&head(7, 10)), 7, None, 9)), "store-rolled-back");
    // The witness has seen a later revision.
    assert_eq!(name(decide(Some(&head(7, 1)), 7, Some(&head(8, 9)), 5)), "store-rolled-back");
    // The witness has seen a later counter: the TPM's was reset.
    assert_eq!(name(decide(Some(&head(7, 1)), 7, Some(&head(9, 1)), 5)), "store-anchor-mismatch");
    let forked = Head { commit: commit(9, 3), ..head(7, 3) };
    assert_eq!(name(decide(Some(&forked), 7, None, 5)), "store-forked");
    assert_eq!(name(decide(Some(&head(7, 3)), 7, Some(&forked), 5)), "store-forked");
    let foreign = Head { store: StoreId([2; 16]), ..head(7, 3) };
    assert_eq!(name(decide(Some(&foreign), 7, None, 5)), "store-foreign-head");
    assert_eq!(name(decide(Some(&head(7, 3)), 7, Some(&foreign), 5)), "store-foreign-head");
    let longer = TreeHead { size: 1, ..Tree::default().head() };
    let longer = Head { audit: longer, ..head(7, 3) };
    assert_eq!(name(decide(Some(&longer), 7, None, 5)), "audit-rolled-back");
    let other = TreeHead { size: 0, root: commit(1, 1) };
    let other = Head { audit: other, ..head(7, 3) };
    assert_eq!(name(decide(Some(&other), 7, None, 5)), "audit-forked");
}

#[test]
fn a_witness_of_an_earlier_incarnation_does_not_count() {
    let restored = Head { incarnation: Incarnation(1), ..head(7, 3) };
    let witness = head(40, 90);
    decide(Some(&restored), 7, Some(&witness), 4).unwrap();
    let rejection = decide(Some(&witness), 40, Some(&restored), 90).unwrap_err();
    assert_eq!(rejection.name(), "store-rolled-back");
}

#[test]
fn payloads_round_trip_and_unknown_fields_are_refused() {
    let head = head(7, 3);
    let payload = head.to_payload().unwrap();
    assert_eq!(Head::from_payload(&payload).unwrap(), head);
    let text = String::from_utf8(payload).unwrap();
    assert!(text.starts_with(r#"{"type":"store-head","store":"0101"#), "{text}");
    let more = text.replace("\"counter\"", "\"extra\":1,\"counter\"");
    assert!(Head::from_payload(more.as_bytes()).is_err());
    let other = text.replace("store-head", "audit-checkpoint");
    assert!(Head::from_payload(other.as_bytes()).is_err());
    assert!(matches!(Head::from_payload(&[b' '; 5000]), Err(HeadParseError::Length)));
}

/// The disk: its head, and which writes it holds.
#[derive(Clone, Debug)]
struct Disk {
    head: Head,
    writes: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Action {
    /// Opens the disk and works: so many steps of the anchor, then so many writes with heads.
    Run { steps: usize, anchors: usize, anchor_steps: usize },
    /// Puts back a copy of the disk as it was after any step.
    Restore(prop::sample::Index),
}

fn an_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..8_usize, 0..3_usize, 0..3_usize)
            .prop_map(|(steps, anchors, anchor_steps)| Action::Run { steps, anchors, anchor_steps }),
        2 => any::<prop::sample::Index>().prop_map(Action::Restore),
    ]
}

/// A machine that crashes, whose disk is copied after every step and can be put back.
struct World {
    tpm: u64,
    disk: Disk,
    copies: Vec<Disk>,
    /// Which copy the disk is.
    born: usize,
    /// Copies from before the last opening that was completed are dead.
    dead: usize,
    /// Whether the disk goes back to the newest state without a gap.
    genuine: bool,
    /// Writes with a head whose counter was reached.
    anchored: Vec<u64>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let disk = Disk { head: head(100, 0), writes: Vec::new() };
        let copies = vec![disk.clone()];
        let anchored = Vec::new();
        Self { tpm: 100, disk, copies, born: 0, dead: 0, genuine: true, anchored, next: 0 }
    }

    fn changed(&mut self) {
        self.born = self.copies.len();
        self.copies.push(self.disk.clone());
    }

    fn restore(&mut self, which: prop::sample::Index) {
        self.born = which.index(self.copies.len());
        let copy = self.copies[self.born].clone();
        let same = copy.head == self.disk.head && copy.writes == self.disk.writes;
        self.genuine = self.genuine && same;
        self.disk = copy;
    }

    /// Takes up to `limit` steps; whether all were taken.
    fn advance(&mut self, anchor: &mut Anchor, limit: usize) -> bool {
        for _ in 0..limit {
            match anchor.pending() {
                None => return true,
                Some(Step::WriteHead { counter }) => {
                    self.disk.head.counter = counter;
                    self.changed();
                    anchor.wrote_head().unwrap();
                }
                Some(Step::Increment { .. }) => {
                    self.tpm += 1;
                    anchor.incremented(self.tpm).unwrap();
                }
            }
        }
        anchor.pending().is_none()
    }

    fn run(&mut self, steps: usize, anchors: usize, anchor_steps: usize) {
        let Ok(fresh) = decide(Some(&self.disk.head), self.tpm, None, 0) else {
            assert!(!self.genuine, "the newest disk was refused");
            return;
        };
        let kept = self.anchored.iter().all(|write| self.disk.writes.contains(write));
        assert!(kept, "a disk that lacks an anchored write was let in");
        assert!(self.born >= self.dead, "a copy from before the last opening was let in");
        let begin = self.copies.len();
        let mut anchor = Anchor::resume(&fresh);
        if !self.advance(&mut anchor, steps) {
            return;
        }
        // Now every copy from before is behind, and this disk is the newest.
        (self.dead, self.genuine) = (begin, true);
        for _ in 0..anchors {
            self.next += 1;
            self.disk.writes.push(self.next);
            self.changed();
            anchor.begin();
            if !self.advance(&mut anchor, anchor_steps) {
                return;
            }
            self.anchored.push(self.next);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Crashes at any step, and copies from after any step put back.
    #[test]
    fn no_anchored_write_is_ever_forgotten(actions in prop::collection::vec(an_action(), 1..40)) {
        let mut world = World::new();
        for action in actions {
            match action {
                Action::Restore(which) => world.restore(which),
                Action::Run { steps, anchors, anchor_steps } => {
                    world.run(steps, anchors, anchor_steps);
                }
            }
        }
    }

    #[test]
    fn arbitrary_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Head::from_payload(&bytes).is_err());
    }
}

#[test]
fn a_counter_that_someone_else_moved_is_a_fork() {
    let fresh = decide(Some(&head(7, 1)), 7, None, 1).unwrap();
    let mut anchor = Anchor::resume(&fresh);
    assert_eq!(anchor.incremented(8), Err(AnchorError::OutOfOrder));
    anchor.wrote_head().unwrap();
    let error = anchor.incremented(9).unwrap_err();
    assert_eq!(error, AnchorError::Forked { expected: 8, found: 9 });
    assert_eq!(error.name(), "store-forked");
}
