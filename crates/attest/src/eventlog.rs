//! TCG event logs in the crypto-agile format (TCG PC Client Platform Firmware Profile, chapter 10):
//! parse, replay, describe, and [`Builder`] to write one.
//!
//! A log is a claim. It becomes evidence when its [`EventLog::replay`] gives the PCR values that a
//! TPM quoted; that holds for digests only: an event's *data* explains its digest but is covered by
//! it for some types alone ([`Event::data_is_measured`]).
//!
//! **Invariants:** parsing borrows the input and allocates one list of events; nothing is allocated
//! by an announced length; EV_NO_ACTION is never replayed; the start value of PCR 0 follows the
//! StartupLocality event, that of PCRs 17 to 22 is all ones.
//! Deliberately absent: the SHA-1-only format of TPM 1.2.

mod builder;
mod describe;
mod event_type;
mod replay;

use model::{Digest, HashAlg};
use thiserror::Error;

pub use self::{
    builder::{BuildError, Builder},
    describe::MAX_DESCRIPTION,
    event_type::EventType,
    replay::{Replay, Sha256Replay},
};
use crate::bytes::Reader;

/// The largest log that is read, bytes.
pub const MAX_LOG: usize = 4 * 1024 * 1024;

/// The largest number of events that is read.
pub const MAX_EVENTS: usize = 16_384;

const MAX_ALGORITHMS: usize = 8;
const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// Why bytes are not an event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogMalformed {
    /// An event has a digest of an algorithm that the header does not list, or has one twice.
    #[error("event {event} has digests that the log's header does not announce")]
    Digests {
        /// Counted from 0, without the header.
        event: usize,
    },
    /// The first event is not `Spec ID Event03`, or contradicts itself.
    #[error("the log does not begin with a valid Spec ID Event03")]
    Header,
    /// StartupLocality stands after the first event of PCR 0, twice, or has a locality that is none.
    #[error("event {event} is a StartupLocality that cannot be there")]
    Locality {
        /// Counted from 0, without the header.
        event: usize,
    },
    /// An event of a PCR that no PC has.
    #[error("event {event} is for PCR {pcr}")]
    Pcr {
        /// Counted from 0, without the header.
        event: usize,
        /// The index on the wire.
        pcr: u32,
    },
    /// Over the limits.
    #[error("the log exceeds {MAX_LOG} bytes or {MAX_EVENTS} events")]
    TooLarge,
    /// The bytes end inside an event.
    #[error("the log ends inside event {event}")]
    Truncated {
        /// Counted from 0, without the header.
        event: usize,
    },
}

/// One event (TCG_PCR_EVENT2).
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its number in the log, from 0, without the header.
    pub index: usize,
    /// The PCR, 0 to 23; `u8::MAX` for EV_NO_ACTION events that name none.
    pub pcr: u8,
    /// What kind of event.
    pub kind: EventType,
    /// What the event is about; see [`Event::data_is_measured`].
    pub data: &'a [u8],
    sha256: Option<&'a [u8; 32]>,
    digests: &'a [u8],
    sizes: &'a [u8],
}

impl<'a> Event<'a> {
    /// The SHA-256 digest, if that bank is in the log.
    #[must_use]
    pub const fn sha256(&self) -> Option<&'a [u8; 32]> {
        self.sha256
    }

    /// The digest of one bank.
    #[must_use]
    pub fn digest(&self, alg: HashAlg) -> Option<Digest> {
        self.digests().find(|digest| digest.alg() == alg)
    }

    /// The digests of all banks of ours, in the log's order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + use<'a> {
        let mut reader = Reader::new(self.digests);
        let sizes = self.sizes;
        std::iter::from_fn(move || {
            while let Some(id) = reader.u16_le() {
                let digest = reader.bytes(size_of(sizes, id)?)?;
                if let Some(alg) = HashAlg::from_tpm_id(id) {
                    return Digest::new(alg, digest).ok();
                }
            }
            None
        })
    }

    /// Whether the event extends a PCR.
    #[must_use]
    pub const fn is_extended(&self) -> bool {
        !matches!(self.kind, EventType::NO_ACTION)
    }
}

/// A parsed log. Borrows the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct EventLog<'a> {
    events: Vec<Event<'a>>,
    sizes: &'a [u8],
    locality: u8,
}

impl<'a> EventLog<'a> {
    /// Parses a whole log, strictly: nothing may be left over.
    ///
    /// # Errors
    /// [`LogMalformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, LogMalformed> {
        if bytes.len() > MAX_LOG {
            return Err(LogMalformed::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let sizes = header(&mut reader).ok_or(LogMalformed::Header)?;
        let mut log = Self { events: Vec::with_capacity(64), sizes, locality: 0 };
        let mut locality = None;
        while !reader.is_empty() {
            let event = log.events.len();
            if event == MAX_EVENTS {
                return Err(LogMalformed::TooLarge);
            }
            let parsed = event2(&mut reader, sizes, event)?;
            if let Some(found) = startup_locality(&parsed) {
                let late = log.events.iter().any(|e| e.pcr == 0 && e.is_extended());
                if late || locality.is_some() || !matches!(found, 0 | 3 | 4) {
                    return Err(LogMalformed::Locality { event });
                }
                locality = Some(found);
            }
            log.events.push(parsed);
        }
        log.locality = locality.unwrap_or(0);
        Ok(log)
    }

    /// All events, EV_NO_ACTION included, in order.
    #[must_use]
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The events that extend PCRs, in order.
    pub fn extends(&self) -> impl Iterator<Item = &Event<'a>> {
        self.events.iter().filter(|event| event.is_extended())
    }

