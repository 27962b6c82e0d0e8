//! `vouchsafe volume rekey | snapshot | resize | reanchor`: changes of a vault volume that nobody has
//! open. One that is served is re-keyed by the process that serves it ([`online`]).

use std::{
    ops::ControlFlow,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use disk::{
    OpenOptions, Volume as _,
    vault::{self, NewSlot, VaultVolume},
};
use model::Secret;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::{failure, keys, online, progress};
use crate::{
    args::{AnchorPlace, OpenKey, SnapshotNamed, VolumeRekey},
    output::{Failure, Printer, table},
};

/// Bytes of the disk under one page of level 1: what a step of re-keying covers.
pub(super) const PAGE_SPAN: u64 = 128 * 4096;

fn open(path: &Path, secret: &Secret<Vec<u8>>, read_only: bool) -> Result<VaultVolume, Failure> {
    let options = OpenOptions { read_only, ..OpenOptions::default() };
    vault::open(path, secret, &options).map_err(failure::at(path))
}

fn opened(path: &Path, key: &OpenKey, read_only: bool) -> Result<VaultVolume, Failure> {
    open(path, &key.needed()?.secret(path)?, read_only)
}

/// Does `change` and closes the volume in good order.
fn changed<T>(
    volume: &VaultVolume,
    change: impl FnOnce(&VaultVolume) -> Result<T, disk::VolumeError>,
) -> Result<T, Failure> {
    let done = change(volume).map_err(failure::of);
    volume.close()?;
    done
}

/// Exchanges key slots, or with `--data` the key of all data.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn rekey(args: &VolumeRekey, printer: Printer) -> Result<(), Failure> {
    let path = match (&args.socket, &args.path) {
        (Some(socket), _) => return online::rekey(args, socket, printer),
        (None, Some(path)) => path,
        (None, None) => return Err(Failure::Usage("say the volume, or --socket".to_owned())),
    };
    let secret = args.key.needed()?.secret(path)?;
    let new = args.new.said().map(keys::From::fresh).transpose()?;
    match (new, args.data) {
        (new, true) => data((path, args), &secret, new.as_ref(), printer),
        (Some(new), false) => slot((path, args), &secret, &new, printer),
        (None, false) => Err(new_key_needed()),
    }
}

fn slot(
    (path, args): (&Path, &VolumeRekey),
    secret: &Secret<Vec<u8>>,
    new: &keys::Fresh,
    printer: Printer,
) -> Result<(), Failure> {
    let volume = open(path, secret, false)?;
    let opened = volume.key_slot();
    let kmi = volume.kmi().filter(|_| !args.keep).cloned();
    let fresh = NewSlot { secret: new.slot_secret(), kmi: kmi.as_ref(), label: "" };
    let slot = changed(&volume, |volume| {
        if args.keep {
            volume.add_key_slot(&fresh)
        } else {
            volume.replace_key_slot(opened, &fresh).map(|()| opened)
        }
    })?;
    let shown = json!({"rekeyed": path, "data": false, "key_slot": slot, "kept": args.keep});
    printer.result(&shown, &format!("{}: key slot {slot} is new", path.display()))
}

/// What to say where no new key was said.
pub(super) fn new_key_needed() -> Failure {
    let words =
        "say --new-key-file, --new-passphrase, --new-passphrase-file or --new-tpm, or --data";
    Failure::Usage(words.to_owned())
}

fn data(
    (path, args): (&Path, &VolumeRekey),
    secret: &Secret<Vec<u8>>,
    new: Option<&keys::Fresh>,
    printer: Printer,
) -> Result<(), Failure> {
    // Every key slot is made anew: those of other keys cannot be, for we do not have them.
    let same = keys::Fresh::like(&args.key, secret);
    let slot_secret = match (new, &same) {
        (Some(new), _) => new.slot_secret(),
        (None, Some(same)) => same.slot_secret(),
        (None, None) => {
            let words = "a key that a TPM sealed is sealed anew: say --new-tpm as well";
            return Err(Failure::Usage(words.to_owned()));
        }
    };
    let volume = open(path, secret, false)?;
    let resumed = volume.rekeying();
    let kmi = volume.kmi().cloned();
    let slots = [NewSlot { secret: slot_secret, kmi: kmi.as_ref(), label: "" }];
    let bar = progress::bar(printer, "re-keying", 0);
    let mut step = |done: u64, total: u64| {
        bar.set_length(total * PAGE_SPAN);
        bar.set_position(done * PAGE_SPAN);
        ControlFlow::Continue(())
    };
    changed(&volume, |volume| volume.rekey(&slots, &mut step)).map_err(snapshots_first)?;
    bar.finish_and_clear();
    let shown = json!({"rekeyed": path, "data": true, "resumed": resumed});
    let text = "all data are under a new key, which one key slot opens";
    printer.result(&shown, &format!("{}: {text}", path.display()))
}

