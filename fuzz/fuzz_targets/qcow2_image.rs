//! A qcow2 image, read from its start to its end, or as far as 4 MiB.

#![no_main]

use std::{fs::File, io::Write as _};

use qcow2::Qcow2;

/// A file in memory that has no name any more.
fn file(data: &[u8]) -> File {
    let path = format!("/dev/shm/qcow2-{}", std::process::id());
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(data).unwrap();
    file
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(mut image) = Qcow2::open(file(data)) else { return };
    let size = image.size().min(4 << 20);
    let (mut at, mut buf) = (0, Vec::new());
    while at < size {
        let Ok(run) = image.run(at, size - at) else { return };
        assert!(run.length > 0 && at + run.length <= size, "no way forward");
        buf.resize(usize::try_from(run.length).unwrap(), 0xaa);
        if image.read(at, &mut buf).is_err() {
            return;
        }
        assert!(!run.zero || buf.iter().all(|byte| *byte == 0), "zeros that are not");
        at += run.length;
    }
});
