//! What a guest puts into its descriptor tables and request headers, and what a front end says.

#![no_main]

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&[shift, head], memory)) = data.split_first_chunk::<2>() else { return };
    if shift & 0x80 == 0 {
        let _ = disk::vhost::parse_chain(memory, 1 << (shift % 11), u16::from(head));
        return;
    }
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(&memory[..memory.len().min(1 << 16)]).expect("room");
    drop(theirs);
    disk::vhost::converse(ours);
});
