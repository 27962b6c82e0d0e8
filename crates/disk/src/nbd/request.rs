//! Requests of the transmission phase, sans-IO.

use super::{
    Rejection,
    wire::{self, Fields},
};

/// Bytes of a request without its payload.
pub(super) const REQUEST_BYTES: usize = 28;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `NBD_CMD_READ`.
    Read,
    /// `NBD_CMD_WRITE`; the payload follows.
    Write,
    /// `NBD_CMD_DISC`: the client leaves; no reply.
    Disconnect,
    /// `NBD_CMD_FLUSH`.
    Flush,
    /// `NBD_CMD_TRIM`.
    Trim,
    /// `NBD_CMD_CACHE`.
    Cache,
    /// `NBD_CMD_WRITE_ZEROES`.
    WriteZeroes,
    /// `NBD_CMD_BLOCK_STATUS`.
    BlockStatus,
    /// Anything else; answered with `NBD_EINVAL`.
    Unknown(u16),
}

impl Command {
    const fn from_wire(kind: u16) -> Self {
        match kind {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            other => Self::Unknown(other),
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Command flags as they came.
    pub flags: u16,
    /// The client's name for the request; returned in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u32,
}

/// What the first bytes of a buffer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not yet a request with its payload: this many bytes are needed in all.
    NeedMore(usize),
    /// A request; its payload has so many bytes and follows the request's 28.
    Request(Request, usize),
}

impl Request {
    /// Parses the request at the start of `input`.
    ///
    /// # Errors
    /// [`Rejection::RequestMagic`] or [`Rejection::WriteTooLong`]: the connection must end, for
    /// where the next request begins is not known, or is too far away.
    pub fn parse(input: &[u8]) -> Result<Parsed, Rejection> {
        let Some(head) = input.first_chunk::<REQUEST_BYTES>() else {
            return match input.first_chunk().map(|magic| u32::from_be_bytes(*magic)) {
                Some(magic) if magic != wire::REQUEST_MAGIC => Err(Rejection::RequestMagic),
                _ => Ok(Parsed::NeedMore(REQUEST_BYTES)),
            };
        };
        let (request, magic) = Self::from_head(head).ok_or(Rejection::RequestMagic)?;
        if magic != wire::REQUEST_MAGIC {
            return Err(Rejection::RequestMagic);
        }
        let payload = match request.command {
            Command::Write if request.length > wire::MAX_PAYLOAD => {
                return Err(Rejection::WriteTooLong(request.length));
            }
            Command::Write => usize::try_from(request.length).unwrap_or(usize::MAX),
            Command::Read
            | Command::Disconnect
            | Command::Flush
            | Command::Trim
            | Command::Cache
            | Command::WriteZeroes
            | Command::BlockStatus
            | Command::Unknown(_) => 0,
        };
        let whole = REQUEST_BYTES.saturating_add(payload);
        if input.len() < whole {
            return Ok(Parsed::NeedMore(whole));
        }
        Ok(Parsed::Request(request, payload))
    }

    fn from_head(head: &[u8]) -> Option<(Self, u32)> {
        let mut fields = Fields(head);
        let magic = fields.u32()?;
        let flags = fields.u16()?;
        let command = Command::from_wire(fields.u16()?);
        let request = Self {
            command,
            flags,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        };
        Some((request, magic))
    }

    /// The error that the request deserves before the volume is asked, if any.
    pub(super) fn refusal(&self, agreed: super::Agreed, size: u64, read_only: bool) -> Option<u32> {
        let allowed = match self.command {
            Command::Read if agreed.structured => wire::CMD_FLAG_FUA | wire::CMD_FLAG_DF,
            Command::WriteZeroes => wire::CMD_FLAG_FUA | wire::CMD_FLAG_NO_HOLE,
            Command::BlockStatus if agreed.block_status => {
                wire::CMD_FLAG_FUA | wire::CMD_FLAG_REQ_ONE
            }
            Command::BlockStatus | Command::Unknown(_) => return Some(wire::EINVAL),
            Command::Read
            | Command::Write
            | Command::Disconnect
            | Command::Flush
            | Command::Trim
            | Command::Cache => wire::CMD_FLAG_FUA,
        };
        if self.flags & !allowed != 0 {
            return Some(wire::EINVAL);
        }
        let writes = matches!(self.command, Command::Write | Command::Trim | Command::WriteZeroes);
        if writes && read_only {
            return Some(wire::EPERM);
        }
        if matches!(self.command, Command::Flush | Command::Disconnect) {
            return None;
        }
        let end = self.offset.checked_add(u64::from(self.length));
        if end.is_none_or(|end| end > size) {
            return Some(if writes { wire::ENOSPC } else { wire::EINVAL });
        }
        if self.command == Command::Read && self.length > wire::MAX_PAYLOAD {
            return Some(wire::EOVERFLOW);
        }
        if self.command == Command::BlockStatus && self.length == 0 {
            return Some(wire::EINVAL);
        }
        None
    }
}
