//! Refusals of the disk crate as the operator's: name, detail, next step.

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

/// The next step, by the refusal's name.
pub(super) fn hint(code: &str) -> &'static str {
    match code {
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
        "key-missing" => "say --key-file, --passphrase-file or --tpm",
        "size-invalid" => "a LUKS2 volume's size is a multiple of 4096 bytes",
        "volume-in-use" => "stop the process that serves it",
        _ => "",
    }
}
