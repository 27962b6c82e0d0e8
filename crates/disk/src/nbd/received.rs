//! What came on a connection and was not yet worked on.
//!
//! A large write is received to its last byte and no further, so that its buffer can be given to
//! another thread as it is, and the connection goes on with another one.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
};

use super::connection::End;

/// The buffer's usual size: the longest write of most clients with its head, and room.
pub(super) const RECEIVE_BYTES: usize = (1 << 20) + (64 << 10);
/// A request of so many bytes is worth a thread of its own.
pub(super) const LARGE_BYTES: u32 = 128 << 10;
/// The most bytes behind a request that are copied to give its buffer away.
const BEHIND_MAX: usize = 16 << 10;

/// Bytes that wait: `bytes[start..end]`.
#[derive(Debug)]
pub(super) struct Received {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Received {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; RECEIVE_BYTES], start: 0, end: 0 }
    }

    pub(super) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn waiting_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.bytes.len() > RECEIVE_BYTES {
                self.bytes.truncate(RECEIVE_BYTES);
                self.bytes.shrink_to_fit();
            }
        }
    }

    /// The first `whole` bytes with the buffer they are in, and where they begin in it; `fresh`
    /// makes the buffer that takes its place. None if much lies behind them.
    pub(super) fn give_away(
        &mut self,
        whole: usize,
        fresh: impl FnOnce() -> Vec<u8>,
    ) -> Option<(Vec<u8>, usize)> {
        let behind = self.waiting().get(whole..).filter(|rest| rest.len() <= BEHIND_MAX)?;
        let mut bytes = fresh();
        let (start, end) = (self.start, behind.len());
        bytes.get_mut(..end)?.copy_from_slice(behind);
        (self.start, self.end) = (0, end);
        Some((std::mem::replace(&mut self.bytes, bytes), start))
    }

    /// Receives what is there, at least one byte, with room for a message of `whole` bytes.
    pub(super) fn receive(&mut self, mut stream: &UnixStream, whole: usize) -> Result<(), End> {
        let room = self.room(whole);
        loop {
            match stream.read(room) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => {
                    self.end = self.end.saturating_add(count);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Where the next bytes go.
    fn room(&mut self, whole: usize) -> &mut [u8] {
        if self.start.saturating_add(whole) > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
            if whole > self.bytes.len() {
                self.bytes.resize(whole, 0);
            }
        }
        let large = usize::try_from(LARGE_BYTES).is_ok_and(|large| whole > large);
        let to = if large { self.start.saturating_add(whole) } else { self.bytes.len() };
        self.bytes.get_mut(self.end..to).unwrap_or_default()
    }
}
