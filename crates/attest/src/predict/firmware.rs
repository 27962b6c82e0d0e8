//! OVMF's own measurements (PCR 0), from its code file.
//!
//! The code file holds one firmware volume with one LZMA section, which holds the two volumes that
//! the firmware unpacks into memory, runs, and measures there: PEIFV and DXEFV (UEFI Platform
//! Initialization Specification, volume 3, for volumes, files and sections). DXEFV is measured as
//! it was unpacked. PEIFV is measured after its modules have run, with one of their variables
//! filled in: see `platform`.

use std::io::Read;

use lzma_rust2::LzmaReader;
use thiserror::Error;

use super::{
    Predicted, Presence, Unpredicted,
    bytes::{long_at, size_at, size24_at, slice, u16_at},
    platform::{self, Machine},
};

/// Largest code file, 16 MiB.
const MAX_FILE: usize = 16 << 20;
/// Largest unpacked content, 64 MiB.
const MAX_UNPACKED: u64 = 64 << 20;
/// Memory limit of the decoder in KiB.
const MAX_DECODER_KIB: u32 = 128 << 10;
/// Most files in a volume and sections in a file.
const MAX_PARTS: usize = 4096;

/// EFI_CUSTOMIZED_DECOMPRESS_GUID for LZMA, ee4e5898-3914-4259-9d6e-dc7bd79403cf.
const LZMA_GUID: [u8; 16] = [
    0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf,
];
const SECTION_GUID_DEFINED: u8 = 0x02;
const SECTION_PE32: u8 = 0x10;
const SECTION_VOLUME_IMAGE: u8 = 0x17;

/// Why a firmware file is not one that we can predict.
#[derive(Debug, Error)]
pub enum FirmwareError {
    /// The file is empty or larger than 16 MiB.
    #[error("the firmware file is larger than 16 MiB")]
    TooLarge,
    /// A volume, file or section header lies outside its container.
    #[error("a firmware header lies outside its container")]
    OutOfBounds,
    /// There is no LZMA section in the first volume.
    #[error("there is no compressed section in the first firmware volume")]
    NoCompressedSection,
    /// The LZMA data is damaged or unpacks to more than 64 MiB.
    #[error("the compressed section does not unpack")]
    Unpack,
    /// The unpacked content is not exactly two volumes.
    #[error("the compressed section holds {0} volumes instead of 2")]
    Volumes(usize),
}

/// What the firmware measures of itself.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) entries: Vec<Predicted>,
    pub(super) unpredicted: Vec<Unpredicted>,
}

/// One section of a firmware file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    kind: u8,
    /// Offset of the body in the data that was walked.
    pub(super) offset: usize,
    /// The bytes after the header.
    pub(super) body: &'a [u8],
}

/// PCR 0 up to its separator.
pub(super) fn measured(code: &[u8], machine: Machine) -> Result<Measured, FirmwareError> {
    if code.len() > MAX_FILE {
        return Err(FirmwareError::TooLarge);
    }
    let unpacked = unpack(compressed_section(code)?)?;
    let volumes: Vec<&[u8]> = sections(&unpacked, 0, unpacked.len())
        .ok_or(FirmwareError::OutOfBounds)?
        .into_iter()
        .filter(|section| section.kind == SECTION_VOLUME_IMAGE)
        .map(|section| section.body)
        .collect();
    let [pei, dxe] = volumes.as_slice() else {
        return Err(FirmwareError::Volumes(volumes.len()));
    };
    // The version string is empty in Debian's build: one UTF-16 zero.
    let mut entries = vec![Predicted::of(0, &[0, 0], "firmware version")];
    let mut unpredicted = Vec::new();
    match platform::pei_digests(pei, machine) {
        Ok(digests) => entries.push(Predicted {
            pcr: 0,
            digests,
            name: "firmware volume PEIFV".to_owned(),
            presence: Presence::Always,
        }),
        Err(reason) => unpredicted.push(Unpredicted { pcr: 0, reason: reason.to_string() }),
    }
    entries.push(Predicted::of(0, dxe, "firmware volume DXEFV"));
    Ok(Measured { entries, unpredicted })
}

