//! What the parts of an answer cost one thread, in processor time: a busy machine hardly changes it.

use std::{fmt::Write as _, hint::black_box};

use model::keys::{
    KeyExample, Query,
    rpc::{KeyAnswer, KeyRequest},
};
use rustix::time::{ClockId, clock_gettime};
use trust::keeper::Keeper;
use xkms::{
    dsig::{Curve, Signer as _, SigningKey},
    xml::{Document, Limits},
};

/// Processor time of this thread, microseconds.
fn thread_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let whole = f64::from(u32::try_from(time.tv_sec).expect("seconds"));
    whole * 1e6 + f64::from(u32::try_from(time.tv_nsec).expect("nanoseconds")) / 1e3
}

/// Microseconds of one `work`.
fn cost(mut work: impl FnMut()) -> f64 {
    let mut count = 0.0;
    let since = thread_us();
    while thread_us() - since < 300_000.0 {
        for _ in 0..20 {
            work();
        }
        count += 20.0;
    }
    (thread_us() - since) / count
}

/// The parts, by name. `key` is one of the keeper's library, `message` a Validate about it.
pub fn measure(keeper: &Keeper, key: &[u8], message: &[u8]) -> Vec<(&'static str, f64)> {
    let example =
        KeyExample { key: Some(model::api::Bytes(key.to_vec())), ..KeyExample::default() };
    let question = KeyRequest::Validate(Query { binding: example, instant: None, limit: 64 });
    let answer = keeper.serve(question.clone());
    assert!(matches!(answer, KeyAnswer::Found(_)), "{answer:?}");
    let signer = SigningKey::generate_ec(Curve::P256).expect("a key");
    let mut wire = Vec::new();
    let mut text = String::new();
    vec![
        ("read the message", cost(|| drop(black_box(Document::parse(message, &Limits::MESSAGE))))),
        ("keeper", cost(|| drop(black_box(keeper.serve(question.clone()))))),
        (
            "question as a frame, and back",
            cost(|| {
                wire.clear();
                question.send(&mut wire).expect("a frame");
                black_box(KeyRequest::receive(&mut wire.as_slice()).expect("a frame"));
            }),
        ),
        (
            "answer as a frame, and back",
            cost(|| {
                wire.clear();
                answer.send(&mut wire).expect("a frame");
                black_box(KeyAnswer::receive(&mut wire.as_slice()).expect("a frame"));
            }),
        ),
        (
            "signature",
            cost(|| drop(black_box(signer.sign(b"as long as the signed part of an answer")))),
        ),
        (
            "random Id",
            cost(|| {
                text.clear();
                let random = serve::random::bytes::<16>().expect("random");
                write!(text, "{random:?}").expect("a string");
            }),
        ),
    ]
}
