//! What the processes of a lab said last: shown beside a check that failed, so that whoever has only
//! the output of a run can tell why.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// How much of each log is shown at most.
const LINES: usize = 8;
const BYTES: u64 = 4096;
const WIDTH: usize = 240;

/// The logs of a lab, and how much of each was there at the last look.
#[derive(Debug, Default)]
pub struct Logs {
    dir: PathBuf,
    seen: BTreeMap<PathBuf, u64>,
}

impl Logs {
    /// Those of the lab in this directory.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), seen: BTreeMap::new() }
    }

    /// What is said by now is not shown any more.
    pub fn pass(&mut self) {
        for path in self.files() {
            let length = fs::metadata(&path).map_or(0, |of| of.len());
            self.seen.insert(path, length);
        }
    }

    /// The last lines of whatever has grown since the last look.
    pub fn grown(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for path in self.files() {
            let from = self.seen.get(&path).copied().unwrap_or(0);
            let name = path.strip_prefix(&self.dir).unwrap_or(&path).display().to_string();
            lines.extend(last(&path, from).into_iter().map(|line| format!("{name}: {line}")));
        }
        self.pass();
        lines
    }

    /// `log/*.log`, and those of services that a demonstration started itself.
    fn files(&self) -> Vec<PathBuf> {
        let list = |dir: PathBuf| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let mut files = list(self.dir.join("log"));
        for host in list(self.dir.join("hosts")) {
            files
                .extend([&*host, &host.join("trust")].into_iter().flat_map(|dir| list(dir.into())));
        }
        files.push(self.dir.join("centre/again.log"));
        files.retain(|path| path.extension().is_some_and(|end| end == "log") && path.is_file());
        files.sort();
        files
    }
}

/// The last lines that a log has behind `from`.
fn last(path: &Path, from: u64) -> Vec<String> {
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let length = file.metadata().map_or(0, |of| of.len());
    // A log that is shorter than it was began anew.
    let from = if from > length { 0 } else { from };
    let mut bytes = Vec::new();
    let begun = file.seek(SeekFrom::Start(from.max(length.saturating_sub(BYTES))));
    if begun.is_err() || file.take(BYTES).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.dedup();
    let short = |line: &&str| line.chars().take(WIDTH).collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).map(short).collect()
}
