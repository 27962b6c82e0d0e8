//! Refusals of the disk crate as the operator's: name, detail, next step.

use std::path::Path;

use disk::VolumeError;

use crate::output::Failure;

/// What a failure of the disk crate means for the one who typed.
pub(super) fn of(error: VolumeError) -> Failure {
    match error.rejection() {
        Some(rejection) => {
            Failure::refused(rejection.code(), rejection.to_string(), hint(rejection.code()))
        }
        None => Failure::error(serve::exit::chain(&error), ""),
    }
}

/// The same of the file at `path`, which it names.
pub(super) fn at(path: &Path) -> impl FnOnce(VolumeError) -> Failure {
    move |error| match of(error) {
        Failure::Refused { name, detail, hint } => {
            Failure::Refused { name, detail: format!("{}: {detail}", path.display()), hint }
        }
        Failure::Error { message, .. } => Failure::error(
            format!("{}: {message}", path.display()),
            "is the path right, and may this user read and write there?",
        ),
        other @ (Failure::Altered { .. } | Failure::Usage(_)) => other,
    }
}

/// The next step, by the refusal's name.
pub(super) fn hint(code: &str) -> &'static str {
    match code {
        "anchor-damaged" => "the anchor's file is not as it was written; put its backup back",
        "already-exists" => "choose another name; volumes are never overwritten",
        "anchor-mismatch" => "is this the anchor of this volume? a re-anchor needs two persons",
        "rolled-back" | "header-stale" => {
            "this is an older state; a real restore must be re-anchored"
        }
        "format-unknown" => "a raw file must be called raw: --format raw",
        "header-damaged" | "log-damaged" | "page-damaged" | "sector-damaged" => {
            "`vouchsafe volume check` names the damage; `volume salvage` copies what is whole"
        }
        "header-forked" | "key-area-altered" => "somebody wrote to this file; use a backup",
        "kmi-not-found" | "wrong-key" => "`vouchsafe volume inspect` lists the key slots",
        "key-missing" => "say --key-file, --passphrase, --passphrase-file or --tpm",
        "key-slots-full" => "exchange a key instead of adding one: leave --keep out",
        "last-key-slot" => "add another key first: `vouchsafe volume rekey --keep`",
        "not-vault" => "only a vault volume can do that; `vouchsafe volume convert` makes one",
        "shrink-loses-data" => "let the guest empty and trim the end of its disk first",
        "size-invalid" => "a vault has 1 byte to 8 TiB; a LUKS2 volume a multiple of 4096 bytes",
        "snapshot-name" => "choose another name",
        "snapshot-not-found" => "`vouchsafe volume snapshot list` names them",
        "volume-in-use" => "stop the process that serves it",
        "volume-truncated" => "the file was cut short; use a backup",
        _ => "",
    }
}