    /// The banks of ours that the log has.
    pub fn banks(&self) -> impl Iterator<Item = HashAlg> + use<'a> {
        let sizes = self.sizes;
        HashAlg::ALL.into_iter().filter(move |alg| size_of(sizes, alg.tpm_id()).is_some())
    }

    /// The locality that started the TPM, which is in PCR 0's start value.
    #[must_use]
    pub const fn startup_locality(&self) -> u8 {
        self.locality
    }
}

/// TCG_PCR_EVENT with TCG_EfiSpecIDEvent; gives the list of algorithms and digest sizes.
fn header<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let (pcr, kind) = (reader.u32_le()?, reader.u32_le()?);
    let digest = reader.bytes(20)?;
    let size = usize::try_from(reader.u32_le()?).ok()?;
    let mut data = Reader::new(reader.bytes(size)?);
    let known = data.bytes(16)? == SPEC_ID;
    data.bytes(8)?; // platform class, version, errata, size of UINTN
    let count = usize::try_from(data.u32_le()?).ok()?;
    let plain = pcr == 0 && kind == EventType::NO_ACTION.0 && digest.iter().all(|b| *b == 0);
    if !known || !plain || count == 0 || count > MAX_ALGORITHMS {
        return None;
    }
    let sizes = data.bytes(count.checked_mul(4)?)?;
    let vendor = usize::from(data.u8()?);
    data.bytes(vendor)?;
    (data.is_empty() && sizes_are_sound(sizes)).then_some(sizes)
}

/// Every algorithm once, ours with their own sizes, others with at most 64 bytes.
fn sizes_are_sound(sizes: &[u8]) -> bool {
    let mut seen = [0_u16; MAX_ALGORITHMS];
    let mut reader = Reader::new(sizes);
    for slot in &mut seen {
        let (Some(id), Some(size)) = (reader.u16_le(), reader.u16_le()) else { break };
        let right = HashAlg::from_tpm_id(id).is_none_or(|alg| alg.size() == usize::from(size));
        if !right || size == 0 || size > 64 || id == 0 {
            return false;
        }
        *slot = id;
    }
    seen.iter().enumerate().all(|(at, id)| *id == 0 || !seen.iter().take(at).any(|s| s == id))
}

fn size_of(sizes: &[u8], alg: u16) -> Option<usize> {
    sizes.chunks_exact(4).find_map(|entry| match entry {
        [a, b, c, d] if u16::from_le_bytes([*a, *b]) == alg => {
            Some(usize::from(u16::from_le_bytes([*c, *d])))
        }
        _ => None,
    })
}

fn event2<'a>(
    reader: &mut Reader<'a>,
    sizes: &'a [u8],
    index: usize,
) -> Result<Event<'a>, LogMalformed> {
    let cut = LogMalformed::Truncated { event: index };
    let wire_pcr = reader.u32_le().ok_or(cut)?;
    let kind = EventType(reader.u32_le().ok_or(cut)?);
    let pcr = match u8::try_from(wire_pcr) {
        Ok(pcr) if pcr < tpm::PCR_COUNT => pcr,
        _ if kind == EventType::NO_ACTION => u8::MAX,
        _ => return Err(LogMalformed::Pcr { event: index, pcr: wire_pcr }),
    };
    let count = usize::try_from(reader.u32_le().ok_or(cut)?).unwrap_or(usize::MAX);
    let start = reader.rest();
    let mut sha256 = None;
    let mut seen = 0_u64;
    if count > sizes.len() / 4 {
        return Err(LogMalformed::Digests { event: index });
    }
    for _ in 0..count {
        let id = reader.u16_le().ok_or(cut)?;
        let at = sizes.chunks_exact(4).position(|entry| entry.starts_with(&id.to_le_bytes()));
        let (at, size) =
            at.zip(size_of(sizes, id)).ok_or(LogMalformed::Digests { event: index })?;
        if seen & (1 << at) != 0 {
            return Err(LogMalformed::Digests { event: index });
        }
        seen |= 1 << at;
        let digest = reader.bytes(size).ok_or(cut)?;
        if id == HashAlg::Sha256.tpm_id() {
            sha256 = digest.try_into().ok();
        }
    }
    let used = start.len() - reader.rest().len();
    let digests = start.get(..used).unwrap_or_default();
    let size = usize::try_from(reader.u32_le().ok_or(cut)?).unwrap_or(usize::MAX);
    let data = reader.bytes(size).ok_or(cut)?;
    Ok(Event { index, pcr, kind, data, sha256, digests, sizes })
}

fn startup_locality(event: &Event<'_>) -> Option<u8> {
    if event.kind != EventType::NO_ACTION {
        return None;
    }
    match event.data.strip_prefix(STARTUP_LOCALITY)? {
        [locality] if event.pcr == 0 => Some(*locality),
        _ => Some(u8::MAX),
    }
}

#[cfg(test)]
mod tests;
