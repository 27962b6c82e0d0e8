//! Option haggling, sans-IO: the client's bytes go in, our replies and at last an outcome come out.
//!
//! ```text
//!   greeting -> client flags -> option* -> GO or EXPORT_NAME -> Outcome::Transmission
//!                                       \-> ABORT            -> Outcome::Ended
//! ```
//!
//! Deliberately absent: TLS (`NBD_OPT_STARTTLS` is for TCP) and extended headers; both are answered
//! with `NBD_REP_ERR_UNSUP`.

use super::{
    Rejection,
    wire::{self, Fields},
};

/// The longest option data; the longest legal text has 4096 bytes.
const OPTION_MAX: u32 = 16 << 10;
/// The most options of one client.
const OPTIONS_MAX: u32 = 128;
/// The most queries of one metadata context option.
const QUERIES_MAX: u32 = 64;

/// What is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The names it answers to.
    pub names: Vec<String>,
    /// Size in bytes.
    pub size: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Requests aligned to this many bytes are cheapest.
    pub preferred_block: u32,
}

impl Export {
    /// The transmission flags; `structured` says whether structured replies were negotiated.
    #[must_use]
    pub const fn flags(&self, structured: bool) -> u16 {
        let mut flags = wire::FLAG_HAS_FLAGS
            | wire::FLAG_SEND_FLUSH
            | wire::FLAG_CAN_MULTI_CONN
            | wire::FLAG_SEND_CACHE;
        if self.read_only {
            flags |= wire::FLAG_READ_ONLY;
        } else {
            flags |= wire::FLAG_SEND_FUA | wire::FLAG_SEND_TRIM | wire::FLAG_SEND_WRITE_ZEROES;
        }
        if structured {
            flags |= wire::FLAG_SEND_DF;
        }
        flags
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// What the two sides agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Reads are answered with structured replies.
    pub structured: bool,
    /// `NBD_CMD_BLOCK_STATUS` may be sent, for `base:allocation`.
    pub block_status: bool,
}

/// How a negotiation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client left in good order.
    Ended,
    /// Requests follow.
    Transmission(Agreed),
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed; nothing was consumed.
    NeedMore,
    /// So many bytes were consumed; go on with the rest.
    Consumed(usize),
    /// So many bytes were consumed, and that was the last of them.
    Done(usize, Outcome),
}

/// The server's side of one handshake.
#[derive(Clone, Debug)]
pub struct Negotiation {
    export: Export,
    client_flags: Option<u32>,
    options: u32,
    structured: bool,
    /// The export name for which `base:allocation` was selected.
    context_of: Option<String>,
}

impl Negotiation {
    /// Begins; the greeting is appended to `out`.
    #[must_use]
    pub fn begin(export: Export, out: &mut Vec<u8>) -> Self {
        out.extend(wire::NBDMAGIC.to_be_bytes());
        out.extend(wire::IHAVEOPT.to_be_bytes());
        out.extend((wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES).to_be_bytes());
        Self { export, client_flags: None, options: 0, structured: false, context_of: None }
    }

