//! What one command did to the PCRs, from its bytes and those of its response (TPM 2.0 Library,
//! part 3, sections 9.3, 17.9 and 22).

use model::{Digest, HashAlg};

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing to a PCR, or the TPM refused it.
    None,
    /// TPM2_Startup(CLEAR).
    Startup,
    /// TPM2_Startup(STATE).
    Resume,
    /// PCR `pcr` was extended.
    Extend { pcr: u8, digests: Vec<Digest> },
    /// PCR `pcr` was zeroed.
    Reset { pcr: u8 },
    /// It measured something that could not be read.
    Malformed,
}

const SESSIONS: u16 = 0x8002;
const PCR_EVENT: u32 = 0x0000_013c;
const PCR_RESET: u32 = 0x0000_013d;
const STARTUP: u32 = 0x0000_0144;
const PCR_EXTEND: u32 = 0x0000_0182;
const EVENT_SEQUENCE_COMPLETE: u32 = 0x0000_0185;
const RH_NULL: u32 = 0x4000_0007;

/// The effect of `command`, to which the TPM answered `response`.
pub(super) fn effect(command: &[u8], response: &[u8]) -> Effect {
    let mut reader = Bytes(command);
    let Some((tag, code)) = header(&mut reader) else { return Effect::None };
    let measures =
        matches!(code, PCR_EVENT | PCR_RESET | STARTUP | PCR_EXTEND | EVENT_SEQUENCE_COMPLETE);
    if !measures {
        return Effect::None;
    }
    let mut answer = Bytes(response);
    match header(&mut answer) {
        Some((_, 0)) => {}
        Some(_) => return Effect::None,
        None => return Effect::Malformed,
    }
    let done = match code {
        STARTUP => startup(&mut reader),
        PCR_RESET => {
            pcr(&mut reader).map(|pcr| pcr.map_or(Effect::None, |pcr| Effect::Reset { pcr }))
        }
        PCR_EXTEND => extend(&mut reader, tag),
        _ => event(&mut reader, &mut answer),
    };
    done.unwrap_or(Effect::Malformed)
}

/// Tag and command or response code; the reader stands behind the header.
fn header(reader: &mut Bytes<'_>) -> Option<(u16, u32)> {
    let tag = reader.u16()?;
    reader.u32()?;
    Some((tag, reader.u32()?))
}

fn startup(reader: &mut Bytes<'_>) -> Option<Effect> {
    match reader.u16()? {
        0 => Some(Effect::Startup),
        1 => Some(Effect::Resume),
        _ => None,
    }
}

/// A PCR handle; `Some(None)` for TPM_RH_NULL, with which nothing is extended.
fn pcr(reader: &mut Bytes<'_>) -> Option<Option<u8>> {
    match reader.u32()? {
        RH_NULL => Some(None),
        pcr if pcr < 24 => u8::try_from(pcr).ok().map(Some),
        _ => None,
    }
}

fn extend(reader: &mut Bytes<'_>, tag: u16) -> Option<Effect> {
    let pcr = pcr(reader)?;
    if tag != SESSIONS {
        return None;
    }
    let authorizations = reader.u32()?;
    reader.take(usize::try_from(authorizations).ok()?)?;
    let digests = digests(reader)?;
    Some(pcr.map_or(Effect::None, |pcr| Effect::Extend { pcr, digests }))
}

/// TPM2_PCR_Event and TPM2_EventSequenceComplete: the digests stand in the response, behind the
/// size of the parameters.
fn event(reader: &mut Bytes<'_>, answer: &mut Bytes<'_>) -> Option<Effect> {
    let pcr = pcr(reader)?;
    answer.u32()?;
    let digests = digests(answer)?;
    Some(pcr.map_or(Effect::None, |pcr| Effect::Extend { pcr, digests }))
}

/// TPML_DIGEST_VALUES.
fn digests(reader: &mut Bytes<'_>) -> Option<Vec<Digest>> {
    let count = reader.u32()?;
    if count > 16 {
        return None;
    }
    let mut digests = Vec::new();
    for _ in 0..count {
        let alg = HashAlg::from_tpm_id(reader.u16()?)?;
        digests.push(Digest::new(alg, reader.take(alg.size())?).ok()?);
    }
    Some(digests)
}

/// Reads big-endian numbers off a slice.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }
}
