//! A medium that remembers what no synchronisation has made durable yet, dies at a chosen call, and
//! then shows what a disk may hold after such a power cut.
//!
//! A cut leaves everything up to the last synchronisation, and of what came later any part: a
//! prefix, a subset, or sector by sector (512 bytes) any of the versions that were written.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use disk::vault::Medium;

use super::random::Random;

/// What a disk writes at once.
const ATOM: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Punch { at: usize, length: usize },
}

impl Change {
    fn range(&self) -> (usize, usize) {
        match self {
            Self::Write { at, data } => (*at, at + data.len()),
            Self::Punch { at, length } => (*at, at + length),
        }
    }

    /// Applies the part of it between `from` and `to`.
    fn apply(&self, image: &mut Vec<u8>, from: usize, to: usize) {
        let (start, end) = self.range();
        let (from, to) = (from.max(start), to.min(end));
        if from >= to {
            return;
        }
        match self {
            Self::Write { data, .. } => {
                if image.len() < to {
                    image.resize(to, 0);
                }
                image[from..to].copy_from_slice(&data[from - start..to - start]);
            }
            Self::Punch { .. } => {
                let to = to.min(image.len());
                if from < to {
                    image[from..to].fill(0);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Changes and synchronisations until the cut.
    left: u64,
    dead: bool,
}

/// The medium.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Inner>);

/// How a cut treats what was not synchronised.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Nothing,
    Everything,
    Prefix,
    Subset,
    Torn,
}

impl Recorder {
    /// A medium that holds `image` durably and dies after `left` changes and synchronisations.
    pub(crate) fn new(image: Vec<u8>, left: u64) -> Arc<Self> {
        let durable = image.clone();
        let inner = Inner { visible: image, durable, left, ..Inner::default() };
        Arc::new(Self(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn dead(&self) -> bool {
        self.inner().dead
    }

    /// Cuts the power now.
    pub(crate) fn kill(&self) {
        self.inner().dead = true;
    }

    /// Everything that was written, as a process that was killed leaves it.
    pub(crate) fn visible(&self) -> Vec<u8> {
        self.inner().visible.clone()
    }

    /// What the disk holds after the cut.
    pub(crate) fn image(&self, cut: Cut, random: &mut Random) -> Vec<u8> {
        let inner = self.inner();
        let mut image = inner.durable.clone();
        let all = inner.pending.len();
        match cut {
            Cut::Nothing => {}
            Cut::Everything => apply(&mut image, &inner.pending),
            Cut::Prefix => {
                let whole = random.below(all + 1);
                apply(&mut image, &inner.pending[..whole]);
                if let Some(next) = inner.pending.get(whole) {
                    let (from, to) = next.range();
                    let atoms = (to - from).div_ceil(ATOM);
                    next.apply(&mut image, from, from + ATOM * random.below(atoms + 1));
                }
            }
            Cut::Subset => {
                for change in &inner.pending {
                    if random.below(2) == 0 {
                        apply(&mut image, std::slice::from_ref(change));
                    }
                }
            }
            Cut::Torn => {
                // In any order: of two changes of one sector the older may win.
                let mut pending = inner.pending.clone();
                for i in (1..pending.len()).rev() {
                    pending.swap(i, random.below(i + 1));
                }
                let likely = 1 + random.below(8);
                for change in &pending {
                    let (from, to) = change.range();
                    for at in (from..to).step_by(ATOM) {
                        if random.below(likely + 1) != 0 {
                            change.apply(&mut image, at, at + ATOM);
                        }
                    }
                }
            }
        }
        image
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut inner = self.inner();
        inner.step()?;
        let (from, to) = change.range();
        change.apply(&mut inner.visible, from, to);
        inner.pending.push(change);
        // The cut comes during this call: some of it may be on the disk, the caller sees an error.
        inner.alive()
    }
}

fn apply(image: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        let (from, to) = change.range();
        change.apply(image, from, to);
    }
}

impl Inner {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn step(&mut self) -> io::Result<()> {
        self.alive()?;
        self.left = self.left.saturating_sub(1);
        self.dead = self.left == 0;
        Ok(())
    }
}

impl Medium for Recorder {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        let inner = self.inner();
        let from = inner.visible.get(at..at + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write { at: usize::try_from(at).unwrap(), data: data.to_vec() })
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.step()?;
        inner.alive()?;
        let pending = std::mem::take(&mut inner.pending);
        apply(&mut inner.durable, &pending);
        Ok(())
    }

    fn punch(&self, at: u64, length: u64) -> io::Result<()> {
        let (at, length) = (usize::try_from(at).unwrap(), usize::try_from(length).unwrap());
        self.change(Change::Punch { at, length })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.inner().visible.len()).unwrap())
    }
}
