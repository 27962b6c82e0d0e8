//! Running requests and gathering their replies, on the connection's thread or on one of the pool.

use std::{io, io::Write as _, sync::PoisonError};

use super::{
    Command, Counters, Request,
    connection::End,
    counters::add,
    reply::{Replies, error_number},
    transmission::Peer,
    wire,
};
use crate::{Volume, steps::step};

/// Replies are sent when so many bytes are waiting, or when no complete request is left.
pub(super) const REPLY_BYTES: usize = 512 << 10;
/// The most extents of one block status.
const EXTENTS_MAX: usize = 4096;

/// Whoever runs requests of one connection.
pub(super) struct Answering<'a> {
    pub(super) peer: &'a Peer,
    pub(super) volume: &'a dyn Volume,
    pub(super) counters: &'a Counters,
    pub(super) replies: &'a mut Replies,
}

impl Answering<'_> {
    pub(super) fn send(&mut self) -> Result<(), End> {
        if self.replies.len() > 0 {
            let mut stream = self.peer.writer.lock().unwrap_or_else(PoisonError::into_inner);
            stream.write_all(self.replies.pending())?;
            self.replies.clear(REPLY_BYTES.saturating_mul(4));
        }
        Ok(())
    }

    /// Runs one request; its reply goes to the waiting ones.
    pub(super) fn answer(&mut self, request: &Request, data: &mut [u8]) -> Result<(), End> {
        let refusal =
            request.refusal(self.peer.agreed, self.volume.size(), self.volume.read_only());
        if let Some(error) = refusal {
            self.fail(request, error);
            return Ok(());
        }
        let durable = request.flags & wire::CMD_FLAG_FUA != 0
            && matches!(request.command, Command::Write | Command::WriteZeroes | Command::Trim);
        if durable || request.command == Command::Flush {
            // What is done need not wait for the medium.
            self.send()?;
        }
        let mut done = self.execute(request, data);
        if durable && done.is_ok() {
            add(&self.counters.flushes, 1);
            done = self.volume.flush();
        }
        match done {
            Ok(()) => {
                if !matches!(request.command, Command::Read | Command::BlockStatus) {
                    self.replies.simple(request.cookie, 0);
                }
            }
            Err(error) => {
                tracing::warn!(
                    nbd.command = ?request.command,
                    nbd.offset = request.offset,
                    nbd.length = request.length,
                    error = %error,
                    "request failed"
                );
                self.counters.failed(request.offset, &error);
                self.refuse(request, error_number(&error));
            }
        }
        Ok(())
    }

    /// Does what is asked; reads and block status put their own replies.
    fn execute(&mut self, request: &Request, data: &mut [u8]) -> io::Result<()> {
        let Request { cookie, offset, length, .. } = *request;
        let bytes = u64::from(length);
        match request.command {
            Command::Read => {
                add(&self.counters.reads, 1);
                add(&self.counters.bytes_read, bytes);
                let volume = self.volume;
                step("S410", offset, usize::try_from(length).unwrap_or(usize::MAX));
                self.replies.data(self.peer.agreed.structured, cookie, offset, length, |place| {
                    volume.read(offset, place)?;
                    step("S440", offset, place.len());
                    Ok(())
                })
            }
            Command::Write => {
                add(&self.counters.writes, 1);
                add(&self.counters.bytes_written, bytes);
                step("S310", offset, data.len());
                self.volume.write(offset, data)
            }
            Command::WriteZeroes => {
                add(&self.counters.zeroes, 1);
                self.volume.write_zeroes(offset, bytes)
            }
            Command::Trim => {
                add(&self.counters.trims, 1);
                self.volume.trim(offset, bytes)
            }
            Command::Flush => {
                add(&self.counters.flushes, 1);
                self.volume.flush()
            }
            Command::Cache => self.volume.prefetch(offset, bytes),
            Command::BlockStatus => {
                let one = request.flags & wire::CMD_FLAG_REQ_ONE != 0;
                let max = if one { 1 } else { EXTENTS_MAX };
                let extents = self.volume.extents(offset, bytes, max)?;
                self.replies.block_status(cookie, &extents);
                Ok(())
            }
            Command::Disconnect | Command::Unknown(_) => Ok(()),
        }
    }

    /// Answers what is malformed or not allowed.
    fn fail(&mut self, request: &Request, error: u32) {
        add(&self.counters.errors, 1);
        self.refuse(request, error);
    }

    fn refuse(&mut self, request: &Request, error: u32) {
        let chunked = matches!(request.command, Command::Read | Command::BlockStatus);
        if self.peer.agreed.structured && chunked {
            self.replies.structured_error(request.cookie, error);
        } else {
            self.replies.simple(request.cookie, error);
        }
    }
}
