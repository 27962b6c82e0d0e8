//! Ephemeral volumes: the key is in memory only. When the process ends nobody can read the file
//! again, whoever has it.

use std::path::Path;

use model::Secret;

use super::{
    create::{NewVault, create},
    data::length,
    header::{KeyAreaSide, Suite},
    kdf,
    keyarea::KEY_AREA_BYTES,
    keyslot::{NewSlot, SlotSecret},
    volume::{VaultVolume, open},
};
use crate::{OpenOptions, VolumeError};

/// Makes an ephemeral volume and opens it. Its file has no key slot; removing it is the caller's.
///
/// # Errors
/// As for [`create`] and [`open`].
pub fn create_ephemeral(path: &Path, size: u64, suite: Suite) -> Result<VaultVolume, VolumeError> {
    let mut secret = Secret::new(vec![0; kdf::KEY_BYTES]);
    kdf::random(secret.expose_mut())?;
    let slots = [NewSlot { secret: SlotSecret::RandomKey(&secret), kmi: None, label: "" }];
    create(&NewVault { path, size, suite, log_bytes: None, label: "ephemeral", slots: &slots })?;
    let volume = open(path, &secret, &OpenOptions::default())?;
    // The slot's secret is dropped below; without the slot the volume key is nowhere but here.
    for side in [KeyAreaSide::A, KeyAreaSide::B] {
        volume
            .engine
            .medium
            .write_at(length(side.at()), &[0; KEY_AREA_BYTES])
            .map_err(VolumeError::io("wipe the key area"))?;
    }
    volume.engine.medium.sync().map_err(VolumeError::io("wipe the key area"))?;
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Volume, vault::inspect};

    #[test]
    fn an_ephemeral_volume_works_and_has_no_key_slot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scratch");
        let volume = create_ephemeral(&path, 1 << 20, Suite::Aes256Gcm).unwrap();
        volume.write(5000, &mut [9; 9000]).unwrap();
        volume.flush().unwrap();
        let mut back = [0; 9000];
        volume.read(5000, &mut back).unwrap();
        assert_eq!(back, [9; 9000]);
        assert!(inspect(&path).unwrap().slots.is_empty());
        drop(volume);
        let error = open(&path, &Secret::new(vec![0; 32]), &OpenOptions::default()).unwrap_err();
        assert_eq!(error.rejection().unwrap().code(), "key-area-altered");
    }
}
