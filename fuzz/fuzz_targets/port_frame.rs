//! A port's stream: no panic, nothing held beyond one frame, and frames found are those written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::port::{Frames, HEADER, Line, MAX_PAYLOAD};

fuzz_target!(|data: &[u8]| {
    let (mut frames, mut line) = (Frames::default(), Line::default());
    for piece in data.chunks(61) {
        frames.push(piece);
        while let Some(frame) = frames.next_frame() {
            assert!(frame.payload.len() <= MAX_PAYLOAD);
            let _ = line.take(frame);
        }
        assert!(frames.held() <= HEADER + MAX_PAYLOAD);
    }
});
