//! The one variable that OVMF's PEI phase has filled in before it measures PEIFV, the volume that
//! it runs from: `mPlatformInfoHob` of PlatformPei (edk2-stable202211, packed
//! `EFI_HOB_PLATFORM_INFO`). Everything else in the volume is measured as it was unpacked.
//!
//! Its place is found in the module's code: the only 16-bit store of AX to an absolute address
//! writes its host bridge id. Its content follows from the machine: memory, processors, and the
//! width of physical addresses, which the host's processor decides; for that, all are listed.
//!
//! Absent on purpose: machines with SMM, without S3, or of another type than q35.

use aws_lc_rs::digest::{SHA256, digest};
use model::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    bytes::{put, slice, u32_at},
    firmware,
};

/// PlatformPei, 222c386d-5abc-4fb4-b124-fbb82488acf4.
const PLATFORM_PEI: [u8; 16] = [
    0x6d, 0x38, 0x2c, 0x22, 0xbc, 0x5a, 0xb4, 0x4f, 0xb1, 0x24, 0xfb, 0xb8, 0x24, 0x88, 0xac, 0xf4,
];
/// Where OVMF unpacks PEIFV (`PcdOvmfPeiMemFvBase`).
const PEI_BASE: usize = 0x82_0000;
/// Size of the variable, up to its last field that is not zero.
const INFO_SIZE: usize = 0x8c;
/// Offset of the host bridge id in it.
const HOST_BRIDGE: usize = 0x18;
/// Largest memory for which the first address above it stays at 64 GiB.
const MAX_MEMORY_MIB: u64 = 28 << 10;
/// q35 moves memory above 4 GiB from this size on, and then keeps 2 GiB below.
const SPLIT_MIB: u64 = 2816;
const MIB: u64 = 1 << 20;

/// The properties of the virtual machine that the firmware measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// Memory in MiB, 64 to 28672.
    pub memory_mib: u64,
    /// Processors at start.
    pub cpus: u32,
    /// Processors at most.
    pub max_cpus: u32,
}

/// Why PEIFV's digest is not known. Becomes the reason in the prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum PlatformError {
    #[error("PEIFV: the platform information is not where this firmware family keeps it")]
    NotFound,
    #[error("PEIFV: memory outside 64 MiB to 28 GiB, or no processors or more than 255")]
    Machine,
}

/// The digests that PEIFV can have on `machine`, one for each width of physical addresses.
pub(super) fn pei_digests(volume: &[u8], machine: Machine) -> Result<Vec<Digest>, PlatformError> {
    let at = find(volume).ok_or(PlatformError::NotFound)?;
    let mut patched = volume.to_vec();
    let mut digests = Vec::new();
    for width in std::iter::once(36).chain(40..=52) {
        let info = information(machine, width).ok_or(PlatformError::Machine)?;
        put(&mut patched, at, &info).ok_or(PlatformError::NotFound)?;
        let value: Result<[u8; 32], _> = digest(&SHA256, &patched).as_ref().try_into();
        digests.extend(value.map(Digest::sha256));
    }
    Ok(digests)
}

/// The variable's offset in the volume.
fn find(volume: &[u8]) -> Option<usize> {
    let module = firmware::module(volume, &PLATFORM_PEI)?;
    let end = module.offset + module.body.len();
    let mut places = module.body.windows(6).filter_map(|code| {
        // mov [address], ax
        if code.first_chunk() != Some(&[0x66, 0xa3]) {
            return None;
        }
        let address = usize::try_from(u32_at(code, 2)?).ok()?;
        let at = address.checked_sub(PEI_BASE + HOST_BRIDGE)?;
        (at >= module.offset && at + INFO_SIZE <= end).then_some(at)
    });
    let at = places.next()?;
    let unused = slice(volume, at, INFO_SIZE)?.iter().all(|&byte| byte == 0);
    (unused && places.next().is_none()).then_some(at)
}

/// The variable's content; `None` if the machine is out of range.
///
/// `width` 36 stands for everything below 40 bits: OVMF then stays with its old layout.
fn information(machine: Machine, width: u8) -> Option<[u8; INFO_SIZE]> {
    let Machine { memory_mib, cpus, max_cpus } = machine;
    if !(64..=MAX_MEMORY_MIB).contains(&memory_mib)
        || cpus == 0
        || max_cpus < cpus
        || max_cpus > 255
    {
        return None;
    }
    let low = if memory_mib < SPLIT_MIB { memory_mib * MIB } else { 2048 * MIB };
    let low = u32::try_from(low).ok()?;
    // Memory kept for resume from S3: page tables, and 32 KiB of stack for each processor.
    let reserved = 0x8_0000 + max_cpus * 0x8000;
    let aperture = if width < 40 { 32 << 30 } else { 1_u64 << (width - 3) };
    let aperture_base = if width < 40 { 32 << 30 } else { (1_u64 << width) - aperture };

    let mut info = [0; INFO_SIZE];
    put(&mut info, HOST_BRIDGE, &0x29c0_u16.to_le_bytes())?;
    put(&mut info, 0x27, &[1])?; // S3 is supported
    put(&mut info, 0x2c, &(64_u64 << 30).to_le_bytes())?; // first address above all memory
    put(&mut info, 0x34, &[width])?;
    put(&mut info, 0x35, &0x8000_0000_u32.to_le_bytes())?; // uncached from here
    put(&mut info, 0x46, &aperture_base.to_le_bytes())?; // 64-bit PCI: base, size
    put(&mut info, 0x4e, &aperture.to_le_bytes())?;
    put(&mut info, 0x56, &0xc000_0000_u32.to_le_bytes())?; // 32-bit PCI: base, size
    put(&mut info, 0x5a, &0x3c00_0000_u32.to_le_bytes())?;
    put(&mut info, 0x5e, &0x6000_u64.to_le_bytes())?; // PCI ports: base, size
    put(&mut info, 0x66, &0xa000_u64.to_le_bytes())?;
    put(&mut info, 0x76, &cpus.to_le_bytes())?;
    put(&mut info, 0x7a, &max_cpus.to_le_bytes())?;
    put(&mut info, 0x7e, &64_u32.to_le_bytes())?; // default limit of processors
    put(&mut info, 0x82, &(low - reserved).to_le_bytes())?;
    put(&mut info, 0x86, &reserved.to_le_bytes())?;
    put(&mut info, 0x8a, &[1, 1])?;
    Some(info)
}
