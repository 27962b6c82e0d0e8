//! Volumes of earlier epochs, put aside when a fenced VM is made anew here. This host gets no key for
//! them any more; they stay for an operator who may have one, until the VM is deleted or they are
//! [`DAYS`] old.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use model::VmId;

/// How long they are kept.
const DAYS: u64 = 30;

/// Where in the state directory.
pub(crate) const DIR: &str = "aside";

/// The name that a VM's file of an epoch gets there.
pub(crate) fn name(vm: &VmId, epoch: model::Epoch, file: &str) -> String {
    format!("{}{}.{file}", prefix(vm), epoch.0)
}

// No VM's name has a dot, so no other VM's files begin like this.
fn prefix(vm: &VmId) -> String {
    format!("{vm}.epoch-")
}

/// Removes what is too old. `now` in Unix milliseconds.
pub(crate) fn expire(state_dir: &Path, now: u64) {
    let oldest = i64::try_from(now / 1000).unwrap_or(0).saturating_sub_unsigned(DAYS * 86_400);
    remove(state_dir, |file| {
        // The change time: when it was put here.
        file.metadata().is_ok_and(|facts| facts.ctime() < oldest)
    });
}

/// Removes what is a VM's: it is deleted.
pub(crate) fn forget(state_dir: &Path, vm: &VmId) {
    let prefix = prefix(vm);
    remove(state_dir, |file| file.file_name().to_string_lossy().starts_with(&prefix));
}

fn remove(state_dir: &Path, which: impl Fn(&std::fs::DirEntry) -> bool) {
    let Ok(entries) = std::fs::read_dir(state_dir.join(DIR)) else { return };
    for file in entries.flatten().filter(|file| which(file)) {
        let path = file.path().display().to_string();
        match std::fs::remove_file(file.path()) {
            Ok(()) => tracing::info!(path, "a volume of an earlier epoch is removed"),
            Err(error) => tracing::warn!(path, %error, "a volume of an earlier epoch stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Epoch;

    use super::*;

    #[test]
    fn what_was_put_aside_goes_with_its_vm_or_with_time() {
        let dir = tempfile::tempdir().unwrap();
        let (v1, v10): (VmId, VmId) = ("v1".parse().unwrap(), "v10".parse().unwrap());
        assert!("v1.epoch-1".parse::<VmId>().is_err());
        let aside = dir.path().join(DIR);
        std::fs::create_dir(&aside).unwrap();
        let make = |vm: &VmId| std::fs::write(aside.join(name(vm, Epoch(1), "boot.img")), b"x");
        make(&v1).unwrap();
        make(&v10).unwrap();
        let left = || std::fs::read_dir(&aside).unwrap().count();
        forget(dir.path(), &v1);
        assert_eq!(left(), 1);
        let now = std::fs::metadata(&aside).unwrap().ctime();
        let now = u64::try_from(now).unwrap() * 1000;
        expire(dir.path(), now + 29 * 86_400_000);
        assert_eq!(left(), 1);
        expire(dir.path(), now + 31 * 86_400_000);
        assert_eq!(left(), 0);
    }
}
