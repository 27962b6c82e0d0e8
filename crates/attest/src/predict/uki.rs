//! Unified kernel images: what systemd-stub 252 measures of its own sections (PCR 11), the two
//! applications that the firmware measures (PCR 4), and what the kernel's EFI stub measures of its
//! load options and its initrd (PCR 9).

use thiserror::Error;

use super::{
    Predicted,
    pe::{Pe, PeError},
};

/// The sections that the stub measures, in its order (`unified_sections` of systemd 252; `.pcrsig`
/// is left out there, because it signs the result).
const MEASURED: [&str; 7] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey"];

/// Why a unified kernel image is not one that we can predict.
#[derive(Debug, Error)]
pub enum UkiError {
    /// The file is not a usable PE image.
    #[error("the file is not a usable PE image")]
    Pe(#[source] PeError),
    /// The kernel inside is not a usable PE image.
    #[error("the kernel in .linux is not a usable PE image")]
    Kernel(#[source] PeError),
    /// A section that every image of ours has is missing.
    #[error("there is no section {0}")]
    NoSection(&'static str),
    /// A measured section is larger in memory than in the file.
    #[error("section {0} has no content for all of its size")]
    ShortSection(&'static str),
    /// The command line is not printable ASCII, so that its measured form is not certain.
    #[error("the kernel command line is not printable ASCII without leading or trailing space")]
    CommandLine,
}

/// PCR 4, 9 and 11 of a boot of `file`.
pub(super) fn measured(file: &[u8]) -> Result<Vec<Predicted>, UkiError> {
    let pe = Pe::parse(file).map_err(UkiError::Pe)?;
    let kernel = content(&pe, ".linux")?.ok_or(UkiError::NoSection(".linux"))?;
    let initrd = content(&pe, ".initrd")?.ok_or(UkiError::NoSection(".initrd"))?;
    let cmdline = content(&pe, ".cmdline")?.ok_or(UkiError::NoSection(".cmdline"))?;

    let image = pe.authenticode().map_err(UkiError::Pe)?;
    let mut entries = vec![Predicted::always(4, &image, "unified kernel image")];
    for name in MEASURED {
        if let Some(data) = content(&pe, name)? {
            let with_nul: Vec<u8> = name.bytes().chain([0]).collect();
            entries.push(Predicted::of(11, &with_nul, format!("section {name} name")));
            entries.push(Predicted::of(11, data, format!("section {name}")));
        }
    }
    let kernel =
        Pe::parse(kernel).and_then(|kernel| kernel.authenticode()).map_err(UkiError::Kernel)?;
    entries.push(Predicted::always(4, &kernel, "kernel"));
    entries.push(Predicted::of(9, &load_options(cmdline)?, "load options"));
    entries.push(Predicted::of(9, initrd, "initrd"));
    Ok(entries)
}

/// A section's bytes in memory, if it is there and not empty.
fn content<'a>(pe: &Pe<'a>, name: &'static str) -> Result<Option<&'a [u8]>, UkiError> {
    match pe.section(name.as_bytes()) {
        None => Ok(None),
        Some(section) if section.virtual_size == 0 => Ok(None),
        Some(section) if section.data.len() < section.virtual_size => {
            Err(UkiError::ShortSection(name))
        }
        Some(section) => Ok(Some(section.data)),
    }
}

/// The command line as the stub hands it to the kernel: UTF-16 with a terminating zero.
fn load_options(cmdline: &[u8]) -> Result<Vec<u8>, UkiError> {
    let printable = cmdline.iter().all(|byte| (0x20..0x7f).contains(byte));
    let spaced = cmdline.first() == Some(&b' ') || cmdline.last() == Some(&b' ');
    if cmdline.is_empty() || !printable || spaced {
        return Err(UkiError::CommandLine);
    }
    Ok(cmdline.iter().chain(&[0]).flat_map(|&byte| [byte, 0]).collect())
}