/// The one thing that re-keying does not support is a snapshot.
pub(super) fn snapshots_first(failure: Failure) -> Failure {
    let hint = "delete the snapshots first: `vouchsafe volume snapshot list` names them";
    failure::hinted(failure, &["unsupported"], hint)
}

/// Keeps the present state.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn keep(args: &SnapshotNamed, printer: Printer) -> Result<(), Failure> {
    let volume = opened(&args.path, &args.key, false)?;
    #[expect(clippy::disallowed_methods, reason = "the time a snapshot bears is the operator's")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let made = changed(&volume, |volume| volume.snapshot(&args.name, now))?;
    let shown = json!({"snapshot": made.name, "size": made.size, "time": made.time});
    printer.result(&shown, &format!("kept as {}", made.name))
}

/// Lists the kept states.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn list(path: &Path, key: &OpenKey, printer: Printer) -> Result<(), Failure> {
    let volume = opened(path, key, true)?;
    let mut shown = table(["NAME", "SIZE", "TIME"]);
    let mut values = Vec::new();
    for kept in volume.snapshots() {
        let time = i64::try_from(kept.time).ok();
        let time = time.and_then(|t| time::OffsetDateTime::from_unix_timestamp(t).ok());
        let written = time.and_then(|time| time.format(&Rfc3339).ok());
        let written = written.unwrap_or_else(|| kept.time.to_string());
        shown.add_row([kept.name.clone(), kept.size.to_string(), written]);
        values.push(json!({"name": kept.name, "size": kept.size, "time": kept.time}));
    }
    printer.list(&values, &shown.to_string())
}

/// Gives the disk a kept state again.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn revert(args: &SnapshotNamed, printer: Printer) -> Result<(), Failure> {
    let volume = opened(&args.path, &args.key, false)?;
    changed(&volume, |volume| volume.revert(&args.name))?;
    let text = format!("{} is as {} was kept", args.path.display(), args.name);
    printer.result(&json!({"reverted": args.path, "to": args.name}), &text)
}

/// Gives a kept state up.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn delete(args: &SnapshotNamed, printer: Printer) -> Result<(), Failure> {
    let volume = opened(&args.path, &args.key, false)?;
    changed(&volume, |volume| volume.delete_snapshot(&args.name))?;
    printer.result(&json!({"deleted": args.name}), &format!("{} is deleted", args.name))
}

/// Takes this state for the latest: a backup that was put back on purpose.
///
/// # Errors
/// `anchor-mismatch`, another refusal, or the system's error.
pub(super) fn reanchor(
    path: &Path,
    place: &AnchorPlace,
    key: &OpenKey,
    printer: Printer,
) -> Result<(), Failure> {
    let secret = key.needed()?.secret(path)?;
    let count = super::anchor::reanchor(place, path, &secret)?;
    let text = format!("{}: the latest by its anchor, at {count}", path.display());
    printer.result(&json!({"reanchored": path, "anchor_count": count}), &text)
}

/// Changes the exported size; nothing is cut off but zeros.
///
/// # Errors
/// `shrink-loses-data`, another refusal, or the system's error.
pub(super) fn resize(
    path: &Path,
    key: &OpenKey,
    size: u64,
    printer: Printer,
) -> Result<(), Failure> {
    let volume = opened(path, key, false)?;
    changed(&volume, |volume| volume.resize(size))?;
    let text = format!("{}: {size} bytes", path.display());
    printer.result(&json!({"resized": path, "size": size}), &text)
}
