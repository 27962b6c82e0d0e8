//! Prediction: what a guest's vTPM will be extended with, computed beforehand from the files that
//! the guest boots (firmware, unified kernel image, partition table) and the machine it boots on.
//!
//! The host sees digests, never names: the vTPM proxy records every extend. A [`Prediction`] gives
//! those digests their meaning without the guest's help, and [`Prediction::compare`] says which
//! extends nobody expected and which expected ones did not come.
//!
//! Covered: OVMF as Debian 12 builds it (edk2-stable202211), without Secure Boot, booting a
//! systemd-stub 252 image from a GPT disk, with a kernel of 5.18 or later (its EFI stub measures
//! load options and initrd into PCR 9) whose IMA uses the `ima-sig` template.
//!
//! ```text
//! PCR 0  firmware version, both firmware volumes         firmware.rs, platform.rs
//! PCR 1  boot variables: not predicted, separator only
//! PCR 4  unified kernel image, then the kernel in it     pe.rs
//! PCR 5  partition table, end of the boot services       (here)
//! PCR 7  Secure Boot variables, all empty                events.rs
//! PCR 9  load options, initrd                            uki.rs
//! PCR 10 IMA boot aggregate, from the *observed* 0 to 9  compare.rs
//! PCR 11 sections of the unified kernel image by name    uki.rs
//! ```
//!
//! **Invariant:** a prediction never says "anything goes" silently. What cannot be predicted is
//! listed in [`Prediction::unpredicted`] with its reason, and the appraisal policy says which PCRs
//! may stand there.
//!
//! Absent on purpose: other banks than SHA-256; IMA entries after the boot aggregate.

mod bytes;
mod compare;
mod events;
mod firmware;
mod pe;
mod platform;
mod uki;

use aws_lc_rs::digest::{SHA256, digest};
use model::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::{
    compare::{Comparison, Extend, Matched, Missing, Unexpected, boot_aggregate_extend},
    firmware::FirmwareError,
    pe::PeError,
    platform::Machine,
    uki::UkiError,
};

/// Version of the JSON form.
pub const VERSION: u32 = 1;

/// Whether a predicted extend has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// A boot without it did not run what was predicted.
    Always,
    /// May be there, at this place in its PCR's order.
    Optional,
}

/// One extend of the SHA-256 bank that the guest's boot is expected to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Predicted {
    /// The PCR, 0 to 23.
    pub pcr: u8,
    /// The digest extended: any one of these (more than one only where the firmware's memory
    /// holds a property of the processor that the prediction does not know).
    pub digests: Vec<Digest>,
    /// What is measured, for people and for policies: `uki`, `kernel`, `section .linux name`.
    pub name: String,
    /// Whether it has to be there.
    pub presence: Presence,
}

/// A PCR that gets extends besides the predicted ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpredicted {
    /// The PCR.
    pub pcr: u8,
    /// Why they cannot be computed.
    pub reason: String,
}

/// Everything that a boot is expected to extend, in each PCR's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Prediction {
    /// [`VERSION`].
    pub version: u32,
    /// The expected extends. Order counts within one PCR only.
    pub entries: Vec<Predicted>,
    /// PCRs with extends beyond them.
    pub unpredicted: Vec<Unpredicted>,
    /// Whether the first extend of PCR 10 must be IMA's boot aggregate over the observed PCRs.
    pub boot_aggregate: bool,
}

/// The primary partition table as it stands on the disk; read by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// The header at LBA 1: its first 92 bytes.
    pub header: Vec<u8>,
    /// The used entries (type GUID not zero) in order, each of the header's entry size.
    pub entries: Vec<Vec<u8>>,
}

/// What a prediction is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The unified kernel image: the file `EFI/BOOT/BOOTX64.EFI`.
    pub uki: &'a [u8],
    /// The boot disk's partition table.
    pub table: &'a PartitionTable,
    /// The firmware's code file (`OVMF_CODE_4M.fd`).
    pub firmware: &'a [u8],
    /// The virtual machine.
    pub machine: Machine,
}

/// Why there is no prediction.
#[derive(Debug, Error)]
pub enum PredictError {
    /// The unified kernel image is not one that we understand.
    #[error("the unified kernel image cannot be predicted")]
    Uki(#[source] UkiError),
    /// The firmware file is not one that we understand.
    #[error("the firmware cannot be predicted")]
    Firmware(#[source] FirmwareError),
    /// The partition table is empty or has a header of another size than 92 bytes.
    #[error("the partition table has no 92-byte header or no partition")]
    Table,
}

/// Computes the extends of a boot of `inputs`.
///
/// Costs one decompression of the firmware (about 13 MiB) and two or three passes over the kernel.
///
/// # Errors
/// [`PredictError`] when a file is malformed or of a kind that is not covered.
pub fn predict(inputs: &Inputs<'_>) -> Result<Prediction, PredictError> {
    let table = table_event(inputs.table)?;
    let firmware =
        firmware::measured(inputs.firmware, inputs.machine).map_err(PredictError::Firmware)?;
    let uki = uki::measured(inputs.uki).map_err(PredictError::Uki)?;
    let mut entries = firmware.entries;
    entries.extend(events::secure_boot_off());
    entries.push(events::boot_option());
    entries.extend((0..7).map(events::separator));
    entries.push(Predicted::always(5, digest(&SHA256, &table).as_ref(), "partition table"));
    entries.extend(uki);
    entries.extend(events::exit_boot_services());
    let mut unpredicted = firmware.unpredicted;
    unpredicted.push(Unpredicted {
        pcr: 1,
        reason: "boot variables hold device paths and differ after the first boot".to_owned(),
    });
    Ok(Prediction { version: VERSION, entries, unpredicted, boot_aggregate: true })
}

impl Predicted {
    /// An extend that must be there, of one SHA-256 digest.
    fn always(pcr: u8, value: &[u8], name: impl Into<String>) -> Self {
        let digests = value.try_into().map(Digest::sha256).into_iter().collect();
        Self { pcr, digests, name: name.into(), presence: Presence::Always }
    }

    /// The same, measured over `data`.
    fn of(pcr: u8, data: &[u8], name: impl Into<String>) -> Self {
        Self::always(pcr, digest(&SHA256, data).as_ref(), name)
    }
}

/// UEFI_GPT_DATA: header, number of used partitions as u64, the used entries (TCG PC Client
/// Platform Firmware Profile, section 10.2.6). The digest is over the whole event.
fn table_event(table: &PartitionTable) -> Result<Vec<u8>, PredictError> {
    if table.header.len() != 92 || table.entries.is_empty() {
        return Err(PredictError::Table);
    }
    let count = u64::try_from(table.entries.len()).map_err(|_| PredictError::Table)?;
    let mut event = table.header.clone();
    event.extend(count.to_le_bytes());
    event.extend(table.entries.iter().flatten());
    Ok(event)
}

#[cfg(test)]
mod tests;
