//! A volume whose writes are durable before they are answered: who waits for the medium, and who not.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use disk::WriteThrough;

use crate::{
    client::{Client, READ, WRITE, request},
    fixture::{Dir, serve},
    stub::Stub,
};

/// Lets a medium make writes durable, which waits for it till then.
#[derive(Debug, Default)]
struct Gate {
    may: Mutex<bool>,
    told: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.may.lock().unwrap() = true;
        self.told.notify_all();
    }

    fn pass(&self) {
        let may = self.may.lock().unwrap();
        drop(self.told.wait_while(may, |may| !*may).unwrap());
    }
}

#[test]
fn reads_do_not_wait_for_writes_that_are_made_durable() {
    let dir = Dir::new();
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let flush = move || {
        held.pass();
        Ok(())
    };
    let medium = Stub { read: || Ok(()), write: |_| Ok(()), flush };
    let volume = WriteThrough::new(Arc::new(medium));
    let (_server, socket) = serve(&dir, Arc::new(volume));
    let mut client = Client::simple(&socket);
    let mut batch = Vec::new();
    for cookie in [1, 2] {
        batch.extend(request(WRITE, 0, cookie, cookie * 4096, 4096));
        batch.extend([7; 4096]);
    }
    batch.extend(request(READ, 0, 3, 0, 4096));
    client.say(&batch);
    assert_eq!(client.simple_reply(), (0, 3), "the read is answered while the writes wait");
    client.take(4096);
    client.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let early = io::Read::read(&mut client.0, &mut [0]).unwrap_err().kind();
    assert_eq!(early, io::ErrorKind::WouldBlock, "no write is answered before it is durable");
    client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    gate.open();
    let mut answered = [client.simple_reply(), client.simple_reply()];
    answered.sort_unstable();
    assert_eq!(answered, [(0, 1), (0, 2)]);
}
