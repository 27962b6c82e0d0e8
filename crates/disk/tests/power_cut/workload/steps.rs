//! What a guest and its owner do between two cuts.

use std::{io, ops::ControlFlow};

use disk::{
    Volume,
    vault::{NewSlot, SlotSecret, VaultVolume},
};

use super::{Disk, Run, SECTOR, content, failed, secret};

impl Run {
    fn span(&mut self) -> (usize, usize) {
        let size = self.guest.size();
        let at = self.random.below(size);
        let at = if self.random.below(2) == 0 { at } else { at - at % SECTOR };
        let length = match self.random.below(4) {
            0 => 1 + self.random.below(9000),
            1 => SECTOR * (1 + self.random.below(90)),
            _ => SECTOR,
        };
        (at, length.min(size - at))
    }

    pub(super) fn step(&mut self, disk: &Disk) -> io::Result<()> {
        let (volume, vault) = (disk.guest.as_ref(), disk.vault.as_ref());
        let (at, length) = self.span();
        let (from, bytes) = (u64::try_from(at).unwrap(), u64::try_from(length).unwrap());
        match self.random.below(20) {
            0..=6 => self.write(volume, at, length),
            7 | 8 => self.flush(volume),
            // As a front end makes one that forces unit access.
            9 | 10 => {
                self.write(volume, at, length)?;
                self.flush(volume)
            }
            11 => {
                self.guest.trim(at, length);
                volume.trim(from, bytes)
            }
            12 => {
                self.guest.put(at, &vec![0; length]);
                volume.write_zeroes(from, bytes)?;
                self.answered();
                Ok(())
            }
            13 => self.advance(vault),
            14 => {
                let found = content(vault).map_err(io::Error::other)?;
                assert!(found == self.guest.now(), "a read while the power was on");
                Ok(())
            }
            15 => volume.prefetch(from, bytes),
            16 => self.snapshot(vault),
            17 => self.replace_key(vault),
            _ => self.rekey(vault),
        }
    }

    fn write(&mut self, volume: &dyn Volume, at: usize, length: usize) -> io::Result<()> {
        let mut data = vec![0; length];
        let mut word = self.random.next();
        for chunk in data.chunks_mut(8) {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        self.guest.put(at, &data);
        volume.write(u64::try_from(at).unwrap(), &mut data)?;
        self.answered();
        Ok(())
    }

    /// A write was answered: written through, it counts as flushed.
    fn answered(&mut self) {
        if self.through {
            self.tally.through += 1;
            self.guest.flushed();
        }
    }

    fn flush(&mut self, volume: &dyn Volume) -> io::Result<()> {
        volume.flush()?;
        self.tally.flushes += 1;
        self.guest.flushed();
        Ok(())
    }

    fn advance(&mut self, volume: &VaultVolume) -> io::Result<()> {
        self.anchor.1 += 1;
        let head = volume.advance(self.anchor.1)?;
        self.anchor.0 = head.anchor_count;
        self.guest.flushed();
        Ok(())
    }

    fn snapshot(&mut self, volume: &VaultVolume) -> io::Result<()> {
        if volume.rekeying() {
            return Ok(());
        }
        let choice = self.random.below(4);
        if choice == 3
            && let Some((name, content)) = self.snapshots.first_key_value()
        {
            self.guest.become_whole(content);
            self.tally.reverts += 1;
            volume.revert(name).map_err(failed)?;
            self.guest.flushed();
        } else if self.snapshots.len() < 3 && choice != 0 {
            let name = format!("s{}", self.named);
            self.named += 1;
            self.perhaps.insert(name.clone(), self.guest.now());
            volume.snapshot(&name, 0).map_err(failed)?;
            self.perhaps.remove(&name);
            self.snapshots.insert(name, self.guest.now());
            self.guest.flushed();
        } else if let Some((name, content)) = self.snapshots.pop_first() {
            self.perhaps.insert(name.clone(), content);
            volume.delete_snapshot(&name).map_err(failed)?;
            self.perhaps.remove(&name);
        }
        Ok(())
    }

    /// A new secret in the place of the one that opens the volume.
    fn replace_key(&mut self, volume: &VaultVolume) -> io::Result<()> {
        let number = self.secrets[0] + 1;
        self.secrets.insert(0, number);
        let key = secret(number);
        let slot = NewSlot { secret: SlotSecret::RandomKey(&key), kmi: None, label: "" };
        volume.replace_key_slot(0, &slot).map_err(failed)?;
        self.secrets.truncate(1);
        self.guest.flushed();
        Ok(())
    }

    /// Begins a re-keying, or goes on with one for some pages.
    fn rekey(&mut self, volume: &VaultVolume) -> io::Result<()> {
        if !self.snapshots.is_empty() || !self.perhaps.is_empty() {
            return Ok(());
        }
        let number = self.secrets[0] + 1;
        let begins = !volume.rekeying();
        if begins {
            self.secrets.insert(0, number);
        }
        let key = secret(number);
        let slots = [NewSlot { secret: SlotSecret::RandomKey(&key), kmi: None, label: "" }];
        let stop = u64::try_from(self.random.below(4)).unwrap();
        let done = volume.rekey(&slots, &mut |pages, _| {
            if pages < stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match done {
            Ok(()) | Err(disk::VolumeError::Cancelled) => {}
            Err(error) => return Err(failed(error)),
        }
        if begins {
            self.secrets.truncate(1);
            self.guest.flushed();
        }
        Ok(())
    }
}
