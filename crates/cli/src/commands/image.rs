//! `vouchsafe image ...`, and the prediction that `vm create` makes of an image.

use std::path::Path;

use attest::predict::{Inputs, Machine, Prediction, predict};

use crate::{
    args::Image,
    image::{self, BootImage},
    lab::components::OVMF_CODE,
    output::{Failure, Printer},
};

/// Largest firmware file, bytes.
const MAX_FIRMWARE: usize = 64 << 20;

pub(super) fn run(verb: &Image, printer: Printer) -> Result<(), Failure> {
    let Image::Measure { file, firmware, memory, cpus } = verb;
    let machine = Machine { memory_mib: u64::from(*memory), cpus: *cpus, max_cpus: *cpus };
    let prediction = prediction(&image::read(file)?, firmware.as_deref(), machine)?;
    let mut text = String::new();
    for entry in &prediction.entries {
        let digest = entry.digests.first().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("PCR {:<2} {digest}  {}\n", entry.pcr, entry.name));
    }
    for open in &prediction.unpredicted {
        text.push_str(&format!("PCR {:<2} not predicted: {}\n", open.pcr, open.reason));
    }
    printer.result(&prediction, text.trim_end())
}

/// What a guest booted from `image` on `machine` will be measured as.
pub(super) fn prediction(
    image: &BootImage,
    firmware: Option<&Path>,
    machine: Machine,
) -> Result<Prediction, Failure> {
    let firmware = firmware.unwrap_or_else(|| Path::new(OVMF_CODE));
    let code = serve::fsfile::read_limited(firmware, MAX_FIRMWARE)?;
    let inputs = Inputs { uki: &image.uki, table: &image.table, firmware: &code, machine };
    Ok(predict(&inputs)?)
}
