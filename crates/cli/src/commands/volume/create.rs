//! `vouchsafe volume create`.

use std::{fs, path::Path};

use disk::luks2;
use model::{Kmi, Secret};
use serde_json::json;

use super::{failure, keys::Fresh, vault};
use crate::{
    args::{Cipher, NewFormat, VolumeCreate},
    output::{Failure, Printer},
};

/// Argon2id for a pass phrase in a LUKS2 key slot: memory in KiB and passes, about a second.
const LUKS2_PHRASE: luks2::SlotKind = luks2::SlotKind::PassPhrase { memory: 256 << 10, passes: 4 };

/// A new, empty volume.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    /// Its file, which must not exist.
    pub(super) path: &'a Path,
    /// Its format.
    pub(super) format: NewFormat,
    /// Its cipher suite, if it is a vault.
    pub(super) cipher: Option<Cipher>,
    /// The exported size.
    pub(super) size: u64,
    /// What is to open it.
    pub(super) key: &'a Fresh,
    /// Key-management information to store with it.
    pub(super) kmi: Option<&'a Kmi>,
    /// Label in the header.
    pub(super) label: &'a str,
}

/// Makes a volume and says so.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn run(args: &VolumeCreate, printer: Printer) -> Result<(), Failure> {
    if args.anchor.is_some() && args.format != NewFormat::Vault {
        return Err(Failure::Usage("only a vault volume has an anchor".to_owned()));
    }
    refuse_cipher(args.cipher, args.format)?;
    let key = args.key.needed()?.fresh()?;
    let wish = Wish {
        path: &args.path,
        format: args.format,
        cipher: args.cipher,
        size: args.size,
        key: &key,
        kmi: args.kmi.as_ref(),
        label: &args.label,
    };
    let uuid = make(&wish)?;
    if let Some(anchor) = &args.anchor {
        let begun = super::anchor::begin(anchor, &args.path, key.secret());
        // Without its anchor it is not the volume that was wished for.
        begun.inspect_err(|_| drop(fs::remove_file(&args.path)))?;
    }
    let format = match args.format {
        NewFormat::Vault => "vault",
        NewFormat::Luks2 => "luks2",
    };
    let shown = json!({
        "created": args.path, "format": format, "size": args.size, "uuid": uuid,
        "anchored": args.anchor.is_some(),
    });
    let text = format!("{}: {format}, {} bytes, {uuid}", args.path.display(), args.size);
    printer.result(&shown, &text)
}

/// Refuses a choice that there is not.
///
/// # Errors
/// [`Failure::Usage`] for a cipher suite of LUKS2.
pub(super) fn refuse_cipher(cipher: Option<Cipher>, format: NewFormat) -> Result<(), Failure> {
    if cipher.is_some() && format != NewFormat::Vault {
        let words = "only a vault volume has a choice of ciphers; LUKS2 has AES-256-XTS, which is \
                     not authenticated";
        return Err(Failure::Usage(words.to_owned()));
    }
    Ok(())
}

/// Makes a volume; gives its UUID.
///
/// # Errors
/// As for [`run`].
pub(super) fn make(wish: &Wish<'_>) -> Result<String, Failure> {
    match wish.format {
        NewFormat::Vault => vault::create(wish),
        NewFormat::Luks2 => luks2(wish),
    }
}

fn luks2(wish: &Wish<'_>) -> Result<String, Failure> {
    let (secret, slot): (&Secret<Vec<u8>>, _) = match wish.key {
        // To LUKS the content of a key file is a pass phrase, and may be a person's.
        Fresh::Key(secret) | Fresh::Passphrase(secret) => (secret, LUKS2_PHRASE),
        Fresh::Sealed { .. } => {
            let words = "a LUKS2 volume has no place for a TPM's key; use --format vault";
            return Err(Failure::Usage(words.to_owned()));
        }
    };
    let new = luks2::NewVolume { path: wish.path, secret, slot, kmi: wish.kmi, label: wish.label };
    let made = luks2::create_empty(&new, wish.size).map_err(failure::at(wish.path))?;
    Ok(made.uuid)
}
