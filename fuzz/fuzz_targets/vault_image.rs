//! A whole vault volume with hostile bytes in it: opened for reading and for writing, and read.
//! Input: rows of 8 bytes, five of position and three of what is written there.

#![no_main]

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use disk::{
    OpenOptions, Volume,
    vault::{Medium, NewSlot, NewVault, SlotSecret, Suite, create_on, open_on},
};
use model::Secret;

#[derive(Debug)]
struct Image(Mutex<Vec<u8>>);

impl Medium for Image {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let at = usize::try_from(at).unwrap();
        let end = at.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let at = usize::try_from(at).unwrap();
        // Hostile bytes must not make it write far away.
        assert!(at + data.len() < 64 << 20, "a write at {at}");
        let end = bytes.len().max(at + data.len());
        bytes.resize(end, 0);
        bytes[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _at: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

fn secret() -> Secret<Vec<u8>> {
    Secret::new(vec![7; 32])
}

/// A volume with content, a log and an older session.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let medium = Arc::new(Image(Mutex::new(Vec::new())));
        let key = secret();
        let slots = [NewSlot { secret: SlotSecret::RandomKey(&key), kmi: None, label: "" }];
        let (path, size) = (std::path::Path::new("none"), 200 * 4096);
        let suite = Suite::Aes256Gcm;
        let log_bytes = Some(256 << 10);
        let new = NewVault { path, size, suite, log_bytes, label: "", slots: &slots };
        create_on(medium.as_ref(), &new).unwrap();
        for round in 1..3 {
            let volume = open_on(medium.clone(), &key, &OpenOptions::default()).unwrap();
            volume.write(round * 8192, &mut [1; 40_000]).unwrap();
            volume.flush().unwrap();
        }
        let bytes = medium.0.lock().unwrap().clone();
        bytes
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut image = good().to_vec();
    for row in data.chunks_exact(8).take(64) {
        let at = u64::from_le_bytes([row[0], row[1], row[2], row[3], row[4], 0, 0, 0]);
        let at = usize::try_from(at).unwrap() % image.len();
        for (to, from) in image[at..].iter_mut().zip(&row[5..]) {
            *to = *from;
        }
    }
    for read_only in [true, false] {
        let medium = Arc::new(Image(Mutex::new(image.clone())));
        let options = OpenOptions { read_only, ..OpenOptions::default() };
        let Ok(volume) = open_on(medium, &secret(), &options) else { continue };
        let mut back = vec![0; 4096];
        for sector in 0..200 {
            let zeros = volume.read(sector * 4096, &mut back).is_ok();
            // What is given out is the guest's: all ones where it wrote, else zeros.
            assert!(!zeros || back.iter().all(|&b| b == back[0] && b <= 1) || sector < 24);
        }
        if !read_only {
            let _ = volume.write(100, &mut [2; 5000]);
            let _ = volume.flush();
        }
    }
});
