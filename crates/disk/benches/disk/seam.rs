//! The formats without a transport: processor time at the seam where the exports call, in this
//! process, against a plain file. It swings far less than what goes through sockets.

use std::{fs, path::Path, sync::Arc};

use disk::{Format, OpenOptions, Volume};
use rustix::time::{ClockId, clock_gettime};

use super::servers::{Place, SIZE, Who, key};

/// A kind of request.
struct Case {
    name: &'static str,
    write: bool,
    length: usize,
    /// A flush after each so many requests, 0 for none.
    flush: u64,
}

const fn case(name: &'static str, write: bool, length: usize, flush: u64) -> Case {
    Case { name, write, length, flush }
}

const BIG: usize = 1 << 20;
/// Bytes of the disk that are worked on.
const SEAM_SIZE: u64 = SIZE / 4;
const CASES: [Case; 7] = [
    case("seam-first-write-1m", true, BIG, 0),
    case("seam-read-1m", false, BIG, 0),
    case("seam-rewrite-1m", true, BIG, 0),
    case("seam-read-4k", false, 4096, 0),
    case("seam-rewrite-4k", true, 4096, 0),
    case("seam-rewrite-4k-flush32", true, 4096, 32),
    case("seam-read-1m-after", false, BIG, 0),
];
const FORMATS: [Who; 4] = [Who::OursRaw, Who::OursLuks1, Who::OursGcm, Who::OursAegis];

/// Processor time of this process, in seconds.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

fn open(path: &Path, who: Who) -> Arc<dyn Volume> {
    let format = (who == Who::OursRaw).then_some(Format::Raw);
    let options = OpenOptions { format, ..OpenOptions::default() };
    disk::open(path, Some(&key()), &options).expect("open").volume()
}

/// Microseconds of processor time a request.
fn run(volume: &dyn Volume, case: &Case) -> f64 {
    let length = case.length as u64;
    let count = SEAM_SIZE / length;
    let (mut buf, mut state) = (vec![0x5a; case.length], 1_u64);
    let before = cpu();
    for i in 0..count {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let block = if case.length == BIG { i } else { (state >> 20) % count };
        if case.write {
            volume.write(block * length, &mut buf).expect("write");
            if case.flush != 0 && i % case.flush == case.flush - 1 {
                volume.flush().expect("flush");
            }
        } else {
            volume.read(block * length, &mut buf).expect("read");
        }
    }
    (cpu() - before) / count as f64 * 1e6
}

/// One round: calls `note` with the case, who, and the time.
pub fn round(place: &Place, mut note: impl FnMut(&'static str, Who, f64)) {
    for who in FORMATS {
        let path = place.path("seam");
        if matches!(who, Who::OursGcm | Who::OursAegis) {
            place.make_vault("seam", who);
        } else if who == Who::OursLuks1 {
            place.make_luks1("seam");
        } else {
            fs::File::create(&path).and_then(|file| file.set_len(SEAM_SIZE)).expect("image");
        }
        let volume = open(&path, who);
        for case in &CASES {
            note(case.name, who, run(&*volume, case));
        }
        drop(volume);
        fs::remove_file(&path).expect("image");
    }
}

/// Names of the cases.
pub fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}
