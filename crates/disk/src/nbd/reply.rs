//! Replies, gathered in one buffer until they are sent together. The buffer keeps its memory
//! initialised, so that a read's data go straight to their place without clearing it first.

use std::io;

use super::wire;
use crate::Extent;

/// Replies that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    used: usize,
}

impl Replies {
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn clear(&mut self, keep: usize) {
        self.used = 0;
        if self.bytes.len() > keep {
            self.bytes.truncate(keep);
            self.bytes.shrink_to_fit();
        }
    }

    fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.used.saturating_add(length);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let room = self.bytes.get_mut(self.used..end).unwrap_or_default();
        self.used = end;
        room
    }

    fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// A simple reply; `error` 0 is success.
    pub(super) fn simple(&mut self, cookie: u64, error: u32) {
        let [a, b, c, d] = wire::SIMPLE_REPLY_MAGIC.to_be_bytes();
        let [e, f, g, h] = error.to_be_bytes();
        self.put(&[a, b, c, d, e, f, g, h]);
        self.put(&cookie.to_be_bytes());
    }

    fn chunk(&mut self, kind: u16, cookie: u64, length: u32) {
        self.put(&wire::STRUCTURED_REPLY_MAGIC.to_be_bytes());
        self.put(&wire::REPLY_FLAG_DONE.to_be_bytes());
        self.put(&kind.to_be_bytes());
        self.put(&cookie.to_be_bytes());
        self.put(&length.to_be_bytes());
    }

    /// A structured reply that only says: failed.
    pub(super) fn structured_error(&mut self, cookie: u64, error: u32) {
        self.chunk(wire::REPLY_TYPE_ERROR, cookie, 6);
        self.put(&error.to_be_bytes());
        self.put(&0_u16.to_be_bytes());
    }

    /// A read's answer; `fill` gets the place of the data. If it fails, nothing stays and the
    /// error comes back.
    pub(super) fn data(
        &mut self,
        structured: bool,
        cookie: u64,
        offset: u64,
        length: u32,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let before = self.used;
        match (structured, length) {
            (true, 0) => self.chunk(wire::REPLY_TYPE_NONE, cookie, 0),
            (true, _) => {
                self.chunk(wire::REPLY_TYPE_OFFSET_DATA, cookie, length.saturating_add(8));
                self.put(&offset.to_be_bytes());
            }
            (false, _) => self.simple(cookie, 0),
        }
        let place = self.room(usize::try_from(length).map_err(io::Error::other)?);
        fill(place).inspect_err(|_| self.used = before)
    }

    /// A block status, for `base:allocation`.
    pub(super) fn block_status(&mut self, cookie: u64, extents: &[Extent]) {
        let payload = extents.len().saturating_mul(8).saturating_add(4);
        let payload = u32::try_from(payload).unwrap_or(u32::MAX);
        self.chunk(wire::REPLY_TYPE_BLOCK_STATUS, cookie, payload);
        self.put(&wire::BASE_ALLOCATION_ID.to_be_bytes());
        for extent in extents {
            let length = u32::try_from(extent.length).unwrap_or(u32::MAX);
            let hole = if extent.hole { wire::STATE_HOLE } else { 0 };
            let zero = if extent.zero { wire::STATE_ZERO } else { 0 };
            self.put(&length.to_be_bytes());
            self.put(&(hole | zero).to_be_bytes());
        }
    }
}

/// The NBD error for a medium's error.
pub(super) fn error_number(error: &io::Error) -> u32 {
    use io::ErrorKind as Kind;
    const TABLE: [(Kind, u32); 8] = [
        (Kind::StorageFull, wire::ENOSPC),
        (Kind::QuotaExceeded, wire::ENOSPC),
        (Kind::FileTooLarge, wire::ENOSPC),
        (Kind::PermissionDenied, wire::EPERM),
        (Kind::ReadOnlyFilesystem, wire::EPERM),
        (Kind::OutOfMemory, wire::ENOMEM),
        (Kind::InvalidInput, wire::EINVAL),
        (Kind::Unsupported, wire::ENOTSUP),
    ];
    let found = TABLE.into_iter().find(|(kind, _)| *kind == error.kind());
    found.map_or(wire::EIO, |(_, number)| number)
}
