//! Refusals of the disk crate as the operator's: name, detail, next step.

use std::{fs::File, io::Read as _, path::Path};

use disk::VolumeError;

use crate::output::Failure;

const UNKNOWN: &str = "format-unknown";
/// What a failure of the disk crate means for the one who typed.
pub(super) fn of(error: VolumeError) -> Failure {
    said(&error)
}

/// The same of one that stays where it is.
pub(super) fn said(error: &VolumeError) -> Failure {
    match error.rejection() {
        Some(rejection) => {
            Failure::refused(rejection.code(), rejection.to_string(), hint(rejection.code()))
        }
        None => Failure::error(serve::exit::chain(error), ""),
    }
}

/// The same of the file at `path`, which it names, and looks at if it has no format.
pub(super) fn at(path: &Path) -> impl FnOnce(VolumeError) -> Failure {
    move |error| match of(error) {
        Failure::Refused { name, .. } if name == UNKNOWN => unknown(path),
        Failure::Refused { name, detail, hint, index } => {
            Failure::Refused { name, detail: format!("{}: {detail}", path.display()), hint, index }
        }
        Failure::Error { message, .. } => Failure::error(
            format!("{}: {message}", path.display()),
            "is the path right, and may this user read and write there?",
        ),
        other @ Failure::Usage(_) => other,
    }
}

/// The refusal of a file that is none of ours, with what can be done with this one.
pub(super) fn unknown(path: &Path) -> Failure {
    let start = start(path).unwrap_or_default();
    let (is, next) = if start.is_empty() {
        ("an empty file", "was it cut short or never written? use a backup")
    } else if start == qcow2::MAGIC {
        ("a qcow2 image", "`vouchsafe volume convert` makes a volume of it")
    } else {
        ("none of vault, LUKS2, LUKS1", hint(UNKNOWN))
    };
    Failure::refused(UNKNOWN, format!("{} is {is}", path.display()), next)
}

/// The same with this next step, if it is one of these refusals.
pub(super) fn hinted(failure: Failure, codes: &[&str], hint: &str) -> Failure {
    match failure {
        Failure::Refused { name, detail, .. } if codes.contains(&name.as_str()) => {
            Failure::refused(name, detail, hint)
        }
        other @ (Failure::Refused { .. } | Failure::Error { .. } | Failure::Usage(_)) => other,
    }
}

/// The first four bytes, or fewer.
pub(super) fn start(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(qcow2::MAGIC.len());
    File::open(path)?.take(qcow2::MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// The next step, by the refusal's name.
pub(super) fn hint(code: &str) -> &'static str {
    match code {
        "anchor-damaged" => "the anchor's file is not as it was written; put its backup back",
        "already-exists" => "choose another name; volumes are never overwritten",
        "anchor-mismatch" => "is this the anchor of this volume, and not an older copy of it?",
        "rolled-back" => {
            "this is an older state; of a backup that was put back on purpose `vouchsafe volume \
             reanchor` makes the latest one"
        }
        "header-stale" => "an older header was put before a newer log; use a whole backup",
        UNKNOWN => "a raw file must be called raw: `vouchsafe volume serve --format raw`",
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
