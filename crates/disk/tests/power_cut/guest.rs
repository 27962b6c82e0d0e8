//! What the guest did, and what it may therefore find after a cut: the state after some operation,
//! not before the last acknowledged flush, the operation in progress being done in part, sector by
//! sector.

use std::collections::BTreeMap;

pub(crate) const SECTOR: usize = 4096;

/// One operation.
#[derive(Clone, Debug, Default)]
struct Step {
    /// The sectors that it changed, as they were afterwards.
    sectors: BTreeMap<usize, Vec<u8>>,
    /// Done as a whole or not at all.
    whole: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Guest {
    size: usize,
    /// State at the last acknowledged flush, sector by sector.
    flushed: Vec<Vec<u8>>,
    /// State now.
    now: Vec<Vec<u8>>,
    /// Operations since that flush.
    steps: Vec<Step>,
}

impl Guest {
    pub(crate) fn new(size: usize) -> Self {
        let sectors = size.div_ceil(SECTOR);
        let state = vec![vec![0; SECTOR]; sectors];
        Self { size, flushed: state.clone(), now: state, steps: Vec::new() }
    }

    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// Puts `data` at `at`; before the operation itself is tried.
    pub(crate) fn put(&mut self, at: usize, data: &[u8]) {
        let mut sectors = BTreeMap::new();
        for (offset, byte) in (at..).zip(data) {
            let number = offset / SECTOR;
            let sector = sectors.entry(number).or_insert_with(|| self.now[number].clone());
            sector[offset % SECTOR] = *byte;
        }
        self.step(Step { sectors, whole: false });
    }

    /// The disk becomes `content`, all of it at once; before that is tried.
    pub(crate) fn become_whole(&mut self, content: &[u8]) {
        let sectors = in_sectors(content).into_iter().enumerate().collect();
        self.step(Step { sectors, whole: true });
    }

    fn step(&mut self, step: Step) {
        for (number, sector) in &step.sectors {
            self.now[*number].clone_from(sector);
        }
        self.steps.push(step);
    }

    /// Whole sectors of the range become zeros, the parts at its ends stay.
    pub(crate) fn trim(&mut self, at: usize, length: usize) {
        let end = at + length;
        let first = at.next_multiple_of(SECTOR).min(end);
        let last = if end == self.size { end } else { (end - end % SECTOR).max(first) };
        self.put(first, &vec![0; last - first]);
    }

    /// A flush was acknowledged.
    pub(crate) fn flushed(&mut self) {
        self.flushed.clone_from(&self.now);
        self.steps.clear();
    }

    pub(crate) fn now(&self) -> Vec<u8> {
        let mut bytes = self.now.concat();
        bytes.truncate(self.size);
        bytes
    }

    /// Judges what is found after a cut. If it is possible it is what the guest goes on from.
    pub(crate) fn settle(&mut self, found: &[u8]) -> Result<(), String> {
        let found = in_sectors(found);
        if !self.possible(&found) {
            return Err(self.explain(&found));
        }
        self.flushed.clone_from(&found);
        self.now = found;
        self.steps.clear();
        Ok(())
    }

    fn possible(&self, found: &[Vec<u8>]) -> bool {
        let mut state = self.flushed.clone();
        if state == found {
            return true;
        }
        for step in &self.steps {
            // This operation in part: each of its sectors before or after it.
            let after = |number: usize| step.sectors.get(&number).filter(|_| !step.whole);
            let partly = state.iter().zip(found).enumerate().all(|(number, (before, seen))| {
                seen == before || after(number).is_some_and(|after| seen == after)
            });
            if partly {
                return true;
            }
            for (number, sector) in &step.sectors {
                state[*number].clone_from(sector);
            }
        }
        state == found
    }

    /// What is wrong with it, in words.
    fn explain(&self, found: &[Vec<u8>]) -> String {
        let mut lost = 0;
        let mut invented = 0;
        for (number, seen) in found.iter().enumerate() {
            let mut versions = self.steps.iter().filter_map(|step| step.sectors.get(&number));
            if *seen == self.flushed[number] || versions.any(|version| version == seen) {
                continue;
            }
            if seen.iter().all(|&b| b == 0) {
                lost += 1;
            } else {
                invented += 1;
            }
        }
        if lost + invented == 0 {
            return "every sector has a possible content, but not all at one time".to_owned();
        }
        format!("{lost} sectors lost what was flushed, {invented} hold what was never written")
    }
}

/// Cut into sectors; the last one is filled up with zeros.
fn in_sectors(content: &[u8]) -> Vec<Vec<u8>> {
    let mut sectors: Vec<Vec<u8>> = content.chunks(SECTOR).map(<[u8]>::to_vec).collect();
    if let Some(last) = sectors.last_mut() {
        last.resize(SECTOR, 0);
    }
    sectors
}
