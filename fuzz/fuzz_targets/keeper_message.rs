//! Frames between the two processes of the trust service, and on its operators' socket.

#![no_main]

use model::{
    child::receive,
    keys::{
        admin::{AdminReply, AdminRequest},
        rpc::{KeyAnswer, KeyRequest},
    },
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = KeyRequest::receive(&mut &*data);
    let _ = KeyAnswer::receive(&mut &*data);
    let _ = receive::<AdminRequest>(&mut &*data);
    let _ = receive::<AdminReply>(&mut &*data);
});
