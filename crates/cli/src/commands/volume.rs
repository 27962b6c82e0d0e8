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
mod online;
mod phrase;
mod progress;
mod salvage;
mod serve;
mod vault;

use std::{path::Path, sync::Arc};

use ::serve::exit::Exit;
use disk::{Format, OpenOptions, vault::VaultVolume};
use model::Secret;

use crate::{
    args::{AnchorPlace, AnyFormat, Volume, VolumeSnapshot},
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
        Volume::Check(args) => return check::run(&args, printer),
        Volume::Rekey(args) => manage::rekey(&args, printer)?,
        Volume::Snapshot(VolumeSnapshot::Create(args)) => manage::keep(&args, printer)?,
        Volume::Snapshot(VolumeSnapshot::List { path, key }) => manage::list(&path, &key, printer)?,
        Volume::Snapshot(VolumeSnapshot::Revert(args)) => manage::revert(&args, printer)?,
        Volume::Snapshot(VolumeSnapshot::Delete(args)) => manage::delete(&args, printer)?,
        Volume::Resize { path, size, key } => manage::resize(&path, &key, size, printer)?,
        Volume::Reanchor { path, anchor, key } => manage::reanchor(&path, &anchor, &key, printer)?,
        Volume::Convert(args) => convert::run(&args, printer)?,
        Volume::Salvage { path, out, release_unverified, key } => {
            return salvage::run(&path, (&out, release_unverified), &key, printer);
        }
    }
    Ok(Exit::Done)
}

/// An open volume.
struct Opened {
    volume: Arc<dyn disk::Volume>,
    /// The same, if it has an anchor.
    anchored: Option<Arc<anchor::Anchored>>,
    /// The same, if it is a vault.
    vault: Option<Arc<VaultVolume>>,
}

/// Opens the volume at `path`: the latest by its anchor, if one is said; or a snapshot of it.
///
/// # Errors
/// A refusal of the volume, or the system's error.
fn open(
    path: &Path,
    secret: Option<&Secret<Vec<u8>>>,
    options: &OpenOptions,
    place: Option<&AnchorPlace>,
) -> Result<Opened, Failure> {
    if let Some(place) = place {
        let secret = secret.ok_or_else(|| {
            Failure::Usage("only a vault volume has an anchor; say its key".to_owned())
        })?;
        let anchored = Arc::new(anchor::attach(place, path, secret, options)?);
        let (volume, vault) = (Arc::clone(&anchored), Arc::clone(anchored.vault()));
        return Ok(Opened { volume, anchored: Some(anchored), vault: Some(vault) });
    }
    let opened = disk::open(path, secret, options).map_err(failure::at(path))?;
    let (volume, vault) = (opened.volume(), opened.vault().cloned());
    Ok(Opened { volume, anchored: None, vault })
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