/// The body of the PE image in the firmware file named `guid`, with its offset in the volume.
pub(super) fn module<'a>(volume: &'a [u8], guid: &[u8; 16]) -> Option<Section<'a>> {
    let (offset, end) =
        files(volume)?.into_iter().find(|file| slice(volume, file.0, 16) == Some(guid))?;
    let found = sections(volume, offset + 24, end)?;
    found.into_iter().find(|section| section.kind == SECTION_PE32)
}

/// The LZMA stream of the first volume's first file that has one.
fn compressed_section(code: &[u8]) -> Result<&[u8], FirmwareError> {
    let files = files(code).ok_or(FirmwareError::OutOfBounds)?;
    for (start, end) in files {
        let sections = sections(code, start + 24, end).unwrap_or_default();
        for section in sections {
            if section.kind == SECTION_GUID_DEFINED
                && slice(section.body, 0, 16) == Some(&LZMA_GUID)
            {
                let bounds = FirmwareError::OutOfBounds;
                // The data offset counts from the section's start, 4 bytes before its body.
                let offset = u16_at(section.body, 16).and_then(|at| at.checked_sub(4));
                return section.body.get(usize::from(offset.unwrap_or(u16::MAX))..).ok_or(bounds);
            }
        }
    }
    Err(FirmwareError::NoCompressedSection)
}

/// Unpacks an LZMA stream with its 13-byte header.
fn unpack(stream: &[u8]) -> Result<Vec<u8>, FirmwareError> {
    let size = long_at(stream, 5).ok_or(FirmwareError::Unpack)?;
    let reader = LzmaReader::new_mem_limit(stream, MAX_DECODER_KIB, None)
        .map_err(|_| FirmwareError::Unpack)?;
    let mut unpacked = Vec::new();
    reader.take(MAX_UNPACKED).read_to_end(&mut unpacked).map_err(|_| FirmwareError::Unpack)?;
    if unpacked.len() == size { Ok(unpacked) } else { Err(FirmwareError::Unpack) }
}

/// Start and end of every file in the volume at the start of `data`.
fn files(data: &[u8]) -> Option<Vec<(usize, usize)>> {
    if slice(data, 40, 4)? != b"_FVH" {
        return None;
    }
    let volume = long_at(data, 32)?.min(data.len());
    let mut at = usize::from(u16_at(data, 48)?);
    let extended = usize::from(u16_at(data, 52)?);
    if extended != 0 {
        at = extended.checked_add(size_at(data, extended + 16)?)?.checked_next_multiple_of(8)?;
    }
    let mut found = Vec::new();
    while at + 24 <= volume && found.len() < MAX_PARTS {
        // Free space after the last file is all ones.
        if slice(data, at, 24)?.iter().all(|&byte| byte == 0xff) {
            break;
        }
        let size = size24_at(data, at + 20)?;
        let end = at.checked_add(size)?;
        if size < 24 || end > volume {
            return None;
        }
        found.push((at, end));
        at = end.checked_next_multiple_of(8)?;
    }
    Some(found)
}

/// The sections in `data[at..end]`.
fn sections(data: &[u8], mut at: usize, end: usize) -> Option<Vec<Section<'_>>> {
    let mut found = Vec::new();
    while at + 4 <= end && found.len() < MAX_PARTS {
        let size = size24_at(data, at)?;
        let &[kind] = slice(data, at + 3, 1)? else { return None };
        let next = at.checked_add(size)?;
        if size < 4 || next > end {
            return None;
        }
        found.push(Section { kind, offset: at + 4, body: slice(data, at + 4, size - 4)? });
        at = next.checked_next_multiple_of(4)?;
    }
    Some(found)
}
