//! `vouchsafe volume ...`: encrypted volumes, without an authority.
//!
//! **Invariant:** plaintext leaves a volume only over its export, or by `salvage`, which says so.

mod anchor;
mod check;
mod convert;
mod create;
mod failure;
mod inspect;
mod keys;
mod manage;
mod phrase;
mod progress;
mod salvage;
mod serve;
mod vault;

use ::serve::exit::Exit;
use disk::Format;

use crate::{
    args::{AnyFormat, Volume, VolumeSnapshot},
    output::{Failure, Printer},
};

/// Does what was typed.
///
/// # Errors
/// A refusal of the volume or its key, or the system's error.
pub(super) async fn run(verb: Volume, printer: Printer) -> Result<Exit, Failure> {
    match verb {
        Volume::Create(args) => create::run(&args, printer)?,
        Volume::Serve(args) => serve::run(&args, printer).await?,
        Volume::Inspect { path } => inspect::run(&path, printer)?,
        Volume::Check { path, key } => return check::run(&path, &key, printer),
        Volume::Rekey(args) => manage::rekey(&args, printer)?,
        Volume::Snapshot(VolumeSnapshot::Create(args)) => manage::keep(&args, printer)?,
        Volume::Snapshot(VolumeSnapshot::List { path, key }) => manage::list(&path, &key, printer)?,
        Volume::Snapshot(VolumeSnapshot::Revert(args)) => manage::revert(&args, printer)?,
        Volume::Snapshot(VolumeSnapshot::Delete(args)) => manage::delete(&args, printer)?,
        Volume::Resize { path, size, key } => manage::resize(&path, &key, size, printer)?,
        Volume::Convert(args) => convert::run(&args, printer)?,
        Volume::Salvage { path, out, release_unverified, key } => {
            return salvage::run(&path, (&out, release_unverified), &key, printer);
        }
    }
    Ok(Exit::Done)
}

/// The disk crate's name of a format that it opens.
///
/// # Errors
/// [`Failure::Usage`] for qcow2.
fn format(format: AnyFormat) -> Result<Format, Failure> {
    match format {
        AnyFormat::Vault => Ok(Format::Vault),
        AnyFormat::Luks2 => Ok(Format::Luks2),
        AnyFormat::Luks1 => Ok(Format::Luks1),
        AnyFormat::Raw => Ok(Format::Raw),
        AnyFormat::Qcow2 => Err(Failure::Usage("qcow2 can only be converted".to_owned())),
    }
}
