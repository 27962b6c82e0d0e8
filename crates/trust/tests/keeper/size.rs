//! A library that is large: what a question costs does not grow with it, and an import is there
//! after a restart. `VOUCHSAFE_LIBRARY` sets the number of bindings; a million takes minutes.

use std::time::Duration;

use model::{
    api::Bytes,
    keys::{
        KeyUse, Query, StatusValue, UseWith,
        order::Prototype,
        rpc::{KeyAnswer, KeyRequest},
    },
};
use serve::{
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
};

use crate::support::{Rig, key, named};

fn many(pair: &SigningKey, from: u32, count: u32) -> impl Iterator<Item = Prototype> + use<> {
    let spki = pair.spki().to_vec();
    (from..from + count).map(move |n| Prototype {
        key: Some(Bytes(spki.clone())),
        name: Some(format!("key-{n}")),
        uses: vec![KeyUse::Signature],
        use_with: vec![UseWith {
            application: "urn:ietf:rfc:2633".to_owned(),
            identifier: format!("user-{n}@example.org"),
        }],
        ..Prototype::default()
    })
}

/// The middle of many questions for bindings among the first `count`.
fn cost(rig: &Rig, count: u32) -> Duration {
    let mut times: Vec<Duration> = (0..400_u32)
        .map(|at| {
            let n = at.wrapping_mul(7919) % count;
            let binding = named(&format!("key-{n}"));
            let request = KeyRequest::Validate(Query { binding, instant: None, limit: 4 });
            let begun = SystemClock.monotonic();
            let answer = rig.keeper.serve(request);
            let took = SystemClock.monotonic() - begun;
            let KeyAnswer::Found(found) = answer else { panic!("{answer:?}") };
            let status = found.bindings[0].status.as_ref().unwrap();
            assert_eq!((found.bindings.len(), status.value), (1, StatusValue::Valid));
            took
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_question_costs_the_same_in_a_large_library() {
    let largest: u32 =
        std::env::var("VOUCHSAFE_LIBRARY").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    let (rig, pair) = (Rig::open(), key());
    let small = 40;
    assert_eq!(rig.keeper.import(many(&pair, 0, small)).unwrap(), u64::from(small));
    let before = cost(&rig, small);
    let begun = SystemClock.monotonic();
    rig.keeper.import(many(&pair, small, largest - small)).unwrap();
    eprintln!(
        "{largest} bindings imported in {:?}, {} KiB resident",
        (SystemClock.monotonic() - begun),
        resident_kib()
    );
    let rig = rig.restart();
    let begun = SystemClock.monotonic();
    let rig = rig.restart();
    eprintln!(
        "closed and opened in {:?}, {} KiB resident",
        (SystemClock.monotonic() - begun),
        resident_kib()
    );
    let after = cost(&rig, largest);
    eprintln!("a question: {before:?} among {small}, {after:?} among {largest}");
    assert!(after < before * 4 + Duration::from_millis(1), "{before:?} {after:?}");
    // A key that everybody has: a bounded answer that says that there is more.
    let everybody = crate::support::by_key(&pair);
    let found = rig.validate(everybody);
    assert!(found.more && found.bindings.len() == 10);
}
