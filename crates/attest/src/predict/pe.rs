//! PE/COFF images as UEFI measures them: the section table and the Authenticode digest.
//!
//! The digest leaves out the checksum field, the certificate table entry and the certificates, and
//! takes the sections in the order of their file offsets and then whatever follows them (Windows
//! Authenticode Portable Executable Signature Format, as `MeasurePeImage` of edk2 does it). The
//! certificates are not looked at: trust comes from the reference values.

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

use super::bytes::{size_at, slice, u16_at};

/// Most sections that an image may have.
const MAX_SECTIONS: usize = 96;

/// Why an image could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeError {
    /// No DOS or PE signature where they belong.
    #[error("it is not a PE image")]
    NotPe,
    /// The optional header is not PE32+ (64 bits).
    #[error("it is not a 64-bit PE image")]
    NotPe32Plus,
    /// A header or a section lies outside the file.
    #[error("a header or a section lies outside the file")]
    OutOfBounds,
    /// More sections than any honest image has.
    #[error("more than 96 sections")]
    TooManySections,
    /// Sections overlap in the file, so that the digest is not defined.
    #[error("sections overlap")]
    Overlap,
    /// The certificates are not the last thing in the file.
    #[error("the certificates are not at the end of the file")]
    Certificates,
}

/// One section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    /// The name without its padding.
    pub(super) name: &'a [u8],
    /// The bytes in the file, at most the size in memory.
    pub(super) data: &'a [u8],
    /// The size in memory; what is not in the file is zero.
    pub(super) virtual_size: usize,
    raw_offset: usize,
    raw_size: usize,
}

/// A parsed image.
#[derive(Debug)]
pub(super) struct Pe<'a> {
    file: &'a [u8],
    checksum: usize,
    certificates: usize,
    certificates_size: usize,
    headers_size: usize,
    sections: Vec<Section<'a>>,
}

impl<'a> Pe<'a> {
    /// Reads the headers of `file`.
    ///
    /// Every offset is a u32 read from the file plus a small constant: no sum can overflow.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, PeError> {
        if slice(file, 0, 2) != Some(b"MZ") {
            return Err(PeError::NotPe);
        }
        let coff = size_at(file, 0x3c).ok_or(PeError::NotPe)?;
        if slice(file, coff, 4) != Some(b"PE\0\0") {
            return Err(PeError::NotPe);
        }
        let bounds = PeError::OutOfBounds;
        let count = usize::from(u16_at(file, coff + 6).ok_or(bounds)?);
        let optional_size = usize::from(u16_at(file, coff + 20).ok_or(bounds)?);
        let optional = coff + 24;
        if u16_at(file, optional) != Some(0x020b) {
            return Err(PeError::NotPe32Plus);
        }
        if count > MAX_SECTIONS {
            return Err(PeError::TooManySections);
        }
        let headers_size = size_at(file, optional + 60).ok_or(bounds)?;
        let directories = size_at(file, optional + 108).ok_or(bounds)?;
        // Entry 4 of the data directories is the certificate table.
        let certificates = optional + 112 + 4 * 8;
        if directories < 5 || optional_size < 112 + 5 * 8 || headers_size < certificates + 8 {
            return Err(bounds);
        }
        let signed_at = size_at(file, certificates).ok_or(bounds)?;
        let certificates_size = size_at(file, certificates + 4).ok_or(bounds)?;
        if certificates_size != 0 && signed_at.checked_add(certificates_size) != Some(file.len()) {
            return Err(PeError::Certificates);
        }
        let first = optional + optional_size;
        let sections = (0..count)
            .map(|index| section(file, first + index * 40).ok_or(bounds))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            file,
            checksum: optional + 64,
            certificates,
            certificates_size,
            headers_size,
            sections,
        })
    }

    /// The first section of this name.
    pub(super) fn section(&self, name: &[u8]) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The Authenticode SHA-256 digest.
    pub(super) fn authenticode(&self) -> Result<[u8; 32], PeError> {
        let bounds = PeError::OutOfBounds;
        let mut context = Context::new(&SHA256);
        let ranges = [
            0..self.checksum,
            self.checksum + 4..self.certificates,
            self.certificates + 8..self.headers_size,
        ];
        for range in ranges {
            context.update(self.file.get(range).ok_or(bounds)?);
        }
        let mut ordered: Vec<_> = self.sections.iter().filter(|s| s.raw_size != 0).collect();
        ordered.sort_by_key(|section| section.raw_offset);
        let mut end = self.headers_size;
        for section in ordered {
            if section.raw_offset < end {
                return Err(PeError::Overlap);
            }
            context.update(slice(self.file, section.raw_offset, section.raw_size).ok_or(bounds)?);
            end = section.raw_offset + section.raw_size;
        }
        // What edk2 hashes at the end starts at the *sum* of what it hashed: the same place when
        // the sections follow each other without gaps.
        let summed = self.headers_size + self.sections.iter().map(|s| s.raw_size).sum::<usize>();
        let end = self.file.len().saturating_sub(self.certificates_size);
        if let Some(rest) = self.file.get(summed..end) {
            context.update(rest);
        }
        context.finish().as_ref().try_into().map_err(|_| bounds)
    }
}

/// Reads the section header at `at`.
fn section(file: &[u8], at: usize) -> Option<Section<'_>> {
    let name = slice(file, at, 8)?;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(8);
    let virtual_size = size_at(file, at + 8)?;
    let raw_size = size_at(file, at + 16)?;
    let raw_offset = size_at(file, at + 20)?;
    let raw = slice(file, raw_offset, raw_size)?;
    Some(Section {
        name: name.get(..end)?,
        data: raw.get(..virtual_size.min(raw_size))?,
        virtual_size,
        raw_offset,
        raw_size,
    })
}
