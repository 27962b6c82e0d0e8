//! A state's digest is the same, read in slices while others write, as in one go.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    LocalStore, Store,
    engine::{
        compact::StateDigest,
        read::past,
        record::{Meta, encode_record, hash},
        rows::{Backing, Bounds, Rows},
        txn,
    },
    key::Key,
    memory::MemoryBacking,
    types::{Op, Txn},
    wait,
};

fn key(number: usize) -> Key {
    Key::new(format!("k/{number:07}")).unwrap()
}

/// As the documentation says it.
fn in_one_go(rows: &dyn Rows, revision: u64) -> [u8; 32] {
    let mut digest = hash(&[b"vouchsafe:store-state:v1"]);
    past(rows, &Bounds::all(), revision, &mut |entry| {
        let parts = [hash(&[entry.key.as_bytes()]), hash(&[&encode_record(&entry)])];
        digest = hash(&[&digest, &parts[0], &parts[1]]);
        ControlFlow::Continue(())
    })
    .unwrap();
    digest
}

#[test]
fn a_digest_in_slices_is_that_of_the_whole_state_though_others_write() {
    const COUNT: usize = 2_600;
    let backing = MemoryBacking::default();
    let apply = |ops: Vec<Op>| {
        backing
            .write(&mut |rows| {
                if Meta::find(rows)?.is_none() {
                    Meta::genesis(crate::StoreId([7; 16])).save(rows)?;
                }
                let txn = ops.iter().fold(Txn::new(), |txn, op| txn.then(op.clone()));
                txn::apply(rows, &txn).map(drop)
            })
            .unwrap();
    };
    for first in (0..COUNT).step_by(50) {
        apply((first..first + 50).map(|n| Op::put(key(n), n.to_string())).collect());
    }
    let mut at = 0;
    let mut whole = [0; 32];
    backing
        .read(&mut |rows| {
            at = Meta::load(rows)?.revision;
            whole = in_one_go(rows, at);
            Ok(())
        })
        .unwrap();
    let mut digest = StateDigest::new(at);
    let (mut slices, mut sliced) = (0, None);
    while sliced.is_none() {
        backing
            .read(&mut |rows| {
                sliced = digest.step(rows)?;
                Ok(())
            })
            .unwrap();
        slices += 1;
        // Keys at the borders go, come and change; none of it belongs to the state at `at`.
        for n in [0, 1023, 1024, 1025, 2047, 2048, 2599] {
            apply(vec![if slices % 2 == 1 { Op::Delete(key(n)) } else { Op::put(key(n), "new") }]);
        }
        apply(vec![Op::put(Key::new(format!("k/0001500x{slices}")).unwrap(), "between")]);
    }
    assert!(slices >= 3, "{slices} slices");
    assert_eq!(sliced, Some(whole));
}

/// How long a commit takes at most while a large library is compacted. Figures are printed; what is
/// asserted is that no commit waits for the digest.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures real time")]
fn commits_do_not_wait_for_a_compaction() {
    let count: usize =
        std::env::var("STORE_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(&dir.path().join("s")).unwrap());
    let value = vec![9; 1200];
    for first in (0..count).step_by(90) {
        let ops = (first..first + 90).map(|n| Op::put(key(n), value.clone()));
        wait(store.txn(ops.fold(Txn::new(), Txn::then))).unwrap();
    }
    let until = wait(store.state()).unwrap().revision;
    let compacting = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            let began = Instant::now();
            wait(store.compact(until)).unwrap();
            began.elapsed()
        })
    };
    let (mut longest, mut commits) = (Duration::ZERO, 0_u32);
    while !compacting.is_finished() {
        let began = Instant::now();
        wait(store.txn(Txn::new().then(Op::put(key(0), "x")))).unwrap();
        longest = longest.max(began.elapsed());
        commits += 1;
    }
    let took = compacting.join().unwrap();
    println!(
        "{count} records: compaction {took:?}; {commits} commits meanwhile, longest {longest:?}"
    );
    assert!(commits > 5, "{commits} commits in {took:?}");
    wait(store.scrub()).unwrap();
}
