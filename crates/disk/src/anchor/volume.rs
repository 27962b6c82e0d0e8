//! A vault volume as something that can be anchored.

use std::io;

use super::Anchored;
use crate::vault::VaultVolume;

impl Anchored for VaultVolume {
    fn anchor_count(&self) -> u64 {
        self.head().anchor_count
    }

    fn commit(&self, count: u64, last: bool) -> io::Result<()> {
        // An increment that failed after the last header is tried again with the same count.
        let there = self.anchor_count() == count && self.engine.check_writable().is_err();
        if !there {
            self.advance(count)?;
        }
        if last { self.close().map(|_| ()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc};

    use model::Secret;

    use crate::{
        OpenOptions, Rejection, Volume, VolumeError,
        anchor::{Anchor, Attachment, FileAnchor},
        vault::{NewSlot, NewVault, SlotSecret, Suite, VaultVolume, create, open},
    };

    fn key() -> Secret<Vec<u8>> {
        Secret::new(vec![5; 32])
    }

    fn attach(dir: &Path) -> Result<(Arc<VaultVolume>, Attachment<VaultVolume>), VolumeError> {
        let mut anchor = FileAnchor::open(&dir.join("anchor"), "v")?;
        let count = anchor.read().map_err(VolumeError::io("read the anchor"))?;
        let options = OpenOptions { anchor: Some(count), ..OpenOptions::default() };
        let volume = Arc::new(open(&dir.join("disk"), &key(), &options)?);
        Ok((Arc::clone(&volume), Attachment::attach(volume, Box::new(anchor))?))
    }

    fn refusal(dir: &Path) -> &'static str {
        attach(dir).map(|_| ()).unwrap_err().rejection().map_or("io", Rejection::code)
    }

    #[test]
    fn yesterday_s_copy_is_refused_and_a_crash_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, disk) = (dir.path(), dir.path().join("disk"));
        let secret = key();
        let slots = [NewSlot { secret: SlotSecret::RandomKey(&secret), kmi: None, label: "" }];
        let (size, suite) = (1 << 20, Suite::Aes256Gcm);
        let new = NewVault { path: &disk, size, suite, log_bytes: None, label: "", slots: &slots };
        create(&new).unwrap();
        drop(FileAnchor::create(&dir.join("anchor"), "v").unwrap());
        let (volume, attached) = attach(dir).unwrap();
        volume.write(0, &mut [1; 4096]).unwrap();
        assert_eq!(attached.tick().unwrap(), 3);
        let yesterday = fs::read(&disk).unwrap();
        volume.write(0, &mut [2; 4096]).unwrap();
        assert_eq!(attached.detach().unwrap(), 4);
        assert!(volume.write(0, &mut [3; 4096]).is_err());
        drop((volume, attached));
        let today = fs::read(&disk).unwrap();
        fs::write(&disk, &yesterday).unwrap();
        assert_eq!(refusal(dir), "rolled-back");
        fs::write(&disk, &today).unwrap();
        for _ in 0..3 {
            // Dropped without detaching, as in a crash.
            let (volume, _attached) = attach(dir).unwrap();
            let mut back = [0; 4096];
            volume.read(0, &mut back).unwrap();
            assert_eq!(back, [2; 4096]);
        }
    }
}