    /// Looks at the client's bytes from where the last call stopped. Consumes at most one message;
    /// replies are appended to `out`.
    ///
    /// # Errors
    /// A [`Rejection`] if the connection must end; what is in `out` may still be sent.
    pub fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, Rejection> {
        let mut fields = Fields(input);
        if self.client_flags.is_none() {
            let Some(flags) = fields.u32() else { return Ok(Progress::NeedMore) };
            if flags & !(wire::FLAG_C_FIXED_NEWSTYLE | wire::FLAG_C_NO_ZEROES) != 0 {
                return Err(Rejection::ClientFlags(flags));
            }
            self.client_flags = Some(flags);
            return Ok(Progress::Consumed(4));
        }
        let Some(magic) = fields.u64() else { return Ok(Progress::NeedMore) };
        if magic != wire::IHAVEOPT {
            return Err(Rejection::OptionMagic);
        }
        let (Some(option), Some(length)) = (fields.u32(), fields.u32()) else {
            return Ok(Progress::NeedMore);
        };
        if length > OPTION_MAX {
            return Err(Rejection::OptionTooLong(length));
        }
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(data) = fields.bytes(wanted) else { return Ok(Progress::NeedMore) };
        self.options = self.options.saturating_add(1);
        if self.options > OPTIONS_MAX {
            return Err(Rejection::OptionsTooMany);
        }
        let consumed = input.len().saturating_sub(fields.0.len());
        Ok(match self.option(option, data, out)? {
            Some(outcome) => Progress::Done(consumed, outcome),
            None => Progress::Consumed(consumed),
        })
    }

    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Outcome>, Rejection> {
        match option {
            wire::OPT_EXPORT_NAME => return self.export_name(data, out).map(Some),
            wire::OPT_ABORT => {
                reply(out, option, wire::REP_ACK, &[]);
                return Ok(Some(Outcome::Ended));
            }
            wire::OPT_GO | wire::OPT_INFO => return Ok(self.go(option, data, out)),
            wire::OPT_LIST if data.is_empty() => self.list(out),
            wire::OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                reply(out, option, wire::REP_ACK, &[]);
            }
            wire::OPT_LIST | wire::OPT_STRUCTURED_REPLY => {
                reply(out, option, wire::REP_ERR_INVALID, b"this option has no data");
            }
            wire::OPT_LIST_META_CONTEXT | wire::OPT_SET_META_CONTEXT => {
                self.meta_context(option, data, out);
            }
            _ => reply(out, option, wire::REP_ERR_UNSUP, &[]),
        }
        Ok(None)
    }

    fn list(&self, out: &mut Vec<u8>) {
        for name in &self.export.names {
            let mut entry = Vec::new();
            put_string(&mut entry, name);
            reply(out, wire::OPT_LIST, wire::REP_SERVER, &entry);
        }
        reply(out, wire::OPT_LIST, wire::REP_ACK, &[]);
    }

    fn export_name(&self, data: &[u8], out: &mut Vec<u8>) -> Result<Outcome, Rejection> {
        let name = std::str::from_utf8(data).map_err(|_| Rejection::ExportUnknown)?;
        if !self.export.has(name) {
            return Err(Rejection::ExportUnknown);
        }
        out.extend(self.export.size.to_be_bytes());
        out.extend(self.export.flags(self.structured).to_be_bytes());
        if self.client_flags.unwrap_or_default() & wire::FLAG_C_NO_ZEROES == 0 {
            out.extend([0; 124]);
        }
        Ok(Outcome::Transmission(self.agreed(name)))
    }

    fn agreed(&self, name: &str) -> Agreed {
        Agreed {
            structured: self.structured,
            block_status: self.structured && self.context_of.as_deref() == Some(name),
        }
    }

    fn go(&self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Option<Outcome> {
        let Some((name, asked)) = parse_go(data) else {
            reply(out, option, wire::REP_ERR_INVALID, b"malformed");
            return None;
        };
        if !self.export.has(name) {
            reply(out, option, wire::REP_ERR_UNKNOWN, b"no such export");
            return None;
        }
        let mut info = wire::INFO_EXPORT.to_be_bytes().to_vec();
        info.extend(self.export.size.to_be_bytes());
        info.extend(self.export.flags(self.structured).to_be_bytes());
        reply(out, option, wire::REP_INFO, &info);
        if asked.clone().any(|kind| kind == wire::INFO_NAME) {
            let mut info = wire::INFO_NAME.to_be_bytes().to_vec();
            info.extend(name.as_bytes());
            reply(out, option, wire::REP_INFO, &info);
        }
        let mut info = wire::INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, self.export.preferred_block, wire::MAX_PAYLOAD] {
            info.extend(size.to_be_bytes());
        }
        reply(out, option, wire::REP_INFO, &info);
        reply(out, option, wire::REP_ACK, &[]);
        (option == wire::OPT_GO).then(|| Outcome::Transmission(self.agreed(name)))
    }

    fn meta_context(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) {
        if option == wire::OPT_SET_META_CONTEXT {
            self.context_of = None;
        }
        if !self.structured {
            reply(out, option, wire::REP_ERR_INVALID, b"structured replies come first");
            return;
        }
        let Some((name, queries)) = parse_meta_context(data) else {
            reply(out, option, wire::REP_ERR_INVALID, b"malformed");
            return;
        };
        let Some(queries) = queries else {
            reply(out, option, wire::REP_ERR_TOO_BIG, b"too many queries");
            return;
        };
        if !self.export.has(name) {
            reply(out, option, wire::REP_ERR_UNKNOWN, b"no such export");
            return;
        }
        let list = option == wire::OPT_LIST_META_CONTEXT;
        let found = queries
            .iter()
            .any(|query| *query == wire::BASE_ALLOCATION || list && *query == "base:")
            || list && queries.is_empty();
        if found {
            let id = if list { 0 } else { wire::BASE_ALLOCATION_ID };
            let mut context = id.to_be_bytes().to_vec();
            context.extend(wire::BASE_ALLOCATION.as_bytes());
            reply(out, option, wire::REP_META_CONTEXT, &context);
            if !list {
                self.context_of = Some(name.to_owned());
            }
        }
        reply(out, option, wire::REP_ACK, &[]);
    }
}

/// The export name and the information requests of `NBD_OPT_GO`.
fn parse_go(data: &[u8]) -> Option<(&str, impl Iterator<Item = u16> + Clone)> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = usize::from(fields.u16()?);
    if fields.0.len() != count.checked_mul(2)? {
        return None;
    }
    let (pairs, _) = fields.0.as_chunks::<2>();
    Some((name, pairs.iter().map(|pair| u16::from_be_bytes(*pair))))
}

/// The export name and the queries of a metadata context option; no queries if there are too many.
fn parse_meta_context(data: &[u8]) -> Option<(&str, Option<Vec<&str>>)> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = fields.u32()?;
    if count > QUERIES_MAX {
        return Some((name, None));
    }
    let queries = (0..count).map(|_| fields.string()).collect::<Option<Vec<_>>>()?;
    fields.0.is_empty().then_some((name, Some(queries)))
}

fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend(wire::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(data);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}
