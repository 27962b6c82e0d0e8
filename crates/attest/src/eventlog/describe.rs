//! What an event is about, in words that operators can read and reference values can name. The
//! text comes from the log's data and is made harmless: no control characters, bounded length.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest;
use model::HashAlg;

use super::{Event, EventType, replay::algorithm};
use crate::bytes::Reader;

/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 160;

impl Event<'_> {
    /// The description: a variable's name, a file's path, a text, a firmware volume's place. Empty
    /// where the data says nothing.
    #[must_use]
    pub fn description(&self) -> String {
        let mut out = String::new();
        self.describe(&mut out);
        out
    }

    /// As [`Self::description`], appended to a buffer that is used again.
    pub fn describe(&self, out: &mut String) {
        let mut text = Plain { out, left: MAX_DESCRIPTION };
        let _ = describe(self, &mut text);
    }

    /// Whether the type says that the digest is that of the data, and it is, in the strongest bank
    /// at hand: then the description is as good as the digest.
    #[must_use]
    pub fn data_is_measured(&self) -> bool {
        let by_type = matches!(
            self.kind,
            EventType::SEPARATOR
                | EventType::ACTION
                | EventType::EVENT_TAG
                | EventType::S_CRTM_VERSION
                | EventType::EFI_VARIABLE_DRIVER_CONFIG
                | EventType::EFI_VARIABLE_BOOT
                | EventType::EFI_VARIABLE_AUTHORITY
                | EventType::EFI_GPT_EVENT
                | EventType::EFI_ACTION
        );
        let strongest = HashAlg::ALL.into_iter().rev().find_map(|alg| self.digest(alg));
        by_type
            && strongest.is_some_and(|found| {
                digest::digest(algorithm(found.alg()), self.data).as_ref() == found.as_bytes()
            })
    }
}

/// Writes printable characters and counts them; others become `?`.
struct Plain<'a> {
    out: &'a mut String,
    left: usize,
}

impl fmt::Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.out.push(if c.is_control() || is_invisible(c) { '?' } else { c });
        }
        Ok(())
    }
}

/// Bidirectional and zero-width characters, which could make one text look like another.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn describe(event: &Event<'_>, out: &mut Plain<'_>) -> fmt::Result {
    match event.kind {
        EventType::SEPARATOR => match event.data {
            [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff] => out.write_str("separator"),
            _ => out.write_str("separator after an error"),
        },
        EventType::EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EFI_VARIABLE_BOOT
        | EventType::EFI_VARIABLE_BOOT2
        | EventType::EFI_VARIABLE_AUTHORITY => variable(event.data, out).unwrap_or(Ok(())),
        EventType::EFI_BOOT_SERVICES_APPLICATION
        | EventType::EFI_BOOT_SERVICES_DRIVER
        | EventType::EFI_RUNTIME_SERVICES_DRIVER => image(event.data, out).unwrap_or(Ok(())),
        EventType::EFI_PLATFORM_FIRMWARE_BLOB => blob(event.data, out).unwrap_or(Ok(())),
        EventType::EFI_PLATFORM_FIRMWARE_BLOB2 | EventType::EFI_HANDOFF_TABLES2 => {
            blob2(event.data, out).unwrap_or(Ok(()))
        }
        EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => out.write_str("GPT"),
        EventType::EFI_HANDOFF_TABLES => out.write_str("tables"),
        EventType::EVENT_TAG => tag(event.data, out).unwrap_or(Ok(())),
        _ => text(event.data, out),
    }
}

/// ASCII, UTF-8 or UTF-16LE text up to its first NUL; anything else in hexadecimal.
fn text(data: &[u8], out: &mut Plain<'_>) -> fmt::Result {
    let wide = data.len() >= 2
        && data.len().is_multiple_of(2)
        && data.chunks_exact(2).any(|pair| matches!(pair, [low, 0] if *low != 0))
        && data.chunks_exact(2).all(|pair| matches!(pair, [_, 0]));
    if wide {
        return utf16(data, out);
    }
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (head, tail) = data.split_at_checked(end).unwrap_or((data, &[]));
    match std::str::from_utf8(head) {
        Ok(text) if tail.iter().all(|byte| *byte == 0) => out.write_str(text),
        _ => data.iter().take(16).try_for_each(|byte| write!(out, "{byte:02x}")),
    }
}

fn utf16(data: &[u8], out: &mut Plain<'_>) -> fmt::Result {
    let units = data.chunks_exact(2).filter_map(|pair| match pair {
        [low, high] => Some(u16::from_le_bytes([*low, *high])),
        _ => None,
    });
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .try_for_each(|c| out.write_char(c.unwrap_or(char::REPLACEMENT_CHARACTER)))
}

/// UEFI_VARIABLE_DATA: GUID, lengths in characters and bytes, name, data.
fn variable(data: &[u8], out: &mut Plain<'_>) -> Option<fmt::Result> {
    let mut reader = Reader::new(data);
    reader.bytes(16)?;
    let length = usize::try_from(reader.u64_le()?).ok()?.checked_mul(2)?;
    reader.u64_le()?;
    Some(utf16(reader.bytes(length)?, out))
}

/// UEFI_IMAGE_LOAD_EVENT: location, length, link-time address, device path; gives the file's path.
fn image(data: &[u8], out: &mut Plain<'_>) -> Option<fmt::Result> {
    let mut reader = Reader::new(data);
    reader.bytes(24)?;
    let length = usize::try_from(reader.u64_le()?).ok()?;
    let mut path = Reader::new(reader.bytes(length)?);
    while let (Some(kind), Some(sub), Some(size)) = (path.u8(), path.u8(), path.u16_le()) {
        let node = path.bytes(usize::from(size).checked_sub(4)?)?;
        match (kind, sub) {
            (4, 4) => return Some(utf16(node, out)),
            (4, 6) => return Some(firmware_file(node, out)),
            (0x7f, _) => break,
            _ => {}
        }
    }
    Some(out.write_str("image in memory"))
}

/// A file of a firmware volume, by its GUID.
fn firmware_file(guid: &[u8], out: &mut Plain<'_>) -> fmt::Result {
    out.write_str("firmware file ")?;
    match guid {
        [a, b, c, d, e, f, g, h, rest @ ..] if rest.len() == 8 => {
            write!(out, "{d:02x}{c:02x}{b:02x}{a:02x}-{f:02x}{e:02x}-{h:02x}{g:02x}-")?;
            rest.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        _ => Ok(()),
    }
}

/// UEFI_PLATFORM_FIRMWARE_BLOB: base and length.
fn blob(data: &[u8], out: &mut Plain<'_>) -> Option<fmt::Result> {
    let mut reader = Reader::new(data);
    let (base, length) = (reader.u64_le()?, reader.u64_le()?);
    Some(write!(out, "0x{base:x}+0x{length:x}"))
}

/// UEFI_PLATFORM_FIRMWARE_BLOB2 and UEFI_HANDOFF_TABLE_POINTERS2 begin with a described name.
fn blob2(data: &[u8], out: &mut Plain<'_>) -> Option<fmt::Result> {
    let mut reader = Reader::new(data);
    let length = usize::from(reader.u8()?);
    Some(text(reader.bytes(length)?, out))
}

/// TCG_PCClientTaggedEvent: id, size, data.
fn tag(data: &[u8], out: &mut Plain<'_>) -> Option<fmt::Result> {
    let mut reader = Reader::new(data);
    reader.u32_le()?;
    let size = usize::try_from(reader.u32_le()?).ok()?;
    Some(text(reader.bytes(size)?, out))
}
