//! Frames between the agent and the processes of one VM.

#![no_main]

use model::child::{disk, receive, vtpm};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = receive::<vtpm::Request>(&mut &*data);
    let _ = receive::<vtpm::Reply>(&mut &*data);
    let _ = receive::<disk::Request>(&mut &*data);
    let _ = receive::<disk::Reply>(&mut &*data);
});
