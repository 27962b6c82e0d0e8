//! A volume whose writes are durable before they are answered: who waits for the medium, and who not.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use disk::{Extent, Volume, WriteThrough};

use crate::{
    client::{Client, READ, WRITE, request},
    fixture::{Dir, serve},
};

const SIZE: u64 = 1 << 20;

/// Zeros on a medium that makes nothing durable before it may.
#[derive(Debug, Default)]
struct Held {
    may: Mutex<bool>,
    told: Condvar,
}

impl Held {
    fn release(&self) {
        *self.may.lock().unwrap() = true;
        self.told.notify_all();
    }
}

impl Volume for Held {
    fn format(&self) -> &'static str {
        "held"
    }
    fn size(&self) -> u64 {
        SIZE
    }
    fn sector_size(&self) -> u32 {
        4096
    }
    fn read_only(&self) -> bool {
        false
    }
    fn kmi(&self) -> Option<&model::Kmi> {
        None
    }
    fn header_damage(&self) -> Option<&str> {
        None
    }
    fn read(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn write(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
    fn write_zeroes(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn trim(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn prefetch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        let may = self.may.lock().unwrap();
        drop(self.told.wait_while(may, |may| !*may).unwrap());
        Ok(())
    }
    fn flush_failed(&self) -> bool {
        false
    }
    fn extents(&self, _: u64, length: u64, _: usize) -> io::Result<Vec<Extent>> {
        Ok(vec![Extent { length, hole: false, zero: false }])
    }
}

#[test]
fn reads_do_not_wait_for_writes_that_are_made_durable() {
    let dir = Dir::new();
    let held = Arc::new(Held::default());
    let volume = WriteThrough::new(Arc::clone(&held) as Arc<dyn Volume>);
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
    held.release();
    let mut answered = [client.simple_reply(), client.simple_reply()];
    answered.sort_unstable();
    assert_eq!(answered, [(0, 1), (0, 2)]);
}
